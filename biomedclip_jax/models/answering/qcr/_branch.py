"""One of the two branches: bilinear attention between the image and the words of a question, and a classifier."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from biomedclip_jax.config import ComputeConfig, QCRConfig
from biomedclip_jax.models._shapes import Features, Hidden, Keys
from biomedclip_jax.models.answering.head import Scores
from biomedclip_jax.models.answering.qcr._layers import NormedLinear, dropped, normed, part_keys
from biomedclip_jax.models.layers import dropout, einsum

Seen = Float[Array, "B n"]  # what is seen of an image

_RANK = 3  # numbers of an attention's inner product for each number of a state: k in the paper


class BilinearAttention(nnx.Module):
    """How much each of G glimpses looks at each word, given the image: a softmax over the words, padding included."""

    def __init__(self, config: QCRConfig, d_image: int, compute: ComputeConfig, rngs: nnx.Rngs):
        self.image = NormedLinear(d_image, _RANK * config.width, compute, rngs)
        self.question = NormedLinear(config.width, _RANK * config.width, compute, rngs)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (config.glimpses, _RANK * config.width)))
        self.scale = nnx.Param(jnp.sqrt(jnp.sum(jnp.square(self.kernel[...]))))
        self.bias = nnx.Param(jax.random.normal(rngs.params(), (config.glimpses,)))
        self.input_dropout, self.dropout = config.input_dropout, config.dropout

    def __call__(self, image: Seen, states: Hidden, keys: Keys | None) -> Float[Array, "B G N"]:
        v = jax.nn.relu(self.image(dropped(image, self.input_dropout, keys, 0)))
        v = dropped(v, self.dropout, keys, 1)
        q = jax.nn.relu(self.question(dropout(states, self.input_dropout, keys, 2)))
        directions = normed(self.kernel[...], self.scale[...]).astype(v.dtype)
        logits = einsum("bgk,bnk->bgn", v[:, None] * directions, q).astype(jnp.float32)
        return jax.nn.softmax(logits + self.bias[...][:, None], axis=-1)


class Glimpse(nnx.Module):
    """What one glimpse adds to the state of every word: image and question as this attention sees them, multiplied."""

    def __init__(self, config: QCRConfig, d_image: int, compute: ComputeConfig, rngs: nnx.Rngs):
        self.image = NormedLinear(d_image, config.width, compute, rngs)
        self.question = NormedLinear(config.width, config.width, compute, rngs)
        self.out = NormedLinear(config.width, config.width, compute, rngs)
        self.input_dropout = config.input_dropout

    def __call__(self, image: Seen, states: Hidden, weights: Float[Array, "B N"], keys: Keys | None) -> Features:
        v = jax.nn.relu(self.image(dropped(image, self.input_dropout, keys, 0))).astype(jnp.float32)
        q = jax.nn.relu(self.question(dropout(states, self.input_dropout, keys, 1))).astype(jnp.float32)
        joint = v * einsum("bn,bnh->bh", weights, q)
        return self.out(dropped(joint, self.input_dropout, keys, 2)).astype(jnp.float32)


class Branch(nnx.Module):
    """Logits for the answers of one type."""

    def __init__(self, config: QCRConfig, answers: int, d_image: int, compute: ComputeConfig, rngs: nnx.Rngs):
        """d_image: numbers of what is seen of an image."""
        self.attention = BilinearAttention(config, d_image, compute, rngs)
        for number in range(config.glimpses):
            setattr(self, f"glimpse{number}", Glimpse(config, d_image, compute, rngs))
        self.fc1 = NormedLinear(config.width, 2 * config.width, compute, rngs)
        self.fc2 = NormedLinear(2 * config.width, answers, compute, rngs)
        self.glimpses, self.dropout = config.glimpses, config.dropout

    def __call__(self, image: Seen, states: Hidden, modulation: Features, keys: Keys | None) -> Scores:
        """states: of the words; modulation: what the features of image and question are multiplied with."""
        weights = self.attention(image, states, keys)
        for number in range(self.glimpses):
            glimpse: Glimpse = getattr(self, f"glimpse{number}")
            seen = glimpse(image, states, weights[:, number], part_keys(keys, 1 + number))
            states = states + seen[:, None]
        x = jax.nn.relu(self.fc1(states.sum(axis=1) * modulation))
        return self.fc2(dropped(x, self.dropout, keys, 3)).astype(jnp.float32)
