"""The letters that mark the panels of a compound figure ("A", "b", "(c)"): found in the picture and read.

No text recognition at large: single glyphs that stand alone are compared with glyphs of a few fonts, and only a whole
set "A", "B", "C" ... of one size is believed.
"""

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import ascii_letters, ascii_uppercase, digits

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 18  # glyphs are compared as SIDE x SIDE pixels
_EM = 64
_FONTS = (
    ("DejaVuSans-Bold.ttf", 0),
    ("DejaVuSans.ttf", 0),
    ("STIXGeneralBol.ttf", 0),
    ("STIXGeneral.ttf", 0),
    ("", 0),
    ("", 3),
)
_ALIKE = ("oO0Qq", "lI1i|j:tfrJ", "sS5", "zZ2", "B8", "gq9", "D0O", "g9", "b6", "G6C", "UuVv", "VvYy", "xX×", "hnN", "rf")  # noqa: RUF001
_OTHERS = "+*=|-–.,:/<>%&#×•↓→"  # noqa: RUF001
_SURE, _POSSIBLE = 0.72, 0.5  # scores
_BARS = "Iil"  # any short line looks like these
_SAME_SIZE = 0.16  # of the logarithm


@dataclass(frozen=True)
class Letter:
    """A letter in a figure. box: left, top, right, bottom in pixels. size: of the font. score: how well it fits, at
    most 1.
    """

    label: str
    box: tuple[int, int, int, int]
    size: float
    score: float
    sure: bool  # alone; else only in line with others


@dataclass(frozen=True)
class _Glyphs:
    characters: np.ndarray  # of each template
    pixels: np.ndarray  # [templates, SIDE ** 2], of mean 0 and length 1
    aspects: np.ndarray  # logarithm of width / height
    heights: np.ndarray  # in em


@cache
def _glyphs() -> _Glyphs:
    found = importlib.util.find_spec("matplotlib")
    folder = Path(found.origin or "").parent / "mpl-data" / "fonts" / "ttf" if found else None
    characters, pixels, aspects, heights = [], [], [], []
    for name, stroke in _FONTS:
        if name and not (folder and (folder / name).is_file()):
            continue
        font = ImageFont.truetype(str(folder / name), _EM) if name and folder else ImageFont.load_default(_EM)
        for character in ascii_letters + digits + _OTHERS:
            picture = Image.new("L", (2 * _EM, 2 * _EM))
            ImageDraw.Draw(picture).text((_EM // 2, _EM // 4), character, 255, font, stroke_width=stroke)
            if character in "ij":  # only the stem: the dot is not joined to it
                rows = np.flatnonzero(~np.asarray(picture).any(1))
                inner = [row for row in rows if np.asarray(picture)[:row].any() and np.asarray(picture)[row:].any()]
                if not inner:
                    continue  # a heavy font, whose dot touches the stem
                picture.paste(0, (0, 0, 2 * _EM, int(inner[-1])))
            box = picture.getbbox()
            if box is None:
                continue
            characters.append(character)
            pixels.append(_normalized(picture.crop(box)))
            aspects.append(math.log((box[2] - box[0]) / (box[3] - box[1])))
            heights.append((box[3] - box[1]) / _EM)
    return _Glyphs(np.asarray(characters), np.stack(pixels), np.asarray(aspects), np.asarray(heights))


def _normalized(glyph: Image.Image) -> np.ndarray:
    """Stretched to a square, but for very narrow ones: "I" would be nothing but black."""
    width, height = glyph.size
    if 0.6 * max(width, height) > min(width, height):
        wide, high = max(width, round(0.6 * height)), max(height, round(0.6 * width))
        room = Image.new("L", (wide, high))
        room.paste(glyph, ((wide - width) // 2, (high - height) // 2))
        glyph = room
    values = np.asarray(glyph.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32).ravel()
    values -= values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)


@dataclass(frozen=True)
class _Candidates:
    boxes: np.ndarray  # [n, 4]
    scores: np.ndarray  # [n, templates]


def find_letters(gray: np.ndarray, count: int) -> list[Letter]:
    """The marks of `count` panels, A and b and so on in order, or [] unless every one is found and no doubt is left.

    gray: uint8 [height, width].
    """
    for candidates in (_candidates(shades, threshold) for shades, threshold in ((gray, 128), (255 - gray, 100))):
        sets = [_best_set(candidates, alphabet, count) for alphabet in (ascii_uppercase, ascii_uppercase.lower())]
        best = max(sets, key=lambda letters: sum(letter.score for letter in letters))
        if best:
            return best  # dark letters, before light ones are looked for
    return []


def _candidates(gray: np.ndarray, threshold: int) -> _Candidates:
    """Glyph-like spots darker than the threshold that stand alone, and how alike they are to each template."""
    from scipy import ndimage

    ink = gray < threshold
    spots = np.empty(gray.shape, np.int32)
    ndimage.label(ink, np.ones((3, 3), bool), output=spots)
    slices = ndimage.find_objects(spots)
    boxes = np.asarray([(x.start, y.start, x.stop, y.stop) for y, x in slices], np.int32).reshape(-1, 4)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    side = max(gray.shape)
    fits = (height >= max(6, 0.006 * side)) & (height <= 0.08 * side) & (width <= 1.5 * height) & (width >= 0.08 * height)
    chosen = np.flatnonzero(fits)
    small = np.append(False, np.maximum(width, height) <= 0.1 * side)  # text; not a dark picture round a label on a white disc
    total = np.zeros((gray.shape[0] + 1, gray.shape[1] + 1), np.int32)
    np.cumsum(np.cumsum(small.take(spots), 0, dtype=np.int32), 1, out=total[1:, 1:])
    chosen = chosen[_alone(boxes[chosen], total)]
    glyphs = _glyphs()
    pixels, aspects = [], []
    for i in chosen:
        left, top, right, bottom = boxes[i]
        mine = spots[top:bottom, left:right] == i + 1
        shade = 255 - gray[top:bottom, left:right]
        low = int(shade.min())
        stretched = (shade.astype(np.float32) - low) * (255 / max(int(shade.max()) - low, 1))
        inside = ndimage.binary_dilation(mine)
        pixels.append(_normalized(Image.fromarray((stretched * inside).astype(np.uint8))))
        aspects.append(math.log((right - left) / (bottom - top)))
    if not pixels:
        return _Candidates(np.empty((0, 4), int), np.empty((0, len(glyphs.characters))))
    scores = np.stack(pixels) @ glyphs.pixels.T
    scores -= 0.35 * np.abs(np.asarray(aspects)[:, None] - glyphs.aspects[None])
    return _Candidates(boxes[chosen], scores)


def _alone(boxes: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Whether nothing stands beside each box, or only a bracket, full stop or colon. total: sums of ink above and
    left.
    """
    rows, columns = total.shape[0] - 1, total.shape[1] - 1

    def ink(left, right):
        left, right = np.clip(left, 0, columns), np.clip(right, 0, columns)
        top, bottom = np.clip(boxes[:, 1], 0, rows), np.clip(boxes[:, 3], 0, rows)
        return total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]

    height = boxes[:, 3] - boxes[:, 1]
    gap = np.maximum(2, np.rint(0.5 * height).astype(int))
    mark = np.rint(0.45 * height).astype(int)  # of a bracket and the space before it
    left_free = ink(boxes[:, 0] - gap, boxes[:, 0]) == 0
    right_free = ink(boxes[:, 2], boxes[:, 2] + gap) == 0
    left_mark = ink(boxes[:, 0] - mark - gap, boxes[:, 0] - mark) == 0
    right_mark = ink(boxes[:, 2] + mark, boxes[:, 2] + mark + gap) == 0
    return (left_free | left_mark) & (right_free | right_mark)


def _best_set(candidates: _Candidates, alphabet: str, count: int) -> list[Letter]:
    """The set of letters of one size with the highest scores, or []."""
    options = {label: _options(candidates, label, alphabet[: count + 1]) for label in alphabet[: count + 1]}
    labels, beyond = alphabet[:count], alphabet[count : count + 1]
    if not all(options[label] for label in labels):
        return []
    best: list[Letter] = []
    for reference in {round(letter.size, 1): letter for label in labels for letter in options[label] if letter.sure}.values():
        near = {
            label: [letter for letter in found if abs(math.log(letter.size / reference.size)) < _SAME_SIZE]
            for label, found in options.items()
        }
        chosen = _aligned([near[label] for label in labels])
        if sum(letter.score for letter in chosen) > sum(letter.score for letter in best):
            further = any(letter.sure and _in_line(letter, chosen) for letter in near.get(beyond, []))
            best = [] if further else chosen
    return best


def _options(candidates: _Candidates, label: str, labels: str) -> list[Letter]:
    """The spots that may be this letter, rather than another one of `labels`, or any sign that looks different."""
    if not len(candidates.boxes):
        return []
    glyphs = _glyphs()
    alike = {other for group in _ALIKE if label in group for other in group} | {label.lower(), label.upper()}
    mine = np.flatnonzero(glyphs.characters == label)
    rivals = set(labels) - {label}
    others = np.flatnonzero(~np.isin(glyphs.characters, sorted(alike - rivals)))
    which = candidates.scores[:, mine].argmax(1)
    own = candidates.scores[np.arange(len(which)), mine[which]]
    ahead = own - candidates.scores[:, others].max(1)
    left, top, right, bottom = candidates.boxes.T
    heights = bottom - top
    return [
        Letter(
            label,
            (int(left[i]), int(top[i]), int(right[i]), int(bottom[i])),
            heights[i] / glyphs.heights[mine[which[i]]],
            float(own[i]),
            bool(own[i] >= _SURE and ahead[i] >= -0.01 and label not in _BARS),
        )
        for i in np.flatnonzero((own >= _POSSIBLE) & (ahead >= -0.1))
    ]


def _in_line(letter: Letter, others: Sequence[Letter]) -> int:
    """With how many others a letter shares its left edge or its base line."""
    slack = 0.35 * letter.size
    return sum(
        abs(letter.box[0] - other.box[0]) < slack or abs(letter.box[3] - other.box[3]) < slack
        for other in others
        if other.label != letter.label
    )


def _aligned(options: Sequence[Sequence[Letter]]) -> list[Letter]:
    """One of each label's candidates: those in line with the other labels', then those most alike; [] if it is a
    toss-up.

    A letter that is hard to read is believed where it is in line with others that are not; most must be easy to read.
    """
    certain = [letter for candidates in options for letter in candidates if letter.sure]
    chosen = []
    for candidates in options:
        believed = [(min(_in_line(letter, certain), 1), letter.score, letter) for letter in candidates]
        ranked = sorted((entry for entry in believed if entry[2].sure or entry[0]), key=lambda entry: entry[:2], reverse=True)
        if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0] and ranked[0][1] - ranked[1][1] < 0.02):
            return []
        chosen.append(ranked[0][2])
    return chosen if 3 * sum(letter.sure for letter in chosen) >= 2 * len(chosen) else []
