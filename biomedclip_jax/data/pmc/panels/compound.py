"""Compound figures: panels of the picture matched to parts of the caption, where that is certain.

The parts of the caption say which marks ("A", "B", ...) to expect. If all are found in the picture, each panel is what
gutters leave round its mark. Without marks only panels in one row or one column, of like size, as many as there are
parts, are believed; a grid may be counted by rows or by columns. Precision comes before recall: the result becomes
training pairs.

Gutters are rows or columns of one colour from edge to edge of a region: there a figure comes apart.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

from biomedclip_jax.data.pmc.panels._caption_parts import split_caption
from biomedclip_jax.data.pmc.panels._letters import find_letters

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels
_WORKING_SIDE = 1400  # pixels; larger figures are looked at in this size
_MIN_SIDE = 0.05  # of a panel, in the figure's
_MIN_WORDS = 4  # of a panel's caption: "left eye" is none
_CORNERS = ((True, True), (True, False), (False, True), (False, False))  # at the left, at the top; the usual one first
_CORNER = 0.35  # of a panel's sides
_TOLERANCE = 24  # of gray levels within a gutter: what JPEG leaves of white
_MIN_GUTTER = 2  # pixels
_FAR = 5  # heights of a mark: farther from it its panel does not begin
_MIN_SHARE = 0.08  # of a panel's sides in the figure's


@dataclass(frozen=True)
class _Gutter:
    """start, stop: rows (or columns) in the figure. across: of rows, which part above from below. level: its shade of
    gray.
    """

    start: int
    stop: int
    across: bool
    level: int

    @property
    def width(self) -> int:
        return self.stop - self.start


def split_image(image: Image.Image, count: int | None) -> list[Box]:
    """Panels of an RGB figure by its gutters, in reading order; one box with all of it if it does not come apart.

    With `count` the widest gutters are cut until there are so many panels; the result may still have fewer. Without it
    all gutters are cut that are about as wide as the widest.
    """
    gray = np.asarray(image.convert("L"))
    return _reading_order(split_gray(gray, count))


def split_gray(gray: np.ndarray, count: int | None) -> list[Box]:
    """The panels of a gray picture uint8 [H, W]: cut along its widest gutters until there are `count`, or no gutter is left."""
    height, width = gray.shape
    least = (max(16, round(_MIN_SHARE * width)), max(16, round(_MIN_SHARE * height)))
    boxes = [(0, 0, width, height)]
    widest = 0
    while count is None or len(boxes) < count:
        options = [(gutter, i) for i, box in enumerate(boxes) for gutter in _gutters(gray, box) if _fits(box, gutter, least)]
        if not options:
            break
        gutter, i = max(options, key=lambda option: option[0].width)
        widest = widest or gutter.width
        if count is None and 2 * gutter.width < widest:
            break
        boxes[i : i + 1] = (_trim(gray, half, gutter.level) for half in _halves(boxes[i], gutter))
    return boxes


def cut_round(gray: np.ndarray, marks: Sequence[Box], at_left: bool, at_top: bool) -> list[Box | None]:
    """A region for each panel, whose mark stands in this corner of it: what gutters leave round it; None where none
    part it.
    """
    height, width = gray.shape
    regions: list[Box | None] = [None] * len(marks)
    _cut(gray, (0, 0, width, height), list(range(len(marks))), marks, (at_left, at_top), regions)
    return regions


def _cut(
    gray: np.ndarray,
    box: Box,
    members: list[int],
    marks: Sequence[Box],
    corner: tuple[bool, bool],
    regions: list[Box | None],
) -> None:
    if len(members) == 1:
        regions[members[0]] = box
        return
    best: tuple[float, _Gutter, list[int], list[int]] | None = None
    for gutter in _gutters(gray, box):
        low, high = (1, 3) if gutter.across else (0, 2)
        before = [i for i in members if marks[i][high] <= gutter.start]
        after = [i for i in members if marks[i][low] >= gutter.stop]
        if not before or not after or len(before) + len(after) < len(members):
            continue
        to_next = min(marks[i][low] for i in after) - gutter.stop
        from_last = gutter.start - max(marks[i][high] for i in before)
        distance = (to_next if corner[gutter.across] else from_last) / (marks[after[0]][3] - marks[after[0]][1])
        if distance <= _FAR and (best is None or gutter.width / (1 + distance) > best[0]):
            best = gutter.width / (1 + distance), gutter, before, after
    if best is None:
        return
    _, gutter, before, after = best
    first, second = (_trim(gray, half, gutter.level) for half in _halves(box, gutter))
    _cut(gray, first, before, marks, corner, regions)
    _cut(gray, second, after, marks, corner, regions)


def _gutters(gray: np.ndarray, box: Box) -> Iterator[_Gutter]:
    """Gutters inside a region, not at its edges."""
    left, top, right, bottom = box
    region = gray[top:bottom, left:right]
    for across in (True, False):
        axis, offset = (1, top) if across else (0, left)
        darkest, brightest = region.min(axis).astype(np.int16), region.max(axis).astype(np.int16)
        uniform = brightest - darkest <= _TOLERANCE
        level = (darkest + brightest) // 2
        same = np.abs(np.diff(level)) <= _TOLERANCE
        edges = np.flatnonzero(np.diff(uniform.astype(np.int8), prepend=0, append=0))
        for start, stop in edges.reshape(-1, 2):
            steps = [start, *(start + 1 + np.flatnonzero(~same[start : stop - 1])), stop]
            for a, b in pairwise(steps):
                if b - a >= _MIN_GUTTER and a > 0 and b < len(uniform):
                    yield _Gutter(int(a) + offset, int(b) + offset, across, int(level[(a + b) // 2]))


def _halves(box: Box, gutter: _Gutter) -> tuple[Box, Box]:
    left, top, right, bottom = box
    if gutter.across:
        return (left, top, right, gutter.start), (left, gutter.stop, right, bottom)
    return (left, top, gutter.start, bottom), (gutter.stop, top, right, bottom)


def _fits(box: Box, gutter: _Gutter, least: tuple[int, int]) -> bool:
    low, high = (box[1], box[3]) if gutter.across else (box[0], box[2])
    return min(gutter.start - low, high - gutter.stop) >= least[gutter.across]


def _trim(gray: np.ndarray, box: Box, ground: int) -> Box:
    """The region without the rows and columns at its edges that have the colour of the gutter beside it."""
    left, top, right, bottom = box
    inked = np.abs(gray[top:bottom, left:right].astype(np.int16) - ground) > _TOLERANCE
    rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    if not len(rows):
        return box
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def _reading_order(boxes: Sequence[Box]) -> list[Box]:
    """Rows from above, each from the left. Boxes share a row if each has the middle of the other within its height."""
    rows: list[list[Box]] = []
    for box in sorted(boxes, key=lambda b: (b[1], b[0])):
        middle = (box[1] + box[3]) / 2
        row = next((r for r in rows if r[0][1] <= middle <= r[0][3]), None)
        rows.append([box]) if row is None else row.append(box)
    return [box for row in rows for box in sorted(row)]


@dataclass(frozen=True)
class MatchedPanel:
    """A panel of a figure with its part of the caption.

    label: as in the caption. caption: its part, after the figure's title. box: left, top, right, bottom in pixels.
    """

    label: str
    caption: str
    box: Box


def match_panels(image: Image.Image, caption: str) -> list[MatchedPanel]:
    """Panels of an RGB figure with what the caption says of each; [] unless their numbers and positions fit."""
    parts = split_caption(caption)
    if len(parts.parts) < 2:
        return []
    scale = min(1.0, _WORKING_SIDE / max(image.size))
    gray_image = image.convert("L")
    if scale < 1:
        gray_image = gray_image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    boxes = _boxes(np.asarray(gray_image), [part.label for part in parts.parts])
    title = _title(parts.intro)
    matched = []
    for part, box in zip(parts.parts, boxes, strict=False):
        said = f"{title} {part.text}".strip()
        if box is not None and len(said.split()) >= _MIN_WORDS:
            left, top, right, bottom = (round(value / scale) for value in box)
            whole = (max(0, left), max(0, top), min(image.width, right), min(image.height, bottom))
            matched.append(MatchedPanel(part.label, said, whole))
    return matched if len(matched) > 1 else []


def _title(intro: str) -> str:
    """The first sentence of what is said of all panels."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z(])", intro, maxsplit=1)[0]


def _boxes(gray: np.ndarray, labels: list[str]) -> list[Box | None]:
    if len(labels[0]) > 1:
        return _in_line(gray, len(labels), labels[0] == "left", like=1.4)
    letters = find_letters(gray, len(labels))
    if not letters:
        return _in_line(gray, len(labels), True, like=1.15) or _in_line(gray, len(labels), False, like=1.15)
    marks = [letter.box for letter in letters]
    best: list[Box | None] = []
    for at_left, at_top in _CORNERS:
        regions = cut_round(gray, marks, at_left, at_top)
        boxes = [
            box if box and _is_panel(gray, mark, box, at_left, at_top) else None
            for mark, box in zip(marks, regions, strict=True)
        ]
        if boxes.count(None) < best.count(None) or not best:
            best = boxes
        if None not in best:
            break
    return best


def _is_panel(gray: np.ndarray, mark: Box, box: Box, at_left: bool, at_top: bool) -> bool:
    """Whether a region is large enough, and has its mark in this corner."""
    height, width = gray.shape
    if box[2] - box[0] < max(16, _MIN_SIDE * width) or box[3] - box[1] < max(16, _MIN_SIDE * height):
        return False
    x = ((mark[0] + mark[2]) / 2 - box[0]) / (box[2] - box[0])
    y = ((mark[1] + mark[3]) / 2 - box[1]) / (box[3] - box[1])
    return (x if at_left else 1 - x) < _CORNER and (y if at_top else 1 - y) < _CORNER


def _in_line(gray: np.ndarray, count: int, across: bool, like: float) -> list[Box | None]:
    """Panels in one row (across) or one column, neither of whose sides differ by more than this factor, or []."""
    boxes = split_gray(gray, count)
    low, high = (0, 2) if across else (1, 3)
    boxes = sorted(boxes, key=lambda box: box[low])
    apart = all(first[high] <= second[low] for first, second in pairwise(boxes))
    sides = [[box[2] - box[0] for box in boxes], [box[3] - box[1] for box in boxes]]
    fit = len(boxes) == count and apart and all(max(lengths) <= like * min(lengths) for lengths in sides)
    return list(boxes) if fit else []
