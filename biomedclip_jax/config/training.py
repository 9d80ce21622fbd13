"""How a model is trained: computing, sharding, stages, optimizer."""

from dataclasses import dataclass
from typing import Literal

from biomedclip_jax.config.checks import check, check_choices, check_patterns, check_positive
from biomedclip_jax.config.losses import Loss, Softmax

Remat = Literal["none", "dots", "full"]
Gather = Literal["layer", "step"]
Schedule = Literal["cosine", "constant"]
Rule = Literal["adamw", "sgd"]


@dataclass(frozen=True)
class ComputeConfig:
    """How the towers compute; changes speed, memory and rounding, never the parameters, but for rounding those frozen."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Remat = "none"  # what the backward pass recomputes in each block: nothing, all but matmuls, everything
    unroll: int = 1  # blocks a loop turn: compile time against speed
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"  # of kernels and word embeddings that no stage trains
    text_buckets: int = 4  # in training, captions are sorted into this many lengths instead of padded to the longest; 1: off

    def __post_init__(self) -> None:
        check_choices(self, dtype=Literal["float32", "bfloat16"], frozen_dtype=Literal["float32", "bfloat16"], remat=Remat)
        check_positive(self, "unroll", "text_buckets")


@dataclass(frozen=True)
class ShardingConfig:
    """How parameters and Adam's moments lie on the devices; changes memory and speed, never the result.

    The batch is always split over all devices. `fsdp` neighbours share one copy of parameters and moments; 1 keeps a whole
    copy on each device, the fastest as long as it fits.
    """

    fsdp: int = 1
    gather: Gather = "layer"  # weights are gathered for one block at a time, again in the backward pass; or once a step

    def __post_init__(self) -> None:
        check_positive(self, "fsdp")
        check_choices(self, gather=Gather)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up, then cosine decay over all stages or a constant rate. Or SGD, with the same rates.

    Defaults: BiomedCLIP, supplementary table 9. SGD is PyTorch's, without dampening: weight decay is part of the gradient.
    """

    learning_rate: float = 5e-4
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    weight_decay: float = 0.2
    warmup_steps: int = 2_000
    final_learning_rate: float = 0.0  # at the end of the cosine
    rule: Rule = "adamw"
    momentum: float = 0.9  # of SGD
    clip_norm: float | None = None
    schedule: Schedule = "cosine"
    groups: tuple[tuple[str, float], ...] = ()  # (parameter path, factor of the learning rate); the first that fits counts
    ema: float | None = None  # decay of a moving average of the weights, which is then what is evaluated and exported

    def __post_init__(self) -> None:
        check_choices(self, schedule=Schedule, rule=Rule)
        pairs = all(isinstance(group, tuple) and len(group) == 2 for group in self.groups)
        check(pairs, self, "groups", 'pairs of a parameter path and a factor, such as (("image", 0.1),)')
        check_patterns(self, "groups", tuple(pattern for pattern, _ in self.groups))
        numbers = all(isinstance(factor, int | float) and factor >= 0 for _, factor in self.groups)
        check(numbers, self, "groups", "factors of 0 or more")
        check(self.ema is None or 0 < self.ema < 1, self, "ema", "None, or above 0 and below 1")
        check(self.learning_rate > 0, self, "learning_rate", "a number above 0")
        fits = 0 <= self.final_learning_rate <= self.learning_rate
        check(fits, self, "final_learning_rate", f"at least 0 and at most learning_rate = {self.learning_rate}")
        for field in ("beta1", "beta2", "momentum"):
            check(0 <= getattr(self, field) < 1, self, field, "at least 0 and below 1")
        check(self.eps > 0, self, "eps", "a number above 0")
        check(self.weight_decay >= 0, self, "weight_decay", "0 or more")
        check(self.warmup_steps >= 0, self, "warmup_steps", "0 or more")
        check(self.clip_norm is None or self.clip_norm > 0, self, "clip_norm", "None or a number above 0")


@dataclass(frozen=True)
class Stage:
    """One part of a run. State is carried from stage to stage; what a stage leaves at None stays as the model has it.

    loss: `Softmax` (CLIP) and `Sigmoid` (SigLIP) compare images with texts; `Classification` and `MultiLabel` compare an image
    with all classes.
    optimizer: one of this stage alone, with moments and a learning rate of its own; None: the run's.
    """

    batch_size: int
    epochs: float | None = None
    steps: int | None = None
    microbatch: int | None = None  # pairs encoded at once, over all devices; None: the whole batch
    patch_keep: float = 1.0  # share of patches that the image tower sees
    image_size: int | None = None
    learning_rate_scale: float = 1.0
    loss: Loss = Softmax()
    trainable: tuple[str, ...] = ("*",)  # parameters, by path or a part of it: ("text", "*_head", "image/blocks/*/bias")
    optimizer: OptimizerConfig | None = None

    def __post_init__(self) -> None:
        check_positive(self, "batch_size")
        check(isinstance(self.loss, Loss), self, "loss", "Softmax(), Sigmoid(), Classification() or MultiLabel()")
        check_patterns(self, "trainable", self.trainable)
        check(len(self.trainable) > 0, self, "trainable", "at least one parameter path")
        check((self.epochs is None) != (self.steps is None), self, "epochs", "either epochs or steps, not both or neither")
        if self.epochs is not None:
            check(self.epochs > 0, self, "epochs", "a number above 0")
        if self.steps is not None:
            check_positive(self, "steps")
        check(0 < self.patch_keep <= 1, self, "patch_keep", "above 0 and at most 1")
        if self.microbatch is not None:
            check_positive(self, "microbatch")
            fits = self.batch_size % self.microbatch == 0
            check(fits, self, "microbatch", f"a divisor of batch_size = {self.batch_size}")
        if self.image_size is not None:
            check_positive(self, "image_size")
        check(self.learning_rate_scale > 0, self, "learning_rate_scale", "a number above 0")
        if isinstance(self.loss, Softmax) and self.loss.negatives is not None:
            fits = self.batch_size % self.loss.negatives == 0
            check(fits, self.loss, "negatives", f"None or a divisor of batch_size = {self.batch_size}")
        check(self.optimizer is None or self.optimizer.ema is None, self, "optimizer", "one without ema, which is the run's")

    @property
    def microbatches(self) -> int:
        """Turns of the accumulation loop."""
        return self.batch_size // (self.microbatch or self.batch_size)

    @property
    def prompted(self) -> bool:
        """Whether texts are labels that stand after the learned context."""
        return self.loss.prompted
