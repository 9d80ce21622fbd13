"""BioViL's two towers: a ResNet whose map is projected position by position, and CXR-BERT with a head of its own.

Sources: microsoft/hi-ml `health_multimodal/image/model`: `model.py: ImageModel`, `modules.py: MLP`, `encoder.py:
MultiImageEncoder`; `health_multimodal/text/model/modelling_cxrbert.py: BertProjectionHead`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import Array

from biomedclip_jax.config import BertConfig, ComputeConfig
from biomedclip_jax.config.checks import check, check_positive
from biomedclip_jax.interop.baselines.resnet.tower import Convolution, ResNet, ResNetConfig
from biomedclip_jax.models.bert import Bert
from biomedclip_jax.models.layers import linear
from biomedclip_jax.models.transformer import activate, layer_norm

_TEMPORAL_WIDTH = 256  # BioViL-T: of what a position says of this image, and of its change since the one before


@dataclass(frozen=True)
class BioViLImageConfig:
    """BioViL's image tower, which ends in the joint space. temporal: BioViL-T's."""

    resnet: ResNetConfig
    features: int = 128
    temporal: bool = False
    quirk: ClassVar[str] = "open_clip never projects the positions of an image one by one, as BioViL does"

    def __post_init__(self) -> None:
        check_positive(self, "features")
        check(self.resnet.pool == "none", self, "resnet", "one with pool = 'none'")

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.resnet.image_size

    def build(self, compute: ComputeConfig, rngs: nnx.Rngs) -> "BioViLImage":
        """The tower with fresh parameters."""
        return BioViLImage(self, compute, rngs)


class BioViLImage(nnx.Module):
    """images [B, S, S, 3] -> [B, E]: ResNet, then dense, frozen BatchNorm, ReLU, dense at each position, then their mean.

    BioViL-T is read for an image without an earlier one: each position is reduced to 256 features, and the features
    learned for "no earlier image" are put beside them.
    """

    def __init__(self, config: BioViLImageConfig, compute: ComputeConfig, rngs: nnx.Rngs):
        c = config
        self.config = c
        self.resnet = ResNet(c.resnet, compute, rngs)
        width = c.resnet.width
        if c.temporal:
            self.reduce = linear(width, _TEMPORAL_WIDTH, compute, rngs, bias=False)
            self.no_earlier = nnx.Param(nnx.initializers.truncated_normal(0.02)(rngs.params(), (_TEMPORAL_WIDTH,)))
            width = 2 * _TEMPORAL_WIDTH
        self.fc1 = Convolution(1, width, c.features, compute, rngs)
        self.fc2 = linear(c.features, c.features, compute, rngs)

    def __call__(self, images: Array, keys: Array | None = None, patch_keep: float = 1.0) -> Array:
        """images float32 [B, S, S, 3]. A ResNet has no patches to drop: `keys` is there for symmetry."""
        assert patch_keep == 1, "a ResNet has no patches to drop"
        # the last layer is linear: the mean before it is the mean after it, for a fraction of the products
        return self.fc2(self._hidden(self._positions(images)).mean(axis=(1, 2)))

    def patch_states(self, images: Array) -> Array:
        """The positions that are projected, [B, P, D], row by row from the upper left: hi-ml's `patch_embeddings`."""
        return rearrange(self._positions(images), "b h w d -> b (h w) d")

    def patch_features(self, images: Array) -> Array:
        """The projected positions, [B, P, E]: hi-ml's `projected_patch_embeddings`."""
        return self.fc2(rearrange(self._hidden(self._positions(images)), "b h w d -> b (h w) d"))

    def _positions(self, images: Array) -> Array:
        x = self.resnet(images)
        if not self.config.temporal:
            return x
        x = self.reduce(x)
        no_earlier = jnp.broadcast_to(self.no_earlier[...].astype(x.dtype), x.shape)
        return jnp.concatenate([x, no_earlier], axis=-1)

    def _hidden(self, x: Array) -> Array:
        return jax.nn.relu(self.fc1(x))


@dataclass(frozen=True)
class CxrBertConfig(BertConfig):
    """CXR-BERT: a BERT whose head, with a LayerNorm between its two layers, leads into the joint space."""

    features: int = 128
    quirk: ClassVar[str] = "open_clip does not have CXR-BERT's head"

    def build(self, compute: ComputeConfig, rngs: nnx.Rngs) -> "CxrBert":
        """The tower with fresh parameters."""
        return CxrBert(self, compute, rngs)


class CxrBert(Bert):
    """tokens [B, N] -> [B, E]: dense, exact GELU, LayerNorm, dense behind BERT's pooling."""

    def __init__(self, config: CxrBertConfig, compute: ComputeConfig, rngs: nnx.Rngs, **options: Any):
        super().__init__(config, compute, rngs, **options)
        self.fc1 = linear(config.width, config.features, compute, rngs)
        self.head_norm = layer_norm(config.features, 1e-12, compute, rngs)
        self.fc2 = linear(config.features, config.features, compute, rngs)

    def pool(self, x: Array, mask: Array) -> Array:
        """[B, E] of the states [B, N, D] of the last block."""
        return self.fc2(self.head_norm(activate(self.fc1(super().pool(x, mask)), "gelu")))
