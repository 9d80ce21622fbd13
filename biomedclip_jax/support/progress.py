"""Progress bars: on a terminal, and nowhere else."""

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(total: int, unit: str, done: int = 0, *, show: bool = True) -> "tqdm":
    """A bar on stderr; it shows nothing where stderr is no terminal, or without `show`."""
    from tqdm import tqdm  # here, because `bench` imports what shows progress and must run without it

    # given both sizes tqdm does not ask the terminal itself, which may say 0 x 0 (a plain pty) and would hide the bar
    size = shutil.get_terminal_size()
    hidden = not show or not sys.stderr.isatty()
    return tqdm(total=total, initial=done, unit=unit, ncols=size.columns, nrows=size.lines, disable=hidden)
