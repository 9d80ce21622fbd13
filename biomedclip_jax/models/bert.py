"""BERT as text tower (transformers `BertModel`, open_clip `HFTextEncoder`), with its ways of pooling."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from biomedclip_jax.config import BertConfig, ComputeConfig
from biomedclip_jax.models.transformer import BlockShape, Gather, dropout, layer_norm, linear, run_blocks, stack_blocks

# Far above any block index, so that the dropout of the embeddings never shares a mask with a block's.
_EMBEDDING_SITE = 1 << 20


class Bert(nnx.Module):
    """tokens [B, N] -> pooled features [B, D]. Padding is told by `pad_id`; N may be any length up to `positions`."""

    def __init__(self, config: BertConfig, compute: ComputeConfig, rngs: nnx.Rngs, gather: Gather | None = None):
        c = config
        self.config = c
        self.compute = compute
        self.gather = gather
        normal = nnx.initializers.normal(0.02)
        self.word = nnx.Param(normal(rngs.params(), (c.vocab_size, c.width)))
        self.position = nnx.Param(normal(rngs.params(), (c.positions, c.width)))
        self.token_type = nnx.Param(normal(rngs.params(), (c.token_types, c.width)))
        self.norm = layer_norm(c.width, c.layer_norm_eps, compute, rngs)
        shape = BlockShape(
            c.width,
            c.heads,
            c.mlp_width,
            c.depth,
            c.activation,
            c.layer_norm_eps,
            pre_norm=False,
            dropout=c.dropout,
            attention_dropout=c.attention_dropout,
            longest=c.positions,
        )
        self.blocks = stack_blocks(shape, compute, rngs)
        if c.pool == "cls_pooler":
            self.pooler = linear(c.width, c.width, compute, rngs)

    def __call__(self, tokens: Array, keys: Array | None = None) -> Array:
        """tokens int32 [B, N]; keys: one an example, turns dropout on."""
        mask = tokens != self.config.pad_id
        x = self.word[tokens] + self.position[: tokens.shape[1]] + self.token_type[0]
        x = self.norm(x)
        x = dropout(x, self.config.dropout, keys, _EMBEDDING_SITE)
        x = run_blocks(self.blocks, x, mask[:, None, None, :], keys, self.compute, self.gather)
        return self._pool(x, mask[..., None])

    def _pool(self, x: Array, mask: Array) -> Array:
        match self.config.pool:
            case "cls":
                return x[:, 0]
            case "cls_pooler":
                return jnp.tanh(self.pooler(x[:, 0]))
            case "mean":
                return jnp.where(mask, x, 0).sum(axis=1) / mask.sum(axis=1).astype(x.dtype)
            case "max":
                return jnp.where(mask, x, -jnp.inf).max(axis=1)
