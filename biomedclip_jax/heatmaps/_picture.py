"""The picture of a `Heatmap`: its maps over the image, the asked phrases first, all of a row in one scale of colours."""

import io
import textwrap
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from biomedclip_jax.heatmaps.maps import Heatmap

_INCHES = 2.6  # the long side of a map
_LETTERS = 34  # of a title, in a line


def draw(found: "Heatmap", side: int) -> Image.Image:
    """The picture of all maps in rows of one method each, RGB. side: pixels of the long side of one map."""
    from matplotlib.figure import Figure

    from biomedclip_jax.heatmaps.maps import METHODS

    image = found.image.copy()
    image.thumbnail((side, side), reducing_gap=3.0)
    box = found.box.scaled(image.width / found.image.width, image.height / found.image.height)
    columns, rows = 1 + len(found.texts), len(found.maps)
    notes = "\n".join(textwrap.fill(f"Warning: {line}", 24 * columns) for line in found.warnings)
    below = 0.35 + 0.2 * (notes.count("\n") + 1 if notes else 0)
    wide, high = (max(_INCHES * own / max(image.size), least) for own, least in zip(image.size, (1.9, 0.5), strict=True))
    width, height = columns * (wide + 0.1) + 0.9, rows * (high + 0.65) + below
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.1 / wide, "hspace": 0.65 / high})
    figure.subplots_adjust(left=0.05 / width, right=1 - 0.85 / width, top=1 - 0.6 / height, bottom=below / height)
    for row, (method, maps) in zip(axes, found.maps.items(), strict=True):
        _plain(row[0], image, METHODS[method])
        least, most = float(maps.min()), float(maps.max())
        shown: Any = None
        for i, (axis, text) in enumerate(zip(row[1:], found.texts, strict=True)):
            _plain(axis, image, _title(found, method, i, text))
            shown = _overlay(axis, image, (maps[i], box), (least, most if most > least else least + 1))
        place = row[-1].get_position()
        scale = figure.add_axes((1 - 0.75 / width, place.y0, 0.12 / width, place.height))
        figure.colorbar(shown, cax=scale).ax.tick_params(labelsize=7)
    if notes:
        figure.text(0.1 / width, 0.08 / height, notes, fontsize=9, color="#b00020", va="bottom", parse_math=False)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # texts in scripts that the font lacks: a box
        figure.savefig(buffer, dpi=side / _INCHES, format="png")
    return Image.open(buffer).convert("RGB")


def _title(found: "Heatmap", method: str, i: int, text: str) -> str:
    if i < len(found.phrases):
        kind, note = "", f"word dependence {found.word_dependence[method][i]:.2f}"
    else:
        kind = "other finding: " if i < len(found.phrases) + len(found.findings) else "nonsense: "
        note = "for comparison"
    lines = textwrap.wrap(kind + text, _LETTERS, max_lines=2, placeholder=" ...")
    return "\n".join([*lines, f"cosine {found.cosines[i]:.3f}, {note}"])


def _plain(axis: Any, image: Image.Image, title: str) -> None:
    axis.imshow(np.asarray(image))
    axis.set_title(title, fontsize=8, parse_math=False)
    axis.set_axis_off()


def _overlay(axis: Any, image: Image.Image, placed: tuple[np.ndarray, Any], limits: tuple[float, float]) -> Any:
    """The map over the image; what the model does not see is left gray and dim."""
    from biomedclip_jax.data.images.placement import laid_over

    over = laid_over(*placed, image.size)
    axis.imshow(np.where(np.isnan(over)[..., None], (0.5, 0.5, 0.5, 0.6), (0.0, 0.0, 0.0, 0.0)))
    return axis.imshow(over, cmap="turbo", alpha=0.5, vmin=limits[0], vmax=limits[1])
