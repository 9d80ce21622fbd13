"""Whole-slide images as tiles: read by OpenSlide where it knows the file, else by tifffile."""

import weakref
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from biomedclip_jax.data.images.views.options import ViewOptions, every_kth
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.support.terminal import say_some

_NEEDS = "reading slides needs OpenSlide: pip install 'biomedclip_jax[slides]'"
_OVERVIEW = 2048  # the longer side of the picture, at most, in which tissue is looked for
_COLOURFUL = 0.05  # glass is gray: HSV saturation from here on is tissue
_DARK = 0.1  # HSV value up to here is a margin or a scanner's black, not tissue
_TISSUE = 0.1  # share of a tile that must be tissue


class _Reader(Protocol):
    """A slide at several sizes: `levels` [(width, height)], the largest first; micrometres a pixel of it, if known."""

    levels: list[tuple[int, int]]
    mpp: float | None

    def region(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image: ...


class Slide:
    """The tiles of a slide that hold tissue, row by row; the last of a row or column ends where the slide does."""

    def __init__(self, path: Path, options: ViewOptions):
        """UserError for a file that is no slide, whose resolution is not known, or where --window is given."""
        if options.window is not None:
            raise UserError(f"{path}: --window is for gray values; leave it out, or this slide")
        self._reader = _open(path)
        if options.mpp is None:
            self._scale = 1.0
        elif self._reader.mpp is None:
            raise UserError(
                f"{path}: does not say how many micrometres a pixel is wide; --mpp none takes its pixels as they are"
            )
        else:
            self._scale = options.mpp / self._reader.mpp  # pixels of the slide in one of a tile
        self._path, self._tile, self._every = path, options.tile, options.every

    def names(self) -> list[str]:
        """One for each tile that is wanted: its left upper corner, in pixels of the slide's largest size."""
        places = self._with_tissue()
        return [f"x={places[i][0]},y={places[i][1]}" for i in every_kth(len(places), self._every)]

    def image(self, name: str) -> Image.Image:
        """A tile, mode "RGB", `tile` pixels wide and high; smaller only where the slide is."""
        x, y = (int(part.partition("=")[2]) for part in name.split(","))
        width, height = self._reader.levels[0]
        side = self._side
        wide, high = min(side, width - x), min(side, height - y)
        # of the sizes that are at least as fine as the tile the coarsest
        shrunk = [width / level for level, _ in self._reader.levels]
        level = max((i for i, each in enumerate(shrunk) if each <= self._scale * 1.01), default=0, key=lambda i: shrunk[i])
        by = shrunk[level]
        try:
            region = self._reader.region(level, x, y, max(1, round(wide / by)), max(1, round(high / by)))
        except Exception as error:
            raise UserError(f"{self._path}: tile {name} is damaged ({first_line(error)}); copy the slide again") from error
        across, down = (self._tile if each == side else max(1, round(each / self._scale)) for each in (wide, high))
        size = across, down
        return region if region.size == size else region.resize(size, Image.Resampling.BICUBIC)

    @property
    def _side(self) -> int:
        """Of a tile, in pixels of the slide's largest size."""
        return max(1, round(self._tile * self._scale))

    def _with_tissue(self) -> list[tuple[int, int]]:
        """Left upper corners of the tiles of which a tenth is tissue; of all tiles where none is, which is said."""
        width, height = self._reader.levels[0]
        side = self._side
        corners = [(x, y) for y in _starts(height, side) for x in _starts(width, side)]
        tissue, by = self._tissue()
        kept = []
        for x, y in corners:
            part = tissue[int(y / by) : max(int((y + side) / by), int(y / by) + 1)]
            part = part[:, int(x / by) : max(int((x + side) / by), int(x / by) + 1)]
            if part.size and part.mean() >= _TISSUE:
                kept.append((x, y))
        if not kept:
            say_some(f"{self._path}: no tissue found by its colour (fluorescence?): all {len(corners):,} tiles are taken")
            return corners
        say_some(f"{self._path}: {len(kept):,} of {len(corners):,} tiles have tissue, the others are left out")
        return kept

    def _tissue(self) -> tuple[np.ndarray, float]:
        """bool [h,w] of an overview of the slide, and how many of its pixels one of the overview is wide."""
        widths = [max(size) for size in self._reader.levels]
        level = next((i for i, longest in enumerate(widths) if longest <= _OVERVIEW), len(widths) - 1)
        if widths[level] > 8 * _OVERVIEW:
            raise UserError(
                f"{self._path}: a slide of {widths[level]:,} pixels without smaller copies of itself: save it with a pyramid"
            )
        width, height = self._reader.levels[level]
        try:
            overview = self._reader.region(level, 0, 0, width, height)
        except Exception as error:
            raise UserError(f"{self._path}: its overview is damaged ({first_line(error)}); copy the slide again") from error
        overview.thumbnail((_OVERVIEW, _OVERVIEW), Image.Resampling.BOX)
        pixels = np.asarray(overview, np.float32) / 255
        brightest, darkest = pixels.max(axis=2), pixels.min(axis=2)
        saturation = (brightest - darkest) / np.maximum(brightest, 1e-6)
        return (saturation >= _COLOURFUL) & (brightest > _DARK), self._reader.levels[0][0] / overview.width


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    return [min(start, length - side) for start in range(0, length, side)]


def _open(path: Path) -> _Reader:
    try:
        import openslide
    except ImportError:
        openslide = None
    if openslide is not None and openslide.OpenSlide.detect_format(path) not in (None, "generic-tiff"):
        try:
            return _OpenSlideReader(openslide.OpenSlide(path), openslide)
        except openslide.OpenSlideError as error:
            raise UserError(f"{path}: not readable as a slide ({first_line(error)}); copy it again") from error
    try:
        return _TiffReader(path)
    except ImportError:
        raise UserError(f"{path}: {_NEEDS}") from None
    except UserError:
        raise
    except Exception as error:
        hint = "; " + _NEEDS if openslide is None else ""
        raise UserError(f"{path}: not readable as a slide ({first_line(error)}){hint}") from error


class _OpenSlideReader:
    def __init__(self, slide: Any, openslide: Any):
        self._slide = slide
        self.levels = [(int(width), int(height)) for width, height in slide.level_dimensions]
        found = slide.properties.get(openslide.PROPERTY_NAME_MPP_X)
        self.mpp = None if found is None else _known(float(found))
        self._ground = "#" + (slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR) or "ffffff")

    def region(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        found = self._slide.read_region((x, y), level, (width, height))
        ground = Image.new("RGB", found.size, self._ground)  # where nothing was scanned
        ground.paste(found, mask=found.getchannel("A"))
        return ground


class _TiffReader:
    """A TIFF with a pyramid, OME-TIFF among them, of RGB in 8 bits."""

    def __init__(self, path: Path):
        import tifffile
        import zarr

        content = path.open("rb")
        weakref.finalize(self, content.close)
        file = tifffile.TiffFile(content)
        series = file.series[0]
        axes = series.axes
        if set(axes) != {"Y", "X", "S"} or series.dtype != np.uint8 or series.shape[axes.index("S")] < 3:
            raise UserError(f"{path}: a slide of axes {axes}, {series.dtype}: expected RGB of 8 bits (axes YXS): export it so")
        store: Any = zarr.open(series.aszarr(), mode="r")
        arrays = [store[str(number)] for number in range(len(series.levels))] if len(series.levels) > 1 else [store]
        self._order = [axes.index(axis) for axis in "YXS"]
        self._arrays = arrays
        y, x = self._order[:2]
        self.levels = [(int(array.shape[x]), int(array.shape[y])) for array in arrays]
        self.mpp = _mpp(file)

    def region(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        by = self.levels[0][0] / self.levels[level][0]
        left, top = round(x / by), round(y / by)
        across, down = slice(left, left + width), slice(top, top + height)
        where = [slice(0, 3)] * 3
        where[self._order[0]], where[self._order[1]] = down, across
        found = np.asarray(self._arrays[level][tuple(where)]).transpose(self._order)
        return Image.fromarray(np.ascontiguousarray(found))


def _mpp(file: Any) -> float | None:
    """Micrometres a pixel by OME's metadata, else by TIFF's resolution in centimetres or inches; None where neither says."""
    if file.is_ome and file.ome_metadata:
        from xml.etree import ElementTree

        for element in ElementTree.fromstring(file.ome_metadata).iter():
            if element.tag.endswith("}Pixels") and "PhysicalSizeX" in element.attrib:
                unit = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3}.get(element.attrib.get("PhysicalSizeXUnit", "µm"))
                return _known(float(element.attrib["PhysicalSizeX"]) * unit) if unit else None
    tags = file.pages.first.tags
    unit = {2: 25_400.0, 3: 10_000.0}.get(int(tags.valueof("ResolutionUnit", default=0) or 0))
    pixels, per = tags.valueof("XResolution", default=(0, 1)) or (0, 1)
    found = unit * per / pixels if unit and pixels and per else None
    return found if found is not None and found < 20 else None  # 72 or 300 dots an inch is a default, not a microscope's


def _known(mpp: float) -> float | None:
    """None for the 0 and NaN that writers note where they do not know."""
    return mpp if np.isfinite(mpp) and mpp > 0 else None
