"""What a person at a terminal sees: progress bars, and nothing of the chatter of native code and worker processes."""

import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from tqdm import tqdm


_MOST_SAID = 10
_said: set[str] = set()
_said_lock = threading.Lock()


def say_some(line: str) -> None:
    """Say on stderr what is odd about one of many files: each line once, and no more than ten in a process."""
    with _said_lock:
        if line in _said or len(_said) > _MOST_SAID:
            return
        _said.add(line)
        last = len(_said) > _MOST_SAID
    print("what else is odd about single files is not said" if last else line, file=sys.stderr)


def progress_bar(total: int | None, unit: str, done: int = 0, *, show: bool = True) -> "tqdm":
    """A progress bar on stderr, `done` of `total` (None: nobody knows) at first.

    It shows nothing where stderr is no terminal, or without `show`.
    """
    from tqdm import tqdm  # here, because `bench` imports what shows progress and must run without it

    # given both sizes tqdm does not ask the terminal itself, which may say 0 x 0 (a plain pty) and would hide the bar
    size = shutil.get_terminal_size()
    hidden = not show or not sys.stderr.isatty()
    return tqdm(total=total, initial=done, unit=unit, ncols=size.columns, nrows=size.lines, disable=hidden)


@contextlib.contextmanager
def quiet_stderr(most: int | None = None) -> Iterator[TextIO]:
    """Hold back what native code and child processes write to stderr inside the block; yields the real stderr.

    An exception other than UserError shows what was held back, or its last `most` bytes.
    """
    sys.stderr.flush()
    with os.fdopen(os.dup(2), "w") as real, tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield real
        except UserError:
            raise
        except BaseException:
            kept.seek(0 if most is None else max(0, kept.tell() - most))
            real.write(kept.read().decode(errors="replace"))
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real.fileno(), 2)
