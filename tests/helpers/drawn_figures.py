"""Drawn pictures that look like figures of articles, with marked panels whose places are known."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

_GUTTER = 20  # white pixels between panels


def _blurred(generator: np.random.Generator, width: int, height: int, coarse: int) -> np.ndarray:
    """Smooth noise between 0 and 1."""
    small = generator.integers(0, 256, (max(2, height // coarse), max(2, width // coarse)), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), float) / 255


def scan(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """A slice of a body on black, as of CT or MR."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    pixels = np.zeros((height, width))
    for _ in range(7):
        a, b, c, d = generator.uniform(-0.4, 0.4), generator.uniform(-0.4, 0.4), *generator.uniform(0.15, 0.7, 2)
        pixels += generator.uniform(-40, 90) * (((x - a) / c) ** 2 + ((y - b) / d) ** 2 < 1)
    body = (x / 0.9) ** 2 + (y / 0.85) ** 2 < 1
    pixels = (np.clip(pixels, 0, 160) + 50 * _blurred(generator, width, height, 12) + 20) * body + 6
    return Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.GaussianBlur(1)).convert("RGB")


def cells(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """Coloured cells on black, as of fluorescence microscopy."""
    image = Image.new("RGB", (width, height), (4, 4, 8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(generator.integers(8, 30))):
        x, y, r = generator.uniform(0, width), generator.uniform(0, height), generator.uniform(0.03, 0.12) * width
        color = tuple(int(v) for v in generator.integers(20, 220, 3) * np.array([0.3, 1, 0.5]))
        draw.ellipse((x - r, y - 0.8 * r, x + r, y + 0.8 * r), fill=color)
    return image.filter(ImageFilter.GaussianBlur(2))


def blot(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """Dark bands in lanes on gray."""
    base = 150 + 40 * _blurred(generator, width, height, 40)
    image = Image.fromarray(base.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    lanes = int(generator.integers(4, 8))
    for row in generator.uniform(0.12, 0.85, int(generator.integers(2, 5))):
        for lane in range(lanes):
            left = (lane + 0.2) * width / lanes
            box = (left, row * height, left + 0.6 * width / lanes, row * height + generator.uniform(4, 14))
            draw.rectangle(box, fill=int(generator.integers(20, 140)))
    return image.filter(ImageFilter.GaussianBlur(2)).convert("RGB")


def tissue(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """A stained section: pink with violet nuclei."""
    smooth = _blurred(generator, width, height, 25)[..., None]
    pixels = smooth * np.array([150, 60, 140]) + (1 - smooth) * np.array([235, 190, 215])
    image = Image.fromarray(pixels.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(120):
        x, y = generator.uniform(0, width), generator.uniform(0, height)
        draw.ellipse((x - 4, y - 3, x + 4, y + 3), fill=(80, 30, 110))
    return image


def chart(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """Bars, or curves, with axes."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    left, bottom = 0.16 * width, 0.86 * height
    if generator.random() < 0.5:
        number = int(generator.integers(3, 8))
        for i in range(number):
            x = left + (i + 0.2) * 0.8 * width / number
            top = bottom - generator.uniform(0.1, 0.65) * height
            color = tuple(int(v) for v in generator.integers(40, 200, 3))
            draw.rectangle((x, top, x + 0.5 * width / number, bottom), fill=color)
    else:
        for _ in range(3):
            ys = bottom - (0.08 + 0.3 * np.abs(np.cumsum(generator.normal(0, 0.25, 9)))).clip(0, 0.65) * height
            points = list(zip(np.linspace(left, 0.95 * width, 9), ys, strict=True))
            draw.line(points, fill=tuple(int(v) for v in generator.integers(20, 180, 3)), width=4)
    draw.line((left, 0.18 * height, left, bottom, 0.96 * width, bottom), fill="black", width=3)
    return image


def diagram(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """Boxes joined by lines."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    places = [(generator.uniform(0.15, 0.8) * width, generator.uniform(0.2, 0.85) * height) for _ in range(6)]
    for one, other in pairwise(places):
        draw.line((*one, *other), fill="black", width=3)
    for x, y in places:
        color = tuple(int(v) for v in generator.integers(90, 255, 3))
        draw.rectangle((x - 0.09 * width, y - 0.07 * height, x + 0.09 * width, y + 0.07 * height), color, "black", 2)
    return image


_KINDS = {"scan": scan, "cells": cells, "blot": blot, "tissue": tissue, "chart": chart, "diagram": diagram}


@dataclass(frozen=True)
class Drawing:
    """A picture of a figure. kinds: of its panels in turn. rows: how many panels each row has. labels: as marked in the
    upper left corner of each panel. names: what the panels are called where nothing marks them.
    """

    seed: int
    kinds: tuple[str, ...] = ("scan",)
    size: tuple[int, int] = (480, 360)
    rows: tuple[int, ...] = (1,)
    labels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def _boxes(self) -> list[tuple[int, int, int, int]]:
        """left, top, right, bottom of the panels in pixels."""
        width, height = self.size
        boxes = []
        for row, number in enumerate(self.rows):
            top = round(row * (height + _GUTTER) / len(self.rows))
            bottom = round((row + 1) * (height + _GUTTER) / len(self.rows)) - _GUTTER
            for column in range(number):
                left = round(column * (width + _GUTTER) / number)
                boxes.append((left, top, round((column + 1) * (width + _GUTTER) / number) - _GUTTER, bottom))
        return boxes

    def places(self) -> dict[str, list[float]]:
        """Label -> left, top, right, bottom of its panel, in shares of the figure."""
        names = self.labels or self.names
        width, height = self.size
        shares = [[box[0] / width, box[1] / height, box[2] / width, box[3] / height] for box in self._boxes()]
        return dict(zip(names, shares, strict=True)) if names else {}

    @cache  # noqa: B019 - a drawing is a value, and there are few
    def image(self) -> Image.Image:
        generator = np.random.default_rng(self.seed)
        image = Image.new("RGB", self.size, "white")
        draw = ImageDraw.Draw(image)
        font = ImageFont.load_default(24)
        for number, (left, top, right, bottom) in enumerate(self._boxes()):
            kind = self.kinds[number % len(self.kinds)]
            image.paste(_KINDS[kind](generator, right - left, bottom - top), (left, top))
            if self.labels:
                color = "white" if kind in ("scan", "cells") else "black"
                draw.text((left + 6, top + 2), self.labels[number], color, font)
        return image
