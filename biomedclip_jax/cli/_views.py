"""The options of verbs that take files with many images apart: `--every` and what goes with it."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from biomedclip_jax.cli.arguments import count
from biomedclip_jax.data.images.views.options import WINDOWS, ViewOptions
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.data.images.views.find import View

_PLANES = ("axial", "coronal", "sagittal")
_NAMES = {"plane": "--plane", "window": "--window", "tile": "--tile", "mpp": "--mpp"}


def add_view_options(verb: argparse.ArgumentParser, aggregates: list[str] | None = None) -> None:
    """Add the options to a verb. aggregates: what --aggregate may be; None: without it."""
    group = verb.add_argument_group("files that hold many images: frames, series, volumes, slides")
    group.add_argument(
        "--every",
        type=count,
        metavar="K",
        help="take every K-th frame of DICOM, TIFF and GIF, slice of a DICOM series (files of a folder) or of NIfTI, and "
        "tile of a slide; 1 takes all. Each is an image of its own, FILE#frame=7. Without it a file is one image, its first "
        "frame, and volumes are refused",
    )
    group.add_argument("--plane", choices=_PLANES, help="of NIfTI, how it is cut (default: axial)")
    group.add_argument(
        "--window",
        type=_window,
        metavar="NAME|CENTRE,WIDTH",
        help=f"of gray DICOM and NIfTI, the values from black to white: for CT {', '.join(WINDOWS)}; numbers as "
        "--window=-600,1500 (default: the file's own window, else the range of its values)",
    )
    group.add_argument("--tile", type=count, metavar="PIXELS", help="of slides, the side of a tile (default: 224)")
    group.add_argument(
        "--mpp",
        type=_mpp,
        metavar="UM|none",
        help="of slides, micrometres that a pixel of a tile is wide (default: 0.5, about 20x); none: the slide's own pixels",
    )
    if aggregates is not None:
        means = {
            "mean": "the mean of the embeddings",
            "max": "for each label the highest probability of any of them (not summing to 1)",
        }
        group.add_argument(
            "--aggregate",
            choices=aggregates,
            help="one row for each file or series: " + "; ".join(f"{name}: {means[name]}" for name in aggregates),
        )


def _window(text: str) -> str | tuple[float, float]:
    """An argparse type."""
    if text in WINDOWS:
        return text
    try:
        centre, width = (float(part) for part in text.split(","))
    except ValueError:
        centre, width = 0.0, 0.0
    if not (abs(centre) < 1e9 and 0 < width < 1e9):  # also of NaN
        raise argparse.ArgumentTypeError(f"{text!r}: expected {', '.join(WINDOWS)}, or CENTRE,WIDTH with a width above 0")
    return centre, width


def _mpp(text: str) -> float | str:
    """An argparse type; "none" stays a word, as None means that nothing was said."""
    if text == "none":
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected micrometres a pixel, such as 0.5, or none")
    return value


def view_options(arguments: argparse.Namespace) -> ViewOptions | None:
    """What the options say; None without --every. UserError for another of them without it."""
    given = {name: getattr(arguments, name) for name in _NAMES if getattr(arguments, name) is not None}
    if arguments.every is None:
        if given or getattr(arguments, "aggregate", None):
            flag = _NAMES[next(iter(given))] if given else "--aggregate"
            raise UserError(f"{flag}: is for the images in a file; give --every K, too (1: all of them)")
        return None
    if given.get("mpp") == "none":
        given["mpp"] = None
    return ViewOptions(every=arguments.every, **given)


def found_images(arguments: argparse.Namespace) -> "list[Path] | list[View]":
    """The images of the verb's files and folders, apart with --every; what is left out in folders is said on stderr."""
    from biomedclip_jax.data.images.search import find_all_images, say_left_out
    from biomedclip_jax.data.images.views.find import find_views

    options = view_options(arguments)
    if options is None:
        return find_all_images(list(arguments.images))
    left_out: Counter[str] = Counter()
    views = [*say_unused(arguments, find_views(arguments.images, options, left_out))]
    if left_out:
        print(say_left_out(left_out), file=sys.stderr)
    return views


def say_unused(arguments: argparse.Namespace, views: "Iterable[View]") -> "Iterator[View]":
    """The views; after the last a line on stderr for --plane without a volume among them, --tile and --mpp without a slide."""
    volumes = slides = False
    for view in views:
        volumes = volumes or view.place.startswith(_PLANES)
        slides = slides or view.place.startswith("x=")
        yield view
    for flag, what, found in (("plane", "NIfTI", volumes), ("tile", "slides", slides), ("mpp", "slides", slides)):
        if getattr(arguments, flag) is not None and not found:
            print(f"--{flag}: is of {what}, and none of these images is of one: it changes nothing", file=sys.stderr)
