"""The learning rate: three are tried for a fifth of the updates, and the one with the lowest held-out loss is taken."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.finetune._plan import Sizes
from biomedclip_jax.train.main import train

_SHARE = 5  # the sweep's runs are so many times shorter than the run
_FEWEST = 10  # updates
_EVALUATIONS = 4


@dataclass(frozen=True)
class TriedRate:
    """A learning rate, and the lowest held-out loss that it came to; None where the loss was no number any more."""

    rate: float
    loss: float | None


def swept_steps(sizes: Sizes) -> int:
    """Updates that each rate is tried for."""
    return min(sizes.steps, max(_FEWEST, sizes.steps // _SHARE))


def tried_rate(config: TrainConfig, rate: float, sizes: Sizes, folder: Path) -> tuple[float, TriedRate]:
    """(held-out loss of the start, what the rate came to), of a short run in `folder`, of which only the metrics are kept."""
    steps = swept_steps(sizes)
    every = max(1, steps // _EVALUATIONS)
    stage = dataclasses.replace(config.stages[0], steps=steps)
    optimizer = dataclasses.replace(config.optimizer, learning_rate=rate, warmup_steps=max(1, steps // 10))
    run = dataclasses.replace(config.run, evaluate_every=every, log_every=every, checkpoint_every=steps)
    short = dataclasses.replace(config, stages=(stage,), optimizer=optimizer, run=run, patience=None, export="last")
    try:
        train(short, folder)
    except UserError:
        if not (folder / "not_finite.json").is_file():
            raise
        return _losses(folder)[0], TriedRate(rate, None)
    losses = _losses(folder)
    for heavy in ("checkpoints", "model", "adapter"):
        shutil.rmtree(folder / heavy, ignore_errors=True)
    return losses[0], TriedRate(rate, min(losses[1:]))


def _losses(folder: Path) -> list[float]:
    """The held-out losses of a run, that of its start first."""
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    found = {line["step"]: line["held_out_loss"] for line in lines if "held_out_loss" in line}
    return [loss for _, loss in sorted(found.items())]


def best_rate(start: float, tried: list[TriedRate], say: Callable[[str], object]) -> float:
    """The rate with the lowest loss; below all of them where none came below the loss of the start."""
    finite = [each for each in tried if each.loss is not None]
    if not finite:
        raise UserError("the loss was no number with each of the three rates; give a lower one with --rate")
    best = min(finite, key=lambda each: (each.loss or 0.0, each.rate))
    if best.loss is not None and best.loss >= start:
        lowest = min(each.rate for each in tried)
        say(f"no rate came below the held-out loss of the start ({start:.4f}): going on with a third of the lowest")
        return lowest / 3
    return best.rate
