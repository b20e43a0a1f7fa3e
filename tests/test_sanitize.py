"""Short forms of `make sanitize`, which has more of each."""

import pytest
import sanitize

pytestmark = pytest.mark.skipif(not sanitize.has_sanitizers(), reason="no sanitizers here")


def test_helper_threads():
    sanitize.threads(short=True)


def test_exported_networks():
    sanitize.networks(short=True)


def test_what_allocates_is_found(tmp_path):
    """The list of what an exported file may call is no list of all there is."""
    (tmp_path / "a.c").write_text("#include <stdlib.h>\nvoid *f(void) { return malloc(9); }\n")
    sanitize.checked(sanitize.COMPILER, "-c", tmp_path / "a.c", "-o", tmp_path / "a.o")
    names = sanitize.undefined(tmp_path / "a.o")
    assert "malloc" in names and not sanitize.ALLOWED.match("malloc")
