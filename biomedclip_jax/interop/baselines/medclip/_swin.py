"""The Swin image tower (version 1): attention inside windows, which move by half a window from block to block.

Source: transformers `modeling_swin.py: SwinModel` and the paper (arXiv 2103.14030). A position attends to the
positions of its window only, with a learned bias for each relative position. In every second block the map is
rolled by half a window first; positions that came together only by rolling round the border are then masked from
each other.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax import Array, lax

from biomedclip_jax.config import Activation, ComputeConfig
from biomedclip_jax.config.checks import check, check_choices, check_positive
from biomedclip_jax.models.layers import einsum, linear
from biomedclip_jax.models.transformer import MLP, BlockShape, layer_norm, remat, stacked

_FAR = -100.0  # added to the scores of masked pairs; transformers has this number, not minus infinity


@dataclass(frozen=True)
class SwinConfig:
    """A Swin transformer, version 1. The defaults are Swin-T (`microsoft/swin-tiny-patch4-window7-224`).

    Each stage has half the side and twice the width of the one before it.
    """

    image_size: int = 224
    patch_size: int = 4
    first_width: int = 96  # of the first stage
    depths: tuple[int, ...] = (2, 2, 6, 2)  # blocks of each stage
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7  # patches a side
    mlp_ratio: int = 4
    activation: Activation = "gelu"
    layer_norm_eps: float = 1e-5
    quirk: ClassVar[str] = "open_clip has no Swin transformer"

    def __post_init__(self) -> None:
        check_positive(self, "image_size", "patch_size", "first_width", "window", "mlp_ratio")
        check_choices(self, activation=Activation)
        even = self.depths and all(isinstance(n, int) and n > 0 and n % 2 == 0 for n in self.depths)
        check(bool(even), self, "depths", "even numbers above 0, one a stage: windows at rest and moved take turns")
        fits = len(self.heads) == len(self.depths)
        fits = fits and all(h > 0 and (self.first_width << i) % h == 0 for i, h in enumerate(self.heads))
        check(fits, self, "heads", f"{len(self.depths)} divisors, of {self.first_width} and each its double")
        whole = self.image_size % (self.patch_size << (len(self.depths) - 1)) == 0
        sides = [self.patches_a_side >> i for i in range(len(self.depths))]
        whole = whole and all(side <= self.window or side % self.window == 0 for side in sides)
        check(whole, self, "image_size", f"one whose stages fill whole windows of {self.window} patches a side")

    @property
    def patches_a_side(self) -> int:
        """Patches a side of the first stage."""
        return self.image_size // self.patch_size

    @property
    def width(self) -> int:
        """Features of a position after the last stage."""
        return self.first_width << (len(self.depths) - 1)

    @property
    def features(self) -> int:
        """Width of what the tower gives."""
        return self.width

    def build(self, compute: ComputeConfig, rngs: nnx.Rngs) -> "Swin":
        """The tower with fresh parameters."""
        return Swin(self, compute, rngs)


def relative_positions(window: int) -> np.ndarray:
    """int32 [window², window²]: for each pair of positions in a window, the row of the bias table [(2·window - 1)², H]."""
    positions = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij")).reshape(2, -1)
    down, right = positions[:, :, None] - positions[:, None, :] + (window - 1)
    return (down * (2 * window - 1) + right).astype(np.int32)


def shifted_mask(side: int, window: int, shift: int) -> np.ndarray:
    """float32 [windows, window², window²]: 0 where two positions of a rolled window are neighbours in the image, else -100."""
    # three strips a side: whole windows, the last window's own positions, and those that were rolled in from the
    # other border
    strip = np.zeros(side, np.int32)
    strip[-window:-shift] = 1
    strip[-shift:] = 2
    region = rearrange(3 * strip[:, None] + strip, "(r a) (c b) -> (r c) (a b)", a=window, b=window)
    return np.where(region[:, :, None] == region[:, None, :], 0, _FAR).astype(np.float32)


class WindowAttention(nnx.Module):
    """Multi-head self-attention inside each window of a map [B, S, S, D]; one fused kernel [D, 3D] for query, key, value."""

    def __init__(self, shape: BlockShape, window: int, compute: ComputeConfig, rngs: nnx.Rngs):
        self.qkv = linear(shape.width, 3 * shape.width, compute, rngs)
        self.out = linear(shape.width, shape.width, compute, rngs)
        normal = nnx.initializers.truncated_normal(0.02)
        self.position = nnx.Param(normal(rngs.params(), ((2 * window - 1) ** 2, shape.heads)))
        self.heads = shape.heads
        self.window = window

    def __call__(self, x: Array, mask: np.ndarray | None) -> Array:
        """x [B, S, S, D]; mask float32 [windows, N, N] is added to the scores, N = window²."""
        b, side, _, d = x.shape
        w, rows = self.window, side // self.window
        pattern = "b (r i) (c j) (t h k) -> t (b r c) h (i j) k"
        q, k, v = rearrange(self.qkv(x), pattern, i=w, j=w, t=3, h=self.heads)
        q = q * jnp.asarray((d // self.heads) ** -0.5, q.dtype)
        scores = einsum("whnk,whmk->whnm", q, k, preferred_element_type=jnp.float32)
        bias = self.position[...][relative_positions(w)].transpose(2, 0, 1)  # [H, N, N]
        if mask is None:
            scores = scores + bias
        else:
            added = bias + mask[:, None]  # [windows, H, N, N]
            scores = (scores.reshape(b, -1, *scores.shape[1:]) + added).reshape(scores.shape)
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        y = einsum("whnm,whmk->whnk", weights, v)
        return self.out(rearrange(y, "(b r c) h (i j) k -> b (r i) (c j) (h k)", b=b, r=rows, i=w))


class SwinBlock(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), on a map [B, S, S, D]."""

    def __init__(self, shape: BlockShape, window: int, compute: ComputeConfig, rngs: nnx.Rngs):
        self.norm1 = layer_norm(shape.width, shape.layer_norm_eps, compute, rngs)
        self.attention = WindowAttention(shape, window, compute, rngs)
        self.norm2 = layer_norm(shape.width, shape.layer_norm_eps, compute, rngs)
        self.mlp = MLP(shape, compute, rngs)

    def __call__(self, x: Array, shift: int, mask: np.ndarray | None) -> Array:
        y = self.norm1(x)
        if shift:
            y = jnp.roll(self.attention(jnp.roll(y, (-shift, -shift), (1, 2)), mask), (shift, shift), (1, 2))
        else:
            y = self.attention(y, None)
        x = x + y
        return x + self.mlp(self.norm2(x))


class SwinStage(nnx.Module):
    """The blocks at one resolution, stacked and scanned in pairs: one with windows at rest, one with windows moved."""

    def __init__(
        self, side: int, width: int, depth: int, heads: int, config: SwinConfig, compute: ComputeConfig, rngs: nnx.Rngs
    ):
        self.compute = compute
        self.side = side
        self.window = min(config.window, side)
        mlp_width = config.mlp_ratio * width
        shape = BlockShape(width, heads, mlp_width, depth, config.activation, config.layer_norm_eps, pre_norm=True)
        self.blocks = stacked(lambda rngs: SwinBlock(shape, self.window, compute, rngs), depth, rngs)

    def __call__(self, x: Array) -> Array:
        # a map of one window has nowhere to move it
        shift = self.window // 2 if self.side > self.window else 0
        mask = shifted_mask(self.side, self.window, shift) if shift else None
        graph, state = nnx.split(self.blocks)
        pairs = jax.tree.map(lambda a: a.reshape(-1, 2, *a.shape[1:]), state)

        def body(x: Array, pair: nnx.State) -> tuple[Array, None]:
            at_rest, moved = (nnx.merge(graph, jax.tree.map(lambda a, i=i: a[i], pair)) for i in range(2))
            return moved(at_rest(x, 0, None), shift, mask), None

        return lax.scan(remat(body, self.compute), x, pairs, unroll=self.compute.unroll)[0]


class PatchMerging(nnx.Module):
    """[B, S, S, D] -> [B, S/2, S/2, 2D]: the four positions of each square side by side, LayerNorm, one dense layer."""

    def __init__(self, width: int, eps: float, compute: ComputeConfig, rngs: nnx.Rngs):
        self.norm = layer_norm(4 * width, eps, compute, rngs)
        self.reduce = linear(4 * width, 2 * width, compute, rngs, bias=False)

    def __call__(self, x: Array) -> Array:
        # the column of the square varies slowest: upper left, lower left, upper right, lower right
        return self.reduce(self.norm(rearrange(x, "b (h p) (w q) d -> b h w (q p d)", p=2, q=2)))


class Swin(nnx.Module):
    """images [B, S, S, 3] -> pooled features [B, D]: the mean of all positions after the last LayerNorm."""

    def __init__(self, config: SwinConfig, compute: ComputeConfig, rngs: nnx.Rngs):
        c = config
        self.config = c
        self.compute = compute
        self.patch = linear(c.patch_size**2 * 3, c.first_width, compute, rngs)
        self.norm_patch = layer_norm(c.first_width, c.layer_norm_eps, compute, rngs)
        for i, (depth, heads) in enumerate(zip(c.depths, c.heads, strict=True)):
            side, width = c.patches_a_side >> i, c.first_width << i
            setattr(self, f"stage{i}", SwinStage(side, width, depth, heads, c, compute, rngs))
            if i + 1 < len(c.depths):
                setattr(self, f"merge{i}", PatchMerging(width, c.layer_norm_eps, compute, rngs))
        self.norm = layer_norm(c.width, c.layer_norm_eps, compute, rngs)

    def __call__(self, images: Array, keys: Array | None = None, patch_keep: float = 1.0) -> Array:
        """images float32 [B, S, S, 3], normalised. All windows must be full: no patch can be dropped, `keys` is unused."""
        assert patch_keep == 1, "a Swin transformer cannot drop patches"
        return self.patch_states(images).mean(axis=1)

    def patch_states(self, images: Array) -> Array:
        """The positions of the last stage after the last LayerNorm as [B, P, D], row by row from the upper left."""
        c = self.config
        images = images.astype(self.compute.dtype)
        x = rearrange(images, "b (h p) (w q) c -> b h w (p q c)", p=c.patch_size, q=c.patch_size)
        x = self.norm_patch(self.patch(x))
        for i in range(len(c.depths)):
            x = getattr(self, f"stage{i}")(x)
            if i + 1 < len(c.depths):
                x = getattr(self, f"merge{i}")(x)
        return rearrange(self.norm(x), "b h w d -> b (h w) d")

    def patch_features(self, images: Array) -> Array:
        """As `patch_states`, since features are their mean."""
        return self.patch_states(images)
