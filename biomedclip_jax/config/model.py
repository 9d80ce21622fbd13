"""A whole model, its two towers with their heads, and how an image becomes pixels for it."""

import math
from dataclasses import dataclass
from typing import Literal

from biomedclip_jax.config.answering import AnsweringConfig
from biomedclip_jax.config.checks import check, check_choices, check_positive
from biomedclip_jax.config.pixels import OPENAI_MEAN, OPENAI_STD
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


@dataclass(frozen=True)
class CLIPConfig:
    """Two towers, their heads and the temperature. The defaults are BiomedCLIP (195,902,721 parameters)."""

    image: ImageConfig = ViTConfig()
    """Sizes of the image tower; only a vision transformer can be trained."""
    text: TextConfig = BertConfig()
    """Sizes of the text tower."""
    embed_width: int = 512
    """Numbers in the embedding of an image or a text."""
    image_head: HeadKind = "linear"
    """What takes the image tower's features to the embedding: a matrix, an MLP of one hidden layer, or nothing, for a tower
    as wide as the embedding."""
    image_head_bias: bool = False
    """Whether the last layer of the image head has a bias; the first of an MLP always has one."""
    text_head: HeadKind = "mlp"
    """What takes the text tower's features to the embedding: a matrix, an MLP of one hidden layer, or nothing, for a tower
    as wide as the embedding."""
    text_head_bias: bool = False
    """Whether the layers of the text head have biases."""
    init_logit_scale: float = math.log(1 / 0.07)
    """Natural logarithm of the factor that cosines are multiplied by at the start; it is trained, and kept from 0 to
    ln 100, or from 0 on in a model with a bias. CLIP's ln(1/0.07) is 2.659, SigLIP's ln 10 is 2.303."""
    init_logit_bias: float | None = None
    """Number added to all scores at the start, and trained; the loss Sigmoid needs one (SigLIP: -10). None: no bias."""
    answering: AnsweringConfig | None = None
    """What answers questions about images on top of the towers, for the loss Answers. None: nothing does."""

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
    """How an image becomes pixels: open_clip's `preprocess_cfg`, same names and defaults, and what other models need."""

    image_size: int = 224
    """Side of the images that the tower sees, in pixels; the same as model.image.image_size."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Mean of red, green and blue, of values from 0 to 1, that is subtracted."""
    std: tuple[float, float, float] = OPENAI_STD
    """Standard deviation of red, green and blue, of values from 0 to 1, that the rest is divided by."""
    interpolation: Interpolation = "bicubic"
    """How images are resized for evaluation; training crops are always resized bicubically, as in open_clip."""
    resize_mode: ResizeMode = "shortest"
    """shortest: the short side is resized and the middle cropped; squash: both sides are resized; longest: the long side is
    resized, the rest padded; pad: the image is padded to a square, no smaller than image_size, and that resized (MedCLIP).
    Training crops at random: shortest from the image, of which long ones lose their ends; squash from the image made a
    square; longest and pad from the padded square."""
    fill_color: int = 0
    """Value from 0 (black) to 255 (white) that longest and pad pad with."""
    resize_size: int | None = None
    """With resize_mode shortest, the short side in pixels before the crop (BioViL: 512, of which 480). None: image_size."""
    gray: bool = False
    """Whether images go through one channel (Pillow's mode L) before they are resized; pixels still have three, all alike."""
    stretch: bool = False
    """Whether the darkest and the brightest value of an image become 0 and 255 first (hi-ml's remap_to_uint8)."""
    square_size: int | None = None
    """After gray, the long side is made this many pixels by averaging areas, and black added to a square (CLEFT: 256).
    None: images keep their size until they are cropped."""
    otsu_crop: bool = False
    """Whether the image is then cut to the box around what is brighter than Otsu's threshold (CLEFT)."""

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
