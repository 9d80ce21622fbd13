"""What is measured: a config with one stage on batches that are made here, the same for each side."""

import dataclasses
import importlib.util
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from biomedclip_jax.config import DataConfig, Stage, TrainConfig, from_json, to_json
from biomedclip_jax.errors import UserError

What = Literal["step", "forward", "loss"]
Lengths = Literal["full", "real"]

_IMAGES = 64  # different ones; a batch repeats them, or 65,536 images would take minutes to make
_MEDIAN, _MEAN = 123, 159  # tokens of 891 real PMC captions in BiomedBERT's vocabulary


@dataclass(frozen=True)
class Task:
    """What is measured, in which config. The config has one stage and fresh weights (`task_config`).

    repeats: timed calls a turn. lengths: captions as long as can be, or as in PMC. files: of `loader.make_files`.
    profile: calls of each kind that are traced before any is timed, on our side.
    """

    config: TrainConfig
    what: tuple[What, ...] = ("step", "forward")
    repeats: int = 5
    lengths: Lengths = "full"
    compiled: bool = True  # theirs by torch.compile
    files: str | None = None
    profile: int | None = None

    @property
    def stage(self) -> Stage:
        """The only stage of the config."""
        return self.config.stages[0]

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.config.image_size(self.stage)

    @property
    def forward_rows(self) -> int:
        """Pairs in a forward pass: as many as the step encodes at once."""
        return self.stage.microbatch or self.stage.batch_size

    def pairs(self, what: What) -> int:
        """Pairs that one timed call works through."""
        return self.forward_rows if what == "forward" else self.stage.batch_size

    def to_json(self) -> str:
        """The task in one line of JSON, as it travels to the process of a side."""
        return json.dumps({field.name: getattr(self, field.name) for field in dataclasses.fields(self)}, default=to_json)

    @staticmethod
    def from_json(text: str) -> "Task":
        """The task that `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        return Task(**values | {"config": from_json(values["config"]), "what": tuple(values["what"])})


def exact_biomedclip(batch_size: int) -> TrainConfig:
    """ViT-B/16 at 224 px and BERT with 256 tokens, in float32, without accumulation or patch drop."""
    return TrainConfig(name="biomedclip", data=DataConfig(train=""), stages=(Stage(batch_size, steps=1),))


def task_config(config: TrainConfig, number: int) -> TrainConfig:
    """The config with stage `number` alone and no pretrained weights: their values do not change the speed."""
    if number >= len(config.stages):
        raise UserError(f"--stage {number}: expected 0 to {len(config.stages) - 1}, the stages of {config.name}")
    if config.stages[number].prompted:
        raise UserError(f"--stage {number}: learns of labels; expected a stage of images and captions, which are measured")
    return dataclasses.replace(config, stages=(config.stages[number],), image_init=None, text_init=None, model_init=None)


def check_possible(json_file: Path | None, packages: Sequence[str]) -> None:
    """UserError, before anything is measured, for a file in no folder, and for packages of the other side that are missing."""
    if json_file is not None and not json_file.parent.is_dir():
        raise UserError(f"--json {json_file}: no such folder {json_file.parent}")
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise UserError(f"--against open_clip: {' and '.join(missing)} not installed: pip install 'biomedclip_jax[parity]'")


def caption_lengths(lengths: Lengths, longest: int, count: int, seed: int = 0) -> np.ndarray:
    """Tokens of `count` captions, int [count]: all as long as can be, or log-normal as the real ones are."""
    if lengths == "full":
        return np.full(count, longest)
    sigma = math.sqrt(2 * math.log(_MEAN / _MEDIAN))
    drawn = np.random.default_rng(seed).lognormal(math.log(_MEDIAN), sigma, count)
    return np.clip(drawn.round().astype(int), 3, longest)


def make_batch(task: Task, rows: int) -> dict[str, np.ndarray]:
    """images uint8 [rows, S, S, 3], tokens int32 [rows, N], index uint32 [rows], as the loader would give them."""
    rng = np.random.default_rng(0)
    text = task.config.model.text
    different = min(rows, _IMAGES)
    images = rng.integers(0, 256, (different, task.image_size, task.image_size, 3), np.uint8)
    tokens = rng.integers(1, text.vocab_size, (rows, text.context_length), np.int32)
    tokens[tokens == text.pad_id] = 1 if text.pad_id != 1 else 2
    lengths = caption_lengths(task.lengths, text.context_length, rows)
    tokens[np.arange(text.context_length) >= lengths[:, None]] = text.pad_id
    return {
        "images": np.resize(images, (rows, *images.shape[1:])),
        "tokens": tokens,
        "index": np.arange(rows, dtype=np.uint32),
    }
