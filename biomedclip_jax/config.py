"""Everything that can be configured, as frozen dataclasses that check themselves.

A config is built in Python (`configs/*.py`) or read from a model folder by `biomedclip_jax.interop`. A wrong value raises
`UserError` when the object is made, so nothing downstream has to check again.
"""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from biomedclip_jax.errors import UserError

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
HeadKind = Literal["linear", "mlp", "none"]
ImagePool = Literal["cls", "mean"]
BertPool = Literal["cls", "cls_pooler", "mean", "max"]
Interpolation = Literal["bicubic", "bilinear", "nearest"]
ResizeMode = Literal["shortest", "squash", "longest"]
Remat = Literal["none", "dots", "full"]
Objective = Literal["softmax", "sigmoid"]
Gather = Literal["layer", "step"]
Schedule = Literal["cosine", "constant"]

DEFAULT_TEMPLATE = "this is a photo of {}"  # BiomedCLIP's model card
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def _check(condition: bool, owner: object, field: str, expected: str) -> None:
    if not condition:
        raise UserError(f"{type(owner).__name__}.{field} = {getattr(owner, field)!r}: expected {expected}")


def _check_choices(owner: Any, **choices: Any) -> None:
    for field, literal in choices.items():
        allowed = get_args(literal)
        _check(getattr(owner, field) in allowed, owner, field, "one of " + ", ".join(map(repr, allowed)))


def _check_positive(owner: Any, *fields: str) -> None:
    for field in fields:
        value = getattr(owner, field)
        _check(isinstance(value, int) and not isinstance(value, bool) and value > 0, owner, field, "a whole number above 0")


def _check_patterns(owner: Any, field: str, patterns: Any) -> None:
    fits = isinstance(patterns, tuple) and all(isinstance(pattern, str) and pattern for pattern in patterns)
    _check(fits, owner, field, 'a tuple of parameter paths, such as ("text", "*_head")')


def _check_heads(owner: Any) -> None:
    _check(owner.width % owner.heads == 0, owner, "heads", f"a divisor of width = {owner.width}")


@dataclass(frozen=True)
class ViTConfig:
    """A vision transformer: timm's `VisionTransformer` and CLIP's own image tower are both spelled with these fields.

    The defaults are BiomedCLIP's ViT-B/16 (timm `vit_base_patch16_224`).
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    pool: ImagePool = "cls"
    class_token: bool = True
    registers: int = 0
    position_on_prefix: bool = True  # timm: not no_embed_class; False adds positions to the patches only
    patch_bias: bool = True  # CLIP's own towers have none
    norm_pre: bool = False  # CLIP's ln_pre
    norm_after_pool: bool = False  # timm's fc_norm; makes a difference for mean pooling only
    layer_scale: bool = False
    activation: Activation = "gelu"
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        _check_positive(self, "image_size", "patch_size", "width", "depth", "heads", "mlp_width")
        _check_choices(self, pool=ImagePool, activation=Activation)
        _check_heads(self)
        _check(self.registers >= 0, self, "registers", "0 or more")
        _check(self.image_size % self.patch_size == 0, self, "image_size", f"a multiple of patch_size = {self.patch_size}")
        _check(self.class_token or self.pool == "mean", self, "class_token", "True with pool = 'cls'")

    @property
    def patches(self) -> int:
        """Patch tokens of one image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the patches: the class token, then the registers."""
        return int(self.class_token) + self.registers

    @property
    def prefix_positions(self) -> int:
        """Rows of the position table before those of the patches."""
        return self.prefix_tokens if self.position_on_prefix else 0


@dataclass(frozen=True)
class BertConfig:
    """A BERT encoder (post-norm). The defaults are PubMedBERT / BiomedBERT base as BiomedCLIP uses it."""

    vocab_size: int = 30_522
    context_length: int = 256  # captions are cut here
    positions: int = 512  # rows of the position table
    token_types: int = 2
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    pool: BertPool = "cls"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: Activation = "gelu"
    layer_norm_eps: float = 1e-12
    pad_id: int = 0

    def __post_init__(self) -> None:
        _check_positive(
            self, "vocab_size", "context_length", "positions", "token_types", "width", "depth", "heads", "mlp_width"
        )
        _check_choices(self, pool=BertPool, activation=Activation)
        _check_heads(self)
        _check(self.context_length <= self.positions, self, "context_length", f"at most positions = {self.positions}")
        for field in ("dropout", "attention_dropout"):
            _check(0 <= getattr(self, field) < 1, self, field, "at least 0 and below 1")


@dataclass(frozen=True)
class ClipTextConfig:
    """CLIP's own text transformer: causal, pre-norm, the feature is read at the end-of-text token (the largest id)."""

    vocab_size: int = 49_408
    context_length: int = 77
    width: int = 512
    depth: int = 12
    heads: int = 8
    mlp_width: int = 2048
    activation: Activation = "gelu"
    layer_norm_eps: float = 1e-5
    pad_id: int = 0

    def __post_init__(self) -> None:
        _check_positive(self, "vocab_size", "context_length", "width", "depth", "heads", "mlp_width")
        _check_choices(self, activation=Activation)
        _check_heads(self)


@dataclass(frozen=True)
class CLIPConfig:
    """Two towers, their heads and the temperature. The defaults are BiomedCLIP (195,902,721 parameters)."""

    image: ViTConfig = ViTConfig()
    text: BertConfig | ClipTextConfig = BertConfig()
    embed_width: int = 512
    image_head: HeadKind = "linear"
    image_head_bias: bool = False
    text_head: HeadKind = "mlp"
    text_head_bias: bool = False
    init_logit_scale: float = math.log(1 / 0.07)
    init_logit_bias: float | None = None  # SigLIP's; the sigmoid objective needs one (there -10, with a scale of ln 10)

    def __post_init__(self) -> None:
        _check_positive(self, "embed_width")
        _check_choices(self, image_head=HeadKind, text_head=HeadKind)
        for tower, head in (("image", "image_head"), ("text", "text_head")):
            width = getattr(self, tower).width
            fits = getattr(self, head) != "none" or width == self.embed_width
            _check(fits, self, head, f"a projection, because {tower}.width = {width} is not embed_width = {self.embed_width}")


@dataclass(frozen=True)
class PreprocessConfig:
    """How an image becomes pixels: open_clip's `preprocess_cfg`, same names and defaults."""

    image_size: int = 224
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    fill_color: int = 0

    def __post_init__(self) -> None:
        _check_positive(self, "image_size")
        _check_choices(self, interpolation=Interpolation, resize_mode=ResizeMode)
        for field in ("mean", "std"):
            values = getattr(self, field)
            _check(len(values) == 3, self, field, "three numbers, one a colour channel")
        _check(all(s > 0 for s in self.std), self, "std", "numbers above 0")


@dataclass(frozen=True)
class ComputeConfig:
    """How the towers compute; changes speed, memory and rounding, never the parameters."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Remat = "none"  # what the backward pass recomputes in each block: nothing, all but matmuls, everything
    unroll: int = 1  # blocks a loop turn: compile time against speed
    text_buckets: int = 4  # in training, captions are sorted into this many lengths instead of padded to the longest; 1: off

    def __post_init__(self) -> None:
        _check_choices(self, dtype=Literal["float32", "bfloat16"], remat=Remat)
        _check_positive(self, "unroll", "text_buckets")


@dataclass(frozen=True)
class ShardingConfig:
    """How parameters and Adam's moments lie on the devices; changes memory and speed, never the result.

    The batch is always split over all devices. `fsdp` neighbours share one copy of parameters and moments; 1 keeps a whole
    copy on each device, the fastest as long as it fits.
    """

    fsdp: int = 1
    gather: Gather = "layer"  # weights are gathered for one block at a time, again in the backward pass; or once a step

    def __post_init__(self) -> None:
        _check_positive(self, "fsdp")
        _check_choices(self, gather=Gather)


@dataclass(frozen=True)
class Stage:
    """One part of a run. State is carried from stage to stage; what a stage leaves at None stays as the model has it."""

    batch_size: int
    epochs: float | None = None
    steps: int | None = None
    microbatch: int | None = None  # pairs encoded at once, over all devices; None: the whole batch
    patch_keep: float = 1.0  # share of patches that the image tower sees
    image_size: int | None = None
    learning_rate_scale: float = 1.0
    objective: Objective = "softmax"
    trainable: tuple[str, ...] = ("*",)  # parameters, by path or a part of it: ("text", "*_head", "image/blocks/*/bias")

    def __post_init__(self) -> None:
        _check_positive(self, "batch_size")
        _check_choices(self, objective=Objective)
        _check_patterns(self, "trainable", self.trainable)
        _check(len(self.trainable) > 0, self, "trainable", "at least one parameter path")
        _check((self.epochs is None) != (self.steps is None), self, "epochs", "either epochs or steps, not both or neither")
        if self.epochs is not None:
            _check(self.epochs > 0, self, "epochs", "a number above 0")
        if self.steps is not None:
            _check_positive(self, "steps")
        _check(0 < self.patch_keep <= 1, self, "patch_keep", "above 0 and at most 1")
        if self.microbatch is not None:
            _check_positive(self, "microbatch")
            fits = self.batch_size % self.microbatch == 0
            _check(fits, self, "microbatch", f"a divisor of batch_size = {self.batch_size}")
        if self.image_size is not None:
            _check_positive(self, "image_size")
        _check(self.learning_rate_scale > 0, self, "learning_rate_scale", "a number above 0")

    @property
    def microbatches(self) -> int:
        """Turns of the accumulation loop."""
        return self.batch_size // (self.microbatch or self.batch_size)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up, then cosine decay to 0 over all stages or a constant rate.

    Defaults: BiomedCLIP, supplementary table 9.
    """

    learning_rate: float = 5e-4
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    weight_decay: float = 0.2
    warmup_steps: int = 2_000
    clip_norm: float | None = None
    schedule: Schedule = "cosine"
    groups: tuple[tuple[str, float], ...] = ()  # (parameter path, factor of the learning rate); the first that fits counts
    ema: float | None = None  # decay of a moving average of the weights, which is then what is evaluated and exported

    def __post_init__(self) -> None:
        _check_choices(self, schedule=Schedule)
        pairs = all(isinstance(group, tuple) and len(group) == 2 for group in self.groups)
        _check(pairs, self, "groups", 'pairs of a parameter path and a factor, such as (("image", 0.1),)')
        _check_patterns(self, "groups", tuple(pattern for pattern, _ in self.groups))
        numbers = all(isinstance(factor, int | float) and factor >= 0 for _, factor in self.groups)
        _check(numbers, self, "groups", "factors of 0 or more")
        _check(self.ema is None or 0 < self.ema < 1, self, "ema", "None, or above 0 and below 1")
        _check(self.learning_rate > 0, self, "learning_rate", "a number above 0")
        for field in ("beta1", "beta2"):
            _check(0 <= getattr(self, field) < 1, self, field, "at least 0 and below 1")
        _check(self.eps > 0, self, "eps", "a number above 0")
        _check(self.weight_decay >= 0, self, "weight_decay", "0 or more")
        _check(self.warmup_steps >= 0, self, "warmup_steps", "0 or more")
        _check(self.clip_norm is None or self.clip_norm > 0, self, "clip_norm", "None or a number above 0")


@dataclass(frozen=True)
class AugmentConfig:
    """Changes of training images besides the crop, all off by default; named as in open_clip's `AugmentationCfg`."""

    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # most of brightness, contrast, saturation, hue
    color_jitter_prob: float = 0.0
    gray_scale_prob: float = 0.0
    flip_prob: float = 0.0  # left and right change places: not where a caption or a label may speak of sides

    def __post_init__(self) -> None:
        for field in ("color_jitter_prob", "gray_scale_prob", "flip_prob"):
            _check(0 <= getattr(self, field) <= 1, self, field, "a probability, 0 to 1")
        fits = len(self.color_jitter) == 4 and all(value >= 0 for value in self.color_jitter)
        _check(fits and self.color_jitter[3] <= 0.5, self, "color_jitter", "four numbers of 0 or more, the last at most 0.5")

    @property
    def is_on(self) -> bool:
        """Whether anything is changed at all."""
        return bool(self.color_jitter_prob or self.gray_scale_prob or self.flip_prob)


Mix = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class DataConfig:
    """Image-caption pairs.

    A source is one of
    - a table: `pairs.csv`, `.tsv`, `.jsonl` or `.parquet`, with a column of image paths, relative to the file, and one of
      captions (JSON lines and Parquet: a text, or a list of texts of which one is drawn each time);
    - WebDataset tars: `shards/{00000..00009}.tar` or `shards/*.tar`, also `s3://`, `gs://`, `https://`, with
      `key.jpg|jpeg|png|webp`, `key.txt` and perhaps `key.json`;
    - a build of ours or any folder that TFDS wrote as ArrayRecord, and its split: `path/to/build:train`;
    - a TFDS data set that is prepared on this machine, and its split: `tfds:name:train`.
    `train` may be several of them with weights, (("a.csv", 3.0), ("b/*.tar", 1.0)): of four pairs three are of the first,
    whatever the sizes; an epoch is then as many pairs as there are in all sources together. Of several captions of a
    held-out image the first counts. `{workdir}` in a path stands for the run folder.
    """

    train: str | Mix
    held_out: str | None = None
    tokenizer: str = "hf-hub:microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"  # a folder, or hf-hub:org/name
    image_column: str = "image"  # of a table; the feature's name of a TFDS data set
    caption_column: str = "caption"  # the same; of tars, where it is another, the field of the .json that is used for the .txt
    label_column: str | None = None  # in held_out: the class of an image, for zero-shot accuracy
    template: str = DEFAULT_TEMPLATE  # turns a label into a caption
    crop_scale: tuple[float, float] = (0.9, 1.0)  # RandomResizedCrop, open_clip's default
    augment: AugmentConfig = AugmentConfig()
    reference_share: float = 0.0  # of the captions are replaced by a paragraph that mentions the figure, where there is one
    workers: int | None = None  # processes that decode images; 0: threads of this one; None: by the processors and the work

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        _check(0 < low <= high <= 1, self, "crop_scale", "two shares of the area, 0 < low <= high <= 1")
        _check("{}" in self.template, self, "template", "a sentence with {} where the label goes")
        if not isinstance(self.train, str):
            pairs = all(isinstance(part, tuple) and len(part) == 2 for part in self.train)
            fits = pairs and len(self.train) > 0
            _check(fits, self, "train", 'a source, or sources with weights, such as (("a.csv", 3.0), ("b.csv", 1.0))')
            _check(all(weight > 0 for _, weight in self.train), self, "train", "weights above 0")
        _check(0 <= self.reference_share <= 1, self, "reference_share", "0 to 1")
        _check(self.workers is None or self.workers >= 0, self, "workers", "None, or a whole number of 0 or more")


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    name: str
    data: DataConfig
    stages: tuple[Stage, ...]
    model: CLIPConfig = CLIPConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    compute: ComputeConfig = ComputeConfig()
    sharding: ShardingConfig = ShardingConfig()
    image_init: str | None = None  # pretrained weights of a tower or of the whole model: folder or hf-hub:org/name
    text_init: str | None = None
    model_init: str | None = None
    interpolate: float = 1.0  # share of the trained weights in the exported model, the rest are the starting weights (WiSE-FT)
    seed: int = 0
    log_every: int = 50  # steps
    evaluate_every: int | None = None  # steps between evaluations on data.held_out; the last step is always evaluated
    checkpoint_every: int = 1_000  # steps
    checkpoint_minutes: float = 20.0  # a checkpoint also when this much time has passed since the last
    keep_checkpoints: int = 2  # the newest; with evaluate_every, the one with the lowest held-out loss besides
    stall_minutes: float = 30.0  # a run that makes no step for so long ends with an error that names the late host
    prepare: Callable[[Path], None] | None = None  # makes the data inside the run folder, before anything else

    def __post_init__(self) -> None:
        _check(len(self.stages) > 0, self, "stages", "at least one Stage")
        _check_positive(self, "log_every", "checkpoint_every", "keep_checkpoints")
        if self.evaluate_every is not None:
            _check_positive(self, "evaluate_every")
            _check(self.data.held_out is not None, self, "evaluate_every", "None without data.held_out")
        for field in ("checkpoint_minutes", "stall_minutes"):
            _check(getattr(self, field) > 0, self, field, "minutes above 0")
        _check(0 <= self.interpolate <= 1, self, "interpolate", "0 to 1")
        same = self.preprocess.image_size == self.model.image.image_size
        _check(same, self.preprocess, "image_size", f"model.image.image_size = {self.model.image.image_size}")
        exclusive = self.model_init is None or (self.image_init is None and self.text_init is None)
        _check(exclusive, self, "model_init", "None when image_init or text_init is given")
        for stage in self.stages:
            patch = self.model.image.patch_size
            _check(self.image_size(stage) % patch == 0, stage, "image_size", f"a multiple of patch_size = {patch}")
            biased = stage.objective != "sigmoid" or self.model.init_logit_bias is not None
            _check(biased, stage, "objective", "model.init_logit_bias to be set (SigLIP: -10) for the sigmoid objective")

    def image_size(self, stage: Stage) -> int:
        """Side of the images in a stage, in pixels."""
        return stage.image_size or self.model.image.image_size

    def preprocess_in(self, stage: Stage) -> PreprocessConfig:
        """How images become pixels in a stage."""
        return dataclasses.replace(self.preprocess, image_size=self.image_size(stage))

    def model_in(self, stage: Stage) -> CLIPConfig:
        """The model's config in a stage."""
        return self.model_at(self.image_size(stage))

    def model_at(self, image_size: int) -> CLIPConfig:
        """The model's config for images of this size."""
        return dataclasses.replace(self.model, image=dataclasses.replace(self.model.image, image_size=image_size))


def to_json(config: Any) -> str:
    """A config as indented JSON, for `config.json` in a run folder. Functions are written by name."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
            return {"kind": type(value).__name__} | fields
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        if callable(value):
            return f"{value.__module__}.{value.__qualname__}"
        return value

    return json.dumps(plain(config), indent=2)


def from_json(text: str) -> Any:
    """The config that `to_json` wrote. `prepare` is a function and comes back as None: the data is there by then."""

    def build(value: Any) -> Any:
        if isinstance(value, dict):
            fields = {name: build(v) for name, v in value.items() if name not in ("kind", "prepare")}
            return globals()[value["kind"]](**fields)
        return tuple(build(v) for v in value) if isinstance(value, list) else value

    return build(json.loads(text))
