"""Loss and gradient of the tiny model in each way of splitting the work up, compiled once a way and kept for all tests."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

from biomedclip_jax.config import (
    UNADAPTED,
    Adaptation,
    AttentionForm,
    CLIPConfig,
    ComputeConfig,
    DataConfig,
    Gather,
    GPTConfig,
    Loss,
    MultiLabel,
    OptimizerConfig,
    PreprocessConfig,
    Remat,
    ShardingConfig,
    Softmax,
    Stage,
    TrainConfig,
)
from biomedclip_jax.models import init_params
from biomedclip_jax.prompts.layout import Layout
from biomedclip_jax.sharding import make_mesh, put_batch
from biomedclip_jax.train._frozen import stored
from biomedclip_jax.train._gradient import loss_and_gradient
from biomedclip_jax.train.state import optimizer_for
from biomedclip_jax.train.text_buckets import Buckets
from helpers import tiny

CLASSES = 5
ROWS = 64  # the fewest that 8 devices x 8 microbatches can share
QUICKLY = {"xla_backend_optimization_level": 0}  # LLVM's, not XLA's: half the compile time and the same program
Result = tuple[float, dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Way:
    """How one update is computed; the defaults are eight devices with a whole copy each, all of the batch at once."""

    devices: int = 8
    microbatches: int = 1
    fsdp: int = 1
    gather: Gather = "layer"
    remat: Remat = "none"
    buckets: Buckets = ()
    loss: Loss = Softmax()
    trainable: tuple[str, ...] = ("*",)
    model: CLIPConfig = tiny.MODEL
    adaptation: Adaptation = UNADAPTED
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"
    attention: AttentionForm = "auto"

    @property
    def plain(self) -> "Way":
        """The same loss on one device, with nothing split, sorted or frozen."""
        return Way(devices=1, loss=self.loss, model=self.model, adaptation=self.adaptation)

    def stage(self) -> Stage:
        microbatch = ROWS // self.microbatches
        return Stage(
            ROWS,
            steps=1,
            microbatch=microbatch,
            patch_keep=1.0 if self.model.answering is not None else 0.5,
            loss=self.loss,
            trainable=self.trainable,
        )

    def config(self, **optimizer: Any) -> TrainConfig:
        return TrainConfig(
            name="test",
            data=DataConfig(train="train.csv", label_column="label"),
            stages=(self.stage(),),
            model=self.model,
            adaptation=self.adaptation,
            preprocess=PreprocessConfig(image_size=self.model.image.image_size),
            optimizer=OptimizerConfig(**optimizer),
            compute=ComputeConfig(remat=self.remat, frozen_dtype=self.frozen_dtype, attention=self.attention),
            sharding=ShardingConfig(self.fsdp, self.gather),
        )

    def mesh(self) -> jax.sharding.Mesh:
        return make_mesh(jax.devices()[: self.devices], self.fsdp)


@functools.cache
def parameters(model: CLIPConfig = tiny.MODEL, adaptation: Adaptation = UNADAPTED) -> dict[str, Any]:
    """Random everywhere: biases and norms start at 0 and 1, where a mistake with them would not show."""
    rng = np.random.default_rng(0)
    fresh = init_params(model, 0, adaptation)
    return jax.tree.map(lambda x: np.asarray(x + 0.05 * rng.normal(size=x.shape), np.float32), fresh)


@functools.cache
def program(way: Way) -> Any:
    """(params, batch) -> (loss, {path: gradient}), compiled."""
    prompts = prompts_of(way.model, way.adaptation.context) if way.stage().prompted else None
    return compiled(loss_and_gradient(way.config(), way.stage(), way.mesh(), way.buckets, prompts), way)


def compiled(run: Callable[..., Any], way: Way) -> Any:
    """`run` of parameters and batch, for the devices of this way."""
    lowered = jax.jit(run).lower(kept(way, parameters(way.model, way.adaptation)), put_batch(batch_of(way), way.mesh()))
    return lowered.compile(QUICKLY)


def batch_of(way: Way) -> dict[str, np.ndarray]:
    """With labels where the way learns of them: one an image, or none to four."""
    batch = tiny.batch(ROWS)
    if way.stage().prompted:
        drawn = np.random.default_rng(2).random((ROWS, CLASSES))
        several = way.loss == MultiLabel()
        batch["labels"] = drawn > 0.6 if several else drawn == drawn.max(axis=1, keepdims=True)
    if (answering := way.model.answering) is not None:
        batch["labels"] = np.eye(len(answering.answers), dtype=bool)[np.arange(ROWS) % len(answering.answers)]
    return batch


def prompts_of(model: CLIPConfig, n: int) -> Layout:
    """n vectors of learned context and then names of one to four tokens: inside a start and an end, or before a causal text."""
    causal = isinstance(model.text, GPTConfig)
    names = np.random.default_rng(3).integers(5, 50, (CLASSES, 4))
    names[np.arange(4) >= np.array([[1], [2], [3], [4], [4]])] = model.text.pad_id
    before, slots = [np.full((CLASSES, n), 4)], [np.tile(np.arange(n), (CLASSES, 1))]
    if not causal:
        before, slots = [np.full((CLASSES, 1), 2), *before], [np.full((CLASSES, 1), -1), *slots]
    after = np.full((CLASSES, 5 if causal else 4), -1)  # a causal text ends in padding
    names = np.pad(names, ((0, 0), (0, after.shape[1] - 4)), constant_values=model.text.pad_id)
    tokens = np.concatenate([*before, names], axis=1)
    return Layout(tokens.astype(np.int32), np.concatenate([*slots, after], axis=1).astype(np.int32))


def kept(way: Way, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters as a state has them."""
    return params if way.frozen_dtype == "float32" else stored(params, way.config(), optimizer_for(way.config()))


def result(way: Way, batch: dict[str, np.ndarray] | None = None, params: dict[str, Any] | None = None) -> Result:
    """Loss and gradients of a batch of `ROWS` pairs; of the same one and the same parameters where these are not given."""
    run = program(way)
    placed = jax.device_put(kept(way, params or parameters(way.model, way.adaptation)), run.input_shardings[0][0])
    loss, gradients = run(placed, put_batch(batch or batch_of(way), way.mesh()))
    return float(loss), {path: np.asarray(leaf) for path, leaf in gradients.items()}


def assert_same(ours: Result, expected: Result) -> None:
    """To 1e-5, relative to the largest number of each array; `ours` may have the gradients of some parameters only."""
    assert abs(ours[0] - expected[0]) <= 1e-5 * expected[0]
    for path, leaf in ours[1].items():
        wanted = expected[1][path]
        assert np.abs(wanted).max() > 1e-3, f"{path}: no array's true gradient is zero, or rounding would be compared"
        assert np.abs(leaf - wanted).max() <= 1e-5 * np.abs(wanted).max(), path


# --- the text of a program ------------------------------------------------------------------------------------------

_CALLED = "body|condition|calls|to_apply|true_computation|false_computation|branch_computations"
_COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def collectives_in_loops(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """(kind, numbers in each of its results) of the collectives of an HLO text in computations that a loop reaches."""
    computations: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        header = re.match(r"(?:ENTRY )?%?([\w.\-]+).*\{$", line)
        if header:
            lines = computations.setdefault(header[1], [])
        else:
            lines.append(line)

    def named(name: str, roles: str) -> list[str]:
        found = re.findall(rf"\b(?:{roles})=(\{{[^}}]*\}}|%?[\w.\-]+)", "\n".join(computations[name]))
        return [other for group in found for other in re.findall(r"[\w.\-]+", group)]

    inside: set[str] = set()
    waiting = [loop for name in computations for loop in named(name, "body|condition")]
    assert waiting, "no loop at all in this text: the scans were unrolled, or HLO is now written in another way"
    while waiting:
        name = waiting.pop()
        if name not in inside:
            inside.add(name)
            waiting += named(name, _CALLED)
    found = [match for name in inside for line in computations[name] if (match := _COLLECTIVE.search(line))]
    return [(match[2], tuple(map(_numbers, re.findall(r"\w+\[([\d,]*)\]", match[1])))) for match in found]


def _numbers(shape: str) -> int:
    return int(np.prod([int(size) for size in shape.split(",") if size], dtype=int))
