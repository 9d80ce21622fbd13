"""Galleries of retrieval, as the paper's case study: what several models find first for the same captions and images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.report.drawing import new_figure, save, small, words

SHOWN = 4  # keys of a query
_RIGHT = "gold"
# inches
_MARGIN, _TOP, _GAP = 0.15, 0.95, 0.12
_SIDE = 1.4  # of a picture
_UNDER = 0.24  # its score
_CAPTION = 2.6
_ANSWERS = 4.6  # captions that were found
_ANSWER = 0.46  # one of them


@dataclass(frozen=True, eq=False)
class Found:
    """What a model finds first for each query.

    positions, scores: [queries, 4 or fewer], positions of keys and their cosines, the best first.
    """

    model: str
    positions: np.ndarray
    scores: np.ndarray

    @staticmethod
    def by(model: str, queries: np.ndarray, keys: np.ndarray) -> "Found":
        """Search all keys, unit embeddings [n, E], for a few queries, unit embeddings [q, E]."""
        scores = queries @ keys.T
        positions = np.argsort(-scores, axis=1, kind="stable")[:, :SHOWN]
        return Found(model, positions, np.take_along_axis(scores, positions, axis=1))


def choose(succeeded: Sequence[bool], kinds: Sequence[str], rows: int, seed: int) -> list[int]:
    """Choose queries that show both what a model can do and what it cannot: half succeeded, half did not, of many kinds.

    Returns their positions, drawn by chance, the same for the same seed; those that succeeded come first. Within each half
    a kind appears again only when all others have appeared as often. Where one half has too few queries, the other fills
    the rows.
    """
    order = np.random.default_rng(seed).permutation(len(succeeded)).tolist()
    shown = {kind: 0 for kind in kinds}

    def drawn(among: list[int], count: int) -> list[int]:
        chosen: list[int] = []
        for _ in range(min(count, len(among))):
            pick = min((i for i in among if i not in chosen), key=lambda i: shown[kinds[i]])  # the first of the rarest kind
            shown[kinds[pick]] += 1
            chosen.append(pick)
        return chosen

    good, bad = [i for i in order if succeeded[i]], [i for i in order if not succeeded[i]]
    first = drawn(good, max(rows - rows // 2, rows - len(bad)))
    return first + drawn(bad, rows - len(first))


def images_of_captions(
    path: Path,
    captions: Sequence[str],
    found: Sequence[Found],
    image: Callable[[int], Image.Image],
    right: Sequence[set[int]],
    title: str = "",
) -> None:
    """Draw for each caption the images that each model finds first, side by side; a right one is framed in yellow.

    image: gives the picture at a position. right[i]: positions of the images that belong to caption i.
    """
    block = SHOWN * (_SIDE + _GAP) + 3 * _GAP
    page = _Page(len(captions), _SIDE + _UNDER + _GAP, _CAPTION, block, found, title)
    for i, caption in enumerate(captions):
        axis = page.axes(i, 0, _UNDER, _CAPTION - _GAP, _SIDE)
        axis.axis("off")
        axis.text(0, 0.5, words(caption, 34, 8), va="center", fontsize=9, parse_math=False)
        for number, model in enumerate(found):
            for column, (position, score) in enumerate(zip(model.positions[i].tolist(), model.scores[i].tolist(), strict=True)):
                left = _CAPTION + number * block + column * (_SIDE + _GAP)
                _photograph(page.axes(i, left, _UNDER, _SIDE, _SIDE), image, position, position in right[i])
                page.number(i, left + _SIDE / 2, _UNDER - 0.08, score)
    page.save(path)


def captions_of_images(
    path: Path,
    images: Sequence[int],
    found: Sequence[Found],
    image: Callable[[int], Image.Image],
    caption: Callable[[int], str],
    right: Sequence[set[int]],
    title: str = "",
) -> None:
    """Draw for each image the captions that each model finds first, side by side; a right one has a yellow background.

    images: their positions. image, caption: give the picture and the text at a position.
    right[i]: positions of the texts that belong to images[i].
    """
    block, high = _ANSWERS + 2 * _GAP, SHOWN * _ANSWER
    page = _Page(len(images), high + 2 * _GAP, high + 2 * _GAP, block, found, title)
    for i, position in enumerate(images):
        _photograph(page.axes(i, 0, _GAP, high, high), image, position, framed=False)
        for number, model in enumerate(found):
            axis = page.axes(i, high + 2 * _GAP + number * block, _GAP, _ANSWERS, high)
            axis.set_xlim(0, 1)
            axis.set_ylim(SHOWN, 0)
            axis.axis("off")
            for row, (text, score) in enumerate(zip(model.positions[i].tolist(), model.scores[i].tolist(), strict=True)):
                if text in right[i]:
                    axis.axhspan(row + 0.04, row + 0.96, color=_RIGHT, lw=0)
                axis.text(0.01, row + 0.5, f"{score:.3f}", va="center", fontsize=8, color="dimgrey")
                axis.text(0.11, row + 0.5, words(caption(text), 66, 3), va="center", fontsize=7.5, parse_math=False)
    page.save(path)


class _Page:
    """A figure with rows of queries and a column for each model, laid out in inches."""

    def __init__(self, rows: int, row: float, first: float, column: float, found: Sequence[Found], title: str):
        self._width = 2 * _MARGIN + first + column * len(found)
        self._height = _TOP + rows * row + _MARGIN
        self._row = row
        self._figure = new_figure(self._width, self._height)
        self._write(_MARGIN, 0.12, words(title, int(self._width * 12), 3), fontsize=11, va="top")
        for number, model in enumerate(found):
            name = words(model.model, 60, 1)
            self._write(_MARGIN + first + number * column, 0.82, name, fontsize=10, fontweight="bold")

    def _write(self, left: float, top: float, text: str, **style: Any) -> None:
        self._figure.text(left / self._width, 1 - top / self._height, text, parse_math=False, **style)

    def axes(self, row: int, left: float, bottom: float, width: float, height: float) -> Any:
        """Axes in a row; left and bottom are inches from those of the row."""
        below = self._height - _TOP - (row + 1) * self._row + bottom
        corner = (_MARGIN + left) / self._width, below / self._height
        return self._figure.add_axes((*corner, width / self._width, height / self._height))

    def number(self, row: int, left: float, bottom: float, value: float) -> None:
        """Write a score, centred below a point of the row."""
        above = _TOP + (row + 1) * self._row - bottom
        self._write(_MARGIN + left, above, f"{value:.3f}", fontsize=8, ha="center", va="top")

    def save(self, path: Path) -> None:
        """Write the figure as a PNG file."""
        save(self._figure, path)


def _photograph(axis: Any, image: Callable[[int], Image.Image], position: int, framed: bool) -> None:
    try:
        axis.imshow(small(image(position)))
    except UserError as error:  # it could be read when it was embedded
        axis.text(0.5, 0.5, words(str(error), 22, 6), ha="center", va="center", fontsize=7, color="red", parse_math=False)
        axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(framed)
        spine.set_color(_RIGHT)
        spine.set_linewidth(5)
