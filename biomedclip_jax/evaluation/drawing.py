"""What every picture of results needs: a figure without a display, words that fit, photographs small enough, a file name."""

import hashlib
import re
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from biomedclip_jax.files import write_file

_SIDE = 320  # pixels of a photograph in a picture


def new_figure(width: float, height: float, **options: Any) -> Any:
    """A matplotlib figure of that many inches. The object interface needs no display and leaves pyplot's global state alone."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), **options)


def save(figure: Any, path: Path) -> None:
    """As PNG, whole or not at all."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # captions in scripts that the font lacks: a box
        write_file(path, lambda partial: figure.savefig(partial, dpi=110, format="png"))


def words(text: str, width: int, lines: int) -> str:
    """In lines of at most `width` letters; "..." where there would be more than `lines` of them. Draw with parse_math=False."""
    printable = "".join(c if c.isprintable() else " " for c in text.encode("utf-8", "replace").decode())
    return "\n".join(textwrap.wrap(printable, width, max_lines=lines, placeholder=" ..."))


def small(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3]; the caller's image stays as it is."""
    image = image.copy()
    image.info.pop("transparency", None)  # Pillow warns of it on conversion
    image = image.convert("RGB")
    image.thumbnail((_SIDE, _SIDE), reducing_gap=3.0)
    return np.asarray(image)


def picture_file(*parts: str) -> str:
    """The name of a PNG file: `file_stem`."""
    return f"{file_stem(*parts)}.png"


def file_stem(*parts: str) -> str:
    """A file name, without its end, that any file system takes; another one for other parts."""
    readable = [re.sub(r"[^A-Za-z0-9._-]+", "_", part).strip("._-")[:60] for part in parts]
    name = ".".join(filter(None, readable))
    if readable != list(parts):
        name += "." + hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:8]
    return name
