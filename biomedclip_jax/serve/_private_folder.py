"""A folder for files that nobody else may read and that do not stay: gone at the end, or at the next start."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "biomedclip-serve-"
_LOCK = "in-use"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder in $TMPDIR (usually /tmp), for this user alone, and gone after the block.

    What servers left behind that were killed is removed first: a folder of theirs is no longer locked.
    """
    base = Path(tempfile.gettempdir())
    for path in base.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.getuid():
                _remove_if_left(path)
    new = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}", dir=base))  # mode 700
    with (new / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = new.rename(base / new.name.removeprefix("new-"))  # locked before a server that starts can see it
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    """Remove the folder of a server that is no more; BlockingIOError if it is alive."""
    with (folder / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
