"""How a model is trained: computing, sharding, stages, optimizer."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from biomedclip_jax.config.checks import check, check_choices, check_patterns, check_positive, operational
from biomedclip_jax.config.losses import AnswerLoss, Loss, Softmax
from biomedclip_jax.errors import UserError

Remat = Literal["none", "dots", "full"]
Gather = Literal["layer", "step"]
AttentionForm = Literal["auto", "plain", "fused"]
Schedule = Literal["cosine", "linear", "constant"]
Rule = Literal["adamw", "adamax", "sgd"]


@dataclass(frozen=True)
class ComputeConfig:
    """How the towers compute: this changes speed, memory and rounding, never what the parameters are."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Numbers that matrices are multiplied in; parameters, norms, softmax and the loss are float32 with either. bfloat16 is
    the fast one on accelerators, float32 on CPU. float32 has all its digits everywhere: never TF32, nor passes in bfloat16."""
    remat: Remat = operational("none")
    """What the backward pass computes again in each block instead of keeping it: nothing, all but the results of matrix
    products (dots), or everything (full). Each needs less memory and more time than the one before."""
    unroll: int = operational(1)
    """Blocks in each turn of the loop over a tower's blocks; more compile longer and run somewhat faster."""
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"
    """Numbers that kernels and word embeddings are stored in which no stage trains; bfloat16 halves their memory and rounds
    them."""
    text_buckets: int = operational(4)
    """Groups of different length that the captions of a training batch are sorted into, so that short ones are not padded
    to the longest. 1 pads all of them."""
    attention: AttentionForm = operational("auto")
    """How attention is computed: with all scores in memory (plain), or in one kernel that holds only a few of them at a
    time, for CUDA GPUs (fused). auto: fused on these in bfloat16, plain elsewhere; so is, with any of the three, what the
    kernel has no form for: causal towers, trained prefixes, METER's layers, and heads that are no power of two wide."""
    images_in: Literal["device", "host"] = operational("device")
    """Where the images of a batch wait for their microbatch: on the device, or in the host's pinned memory, from which each
    part is fetched alone, twice a step. host is for batches of which the device has no room for two."""

    def __post_init__(self) -> None:
        check_choices(self, dtype=Literal["float32", "bfloat16"], frozen_dtype=Literal["float32", "bfloat16"])
        check_choices(self, remat=Remat, attention=AttentionForm)
        check_choices(self, images_in=Literal["device", "host"])
        check_positive(self, "unroll", "text_buckets")

    def on(self, platform: str) -> "ComputeConfig":
        """These settings with `attention` chosen for devices of a platform: "cpu", "tpu", "rocm", or "gpu", those of CUDA.

        UserError where it cannot be as it is asked for.
        """
        gpu = platform == "gpu"
        check(self.attention != "fused" or gpu, self, "attention", f"'auto' or 'plain' on a {platform}")
        chosen: AttentionForm = "fused" if gpu and self.dtype == "bfloat16" else "plain"
        return replace(self, attention=chosen) if self.attention == "auto" else self


@dataclass(frozen=True)
class ShardingConfig:
    """How parameters and the optimizer's moments are divided among devices: this changes memory and speed, never the result.

    The batch is always split over all devices.
    """

    fsdp: int = 1
    """Neighbouring devices that share one copy of parameters, moments and moving average; it must divide the number of
    devices. 1 keeps a whole copy on each. All devices, with gather = step, is ZeRO: the least memory, and where each device
    has few pairs also the least time, as each updates its own part alone."""
    gather: Gather = "layer"
    """When shared weights are gathered: for one block at a time, and again in the backward pass (layer), or all of them once
    a step (step), which is faster and needs memory for a whole copy. Either way matrices of blocks travel in compute.dtype
    and their gradients in float32."""

    def __post_init__(self) -> None:
        check_positive(self, "fsdp")
        check_choices(self, gather=Gather)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, Adamax or SGD, with a learning rate that rises linearly and then falls, as a cosine or linearly, or stays.

    The defaults are BiomedCLIP's (arXiv 2303.00915, supplementary table 9).
    """

    learning_rate: float = 5e-4
    """The largest learning rate, which the warm-up ends at."""
    beta1: float = 0.9
    """Decay of AdamW's and Adamax's average of gradients, per update."""
    beta2: float = 0.98
    """Decay of AdamW's average of squared gradients, or of Adamax's largest gradient, per update."""
    eps: float = 1e-6
    """Number added to AdamW's and Adamax's divisor, so that parameters with tiny gradients do not make large steps."""
    weight_decay: float = 0.2
    """Weight decay of matrices and embeddings; biases, norms and the temperature have none but where `decayed` says so.
    AdamW's is multiplied by the learning rate, Adamax's and SGD's are part of the gradient. 0: none."""
    decayed: tuple[str, ...] = ()
    """Paths of further parameters, or patterns of them, that weight decay is for: image/blocks/norm1/scale."""
    warmup_steps: int = 2_000
    """Updates in which the learning rate rises linearly; 0 starts at learning_rate."""
    final_learning_rate: float = 0.0
    """Learning rate at the end of the fall; a constant schedule does not use it."""
    rule: Rule = "adamw"
    """How gradients become steps: AdamW, Adamax, or PyTorch's SGD with momentum, without dampening."""
    momentum: float = 0.9
    """Momentum of SGD; 0: none. The other rules do not use it."""
    clip_norm: float | None = None
    """Largest norm of the gradient of all trained parameters together; a longer one is scaled down to it. None: any norm."""
    schedule: Schedule = "cosine"
    """The learning rate after the warm-up: half a cosine or a straight line (linear) over all stages that share this
    optimizer, or constant."""
    groups: tuple[tuple[str, float], ...] = ()
    """Parameter paths, or patterns of them, each with a factor of the learning rate: image 0.1 text 2. The first that fits a
    parameter counts; parameters that none fits have factor 1."""
    ema: float | None = None
    """Decay, per update, of a moving average of the weights, which is then what is evaluated and exported; 0.999 averages
    over about 1,000 updates. None: no average."""

    def __post_init__(self) -> None:
        check_choices(self, schedule=Schedule, rule=Rule)
        pairs = all(isinstance(group, tuple) and len(group) == 2 for group in self.groups)
        check(pairs, self, "groups", 'pairs of a parameter path and a factor, such as (("image", 0.1),)')
        check_patterns(self, "groups", tuple(pattern for pattern, _ in self.groups))
        check_patterns(self, "decayed", self.decayed)
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
    """One part of a run, with a batch size, a loss and trained parameters of its own; the state goes on from stage to stage."""

    batch_size: int
    """Pairs in an update, over all devices and hosts together."""
    epochs: float | None = None
    """Length in passes over the training pairs, such as 0.5 or 8; None where steps are given."""
    steps: int | None = None
    """Length in updates; None where epochs are given."""
    microbatch: int | None = operational(None)
    """Pairs that are encoded at once, over all devices together; it divides the batch size. Fewer need less memory and give
    the same gradient. None: the whole batch."""
    patch_keep: float = 1.0
    """Share of an image's patches, above 0, that the image tower sees in training, drawn at random. 1: all."""
    image_size: int | None = None
    """Side of the images in pixels, a multiple of the patch size; position embeddings are resized to it. None:
    model.image.image_size."""
    learning_rate_scale: float = 1.0
    """Factor of the learning rate in this stage."""
    loss: Loss = Softmax()
    """What is learned by: `Softmax` (CLIP) and `Sigmoid` (SigLIP) compare images with texts, `Classification` and
    `MultiLabel` compare an image with all classes, `Answers` and `QuestionTypes` are those of `model.answering`."""
    trainable: tuple[str, ...] = ("*",)
    """Paths of the trained parameters, parts of paths or patterns, such as text '*_head' 'image/blocks/*/bias'; all others
    stay as they are. '*' trains everything."""
    optimizer: OptimizerConfig | None = None
    """An optimizer of this stage alone, with moments and a learning rate of its own. None: the run's."""

    def __post_init__(self) -> None:
        check_positive(self, "batch_size")
        check(isinstance(self.loss, Loss), self, "loss", f"one of {', '.join(f'{kind.__name__}()' for kind in get_args(Loss))}")
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
        whole = self.patch_keep == 1 or not self.answers
        check(whole, self, "patch_keep", "1 where answers are learned: a question may be about any patch")
        check(self.learning_rate_scale > 0, self, "learning_rate_scale", "a number above 0")
        if self.loss.negatives is not None:
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

    @property
    def answers(self) -> bool:
        """Whether `model.answering` is trained, on questions about images."""
        return isinstance(self.loss, AnswerLoss)


def check_stage(stage: Stage, devices: int) -> None:
    """UserError if the stage's batch cannot be split evenly over devices, microbatches and groups of negatives."""
    if stage.batch_size % (devices * stage.microbatches):
        raise UserError(
            f"Stage.batch_size = {stage.batch_size}: expected a multiple of {devices} devices x "
            f"{stage.microbatches} microbatches = {devices * stage.microbatches}"
        )
    here, negatives = stage.batch_size // devices, stage.loss.negatives
    if negatives is not None and here % negatives and negatives % here:
        raise UserError(
            f"Softmax.negatives = {negatives}: expected a divisor or a multiple of a device's share of the batch, "
            f"{stage.batch_size} / {devices} = {here}"
        )
