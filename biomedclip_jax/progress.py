"""Progress bars: on a terminal, and nowhere else."""

import shutil
import sys

from tqdm import tqdm


def progress_bar(total: int, unit: str, done: int = 0) -> tqdm:
    """A bar on stderr; it shows nothing where stderr is no terminal."""
    # given both sizes tqdm does not ask the terminal itself, which may say 0 x 0 (a plain pty) and would hide the bar
    size = shutil.get_terminal_size()
    return tqdm(total=total, initial=done, unit=unit, ncols=size.columns, nrows=size.lines, disable=not sys.stderr.isatty())
