"""The image tower: a vision transformer, with patches dropped before they cost anything.

Sources: timm `vision_transformer.py`, `layers/attention_pool.py`, open_clip `transformer.py: VisionTransformer`,
transformers `modeling_siglip.py` (the same computation under other names).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax import Array
from jaxtyping import Float

from biomedclip_jax.config import ComputeConfig, ViTConfig
from biomedclip_jax.models._shapes import Features, Hidden, Images, Keys
from biomedclip_jax.models.layers import einsum, linear, product, spread
from biomedclip_jax.models.transformer import (
    MLP,
    BlockShape,
    Gather,
    block_shape,
    first_token,
    layer_norm,
    run_blocks,
    stack_blocks,
)

# Far above any block index, so that the key of the patch draw is never that of a block's dropout; nor of BERT's
# embeddings.
_PATCH_DRAW = (1 << 20) + 1
_ADAPTER_DRAW = (1 << 20) + 2


def kept_patches(patches: int, patch_keep: float) -> int:
    """How many of an image's patches the tower sees (open_clip `PatchDropout`: at least one, rounded down)."""
    return max(1, int(patches * patch_keep))


def resize_positions(positions: Float[Array | np.ndarray, "N D"], prefix: int, size: int) -> Float[Array | np.ndarray, "_ D"]:
    """A position table of prefix + g² rows for a grid of size² patches; the rows of prefix tokens stay.

    Bicubic with antialiasing, as open_clip (`resize_pos_embed`) and timm (`resample_abs_pos_embed`) resize it.
    """
    grid = round((positions.shape[0] - prefix) ** 0.5)
    if grid == size:
        return positions
    table = rearrange(positions[prefix:], "(h w) d -> h w d", h=grid)
    table = jax.image.resize(table, (size, size, table.shape[-1]), "cubic", antialias=True)
    return jnp.concatenate([positions[:prefix], rearrange(table, "h w d -> (h w) d")])


class AttentionPool(nnx.Module):
    """tokens [B, N, D] -> one vector [B, D]: a learned query looks at all tokens, and an MLP is added to what it sees.

    SigLIP's head (timm `AttentionPoolLatent`, transformers `SiglipMultiheadAttentionPoolingHead`). Its projections of the
    query, of keys and of values are one kernel [D, 3D], in this order, as in the blocks.
    """

    def __init__(self, shape: BlockShape, compute: ComputeConfig, rngs: nnx.Rngs):
        self.query = nnx.Param(nnx.initializers.truncated_normal(shape.width**-0.5)(rngs.params(), (shape.width,)))
        self.qkv = linear(shape.width, 3 * shape.width, compute, rngs)
        self.out = linear(shape.width, shape.width, compute, rngs)
        self.norm = layer_norm(shape.width, shape.layer_norm_eps, compute, rngs)
        self.mlp = MLP(shape, compute, rngs)
        self.heads = shape.heads

    def __call__(self, x: Hidden) -> Features:
        return self.looking(x)[0]

    def looking(self, x: Hidden, added: Float[Array, "B H N"] | None = None) -> tuple[Features, Float[Array, "B H N"]]:
        """The vector and the attention weights it is made with; `added` to them, for who takes gradients by it."""
        b, n, d = x.shape
        fused: Any = self.qkv
        kernel, bias = fused.kernel[...].astype(x.dtype), fused.bias[...]
        query, first = (spread(each, (1, d), x.dtype) for each in (self.query[...], bias[:d]))
        query = ((product(query, kernel[:, :d]) + first) * (d // self.heads) ** -0.5).reshape(self.heads, -1)
        fused = product(x, kernel[:, d:]) + spread(bias[d:], (b, n, 2 * d), x.dtype)
        k, v = fused.reshape(b, n, 2, self.heads, -1).transpose(2, 0, 3, 1, 4)
        scores = einsum("hk,bhnk->bhn", query, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores, axis=-1)
        used = weights if added is None else weights + added
        x = self.out(einsum("bhn,bhnk->bhk", used.astype(x.dtype), v).reshape(b, d))
        return x + self.mlp(self.norm(x)), weights


class ViT(nnx.Module):
    """images [B, S, S, 3] -> pooled features [B, D]."""

    def __init__(
        self,
        config: ViTConfig,
        compute: ComputeConfig,
        rngs: nnx.Rngs,
        gather: Gather | None = None,
    ):
        c = config
        self.config = c
        self.compute = compute
        self.gather = gather
        self.inference = False
        normal = nnx.initializers.truncated_normal(0.02)
        self.patch = linear(c.patch_size**2 * 3, c.width, compute, rngs, bias=c.patch_bias)
        if c.class_token:
            self.class_token = nnx.Param(normal(rngs.params(), (c.width,)))
        if c.registers:
            self.registers = nnx.Param(normal(rngs.params(), (c.registers, c.width)))
        rows = c.prefix_positions + c.patches
        self.position = nnx.Param(normal(rngs.params(), (rows, c.width)))
        if c.norm_pre:
            self.norm_pre = layer_norm(c.width, c.layer_norm_eps, compute, rngs)
        shape = block_shape(c, pre_norm=True, layer_scale=c.layer_scale)
        self.blocks = stack_blocks(shape, compute, rngs)
        self.norm = layer_norm(c.width, c.layer_norm_eps, compute, rngs)
        if c.pool == "map":
            self.pool = AttentionPool(shape, compute, rngs)

    def __call__(self, images: Images, keys: Keys | None = None, patch_keep: float = 1.0) -> Features:
        """Features of float32 images, normalised; keys: one an example, for patch_keep < 1 and an adapter's dropout."""
        x = self.embed(images, keys, patch_keep)
        if self.inference and keys is None and self.config.pool == "cls":
            return self.norm(first_token(self.blocks, x, None))
        return self.pooled(self.run(x, keys, self.blocks))

    def token_states(self, images: Images, keys: Keys | None = None, drop_last_block: bool = False) -> Float[Array, "B m D"]:
        """States of all tokens after the last norm: class token, registers, patches. Whatever `pool` is, each token goes
        through that norm alone, also where pooling does without it (mean_prenorm) or comes before it (norm_after_pool).

        drop_last_block: the norm follows the last block but one, as in METER.
        """
        blocks = self.blocks
        if drop_last_block:
            graph, state = nnx.split(blocks)
            blocks = nnx.merge(graph, jax.tree.map(lambda leaf: leaf[:-1], state))
        return self.norm(self.run(self.embed(images, keys, 1.0), keys, blocks))

    def patch_states(self, images: Images) -> Float[Array, "B P D"]:
        """The states of the patches, row by row from the upper left, as open_clip and timm give them beside the pooled
        features: after the last norm, but before one that comes after pooling (norm_after_pool).
        """
        c = self.config
        x = self.run(self.embed(images), None, self.blocks)[:, c.prefix_tokens :]
        return x if c.norm_after_pool else self.norm(x)

    def patch_features(self, images: Images) -> Float[Array, "B P D"]:
        """What each patch gives to the features, so that it can be projected and compared with texts as they are.

        With a class token: what the last block's attention passes on of a patch that looks at itself alone, its value, then
        the last norm. That is MaskCLIP (arXiv 2112.01071) without the block's residual and MLP, in which ClearCLIP (arXiv
        2407.12442) finds the noise; so did we (docs/measurements.md). With attention pooling: pooled alone. Else: itself.
        """
        c = self.config
        blocks, last = self.blocks, None
        if c.pool == "cls":
            graph, state = nnx.split(blocks)
            blocks, last = (
                nnx.merge(graph, jax.tree.map(lambda leaf, part=part: leaf[part], state)) for part in (slice(-1), -1)
            )
        x = self.run(self.embed(images), None, blocks)[:, c.prefix_tokens :]
        if c.pool == "mean_prenorm":
            return x
        if last is not None:
            value = last.attention(rearrange(last.norm1(x), "b p d -> (b p) 1 d"), None, None, c.depth - 1)
            return self.norm(last.branch(value, None, 1).reshape(x.shape))
        x = self.norm(x)
        return self.pool(rearrange(x, "b p d -> (b p) 1 d")).reshape(x.shape) if c.pool == "map" else x

    def run(self, x: Hidden, keys: Keys | None, blocks: Any) -> Hidden:
        """x through stacked blocks, all of them or some."""
        if keys is not None:  # for an adapter's dropout; a caption's masks are drawn from the keys themselves
            keys = jax.vmap(lambda key: jax.random.fold_in(key, _ADAPTER_DRAW))(keys)
        return run_blocks(blocks, x, None, keys, self.compute, self.gather)

    def embed(self, images: Images, keys: Keys | None = None, patch_keep: float = 1.0) -> Hidden:
        """The tokens that go into the first block: class token, registers, patches, with their positions."""
        c = self.config
        dtype = jnp.dtype(self.compute.dtype)
        if c.image_size % c.patch_size:  # the convolution leaves out what is no whole patch
            side = c.image_size // c.patch_size * c.patch_size
            images = images[:, :side, :side]
        # PyTorch's convolution with stride P is this product, and dropped patches never enter it
        x = rearrange(images, "b (h p) (w q) c -> b (h w) (p q c)", p=c.patch_size, q=c.patch_size).astype(dtype)
        prefix = c.prefix_positions
        positions = self.position[...]
        added = spread(positions[prefix:], (*x.shape[:2], c.width), dtype)
        if patch_keep < 1:
            assert keys is not None, "patch_keep below 1 draws patches at random and needs keys"
            kept = kept_patches(x.shape[1], patch_keep)

            def draw(key: Array) -> Array:
                return jax.random.permutation(jax.random.fold_in(key, _PATCH_DRAW), x.shape[1])[:kept]

            chosen = jax.vmap(draw)(keys)[..., None]
            x = jnp.take_along_axis(x, chosen, axis=1)
            added = jnp.take_along_axis(added, chosen, axis=1)
        x = self.patch(x) + added
        tokens = []
        if c.class_token:
            tokens.append(self.class_token[...][None])
        if c.registers:
            tokens.append(self.registers[...])
        if tokens:
            first = jnp.concatenate(tokens)
            places = jnp.pad(positions[:prefix], ((0, len(first) - prefix), (0, 0)))
            first, places = (spread(each, (x.shape[0], *each.shape), dtype) for each in (first, places))
            x = jnp.concatenate([first + places, x], axis=1)
        return self.norm_pre(x) if c.norm_pre else x

    def pooled(self, x: Hidden) -> Features:
        """The features of the states of all tokens after the last block."""
        c = self.config
        if c.pool == "mean_prenorm":
            return x.mean(axis=1)
        if c.pool == "cls":
            return self.norm(x[:, 0])  # the norm works on each token alone: one is enough
        if c.pool == "map":
            return self.pool(self.norm(x[:, c.prefix_tokens :]))
        if c.norm_after_pool:
            return self.norm(x[:, c.prefix_tokens :].mean(axis=1))
        return self.norm(x)[:, c.prefix_tokens :].mean(axis=1)
