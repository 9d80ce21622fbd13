"""GPT-2 as text tower (transformers `GPT2Model`): CLEFT's BioMedLM, and any other size."""

from flax import nnx
from jax import Array

from biomedclip_jax.config import AdapterConfig, ComputeConfig, GPTConfig
from biomedclip_jax.models.adapters import prefix_tokens
from biomedclip_jax.models.causal import pooled, seen, text_lengths, with_end
from biomedclip_jax.models.dropout import EMBEDDING_SITE, dropout
from biomedclip_jax.models.transformer import Gather, block_shape, layer_norm, run_blocks, stack_blocks


class GPT(nnx.Module):
    """tokens [B, N] -> features [B, D] of one token, after the final LayerNorm. N may be any length up to `context_length`."""

    def __init__(
        self,
        config: GPTConfig,
        compute: ComputeConfig,
        rngs: nnx.Rngs,
        gather: Gather | None = None,
        adapter: AdapterConfig | None = None,
    ):
        c = config
        self.config = c
        self.compute = compute
        self.gather = gather
        self.first_place = prefix_tokens(adapter)  # of the position table
        normal = nnx.initializers.normal(0.02)
        self.word = nnx.Param(normal(rngs.params(), (c.vocab_size, c.width)))
        self.position = nnx.Param(normal(rngs.params(), (c.positions, c.width)))
        shape = block_shape(
            c,
            pre_norm=True,
            adapter=adapter,
            dropout=c.dropout,
            attention_dropout=c.attention_dropout,
            longest=c.positions,
            inverse_layer_scale=c.inverse_layer_scale,
        )
        self.blocks = stack_blocks(shape, compute, rngs)
        self.norm = layer_norm(c.width, c.layer_norm_eps, compute, rngs)

    def __call__(self, tokens: Array, keys: Array | None = None) -> Array:
        """tokens int32 [B, N], padded on the right with `pad_id`; keys: one an example, turns dropout on."""
        tokens = with_end(tokens, self.config)
        return self.from_words(self.word[tokens], tokens, keys)

    def from_words(self, words: Array, tokens: Array, keys: Array | None = None) -> Array:
        """The same of word embeddings float32 [B, N, D], learned ones among them; `tokens` only tells where a text ends.

        With pool "first_eos" a text that fills all N columns counts as cut: `with_end` before, if it is not.
        """
        n = tokens.shape[1]
        places = self.position[self.first_place : self.first_place + n]
        x = dropout(words + places, self.config.embedding_dropout, keys, EMBEDDING_SITE)
        lengths = text_lengths(tokens, self.config.pad_id)
        x = run_blocks(self.blocks, x.astype(self.compute.dtype), seen(lengths, n), keys, self.compute, self.gather)
        return self.norm(pooled(x, lengths, self.config))  # the norm works on each token alone: one is enough
