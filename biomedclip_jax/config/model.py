"""A whole model, its two towers with their heads, and how an image becomes pixels for it."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from biomedclip_jax.config.adapters import AdaLoRAConfig, AdapterConfig, IA3Config, LoRAConfig, PrefixConfig, block_layers
from biomedclip_jax.config.checks import check, check_choices, check_heads, check_positive
from biomedclip_jax.config.towers import Activation, BertConfig, GPTConfig, LlamaConfig, TextConfig, ViTConfig
from biomedclip_jax.errors import UserError

HeadKind = Literal["linear", "mlp", "none"]
ImageHeadKind = Literal[HeadKind, "biovil", "biovil_t"]
TextHeadKind = Literal[HeadKind, "mlp_norm"]
ResNetStyle = Literal["clip", "torchvision"]
ResNetPool = Literal["attention", "mean", "none"]
Interpolation = Literal["bicubic", "bilinear", "nearest"]
ResizeMode = Literal["shortest", "squash", "longest", "pad"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ResNetConfig:
    """A ResNet of bottleneck blocks: CLIP's `ModifiedResNet` or torchvision's `ResNet`. The defaults are CLIP's RN50.

    style "clip": a stem of three convolutions, and average pooling in front of each stride; "torchvision": a stem of one
    7x7 convolution and a maximum, and strides in the 3x3 convolutions. BatchNorm always uses the statistics in the file.
    """

    image_size: int = 224
    blocks: tuple[int, ...] = (3, 4, 6, 3)  # of the four stages; RN101 (3, 4, 23, 3), RN50x4 (4, 6, 10, 6)
    stem_width: int = 64  # RN50x4 80
    style: ResNetStyle = "clip"
    pool: ResNetPool = "attention"
    heads: int = 32  # of the attention pool; CLIP: width / 64

    def __post_init__(self) -> None:
        check_positive(self, "image_size", "stem_width", "heads")
        check_choices(self, style=ResNetStyle, pool=ResNetPool)
        whole = all(isinstance(n, int) and n > 0 for n in self.blocks)
        check(len(self.blocks) == 4 and whole, self, "blocks", "four whole numbers above 0, one a stage")
        check(self.image_size % 32 == 0, self, "image_size", "a multiple of 32, by which the tower reduces an image")
        check(self.stem_width % 2 == 0, self, "stem_width", "an even number")
        if self.pool == "attention":
            check_heads(self)

    @property
    def width(self) -> int:
        """Features of a place after the last stage."""
        return 32 * self.stem_width

    @property
    def patches(self) -> int:
        """Places after the last stage."""
        return (self.image_size // 32) ** 2


@dataclass(frozen=True)
class SwinConfig:
    """A Swin transformer, version 1. The defaults are Swin-T (`microsoft/swin-tiny-patch4-window7-224`).

    Each stage has half the side and twice the width of the one before it.
    """

    image_size: int = 224
    patch_size: int = 4
    first_width: int = 96  # of the first stage
    depths: tuple[int, ...] = (2, 2, 6, 2)  # blocks of each stage
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7  # patches a side
    mlp_ratio: int = 4
    activation: Activation = "gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        check_positive(self, "image_size", "patch_size", "first_width", "window", "mlp_ratio")
        check_choices(self, activation=Activation)
        even = self.depths and all(isinstance(n, int) and n > 0 and n % 2 == 0 for n in self.depths)
        check(bool(even), self, "depths", "even numbers above 0, one a stage: windows at rest and moved take turns")
        fits = len(self.heads) == len(self.depths)
        fits = fits and all(h > 0 and (self.first_width << i) % h == 0 for i, h in enumerate(self.heads))
        check(fits, self, "heads", f"{len(self.depths)} divisors, of {self.first_width} and each its double")
        whole = self.image_size % (self.patch_size << (len(self.depths) - 1)) == 0
        sides = [self.patches_a_side >> i for i in range(len(self.depths))]
        whole = whole and all(side <= self.window or side % self.window == 0 for side in sides)
        check(whole, self, "image_size", f"one whose stages fill whole windows of {self.window} patches a side")

    @property
    def patches_a_side(self) -> int:
        """Patches a side of the first stage."""
        return self.image_size // self.patch_size

    @property
    def width(self) -> int:
        """Features of a place after the last stage."""
        return self.first_width << (len(self.depths) - 1)


ImageConfig = ViTConfig | ResNetConfig | SwinConfig


@dataclass(frozen=True)
class CLIPConfig:
    """Two towers, their heads and the temperature. The defaults are BiomedCLIP (195,902,721 parameters)."""

    image: ImageConfig = ViTConfig()
    text: TextConfig = BertConfig()
    embed_width: int = 512
    image_head: ImageHeadKind = "linear"
    image_head_bias: bool = False
    text_head: TextHeadKind = "mlp"
    text_head_bias: bool = False
    init_logit_scale: float = math.log(1 / 0.07)
    init_logit_bias: float | None = None  # SigLIP's; the sigmoid objective needs one (there -10, with a scale of ln 10)
    image_adapter: AdapterConfig | None = None
    text_adapter: AdapterConfig | None = None
    context: int = 0  # vectors that are learned to stand before a label (CLEFT's second stage, CoOp): see `Stage.text`

    def __post_init__(self) -> None:
        check_positive(self, "embed_width")
        check_choices(self, image_head=ImageHeadKind, text_head=TextHeadKind)
        for tower, head in (("image", "image_head"), ("text", "text_head")):
            width = getattr(self, tower).width
            fits = getattr(self, head) != "none" or width == self.embed_width
            check(fits, self, head, f"a projection, because {tower}.width = {width} is not embed_width = {self.embed_width}")
        places = isinstance(self.image, ResNetConfig) and self.image.pool == "none"
        expected = "biovil or biovil_t" if places else "another one: these two need image = ResNetConfig(pool='none')"
        check(places == self.image_head.startswith("biovil"), self, "image_head", expected)
        fits = self.image_adapter is None or isinstance(self.image, ViTConfig)
        check(fits, self, "image_adapter", "None: only a vision transformer (ViT) can have one")
        for tower in ("image", "text"):
            _check_adapter(self, tower)
        check(self.context >= 0, self, "context", "0 or more")
        # a causal tower has them before its text, others inside it, beside a start, an end and a name
        most = self.text.context_length - 3
        if isinstance(self.text, GPTConfig | LlamaConfig):
            prefix = self.text_adapter.tokens if isinstance(self.text_adapter, PrefixConfig) else 0
            most = self.text.positions - prefix - self.text.context_length
        check(self.context <= most, self, "context", f"at most {most}, or there is no place for a label in the text tower")

    @property
    def base(self) -> "CLIPConfig":
        """The same model without adapters and learned context."""
        return dataclasses.replace(self, image_adapter=None, text_adapter=None, context=0)

    @property
    def vit(self) -> ViTConfig:
        """The image tower, where only a vision transformer will do (training, other formats). UserError if it is another."""
        if not isinstance(self.image, ViTConfig):
            kind = type(self.image).__name__.removesuffix("Config")
            raise UserError(f"the image tower of this model is a {kind}; only a vision transformer (ViT) can be used here")
        return self.image


def _check_adapter(config: CLIPConfig, tower: str) -> None:
    adapter, sizes, field = getattr(config, f"{tower}_adapter"), getattr(config, tower), f"{tower}_adapter"
    kinds = (LoRAConfig, AdaLoRAConfig, IA3Config, PrefixConfig)
    names = ", ".join(kind.__name__ for kind in kinds)
    check(adapter is None or isinstance(adapter, kinds), config, field, f"None or one of {names}")
    if isinstance(adapter, LoRAConfig | AdaLoRAConfig | IA3Config):
        adapter.layers_in(block_layers(sizes))
    if isinstance(adapter, AdaLoRAConfig):
        fits = all(len(ranks) == sizes.depth for _, ranks in adapter.ranks)
        check(fits, config, field, f"ranks of {sizes.depth} numbers, one a block")
    if isinstance(adapter, PrefixConfig) and isinstance(sizes, BertConfig | GPTConfig | LlamaConfig):
        fits = adapter.tokens + sizes.context_length <= sizes.positions
        check(fits, config, field, f"tokens + context_length = {sizes.context_length} at most positions = {sizes.positions}")


@dataclass(frozen=True)
class PreprocessConfig:
    """How an image becomes pixels: open_clip's `preprocess_cfg`, same names and defaults, and what other models need besides.

    resize_mode: "shortest" resizes the short side and crops the middle; "squash" resizes both sides; "longest" resizes the
        long side and pads; "pad" pads to a square (no smaller than `image_size`) and resizes that (MedCLIP).
    resize_size: with "shortest", the short side before the crop, if it is not `image_size` (BioViL: 512, of which 480).
    gray: through one channel (Pillow's mode "L") before anything is resized; the pixels still have three, all alike.
    stretch: darkest and brightest value of the image become 0 and 255 first (hi-ml's `remap_to_uint8`).
    square_size: after `gray`, the long side is made so long by averaging areas, and black added to a square (CLEFT: 256).
    otsu_crop: after that, the image is cut to the box around what is brighter than Otsu's threshold (CLEFT).
    """

    image_size: int = 224
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    fill_color: int = 0
    resize_size: int | None = None
    gray: bool = False
    stretch: bool = False
    square_size: int | None = None
    otsu_crop: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "image_size")
        if self.square_size is not None:
            check_positive(self, "square_size")
        check_choices(self, interpolation=Interpolation, resize_mode=ResizeMode)
        for field in ("mean", "std"):
            values = getattr(self, field)
            check(len(values) == 3, self, field, "three numbers, one a colour channel")
        check(all(s > 0 for s in self.std), self, "std", "numbers above 0")
        if self.resize_size is not None:
            fits = self.resize_mode == "shortest" and self.resize_size >= self.image_size
            check(fits, self, "resize_size", f"at least image_size = {self.image_size}, with resize_mode = 'shortest'")
