"""BioViL's way from an image's places to the joint space: each place is projected by itself, the mean is taken at the end.

Sources: microsoft/hi-ml `health_multimodal/image/model`: `model.py: ImageModel`, `modules.py: MLP`, `encoder.py:
MultiImageEncoder`.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from biomedclip_jax.config import ComputeConfig
from biomedclip_jax.interop.baselines.resnet.tower import Convolution
from biomedclip_jax.models.dense import linear

_TEMPORAL_WIDTH = 256  # BioViL-T: of what a place says of this image, and of its change since the one before


class PlacesHead(nnx.Module):
    """places [B, h, w, D] -> [B, E]: dense, frozen BatchNorm, ReLU, dense at each place, then the mean over all places."""

    def __init__(self, width: int, embed_width: int, temporal: bool, compute: ComputeConfig, rngs: nnx.Rngs):
        """temporal: BioViL-T's form, for an image without an earlier one: each place is reduced to 256 features, and the
        features learned for "no earlier image" are put beside them.
        """
        self.temporal = temporal
        if temporal:
            self.reduce = linear(width, _TEMPORAL_WIDTH, compute, rngs, bias=False)
            self.no_earlier = nnx.Param(nnx.initializers.truncated_normal(0.02)(rngs.params(), (_TEMPORAL_WIDTH,)))
            width = 2 * _TEMPORAL_WIDTH
        self.fc1 = Convolution(1, width, embed_width, compute, rngs)
        self.fc2 = linear(embed_width, embed_width, compute, rngs)

    def __call__(self, places: Array) -> Array:
        if self.temporal:
            places = self.reduce(places)
            no_earlier = jnp.broadcast_to(self.no_earlier[...].astype(places.dtype), places.shape)
            places = jnp.concatenate([places, no_earlier], axis=-1)
        # the last layer is linear: the mean before it is the mean after it, for a fraction of the products
        return self.fc2(jax.nn.relu(self.fc1(places)).mean(axis=(1, 2)))
