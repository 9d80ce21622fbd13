"""Huge pages for the arrays of a training step on CPU.

XLA for CPU takes the memory of a step's intermediate arrays anew at each step, and Linux gives and clears it in
pages of 4 KiB: up to a quarter of the step's processor time (docs/measurements.md). With pages of 2 MiB that is
little. glibc takes that wish at the start of a process alone.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_SETTING = "glibc.malloc.hugetlb"
_TUNABLES = "GLIBC_TUNABLES"
_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Begin this process anew with the same command line, where Linux has huge pages for those who ask, and none has asked.

    Call it before anything is imported that takes long. A value that the user gave to `glibc.malloc.hugetlb` stays.
    """
    wanted = _tunables(os.environ, _MODE)
    if wanted is not None and sys.executable and sys.orig_argv:
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {_TUNABLES: wanted})


def _tunables(environment: Mapping[str, str], mode: Path) -> str | None:
    """The value of GLIBC_TUNABLES with huge pages; None where they are asked for, cannot be had, or come unasked."""
    given = environment.get(_TUNABLES, "")
    try:
        glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
        on_request = "[madvise]" in mode.read_text(encoding="ascii")
    except (AttributeError, ValueError, OSError):
        return None
    if not glibc or not on_request or _SETTING in given:
        return None
    return f"{given}:{_SETTING}=1".removeprefix(":")
