"""Where the folders go in the package, and the C extension; the rest is pyproject.toml."""

import sysconfig

from setuptools import setup

# abi3: one wheel serves every CPython from 3.10 on, except free-threaded builds.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    packages=[
        "loopnest",
        "loopnest.ckernels",
        "loopnest.include",
        "loopnest.kernels",
        "loopnest.overloads",
    ],
    package_dir={
        "loopnest": "python/loopnest",
        "loopnest.kernels": "kernels",
        "loopnest.include": "csrc/include",
    },
    package_data={"loopnest": ["py.typed"], "loopnest.include": ["*.h"]},
    cffi_modules=["csrc/build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if LIMITED_API else {},
)
