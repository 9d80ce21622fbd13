"""The model: an image tower, a text tower, their projections into the joint space, and the temperature."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from biomedclip_jax.config import (
    UNADAPTED,
    Adaptation,
    BertConfig,
    CLIPConfig,
    ClipTextConfig,
    ComputeConfig,
    GPTConfig,
    LlamaConfig,
    MeterConfig,
    OwnTower,
    QCRConfig,
    ViTConfig,
)
from biomedclip_jax.config.towers import features
from biomedclip_jax.models._clip_text import ClipText
from biomedclip_jax.models._gpt import GPT
from biomedclip_jax.models._llama import Llama
from biomedclip_jax.models._shapes import Embeddings, Features, Images, Keys, Tokens, Words
from biomedclip_jax.models.adapters import with_adapters
from biomedclip_jax.models.answering.head import AnsweringHead
from biomedclip_jax.models.answering.meter import Meter
from biomedclip_jax.models.answering.qcr.model import QCR
from biomedclip_jax.models.bert import Bert
from biomedclip_jax.models.layers import linear
from biomedclip_jax.models.transformer import Gather, activate
from biomedclip_jax.models.vit import ViT

Params = dict[str, Any]

_TOWERS: dict[type, Any] = {ViTConfig: ViT, BertConfig: Bert, ClipTextConfig: ClipText, GPTConfig: GPT, LlamaConfig: Llama}
_ANSWERING: dict[type, Any] = {MeterConfig: Meter, QCRConfig: QCR}


def _tower(config: Any, compute: ComputeConfig, rngs: nnx.Rngs, gather: Gather | None) -> Any:
    if isinstance(config, OwnTower):
        return config.build(compute, rngs)
    return _TOWERS[type(config)](config, compute, rngs, gather)


def unit_length(x: Float[Array | np.ndarray, "*B E"]) -> Float[Array, "*B E"]:
    """x / max(|x|, 1e-12) over the last axis, in float32 (torch's `F.normalize`), with a finite gradient at 0."""
    x = jnp.asarray(x, jnp.float32)
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.maximum(squared, 1e-24))


def logits(
    image: Float[Array | np.ndarray, "B E"], text: Float[Array | np.ndarray, "C E"], logit_scale: Float[ArrayLike, ""]
) -> Float[Array, "B C"]:
    """exp(logit_scale) · image · textᵀ of unit embeddings, in full float32."""
    return jnp.exp(logit_scale) * jnp.matmul(image, text.T, precision=jax.lax.Precision.HIGHEST)


class Head(nnx.Module):
    """From pooled features to the joint space: one dense layer, two with an exact GELU between, or nothing."""

    def __init__(self, kind: str, widths: tuple[int, ...], biases: tuple[bool, ...], compute: ComputeConfig, rngs: nnx.Rngs):
        """widths = (in, out) for "linear", (in, hidden, out) for "mlp"; biases one a layer."""
        self.kind = kind
        if kind == "linear":
            self.proj = linear(widths[0], widths[1], compute, rngs, bias=biases[0])
        elif kind == "mlp":
            self.fc1 = linear(widths[0], widths[1], compute, rngs, bias=biases[0])
            self.fc2 = linear(widths[1], widths[2], compute, rngs, bias=biases[1])

    def __call__(self, x: Features) -> Embeddings:
        if self.kind == "linear":
            return self.proj(x)
        if self.kind == "none":
            return x
        return self.fc2(activate(self.fc1(x), "gelu"))


def image_head(config: CLIPConfig, compute: ComputeConfig, rngs: nnx.Rngs) -> Head:
    """The head of the image tower. The hidden layer of an "mlp" is 2·E wide, as timm's `Mlp(width, 2·embed)` is."""
    kind, width, e, bias = config.image_head, features(config.image), config.embed_width, config.image_head_bias
    if kind == "linear":
        return Head(kind, (width, e), (bias,), compute, rngs)
    return Head(kind, (width, 2 * e, e), (True, bias), compute, rngs)


def text_head(config: CLIPConfig, compute: ComputeConfig, rngs: nnx.Rngs) -> Head:
    """The head of the text tower. The hidden layer of an "mlp" is (D + E) / 2 wide, as in open_clip's `HFTextEncoder`."""
    kind, width, e, bias = config.text_head, features(config.text), config.embed_width, config.text_head_bias
    if kind == "linear":
        return Head(kind, (width, e), (bias,), compute, rngs)
    return Head(kind, (width, (width + e) // 2, e), (bias, bias), compute, rngs)


class CLIP(nnx.Module):
    """`encode_image` and `encode_text` give unit embeddings [B, E] in float32; `logit_scale` is kept as its logarithm."""

    def __init__(
        self,
        config: CLIPConfig,
        compute: ComputeConfig,
        rngs: nnx.Rngs,
        image_gather: Gather | None = None,
        text_gather: Gather | None = None,
    ):
        """The gathers make the whole weights of a block from split ones (`run_blocks`)."""
        c = config
        self.config = c
        self.image = _tower(c.image, compute, rngs, image_gather)
        self.text = _tower(c.text, compute, rngs, text_gather)
        self.image_head = image_head(c, compute, rngs)
        self.text_head = text_head(c, compute, rngs)
        self.logit_scale = nnx.Param(jnp.float32(c.init_logit_scale))
        if c.init_logit_bias is not None:
            self.logit_bias = nnx.Param(jnp.float32(c.init_logit_bias))
        if c.answering is not None:  # the last, so that it changes nothing in how the others are drawn
            self.answering: AnsweringHead = _ANSWERING[type(c.answering)](c, compute, rngs)

    def encode_image(self, images: Images, keys: Keys | None = None, patch_keep: float = 1.0) -> Embeddings:
        """Unit embeddings of float32 images, normalised."""
        return unit_length(self.image_features(images, keys, patch_keep))

    def image_features(self, images: Images, keys: Keys | None = None, patch_keep: float = 1.0) -> Embeddings:
        """As `encode_image`, before it is made unit length: what linear probes learn from."""
        return self.image_head(self.image(images, keys, patch_keep)).astype(jnp.float32)

    def image_tokens(self, images: Images) -> Float[Array, "B P D"]:
        """The states of the image tower's patches, float32, row by row from the upper left (`patch_states`)."""
        return self.image.patch_states(images).astype(jnp.float32)

    def image_token_embeddings(self, images: Images) -> Float[Array, "B P E"]:
        """Of each patch the unit embedding of what it gives to the features (`patch_features`), in the space of the texts."""
        x = self.image.patch_features(images)
        return unit_length(self.image_head(rearrange(x, "b p d -> (b p) d")).reshape(*x.shape[:2], -1))

    def encode_text(self, tokens: Tokens, keys: Keys | None = None) -> Embeddings:
        """Unit embeddings of token ids, padded with the tower's pad id."""
        return unit_length(self.text_head(self.text(tokens, keys)))

    def encode_words(self, words: Words, tokens: Tokens, keys: Keys | None = None) -> Embeddings:
        """As `encode_text`, of float32 word embeddings instead of `tokens`, which still tell padding and end."""
        return unit_length(self.text_head(self.text.from_words(words, tokens, keys)))


def abstract_model(
    config: CLIPConfig,
    compute: ComputeConfig | None = None,
    image_gather: Gather | None = None,
    text_gather: Gather | None = None,
    *,
    adaptation: Adaptation = UNADAPTED,
    inference: bool = False,
) -> tuple[Any, Params]:
    """The model without its numbers: `(graph, shapes)`, for `nnx.merge(graph, params)`.

    adaptation: what is trained beside its weights; gathers: as in `CLIP`. inference: of the last block only the token is
    worked out that a tower's features are made of; for programs without gradient and dropout.
    `shapes` is a plain nested dict of `jax.ShapeDtypeStruct`; parameters travel in dicts of the same structure. It is
    the caller's own and may be changed.
    """
    graph, shapes = _traced(config, compute or ComputeConfig(), adaptation, inference, image_gather, text_gather)
    return graph, jax.tree.map(lambda leaf: leaf, shapes)


@functools.lru_cache(maxsize=16)  # a run asks a dozen times for the same model, 0.1 s each
def _traced(
    config: CLIPConfig, compute: ComputeConfig, adaptation: Adaptation, inference: bool, *gathers: Gather | None
) -> tuple[Any, Params]:
    def make() -> CLIP:
        rngs = nnx.Rngs(0)
        clip = CLIP(config, compute, rngs, *gathers)
        with_adapters(clip, adaptation, rngs)
        clip.set_attributes(inference=inference, raise_if_not_found=False)
        return clip

    graph, state = nnx.split(nnx.eval_shape(make))
    return graph, nnx.to_pure_dict(state)


def init_params(config: CLIPConfig, seed: int, adaptation: Adaptation = UNADAPTED) -> Params:
    """Fresh float32 parameters of a whole model, as nested dicts. Pure: jit it with `out_shardings` to make them
    where they are to live.

    An adaptation changes nothing in the other parameters, because its own are drawn after them.
    """
    rngs = nnx.Rngs(seed)
    clip = CLIP(config, ComputeConfig(), rngs)
    with_adapters(clip, adaptation, rngs)
    return nnx.to_pure_dict(nnx.state(clip))
