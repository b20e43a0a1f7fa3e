"""A skip that is not in the list of `skips` fails the run."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SKIPS = {
    "pytest.skip('for no good reason')": False,
    "pytest.importorskip('no_such_module_here')": False,
    "pytest.skip('this CPU has no avx1024')": True,
    "pytest.xfail('known')": True,
}


@pytest.mark.parametrize("where", ["test", "module"])
@pytest.mark.parametrize("skip", SKIPS)
def test_other_skips_fail(skip, where, tmp_path):
    if where == "module":
        if "xfail" in skip:
            return  # pytest has it in tests only
        line = skip.replace("')", "', allow_module_level=True)") if ".skip(" in skip else skip
        text = f"import pytest\n{line}\ndef test_it(): pass\n"
    else:
        text = f"import pytest\ndef test_it():\n    {skip}\n"
    (tmp_path / "test_it.py").write_text(text)
    (tmp_path / "conftest.py").write_text((HERE / "conftest.py").read_text())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o",
         f"pythonpath={HERE}", str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    allowed = SKIPS[skip]
    assert ("tests/skips.py" in done.stdout) != allowed, done.stdout + done.stderr
    # 5: every module was skipped whole, so that no test was left.
    assert (done.returncode in (0, 5)) == allowed, done.stdout + done.stderr
