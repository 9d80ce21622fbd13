"""Which pictures of test data are also in training data: what a model has seen is no measure of what it can do.

`images_in_both` compares files, which is quick; `find_overlap` decodes every picture and finds those, too, that were
stored anew: smaller, brighter, in another format.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biomedclip_jax.data.images.load import ImageSource, load_image
from biomedclip_jax.data.labelled.multi_label import MultiLabelled
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.near_duplicates import NEAR, Look, alike_as, content_digest, looks
from biomedclip_jax.data.pairs import ImageOf
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_file

TABLE, SHEET = "overlap.csv", "overlap.png"

_COLUMNS = ("test", "training", "same_file", "correlation")
_AT_ONCE = 512
_SHOWN = 24  # matches on the sheet
_SIDE = 256  # pixels


@dataclass(frozen=True)
class Pictures:
    """Pictures and what messages call each; the part of labelled images and of pairs that a comparison needs."""

    images: Sequence[ImageSource]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Match:
    """A test picture, by position, and the training picture that is most like it. same_file: byte for byte."""

    test: int
    training: int
    same_file: bool
    correlation: float


@dataclass(frozen=True)
class Overlap:
    """matches: in the order of the test pictures, one at most for each. unread: pictures of either side that cannot be read."""

    matches: tuple[Match, ...]
    unread_test: int
    unread_training: int


def find_overlap(test: Pictures, training: Pictures) -> Overlap:
    """Compare each test picture with each training picture, of which only `_AT_ONCE` are held at a time.

    Test pictures need 2 kB each. Near is what `near_duplicates` calls so; blank pictures count as files only.
    """
    tested = list(looks(test.images, "test picture"))
    positions = [i for i, each in enumerate(tested) if isinstance(each, Look)]
    own = [each for each in tested if isinstance(each, Look)]
    files: dict[bytes, list[int]] = {}
    for i, each in zip(positions, own, strict=True):
        if each.digest:
            files.setdefault(each.digest, []).append(i)
    best: dict[int, Match] = {}
    block: list[tuple[int, Look]] = []
    unread = 0

    def compare() -> None:
        alike = alike_as([each for _, each in block], own)
        for row, column in np.argwhere(alike >= NEAR).tolist():
            i, correlation = positions[column], float(alike[row, column])
            if i not in best or (not best[i].same_file and correlation > best[i].correlation):
                best[i] = Match(i, block[row][0], False, correlation)
        block.clear()

    for j, each in enumerate(looks(training.images, "training picture")):
        if isinstance(each, UserError):
            unread += 1
            continue
        for i in files.get(each.digest, ()):
            if i not in best or not best[i].same_file:
                best[i] = Match(i, j, True, 1.0)
        block.append((j, each))
        if len(block) == _AT_ONCE:
            compare()
    compare()
    return Overlap(tuple(best[i] for i in sorted(best)), len(tested) - len(own), unread)


def write_overlap(out: Path, found: Overlap, test: Pictures, training: Pictures) -> None:
    """Write `overlap.csv`, which `read_overlap` reads, and, where something was found, a sheet of pictures side by side."""

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(_COLUMNS)
            for match in found.matches:
                names = test.names[match.test], training.names[match.training]
                table.writerow([*names, "yes" if match.same_file else "no", f"{match.correlation:.4f}"])

    write_file(out / TABLE, write)
    (out / SHEET).unlink(missing_ok=True)
    if found.matches:
        _draw(out / SHEET, found, test, training)


def read_overlap(path: Path) -> set[str]:
    """The names of the test pictures in an `overlap.csv`. UserError if it is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected the {TABLE} of `biomedclip data overlap`") from error
    if not rows or tuple(rows[0]) != _COLUMNS or any(len(row) != len(_COLUMNS) for row in rows):
        raise UserError(f"{path}: expected the columns {', '.join(_COLUMNS)}, as `biomedclip data overlap` writes them")
    return {row[0] for row in rows[1:]}


def _draw(path: Path, found: Overlap, test: Pictures, training: Pictures) -> None:
    from matplotlib.figure import Figure

    shown = found.matches[:_SHOWN]
    figure = Figure(figsize=(6, 2.2 * len(shown) + 0.4), dpi=80, layout="constrained")
    more = f"; the first {len(shown)}" if len(shown) < len(found.matches) else ""
    figure.suptitle(f"{len(found.matches):,} test pictures (left) that are training pictures (right){more}", fontsize=9)
    for row, match in enumerate(shown):
        what = "the same file" if match.same_file else f"correlation {match.correlation:.3f}"
        sides = ((test, match.test, f"test, {what}"), (training, match.training, "training"))
        for column, (pictures, position, said) in enumerate(sides):
            axes = figure.add_subplot(len(shown), 2, 2 * row + column + 1)
            axes.axis("off")
            image = load_image(pictures.images[position]).copy()  # what is the user's own stays as large as it is
            image.thumbnail((_SIDE, _SIDE))
            axes.imshow(np.asarray(image.convert("RGB")))
            axes.set_title(f"{said}\n{pictures.names[position][-60:]}", fontsize=6, parse_math=False)
    write_file(path, lambda partial: figure.savefig(partial, format="png", metadata={"Software": None}))


def images_in_both(train: Labelled | MultiLabelled, test: Labelled | MultiLabelled) -> list[tuple[str, str]]:
    """(name in the test data, name in the training data) of the images that both hold, by path or byte by byte.

    Files are read where both sides have one of the same size; members of tars and builds are all read. Images that are
    neither, such as rows of an array, are not compared. What cannot be read is left to those who decode it.
    """
    learned, tested = list(_encoded(train)), list(_encoded(test))
    shared = {size for _, _, size in learned} & {size for _, _, size in tested}
    found: dict[bytes, str] = {}
    for name, image, size in learned:
        if size in shared:
            found.setdefault(content_digest(image), name)
    marks = ((name, content_digest(image)) for name, image, size in tested if size in shared)
    return [(name, found[mark]) for name, mark in marks if mark in found]


def _encoded(data: Labelled | MultiLabelled) -> Iterator[tuple[str, Path | bytes, int]]:
    """The name of each image, its file or its content as it is encoded, and the size of that in bytes."""
    for name, image in zip(data.names, data.images, strict=True):
        if isinstance(image, ImageOf):
            try:
                image = image.pairs[image.index].image
            except UserError:
                continue
        if isinstance(image, bytes):
            yield name, image, len(image)
        elif isinstance(image, str | Path) and (path := Path(image)).is_file():
            yield name, path, path.stat().st_size
