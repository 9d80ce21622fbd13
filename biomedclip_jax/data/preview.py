"""A contact sheet: some pairs of a source as one PNG, to see that image and caption belong together before training."""

import textwrap
from pathlib import Path

import numpy as np

from biomedclip_jax.data.pairs import ImageOf, Pairs
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_file

_COLUMNS = 4
_CELL = (3.2, 3.4)  # inches
_LINES, _WIDTH = 6, 58  # of a caption: lines, and characters in each
_PIXELS = 512  # longer side of an image on the sheet


def write_preview(pairs: Pairs, path: Path, count: int = 16, seed: int = 0) -> list[int]:
    """Draw `count` pairs at random, and write them to `path` (.png); returns their positions.

    The same seed gives the same file. A pair that cannot be read is shown as the reason for it. UserError for a path
    that does not end in .png or cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"--out {path}: expected a name that ends in .png")
    from matplotlib.figure import Figure

    chosen = np.sort(np.random.default_rng(seed).permutation(len(pairs))[:count]).tolist()
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(_CELL[0] * columns, _CELL[1] * rows), dpi=100, layout="constrained")
    for cell, index in enumerate(chosen, 1):
        axes = figure.add_subplot(rows, columns, cell)
        axes.axis("off")
        axes.set_anchor("NW")  # pictures of any shape begin where their captions do
        try:
            image = ImageOf(pairs, index).load()
            texts = pairs.texts(index)
        except UserError as error:
            axes.text(
                0.5, 0.5, _wrapped(str(error), 12), ha="center", va="center", fontsize=7, color="firebrick", parse_math=False
            )
            axes.set_title(f"{index + 1}: cannot be used", fontsize=7, color="firebrick")
            continue
        image.thumbnail((_PIXELS, _PIXELS))
        axes.imshow(np.asarray(image.convert("RGB")))
        more = len(texts.captions) - 1
        caption = texts.captions[0] + (f" (+ {more} more)" if more else "") + (f" [{texts.label}]" if texts.label else "")
        axes.set_title(_wrapped(f"{index + 1}: {caption}", _LINES), fontsize=7, loc="left", parse_math=False)
    write_file(path, lambda partial: figure.savefig(partial, format="png", metadata={"Software": None}))
    return chosen


def _wrapped(text: str, lines: int) -> str:
    return "\n".join(textwrap.wrap(text, _WIDTH, max_lines=lines, placeholder=" ..."))
