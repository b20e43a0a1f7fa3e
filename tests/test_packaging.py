"""sdist and wheel: what is in them, and that the wheel works far from this checkout.

The sdist is built from a copy of the checkout, the wheel from the sdist, and the wheel is
installed into an empty folder. `Installed.run` gives a new process that sees this folder and, for
numpy, numba and the like, this environment's packages as plain files: option -S leaves out what
would lead an editable install back to the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import loopnest as ln
from loopnest.runtime import replay

ROOT = Path(__file__).resolve().parents[1]
NO_NUMBA = "import sys; sys.modules['numba'] = None\n"
NO_EXTENSION = "import sys; sys.modules['loopnest._c'] = None\n"
ON_BOTH_BACKENDS = """
import numpy as np
import loopnest as ln
x, weight = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4), np.ones((3, 2, 3, 3), np.float32)
found = []
for name in ln.available_backends():
    with ln.use_backend(name):
        assert ln.sigmoid(0.0) == 0.5
        found.append(ln.conv2d(x, weight, padding=1).tobytes())
assert len(set(found)) == 1
"""


class Installed:
    """A wheel installed into a folder of its own, and Python processes that see it."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        self.folder = folder
        self.cwd = folder.with_name(folder.name + "-cwd")
        self.cwd.mkdir()
        call(
            *(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target"),
            *(folder, wheel),
        )

    def environment(self, **more: str) -> dict[str, str]:
        ours = ("LOOPNEST_", "NUMBA_", "PYTHON", "XDG_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        folders = (
            str(self.folder),
            *{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")},
        )
        return {**kept, "PYTHONPATH": os.pathsep.join(folders), **more}

    def python(self, *arguments: object, prefix: tuple = (), **more: str) -> str:
        """Output of a Python process."""
        command = (*prefix, sys.executable, "-S", *arguments)
        return call(*command, cwd=self.cwd, env=self.environment(**more)).strip()

    def run(self, code: str, prefix: tuple = (), **more: str) -> str:
        """Output of a Python program."""
        return self.python("-c", code, prefix=prefix, **more)


def call(*command: object, **options) -> str:
    """Run a command; its output, which is shown if it fails."""
    done = subprocess.run(
        [str(c) for c in command], text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, **options,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}"
    return done.stdout


def pip_wheel(source: Path, out: Path, **env: str) -> str:
    """Build a wheel of a source folder or sdist into ``out``; what pip said."""
    return call(
        *(sys.executable, "-m", "pip", "wheel", "-v", "--no-build-isolation", "--no-deps"),
        *("--no-index", "--wheel-dir", out, source),
        env={**os.environ, **env},
    )


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """A copy of the checkout without anything that was built."""
    names = (".git", ".venv", "build", "dist", "out", "__pycache__", ".*_cache", ".hypothesis")
    built = ("*.so", "*.pyd", "*.a", "*.o", "*.egg-info", ".benchmarks", "_c.c")
    copy = tmp_path_factory.mktemp("source") / "loopnest"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*names, *built))
    return copy


@pytest.fixture(scope="session")
def sdist(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    call(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", out, source)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="session")
def wheel(sdist, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip_wheel(sdist, out)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Installed:
    return Installed(wheel, tmp_path_factory.mktemp("install") / "site")


def python_sources(folder: str) -> set[str]:
    return {p.relative_to(ROOT / folder).as_posix() for p in (ROOT / folder).rglob("*.py")}


def test_sdist_holds_what_building_and_testing_need(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for room in ("csrc", "kernels", "python", "tests", "bench"):
        kept = {f"{room}/{name}" for name in python_sources(room)}
        assert kept <= names
    c_files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "csrc").rglob("*.[ch]")}
    assert c_files <= names
    assert {"setup.py", "pyproject.toml", "Makefile", "LICENSE", "README.md"} <= names
    assert not [n for n in names if n.endswith((".so", ".a", ".o", ".pyc"))]


def test_wheel_holds_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(n for n in names if n.endswith("entry_points.txt"))
        text = archive.read(entry_points).decode()
    assert wheel.stat().st_size < 2_500_000  # bytes: the target
    assert "-cp310-abi3-" in wheel.name
    expected = {f"loopnest/{name}" for name in python_sources("python/loopnest")}
    expected |= {f"loopnest/kernels/{name}" for name in python_sources("kernels")}
    if replay._Op is not None:  # as in this environment, so in the wheel
        expected.add("loopnest/_direct.abi3.so")
    expected |= {"loopnest/_c.abi3.so", "loopnest/include/loopnest.h", "loopnest/py.typed"}
    assert expected | {"loopnest/libloopnest.a"} <= names
    assert {n.partition("/")[0] for n in names if ".dist-info" not in n} == {"loopnest"}
    assert "loopnest = loopnest.app.cli:main" in text
    assert "init = loopnest.ops.njit:init" in text


def test_main_job_from_the_wheel(installed):
    assert installed.run("import loopnest as ln; print(*ln.available_backends())") == "numba c"
    results = installed.folder.parent / "results.json"
    script = installed.folder / "bin" / "loopnest"
    installed.python(script, "reproduce", "--json", results)
    assert json.loads(results.read_text())


def test_installed_modules_come_from_one_place(installed):
    modules = installed.run(
        ON_BOTH_BACKENDS
        + "import sys, json, numba\n"
        + "numba.njit(lambda x: ln.sigmoid(x))(x)\n"
        + "files = {n: getattr(m, '__file__', None) for n, m in sys.modules.items()}\n"
        + "print(json.dumps({n: f for n, f in files.items() if n.startswith('loopnest')"
        + " or n in ('kernels', 'ckernels', 'overloads')}))\n"
    )
    files = json.loads(modules.splitlines()[-1])
    assert {"loopnest", "loopnest.kernels", "loopnest.ops.c", "loopnest._c"} <= set(files)
    assert "loopnest.ops.njit.activation" in files
    assert all(name.startswith("loopnest") for name in files)
    # (the compiled extension also holds a `lib`, which is no file)
    inside = str(installed.folder / "loopnest")
    assert all(file.startswith(inside) for file in files.values() if file)


def test_import_is_light(installed):
    code = "import sys, loopnest; print('numba' in sys.modules, 'loopnest._c' in sys.modules)"
    assert installed.run(code) == "False False"


def test_without_numba(installed):
    code = NO_NUMBA + ON_BOTH_BACKENDS + (
        "print(ln.get_backend(), *ln.available_backends())\n"
        "try: ln.use_backend('numba')\n"
        "except ImportError as error: print(error)\n"
    )  # fmt: skip
    used, message = installed.run(code).splitlines()
    assert used == "c c"
    assert "pip install numba" in message
    main = "from loopnest.app.cli import main; sys.exit(main(['reproduce']))"
    assert "Numba" not in installed.run(NO_NUMBA + main).splitlines()[0]


def test_without_either(installed):
    code = NO_NUMBA + NO_EXTENSION + (
        "import loopnest as ln\n"
        "print(ln.available_backends())\n"
        "try: ln.sigmoid(0.0)\n"
        "except ImportError as error: print(error)\n"
    )  # fmt: skip
    found, message = installed.run(code).splitlines()
    assert found == "[]"
    assert "no backend" in message
    assert "pip install numba" in message and "C compiler" in message


def test_without_a_compiler(source, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("build"))
    said = pip_wheel(copy, tmp_path, CC="/nonexistent/cc")
    assert "loopnest is installed WITHOUT its C extension" in said
    assert "install a C compiler" in said
    site = Installed(next(tmp_path.glob("*.whl")), tmp_path / "site")
    code = ON_BOTH_BACKENDS + (
        "print(ln.get_backend(), *ln.available_backends(), ln.__file__)\n"
        "for ask in (lambda: ln.use_backend('c'), ln.get_library_dir):\n"
        "    try: ask()\n"
        "    except (ImportError, RuntimeError) as error: print(error)\n"
    )
    used, no_backend, no_library = site.run(code).splitlines()
    assert used == f"numba numba {site.folder / 'loopnest' / '__init__.py'}"
    assert no_backend.startswith("use_backend: backend 'c' cannot be had")
    assert "C compiler" in no_backend
    assert no_library.startswith("get_library_dir: libloopnest.a is not in")


def without_override() -> tuple:
    """Command prefix under which file permissions bind, root too."""
    if os.name != "posix" or os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    return (setpriv, "--bounding-set=-dac_override,-dac_read_search") if setpriv else ()


def test_read_only_install_without_a_home(wheel, tmp_path):
    site = Installed(wheel, tmp_path / "site")
    prefix = without_override()
    folders = [site.folder, *(p for p in site.folder.rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        attempt = f"open({str(site.folder / 'written')!r}, 'w')"
        probe = subprocess.run([*prefix, sys.executable, "-c", attempt], capture_output=True)
        if probe.returncode == 0 or b"PermissionError" not in probe.stderr:
            pytest.skip("this user writes where permissions forbid it")
        said = site.run(
            ON_BOTH_BACKENDS
            + "from loopnest.kernels.activation import exp\n"
            + "print(*ln.available_backends(), exp.stats.cache_path)\n",
            prefix=prefix,
            HOME=str(site.folder / "home"),
        )
        assert said.splitlines()[-1] == "numba c None"
    finally:
        for folder in folders:
            folder.chmod(0o755)


C_PROGRAM = r"""
#include <loopnest.h>
#include <stdio.h>
#include <string.h>

static void show(const float *values, int count)
{
    for (int i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        printf("%08x\n", bits);
    }
}

int main(void)
{
    float x[2 * 5 * 6], y[2 * 5 * 6], weight[3 * 2 * 3 * 3], bias[3], z[3 * 5 * 6];
    for (int i = 0; i < 60; i++) x[i] = (float)(i - 30) / 7.0f;
    for (int i = 0; i < 54; i++) weight[i] = (float)(i % 11 - 5) / 3.0f;
    for (int i = 0; i < 3; i++) bias[i] = 0.1f * (float)i;
    ln_sigmoid_f32(x, 60, y);
    show(y, 60);
    ln_conv2d_shape shape = {
        .n = 1, .c = 2, .h = 5, .w = 6, .k = 3, .r = 3, .s = 3, .oh = 5, .ow = 6,
        .stride_h = 1, .stride_w = 1, .top = 1, .left = 1,
        .dilation_h = 1, .dilation_w = 1, .groups = 1,
    };
    ln_conv2d_f32(x, weight, bias, &shape, 0, shape.n * shape.k * shape.oh, z);
    show(z, 90);
    return 0;
}
"""


def test_c_program_gives_the_bits_of_python(installed, tmp_path, backend):
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if not compiler:
        pytest.skip("no C compiler")
    include, library = installed.run(
        "import loopnest as ln; print(ln.get_include()); print(ln.get_library_dir())"
    ).splitlines()
    main = tmp_path / "main.c"
    main.write_text(C_PROGRAM)
    program = tmp_path / "main"
    call(compiler, "-Wall", "-Werror", main, f"-I{include}", f"-L{library}", "-lloopnest", "-lm",
         "-o", program)  # fmt: skip
    bits = [int(line, 16) for line in call(program).split()]
    x = (np.arange(60) - 30).astype(np.float32).reshape(1, 2, 5, 6) / np.float32(7)
    weight = (np.arange(54) % 11 - 5).astype(np.float32).reshape(3, 2, 3, 3) / np.float32(3)
    bias = np.float32(0.1) * np.arange(3, dtype=np.float32)
    expected = [ln.sigmoid(x), ln.conv2d(x, weight, bias, padding=1)]
    assert bits == [v for a in expected for v in a.reshape(-1).view(np.uint32).tolist()]


def test_header_of_this_install():
    assert (Path(ln.get_include()) / "loopnest.h").is_file()
