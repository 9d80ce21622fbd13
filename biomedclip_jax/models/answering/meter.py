"""METER (arXiv 2111.02387): a question and an image look at each other in co-attention layers, and a classifier answers.

Each modality has a stream of its own. In each layer, its tokens look at one another, then at those of the other
stream as they came into the layer, and go through an MLP; a LayerNorm follows each sum. What the paper leaves open is
as in the authors' code (zdou0830/METER): epsilons, the exact GELU, dropout also of attention weights, padding of the
question that nobody looks at, N(0, 0.02) for kernels at the start.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from biomedclip_jax.config import CLIPConfig, ComputeConfig, MeterConfig, OwnTower, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.models._shapes import Features, Hidden, Images, Index, Keys, Tokens
from biomedclip_jax.models.answering.head import Counted, Labels, Scores, Terms
from biomedclip_jax.models.layers import Linear, attention_dropout, dropout, einsum, spread
from biomedclip_jax.models.transformer import exact_gelu, layer_norm, run_blocks, stacked

if TYPE_CHECKING:
    from biomedclip_jax.models.clip import CLIP

# Far above any block index, so that the keys of these layers are never those of a tower's blocks, nor of its other draws.
_METER_DRAW = (1 << 20) + 3

Other = Float[Array, "B m D"]  # tokens of the other stream
Seen = Bool[Array, "B m"]  # which tokens may be looked at


def _folded(keys: Keys | None, number: int) -> Keys | None:
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def _dense(d_in: int, d_out: int, compute: ComputeConfig, rngs: nnx.Rngs) -> Linear:
    normal = nnx.initializers.normal(0.02)
    return Linear(d_in, d_out, dtype=jnp.dtype(compute.dtype), kernel_init=normal, rngs=rngs)


class CrossAttention(nnx.Module):
    """Attention of the tokens of one stream to those of another, or to themselves."""

    def __init__(self, config: MeterConfig, longest: int, compute: ComputeConfig, rngs: nnx.Rngs):
        """longest: most tokens that a stream can have."""
        width = config.width
        self.query, self.key, self.value, self.out = (_dense(width, width, compute, rngs) for _ in range(4))
        self.heads = config.heads
        self.dropout = config.dropout
        self.longest = longest

    def __call__(self, x: Hidden, other: Other, seen: Seen | None, keys: Keys | None) -> Hidden:
        """seen: which tokens of `other` may be looked at; None: all."""
        b, n, d = x.shape

        def heads(y: Array) -> Array:
            return y.reshape(b, -1, self.heads, d // self.heads).transpose(0, 2, 1, 3)

        q, k, v = heads(self.query(x)), heads(self.key(other)), heads(self.value(other))
        q = q * jnp.asarray((d // self.heads) ** -0.5, q.dtype)
        scores = einsum("bhnk,bhmk->bhnm", q, k, preferred_element_type=jnp.float32)
        if seen is not None:
            scores = jnp.where(seen[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
        weights = attention_dropout(jax.nn.softmax(scores, axis=-1), self.dropout, keys, self.longest).astype(x.dtype)
        y = einsum("bhnm,bhmk->bhnk", weights, v)
        return dropout(self.out(y.transpose(0, 2, 1, 3).reshape(b, n, d)), self.dropout, keys, 1)


class StreamLayer(nnx.Module):
    """What a layer does to the tokens of one modality: a block of BERT's decoder."""

    def __init__(self, config: MeterConfig, longest: int, compute: ComputeConfig, rngs: nnx.Rngs):
        c = config
        self.self_attention = CrossAttention(c, longest, compute, rngs)
        self.norm1 = layer_norm(c.width, 1e-12, compute, rngs)
        self.cross_attention = CrossAttention(c, longest, compute, rngs)
        self.norm2 = layer_norm(c.width, 1e-12, compute, rngs)
        self.fc1 = _dense(c.width, c.mlp_width, compute, rngs)
        self.fc2 = _dense(c.mlp_width, c.width, compute, rngs)
        self.norm3 = layer_norm(c.width, 1e-12, compute, rngs)
        self.dropout = c.dropout

    def __call__(
        self, x: Hidden, other: Other, x_seen: Bool[Array, "B N"] | None, other_seen: Seen | None, keys: Keys | None
    ) -> Hidden:
        """x: the tokens; other: those of the other modality. x_seen, other_seen: which of them may be looked at; None: all."""
        x = self.norm1(x + self.self_attention(x, x, x_seen, _folded(keys, 0)))
        x = self.norm2(x + self.cross_attention(x, other, other_seen, _folded(keys, 1)))
        y = self.fc2(exact_gelu(self.fc1(x)))
        return self.norm3(x + dropout(y, self.dropout, _folded(keys, 2), 1))


class CoAttentionLayer(nnx.Module):
    """One layer of both streams; each looks at the other as it comes in."""

    def __init__(self, config: MeterConfig, longest: int, compute: ComputeConfig, rngs: nnx.Rngs):
        self.text = StreamLayer(config, longest, compute, rngs)
        self.image = StreamLayer(config, longest, compute, rngs)

    def __call__(
        self, x: tuple[Hidden, Other], mask: Bool[Array, "B N"], keys: Keys | None, index: Index
    ) -> tuple[Hidden, Other]:
        """x: the tokens of the question and of the image; mask: True where a question is no padding."""
        text, image = x
        return self.text(text, image, mask, None, _folded(keys, 0)), self.image(image, text, None, mask, _folded(keys, 1))


class Classifier(nnx.Module):
    """Dense layer, LayerNorm, exact GELU, and a dense layer to the answers, which is float32 always."""

    def __init__(self, width: int, answers: int, compute: ComputeConfig, rngs: nnx.Rngs):
        self.fc1 = _dense(width, width, compute, rngs)
        self.norm = layer_norm(width, 1e-5, compute, rngs)
        self.fc2 = _dense(width, answers, ComputeConfig(dtype="float32"), rngs)

    def __call__(self, x: Features) -> Scores:
        return self.fc2(exact_gelu(self.norm(self.fc1(x))).astype(jnp.float32))


class Meter(nnx.Module):
    """Answers from the tokens of both towers (an `AnsweringHead`).

    The question's stream is read at its first token. So is the image's where the tower has a class token; where it has
    none, the mean of the patches is read.
    """

    def __init__(self, config: CLIPConfig, compute: ComputeConfig, rngs: nnx.Rngs):
        """config: of the whole model, its `answering` a `MeterConfig`. UserError for what it cannot be put upon."""
        c = config.answering
        assert isinstance(c, MeterConfig)
        vit = _fitting(config, c)
        self.config = c
        self.compute = compute
        self.prefix = vit.prefix_tokens
        self.class_token = vit.class_token
        self.text_projection = _dense(config.text.width, c.width, compute, rngs)
        self.image_projection = _dense(vit.width, c.width, compute, rngs)
        self.token_type = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (2, c.width)))  # of texts, of images
        # the same for every length of question, so that dropout does not depend on padding
        longest = max(getattr(config.text, "positions", config.text.context_length), vit.patches + vit.prefix_tokens)
        self.blocks = stacked(lambda rngs: CoAttentionLayer(c, longest, compute, rngs), c.layers, rngs)
        self.text_pooler = _dense(c.width, c.width, compute, rngs)
        self.image_pooler = _dense(c.width, c.width, compute, rngs)
        self.classifier = Classifier(2 * c.width, len(c.answers), compute, rngs)

    def scores(self, clip: "CLIP", images: Images, tokens: Tokens, keys: Keys | None = None) -> Scores:
        """A logit for each answer, float32 [B, C]; keys: one an example, turns dropout on, of the towers, too."""
        image = clip.image.token_states(images, keys, self.config.drop_last_block)
        text, seen = clip.text.token_states(tokens, keys)
        return self.scores_of_states(text, seen, image, keys)

    def scores_of_states(
        self,
        text: Float[Array, "B N D"],
        seen: Bool[Array, "B N"],
        image: Float[Array, "B m F"],
        keys: Keys | None = None,
    ) -> Scores:
        """As `scores`, of what the towers give: states of all tokens; seen: True where a question is no padding."""
        streams = zip((self.text_projection(text), self.image_projection(image)), self.token_type[...], strict=True)
        x: Any = tuple(tokens + spread(kind, tokens.shape, tokens.dtype) for tokens, kind in streams)
        text, image = run_blocks(self.blocks, x, seen, _folded(keys, _METER_DRAW), self.compute)
        first = image[:, 0] if self.class_token else image[:, self.prefix :].mean(axis=1)
        pooled = jnp.tanh(self.text_pooler(text[:, 0])), jnp.tanh(self.image_pooler(first))
        return self.classifier(jnp.concatenate(pooled, axis=-1))

    def terms(self, clip: "CLIP", images: Images, tokens: Tokens, labels: Labels, keys: Keys | None) -> Terms:
        """Binary cross-entropy of an example, summed over the answers [B, 1]: METER's mean times the number of answers."""
        scores = self.scores(clip, images, tokens, keys)
        return (jax.nn.softplus(scores) - jnp.where(labels, scores, 0)).sum(axis=1, keepdims=True)

    def counted(self, labels: Labels) -> Counted:
        """True throughout: the one part of the loss is of every example [B, 1]."""
        return jnp.ones((len(labels), 1), bool)


def _fitting(config: CLIPConfig, meter: MeterConfig) -> ViTConfig:
    """The image tower. UserError for towers without tokens to look at, questions too long for the text tower, no answers."""
    for tower, expected in (("image", "a vision transformer (ViT)"), ("text", "a BERT, CLIP's, a GPT or a LLaMA")):
        sizes = getattr(config, tower)
        if isinstance(sizes, OwnTower):
            kind = f"a {type(sizes).__name__.removesuffix('Config')}"
            raise UserError(f"the {tower} tower of this model is {kind}, whose tokens METER cannot use: expected {expected}")
    if meter.question_length > config.text.context_length:
        most = f"at most the text tower's context_length = {config.text.context_length}"
        raise UserError(f"MeterConfig.question_length = {meter.question_length}: expected {most}")
    if not meter.answers:
        raise UserError("MeterConfig.answers = (): expected at least one answer, to make a model")
    return config.vit
