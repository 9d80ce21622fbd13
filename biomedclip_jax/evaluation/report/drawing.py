"""Pictures of results: what all of them need, the loss of a run, and learning curves over the number of labels.

All need a figure without a display, words that fit, photographs that are small enough, and a file name.
"""

import hashlib
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
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
    """Write a figure as a PNG file, whole or not at all."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # captions in scripts that the font lacks: a box
        write_file(path, lambda partial: figure.savefig(partial, dpi=110, format="png"))


def words(text: str, width: int, lines: int) -> str:
    """A text in lines of at most `width` letters, cut with "..." after `lines` lines; to be drawn with parse_math=False."""
    printable = "".join(c if c.isprintable() else " " for c in text.encode("utf-8", "replace").decode())
    return "\n".join(textwrap.wrap(printable, width, max_lines=lines, placeholder=" ..."))


def small(image: Image.Image) -> np.ndarray:
    """An image of at most 320 pixels a side, uint8 [H, W, 3]; the caller's image stays as it is."""
    image = image.copy()
    image.info.pop("transparency", None)  # Pillow warns of it on conversion
    image = image.convert("RGB")
    image.thumbnail((_SIDE, _SIDE), reducing_gap=3.0)
    return np.asarray(image)


def picture_file(*parts: str) -> str:
    """The name of a PNG file, made of the parts as `file_stem` does."""
    return f"{file_stem(*parts)}.png"


def file_stem(*parts: str) -> str:
    """A file name without its suffix that any file system takes; different parts give different names."""
    readable = [re.sub(r"[^A-Za-z0-9._-]+", "_", part).strip("._-")[:60] for part in parts]
    name = ".".join(filter(None, readable))
    if readable != list(parts):
        name += "." + hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:8]
    return name


def loss_curve(path: Path, metrics: Sequence[dict[str, Any]]) -> None:
    """Draw the loss over the steps, a curve for each stage, from the lines of `metrics.jsonl`."""
    figure = new_figure(8, 4.5, layout="constrained")
    axis = figure.subplots()
    for stage in sorted({line["stage"] for line in metrics}):
        lines = [line for line in metrics if line["stage"] == stage and "loss" in line]
        axis.plot([line["step"] for line in lines], [line["loss"] for line in lines], label=f"stage {stage}")
    held_out = [(line["step"], line["held_out_loss"]) for line in metrics if "held_out_loss" in line]
    if held_out:
        axis.plot(*zip(*held_out, strict=True), "k.--", label="held out (all pairs against all)")
    axis.set_xlabel("step")
    axis.set_ylabel("contrastive loss (nats)")
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)


_STYLES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)), (0, (5, 1)), (0, (1, 1)))
_BESIDE = 1.015  # curves are a little beside each other, or their error bars would cover one another
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Curve:
    """What a model reaches with a method, by the number of labels.

    points: (labels, mean, standard deviation over the seeds), by labels. zero_shot: of the model without labels.
    """

    model: str
    method: str
    points: tuple[tuple[int, float, float], ...]
    zero_shot: float


def draw_learning_curves(path: Path, dataset: str, metric: str, curves: Sequence[Curve], constant: float | None = None) -> None:
    """Draw a metric over the number of labels: a colour for each model, a line style for each method, zero-shot dotted.

    constant: what always answering the most frequent class reaches: in the legend, and a grey line where it is in sight.
    """
    figure = new_figure(8, 5, layout="constrained")
    axis = figure.subplots()
    models, methods = (list(dict.fromkeys(getattr(curve, name) for curve in curves)) for name in ("model", "method"))
    for model in models:
        color = f"C{models.index(model) % 10}"
        own = [curve for curve in curves if curve.model == model]
        axis.axhline(own[0].zero_shot, color=color, linestyle=(0, (1, 2)), linewidth=2, label=f"zero-shot, {model}")
        for curve in own:
            style = methods.index(curve.method) % len(_STYLES)
            labels, mean, spread = zip(*curve.points, strict=True)
            beside = _BESIDE ** (curves.index(curve) - (len(curves) - 1) / 2)
            axis.errorbar(
                [each * beside for each in labels],
                mean,
                yerr=spread,
                color=color,
                linestyle=_STYLES[style],
                marker=_MARKERS[style],
                markersize=5,
                capsize=3,
                label=f"{curve.method}, {model}",
            )
    if constant is not None:
        sight = axis.get_ylim()  # with many classes, a line far below would press all curves together
        axis.axhline(constant, color="0.6", linewidth=1, label=f"always the most frequent class: {constant:.3f}")
        axis.set_ylim(sight)
    counts = sorted({point[0] for curve in curves for point in curve.points})
    axis.set_xscale("log")
    axis.set_xlim(counts[0] / 1.3, counts[-1] * 1.3)
    axis.set_xticks(counts, [f"{count:,}" for count in counts], rotation=45 if len(counts) > 6 else 0)
    axis.set_xticks([], minor=True)
    axis.set_xlabel("labelled images (mean and standard deviation over seeds)")
    axis.set_ylabel(metric.replace("_", " "))
    axis.set_title(dataset, parse_math=False)
    axis.grid(alpha=0.3)
    for text in axis.legend(fontsize=8).get_texts():
        text.set_parse_math(False)
    save(figure, path)
