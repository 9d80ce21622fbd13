"""Sizes of the towers, of the whole model, and how an image becomes pixels for it."""

import math
from dataclasses import dataclass
from typing import Literal

from biomedclip_jax.config.checks import check, check_choices, check_heads, check_positive

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
HeadKind = Literal["linear", "mlp", "none"]
ImagePool = Literal["cls", "mean"]
BertPool = Literal["cls", "cls_pooler", "mean", "max"]
Interpolation = Literal["bicubic", "bilinear", "nearest"]
ResizeMode = Literal["shortest", "squash", "longest"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


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
        check_positive(self, "image_size", "patch_size", "width", "depth", "heads", "mlp_width")
        check_choices(self, pool=ImagePool, activation=Activation)
        check_heads(self)
        check(self.registers >= 0, self, "registers", "0 or more")
        check(self.image_size % self.patch_size == 0, self, "image_size", f"a multiple of patch_size = {self.patch_size}")
        check(self.class_token or self.pool == "mean", self, "class_token", "True with pool = 'cls'")

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
        check_positive(self, "vocab_size", "context_length", "positions", "token_types", "width", "depth", "heads", "mlp_width")
        check_choices(self, pool=BertPool, activation=Activation)
        check_heads(self)
        check(self.context_length <= self.positions, self, "context_length", f"at most positions = {self.positions}")
        for field in ("dropout", "attention_dropout"):
            check(0 <= getattr(self, field) < 1, self, field, "at least 0 and below 1")


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
        check_positive(self, "vocab_size", "context_length", "width", "depth", "heads", "mlp_width")
        check_choices(self, activation=Activation)
        check_heads(self)


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
        check_positive(self, "embed_width")
        check_choices(self, image_head=HeadKind, text_head=HeadKind)
        for tower, head in (("image", "image_head"), ("text", "text_head")):
            width = getattr(self, tower).width
            fits = getattr(self, head) != "none" or width == self.embed_width
            check(fits, self, head, f"a projection, because {tower}.width = {width} is not embed_width = {self.embed_width}")


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
        check_positive(self, "image_size")
        check_choices(self, interpolation=Interpolation, resize_mode=ResizeMode)
        for field in ("mean", "std"):
            values = getattr(self, field)
            check(len(values) == 3, self, field, "three numbers, one a colour channel")
        check(all(s > 0 for s in self.std), self, "std", "numbers above 0")
