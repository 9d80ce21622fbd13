"""A contact sheet: the hits of some queries as pictures, with scores and captions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.report.drawing import new_figure, save, small, words
from biomedclip_jax.search.hits import Hit
from biomedclip_jax.search.index import Index

# inches
_SIDE, _UNDER, _GAP, _MARGIN, _QUERY = 1.9, 1.0, 0.15, 0.2, 2.2
_ACROSS = 5  # hits beside each other


def draw_sheet(path: Path, index: Index, found: Sequence[tuple[str, str, Sequence[Hit]]]) -> None:
    """Draw the hits of each query, five beside each other, into a PNG file.

    found: for each query its text, its kind (text, image, like) and its hits. A picture that cannot be read any more has
    the reason in its place.
    """
    rows = [max(1, -(-len(hits) // _ACROSS)) for _, _, hits in found]
    width = 2 * _MARGIN + _QUERY + _GAP + _ACROSS * (_SIDE + _GAP)
    height = 2 * _MARGIN + sum(rows) * (_SIDE + _UNDER) + (len(found) - 1) * _GAP
    page = _Page(width, height)
    top = _MARGIN
    for (text, kind, hits), lines in zip(found, rows, strict=True):
        _draw_query(page, index, text, kind, top)
        for number, hit in enumerate(hits):
            left = _MARGIN + _QUERY + _GAP + number % _ACROSS * (_SIDE + _GAP)
            above = top + number // _ACROSS * (_SIDE + _UNDER)
            page.picture(left, above, _SIDE, lambda hit=hit: index.image(hit))
            page.write(left, above + _SIDE + 0.05, _under(number + 1, hit), 6.5)
        if not hits:
            page.write(_MARGIN + _QUERY + _GAP, top, "no hit", 9)
        top += lines * (_SIDE + _UNDER) + _GAP
    page.save(path)


def _draw_query(page: "_Page", index: Index, text: str, kind: str, top: float) -> None:
    if kind == "text":
        page.write(_MARGIN, top, words(text, 24, 10), 10)
        return
    said = text
    if kind == "image":
        page.picture(_MARGIN, top, _SIDE, lambda: load_image(Path(text)))
        said = Path(text).name
    elif rows := index.positions("id", text):
        page.picture(_MARGIN, top, _SIDE, lambda: index.image(index.hit(rows[0])))
    page.write(_MARGIN, top + (_SIDE + 0.05 if kind == "image" or index.positions("id", text) else 0), words(said, 34, 3), 8)


def _under(rank: int, hit: Hit) -> str:
    """What stands under a hit: rank and score, whose it is, and the beginning of its caption."""
    name = hit.id if hit.group is None else f"{hit.group} ({hit.images})"
    tail = name if len(name) <= 34 else f"... {name[-30:]}"  # the end of a path says more
    lines = [f"{rank}.  {hit.score:.3f}", words(tail, 40, 1)]
    if hit.article or hit.license:
        lines.append(words("  ".join(filter(None, (hit.article, hit.license))), 40, 1))
    if hit.caption:
        lines.append(words(hit.caption, 40, 4))
    return "\n".join(lines)


class _Page:
    """A figure that is laid out in inches from its upper left corner."""

    def __init__(self, width: float, height: float):
        self._width, self._height = width, height
        self._figure = new_figure(width, height)

    def write(self, left: float, top: float, text: str, size: float) -> None:
        self._figure.text(
            left / self._width, 1 - top / self._height, text, va="top", fontsize=size, parse_math=False, linespacing=1.25
        )

    def picture(self, left: float, top: float, side: float, load: Any) -> None:
        corner = left / self._width, 1 - (top + side) / self._height
        axis = self._figure.add_axes((*corner, side / self._width, side / self._height))
        axis.axis("off")
        try:
            image: Image.Image = load()
            axis.imshow(small(image))
        except UserError as error:
            axis.text(0.02, 0.98, words(str(error), 26, 9), va="top", fontsize=7, color="red", parse_math=False)

    def save(self, path: Path) -> None:
        save(self._figure, path)
