"""Arguments that several verbs of `biomedclip data` have."""

import argparse
from collections.abc import Callable
from typing import Any

SOURCE_HELP = (
    "s3://BUCKET[/FOLDER] in PMC's cloud layout, a folder of that layout, PMC*.tar.gz or a folder of them, "
    "or .nxml/.xml with images beside them or a folder of such"
)
IDS_HELP = "only these articles: PMC123 (its best version), PMC123.2, or files of such ids, one a line"


def add_action(
    actions: Any, name: str, run: Callable[[argparse.Namespace], None], description: str, example: str
) -> argparse.ArgumentParser:
    """A verb of `data`, with an example in its help."""
    action = actions.add_parser(
        name,
        help=description,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action.add_argument("--debug", action="store_true", help="show the traceback of an error")
    action.set_defaults(run=run)
    return action


def count(text: str) -> int:
    """A number of processes and the like, for argparse."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return int(text)
