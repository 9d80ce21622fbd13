"""The picture of a run: its loss over the steps, as PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.evaluation.drawing import new_figure, save


def loss_curve(path: Path, metrics: Sequence[dict[str, Any]]) -> None:
    """Loss over steps, with the stages told apart, from the lines of `metrics.jsonl`."""
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
