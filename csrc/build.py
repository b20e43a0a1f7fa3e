"""cffi builder of ``loopnest._c``: the C twins, bound in API mode.

setup.py names it in ``cffi_modules``; cffi runs it with ``exec`` from the project's
root, so paths here are relative to that. The declarations are those of the public
header, read from it, so that header and binding cannot differ.
"""

import re
import sysconfig
from pathlib import Path

from cffi import FFI

HEADER = Path("csrc/include/loopnest.h")
PRIVATE_HEADER = Path("csrc/spin.h")
# isa_*.c include the rows (activation.c, ...): those are dependencies, not sources.
SOURCES = ["csrc/dispatch.c", "csrc/isa_base.c", "csrc/isa_avx2.c", "csrc/isa_avx512.c"]
SOURCES.append("csrc/spin.c")
# No -ffast-math: it reorders sums and sets flush-to-zero for the whole process.
FLAGS = [
    "-std=c11",
    "-O3",
    "-g0",  # Python's own flags ask for debug tables, three quarters of the file
    "-fno-asynchronous-unwind-tables",  # nothing here throws
    "-ffp-contract=off",  # multiply-adds are fused where the source says fma, nowhere else
    "-fno-trapping-math",  # lets gcc vectorise selects
    "-fno-math-errno",  # sqrt and fma become instructions
    "-fno-thread-jumps",  # a clamp stays two selects; threaded, gcc vectorises it into six
]


def declarations(header: str) -> str:
    """The part of the header that cffi can read: no directives, no extern "C"."""
    body = re.search(r"/\* cffi: begin \*/(.*)/\* cffi: end \*/", header, re.DOTALL)
    assert body, "a header has lost its cffi marks"
    return body.group(1)


ffibuilder = FFI()
for path in (HEADER, PRIVATE_HEADER):
    ffibuilder.cdef(declarations(path.read_text(encoding="utf-8")))
ffibuilder.set_source(
    "loopnest._c",
    '#include "loopnest.h"\n#include "spin.h"',
    sources=SOURCES,
    include_dirs=["csrc/include", "csrc"],
    depends=[str(path) for path in sorted(Path("csrc").rglob("*.[ch]"))],
    extra_compile_args=FLAGS,
    libraries=[] if sysconfig.get_platform().startswith("win") else ["m"],
    optional=True,  # no compiler: the install goes on, Numba serves alone
    py_limited_api=not sysconfig.get_config_var("Py_GIL_DISABLED"),
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
