"""A whole model, its two towers with their heads, and how an image becomes pixels for it."""

import math
from dataclasses import dataclass
from typing import Literal

from biomedclip_jax.config.checks import check, check_choices, check_positive
from biomedclip_jax.config.towers import (
    BertConfig,
    ImageConfig,
    TextConfig,
    ViTConfig,
    features,
)
from biomedclip_jax.errors import UserError

HeadKind = Literal["linear", "mlp", "none"]
Interpolation = Literal["bicubic", "bilinear", "nearest"]
ResizeMode = Literal["shortest", "squash", "longest", "pad"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class CLIPConfig:
    """Two towers, their heads and the temperature. The defaults are BiomedCLIP (195,902,721 parameters)."""

    image: ImageConfig = ViTConfig()
    text: TextConfig = BertConfig()
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
            width = features(getattr(self, tower))
            fits = getattr(self, head) != "none" or width == self.embed_width
            check(
                fits,
                self,
                head,
                f"a projection, because the {tower} tower gives {width} features, not embed_width = {self.embed_width}",
            )

    @property
    def vit(self) -> ViTConfig:
        """The image tower, where only a vision transformer will do (training, other formats). UserError if it is another."""
        if not isinstance(self.image, ViTConfig):
            kind = type(self.image).__name__.removesuffix("Config")
            raise UserError(f"the image tower of this model is a {kind}; only a vision transformer (ViT) can be used here")
        return self.image


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
