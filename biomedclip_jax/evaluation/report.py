"""Pictures of results: retrieval galleries and loss curves, as PNG."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from biomedclip_jax.files import write_file


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    # the object interface needs no display and leaves pyplot's global state alone
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Any, path: Path) -> None:
    write_file(path, lambda partial: figure.savefig(partial, dpi=110, format="png"))


def retrieval_gallery(
    path: Path, captions: Sequence[str], image: Callable[[int], Image.Image], scores: np.ndarray, right: Sequence[set[int]]
) -> None:
    """For each caption its four best images; a right one is framed in yellow (the paper's case study).

    image: gives the picture at a position. scores: [captions, images] cosine similarities. right[i]: positions of the images
    that belong to caption i.
    """
    figure, axes = _figure(len(captions), 5, 11, 2.1 * len(captions))
    for i, caption in enumerate(captions):
        axes[i][0].axis("off")
        axes[i][0].text(0, 0.5, "\n".join(textwrap.wrap(caption, 26)), va="center", fontsize=9, parse_math=False)
        for axis, j in zip(axes[i][1:], np.argsort(-scores[i], kind="stable")[:4], strict=False):
            axis.imshow(np.asarray(image(int(j)).convert("RGB")))
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f"{scores[i, j]:.2f}", fontsize=8)
            for spine in axis.spines.values():
                spine.set_visible(int(j) in right[i])
                spine.set_color("gold")
                spine.set_linewidth(6)
    figure.suptitle(
        "Held-out captions and the four images found first for each; the right one, if it is there, framed in yellow"
    )
    _save(figure, path)


def loss_curve(path: Path, metrics: Sequence[dict[str, Any]]) -> None:
    """Loss over steps, with the stages told apart, from the lines of `metrics.jsonl`."""
    figure, axes = _figure(1, 1, 8, 4.5)
    axis = axes[0][0]
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
    _save(figure, path)
