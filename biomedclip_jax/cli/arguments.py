"""What several verbs share: how a verb is added, and the types of numbers on the command line."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SOURCE_HELP = (
    "s3://BUCKET[/FOLDER] in PMC's cloud layout, a folder of that layout, PMC*.tar.gz or a folder of them, "
    "or .nxml/.xml with images beside them or a folder of such"
)
IDS_HELP = "only these articles: PMC123 (its best version), PMC123.2, or files of such ids, one a line"


class VerbParser(argparse.ArgumentParser):
    """The parser of a verb. Where it takes a list of things, options may stand before them, behind them and between."""

    _inside = False

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """See `argparse`, whose own finds a list empty, or at its end, where the first option stands."""
        lists = any(not action.option_strings and action.nargs in ("*", "+") for action in self._actions)
        if self._inside or not lists or not {"-h", "--help"}.isdisjoint(args or ()):
            return super().parse_known_args(args, namespace)
        self._inside, usage = True, self.usage
        if usage is None:  # what argparse would set for a while, but for its signs of formats
            self.usage = self.format_usage().removeprefix("usage: ").replace("%", "%%")
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inside, self.usage = False, usage


def add_verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], None], description: str, example: str, **options: Any
) -> argparse.ArgumentParser:
    """Add a verb that calls `run`, with an example in its help and --debug. options: of `argparse.ArgumentParser`."""
    verb = verbs.add_parser(
        name,
        help=description,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )
    verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verb.set_defaults(run=run)
    return verb


def count(text: str) -> int:
    """A whole number above 0, as an argparse type."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return int(text)


def index(text: str) -> int:
    """The number of an item in a list, from 0, as an argparse type."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number")
    return int(text)


def local_path(text: str) -> Path:
    """A path to write here, as an argparse type: an address would become a folder "s3:" in the current one."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text}: an address; expected a path on this machine, to be copied there afterwards")
    return Path(text)
