"""Compound figures: panels of the picture matched to parts of the caption, where that is certain.

The parts of the caption say which marks ("A", "B", ...) to expect. If all are found in the picture, each panel is what
gutters leave round its mark. Without marks only panels in one row or one column, of like size, as many as there are
parts, are believed; a grid may be counted by rows or by columns. Precision comes before recall: the result becomes
training pairs.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

from biomedclip_jax.data.pmc.panels.caption_parts import Part, Parts, split_caption
from biomedclip_jax.data.pmc.panels.cuts import Box, cut_round, split_gray, split_image
from biomedclip_jax.data.pmc.panels.letters import find_letters

__all__ = ["MatchedPanel", "Part", "Parts", "match_panels", "split_caption", "split_image"]

_WORKING_SIDE = 1400  # pixels; larger figures are looked at in this size
_MIN_SIDE = 0.05  # of a panel, in the figure's
_MIN_WORDS = 4  # of a panel's caption: "left eye" is none
_CORNERS = ((True, True), (True, False), (False, True), (False, False))  # at the left, at the top; the usual one first
_CORNER = 0.35  # of a panel's sides


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
