import os
import subprocess
import sys
from pathlib import Path

import pytest

from biomedclip_jax.support.huge_pages import _MODE, _tunables

PROGRAM = """
import os, sys
from biomedclip_jax.support.huge_pages import use_huge_pages
print("begun", os.getpid())
use_huge_pages()
print("goes on", os.getpid(), sys.argv[1:], os.environ.get("GLIBC_TUNABLES"))
"""


@pytest.fixture
def mode(tmp_path: Path) -> Path:
    path = tmp_path / "enabled"
    path.write_text("always [madvise] never\n", encoding="ascii")
    return path


needs_glibc = pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}), reason="needs glibc")


@needs_glibc
def test_they_are_asked_for_beside_what_the_user_asks_for(mode) -> None:
    assert _tunables({}, mode) == "glibc.malloc.hugetlb=1"
    assert _tunables({"GLIBC_TUNABLES": "glibc.malloc.check=1"}, mode) == "glibc.malloc.check=1:glibc.malloc.hugetlb=1"


def test_the_users_own_choice_stays(mode) -> None:
    assert _tunables({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, mode) is None


@pytest.mark.parametrize("text", ["[always] madvise never\n", "always madvise [never]\n"])
def test_nothing_is_done_where_asking_changes_nothing(mode, text) -> None:
    mode.write_text(text, encoding="ascii")
    assert _tunables({}, mode) is None
    assert _tunables({}, mode.parent / "none") is None


@pytest.mark.skipif(not _MODE.is_file() or "[madvise]" not in _MODE.read_text(), reason="Linux gives no pages on request")
def test_a_process_begins_anew_once_and_stays_the_same_one() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-u", "-c", PROGRAM, "a word", "--flag"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    first, second, last = done.stdout.splitlines()
    assert first == second
    assert last == f"goes on {first.split()[1]} ['a word', '--flag'] glibc.malloc.hugetlb=1"
