"""A run of the tiny model that takes seconds: its data, its config, and what it leaves."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from biomedclip_jax.config import DataConfig, OptimizerConfig, PreprocessConfig, RunConfig, Stage, TrainConfig
from biomedclip_jax.sharding import make_mesh
from biomedclip_jax.train._checkpoint import Checkpoints, restored_state
from biomedclip_jax.train.state import TrainState, optimizer_for
from helpers import tiny
from helpers.reference import write_vocabulary

STEPS = (3, 2, 3)
TOTAL = sum(STEPS)
BATCHES = [16] * 3 + [32] * 2 + [16] * 3
BROKEN, ABSENT = "broken.png", "absent.png"


def make_data(folder: Path) -> Path:
    """24 pairs of which three are bad, 8 held-out pairs of two classes, and a tokenizer."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(32):
        label = ("chest", "brain")[i % 2]
        colour = rng.integers(0, 256, 3) if i % 2 else rng.integers(0, 128, 3)
        pixels = np.clip(colour + rng.integers(-40, 40, (20, 18, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        rows.append({"image": f"{i}.png", "caption": f"{label} image {i}", "label": label})
    (folder / BROKEN).write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    rows[3]["image"], rows[5]["image"], rows[7]["caption"] = BROKEN, ABSENT, ""
    for name, part in (("train.csv", rows[:24]), ("held_out.csv", rows[24:])):
        with (folder / name).open("w", newline="") as file:
            table = csv.DictWriter(file, ["image", "caption", "label"])
            table.writeheader()
            table.writerows(part)
    write_vocabulary(folder, 120)
    return folder


def config(data: Path, **changes: Any) -> TrainConfig:
    """Patch drop; then twice the batch by accumulation; then all patches of a larger image, at a lower rate.

    changes: fields of TrainConfig or of its RunConfig.
    """
    kept = changes.keys() & {field.name for field in dataclasses.fields(RunConfig)}
    values = {
        "name": "tiny",
        "data": DataConfig(
            train=str(data / "train.csv"), held_out=str(data / "held_out.csv"), tokenizer=str(data), label_column="label"
        ),
        "stages": (
            Stage(16, steps=STEPS[0], patch_keep=0.5),
            Stage(32, steps=STEPS[1], patch_keep=0.5, microbatch=16),
            Stage(16, steps=STEPS[2], image_size=24, learning_rate_scale=0.5),
        ),
        "model": dataclasses.replace(tiny.MODEL, text=dataclasses.replace(tiny.MODEL.text, vocab_size=120)),
        "preprocess": PreprocessConfig(image_size=16),
        "optimizer": OptimizerConfig(learning_rate=1e-3, warmup_steps=2, clip_norm=1.0),
        "run": RunConfig(**({"log_every": 1, "checkpoint_every": 2} | {n: changes.pop(n) for n in sorted(kept)})),
    }
    return TrainConfig(**(values | changes))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def final_state(run: TrainConfig, workdir: Path) -> tuple[int, TrainState]:
    """The newest checkpoint: updates done, and parameters, moments and counters."""
    checkpoints = Checkpoints(workdir)
    step = checkpoints.latest
    assert step is not None
    state, _ = restored_state(checkpoints, step, run, optimizer_for(run), make_mesh())
    checkpoints.close()
    return step, state
