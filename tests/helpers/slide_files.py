"""Slides that tests make: a pink rectangle of tissue on white glass, as an Aperio file or as OME-TIFF."""

from pathlib import Path

import numpy as np
import tifffile


def picture(width: int, height: int, tissue: tuple[int, int, int, int]) -> np.ndarray:
    """uint8 [height, width, 3], white but for the pink rectangle (left, top, right, bottom), whose red tells the column."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    left, top, right, bottom = tissue
    pixels[top:bottom, left:right] = (0, 60, 140)
    pixels[top:bottom, left:right, 0] = np.linspace(150, 250, right - left).astype(np.uint8)
    return pixels


def write_aperio(path: Path, pixels: np.ndarray, mpp: float | None = 0.25) -> Path:
    """A slide that OpenSlide knows, with a level of half and one of a quarter."""
    with tifffile.TiffWriter(path) as file:
        for number, by in enumerate((1, 2, 4)):
            level = np.ascontiguousarray(pixels[::by, ::by])
            says = "" if mpp is None else f"|AppMag = 40|MPP = {mpp}"
            file.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                compression="deflate",
                description=f"Aperio Image Library v1\r\n{level.shape[1]}x{level.shape[0]}{says}",
                subfiletype=int(number > 0),
                metadata=None,
            )
    return path


def write_ome(path: Path, pixels: np.ndarray, mpp: float | None = 0.25) -> Path:
    """A pyramid as OME-TIFF, with a level of half and one of a quarter as its sub-images."""
    sizes = {} if mpp is None else {"PhysicalSizeX": mpp, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": mpp}
    with tifffile.TiffWriter(path, ome=True) as file:
        options = {"tile": (64, 64), "photometric": "rgb", "compression": "deflate"}
        file.write(pixels, subifds=2, metadata={"axes": "YXS", **sizes}, **options)
        for by in (2, 4):
            file.write(np.ascontiguousarray(pixels[::by, ::by]), subfiletype=1, metadata=None, **options)
    return path
