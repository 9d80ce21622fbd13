"""ResNet image towers: CLIP's `ModifiedResNet` with its attention pool, and torchvision's plain ResNet-50.

Sources: openai/CLIP `clip/model.py`, open_clip `modified_resnet.py` (the same computation), torchvision
`models/resnet.py`.

BatchNorm is always frozen: it uses the running statistics of the checkpoint, which get no gradient, and never those
of a batch. An image's features then do not depend on the images beside it, and training on few images cannot spoil
them.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from biomedclip_jax.config import ComputeConfig
from biomedclip_jax.config.checks import check, check_choices, check_heads, check_positive
from biomedclip_jax.models.layers import einsum, linear, precision, product
from biomedclip_jax.models.transformer import remat, stacked

ResNetStyle = Literal["clip", "torchvision"]
ResNetPool = Literal["attention", "mean", "none"]

_EXPANSION = 4  # a block gives 4 x the channels of its 3x3 convolution


@dataclass(frozen=True)
class ResNetConfig:
    """A ResNet of bottleneck blocks: CLIP's `ModifiedResNet` or torchvision's `ResNet`. The defaults are CLIP's RN50.

    style "clip": a stem of three convolutions, and average pooling in front of each stride; "torchvision": a stem of one
    7x7 convolution and a maximum, and strides in the 3x3 convolutions. BatchNorm always uses the statistics in the file.
    """

    image_size: int = 224
    blocks: tuple[int, ...] = (3, 4, 6, 3)  # of the four stages; RN101 (3, 4, 23, 3), RN50x4 (4, 6, 10, 6)
    stem_width: int = 64  # RN50x4 80
    style: ResNetStyle = "clip"
    pool: ResNetPool = "attention"
    heads: int = 32  # of the attention pool; CLIP: width / 64
    quirk: ClassVar[str] = "of ResNets only CLIP's own, with attention pooling, has one"

    def __post_init__(self) -> None:
        check_positive(self, "image_size", "stem_width", "heads")
        check_choices(self, style=ResNetStyle, pool=ResNetPool)
        whole = all(isinstance(n, int) and n > 0 for n in self.blocks)
        check(len(self.blocks) == 4 and whole, self, "blocks", "four whole numbers above 0, one a stage")
        check(self.image_size % 32 == 0, self, "image_size", "a multiple of 32, by which the tower reduces an image")
        check(self.stem_width % 2 == 0, self, "stem_width", "an even number")
        if self.pool == "attention":
            check_heads(self)

    @property
    def width(self) -> int:
        """Features of a position after the last stage."""
        return 32 * self.stem_width

    @property
    def patches(self) -> int:
        """Places after the last stage."""
        return (self.image_size // 32) ** 2

    @property
    def features(self) -> int:
        """Width of what the tower gives."""
        return self.width

    def build(self, compute: ComputeConfig, rngs: nnx.Rngs) -> "ResNet":
        """The tower with fresh parameters."""
        return ResNet(self, compute, rngs)


class Convolution(nnx.Module):
    """A convolution without bias and the frozen BatchNorm behind it: [B, H, W, in] -> [B, H', W', out].

    The kernel is [h, w, in, out]. `scale` and `bias` are learned, `mean` and `var` are the running statistics.
    """

    def __init__(self, side: int, d_in: int, d_out: int, compute: ComputeConfig, rngs: nnx.Rngs, stride: int = 1):
        init = nnx.initializers.variance_scaling(2, "fan_out", "normal")
        self.kernel = nnx.Param(init(rngs.params(), (side, side, d_in, d_out)))
        self.scale = nnx.Param(jnp.ones(d_out))
        self.bias = nnx.Param(jnp.zeros(d_out))
        self.mean = nnx.Param(jnp.zeros(d_out))
        self.var = nnx.Param(jnp.ones(d_out))
        self.stride = stride
        self.dtype = jnp.dtype(compute.dtype)

    def __call__(self, x: Array) -> Array:
        kernel = self.kernel[...].astype(self.dtype)
        side = kernel.shape[0]
        if side == 1:  # on CPU a product is faster than the convolution that it is
            x = product(x[:, :: self.stride, :: self.stride], kernel[0, 0])
        else:
            axes = ("NHWC", "HWIO", "NHWC")
            around = [(side // 2, side // 2)] * 2
            stride = (self.stride, self.stride)
            x = lax.conv_general_dilated(x, kernel, stride, around, dimension_numbers=axes, precision=precision(x, kernel))
        mean, var = lax.stop_gradient((self.mean[...], self.var[...]))
        scale = self.scale[...] * lax.rsqrt(var + 1e-5)
        return (x * scale + (self.bias[...] - mean * scale)).astype(self.dtype)


def _halve(x: Array) -> Array:
    """The mean of each 2x2 square: torch's AvgPool2d(2) on even sides."""
    b, h, w, d = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, d).mean(axis=(2, 4))


def _largest_of_3(x: Array) -> Array:
    """torch's MaxPool2d(3, stride 2, padding 1)."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))


class Bottleneck(nnx.Module):
    """relu(x' + conv3(relu(conv2(relu(conv1(x)))))); x' is x, or where its shape changes, its projection."""

    def __init__(
        self, d_in: int, d: int, stride: int, projected: bool, config: ResNetConfig, compute: ComputeConfig, rngs: nnx.Rngs
    ):
        clip = config.style == "clip"
        self.halved = clip and stride == 2
        inside = 1 if clip else stride
        self.conv1 = Convolution(1, d_in, d, compute, rngs)
        self.conv2 = Convolution(3, d, d, compute, rngs, inside)
        self.conv3 = Convolution(1, d, d * _EXPANSION, compute, rngs)
        self.projected = projected
        if projected:
            self.shortcut = Convolution(1, d_in, d * _EXPANSION, compute, rngs, inside)

    def __call__(self, x: Array) -> Array:
        y = jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(x))))
        if self.halved:
            x, y = _halve(x), _halve(y)
        return jax.nn.relu(self.conv3(y) + (self.shortcut(x) if self.projected else x))


class ResNetStage(nnx.Module):
    """The blocks at one resolution: `first` changes the shape; those after it, all alike, are stacked and scanned."""

    def __init__(
        self, d_in: int, d: int, depth: int, stride: int, config: ResNetConfig, compute: ComputeConfig, rngs: nnx.Rngs
    ):
        self.compute = compute
        self.first = Bottleneck(d_in, d, stride, True, config, compute, rngs)
        self.rest = depth - 1
        if self.rest:
            width = d * _EXPANSION
            self.blocks = stacked(lambda rngs: Bottleneck(width, d, 1, False, config, compute, rngs), self.rest, rngs)

    def __call__(self, x: Array) -> Array:
        x = self.first(x)
        if not self.rest:
            return x
        graph, state = nnx.split(self.blocks)

        def body(x: Array, weights: nnx.State) -> tuple[Array, None]:
            return nnx.merge(graph, weights)(x), None

        return lax.scan(remat(body, self.compute), x, state, unroll=self.compute.unroll)[0]


class AttentionPool(nnx.Module):
    """x [B, N, D] -> [B, D]: the mean of all positions attends to itself and to them; CLIP's projection is the head."""

    def __init__(self, config: ResNetConfig, compute: ComputeConfig, rngs: nnx.Rngs):
        d = config.width
        self.heads = config.heads
        self.position = nnx.Param(nnx.initializers.normal(d**-0.5)(rngs.params(), (1 + config.patches, d)))
        self.query = linear(d, d, compute, rngs)
        self.key = linear(d, d, compute, rngs)
        self.value = linear(d, d, compute, rngs)

    def __call__(self, x: Array) -> Array:
        b, _, d = x.shape
        x = jnp.concatenate([x.mean(axis=1, keepdims=True), x], axis=1) + self.position[...].astype(x.dtype)
        q = self.query(x[:, 0]).reshape(b, self.heads, -1) * (d // self.heads) ** -0.5
        k, v = (layer(x).reshape(b, -1, self.heads, d // self.heads) for layer in (self.key, self.value))
        scores = einsum("bhk,bnhk->bhn", q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        return einsum("bhn,bnhk->bhk", weights, v).reshape(b, d)


class ResNet(nnx.Module):
    """images [B, S, S, 3] -> pooled features [B, D], or with pool "none" those of all positions [B, S/32, S/32, D]."""

    def __init__(self, config: ResNetConfig, compute: ComputeConfig, rngs: nnx.Rngs):
        c = config
        self.config = c
        self.compute = compute
        w = c.stem_width
        if c.style == "clip":
            self.stem1 = Convolution(3, 3, w // 2, compute, rngs, 2)
            self.stem2 = Convolution(3, w // 2, w // 2, compute, rngs)
            self.stem3 = Convolution(3, w // 2, w, compute, rngs)
        else:
            self.stem = Convolution(7, 3, w, compute, rngs, 2)
        first, second, third, fourth = c.blocks
        self.stage1 = ResNetStage(w, w, first, 1, c, compute, rngs)
        self.stage2 = ResNetStage(4 * w, 2 * w, second, 2, c, compute, rngs)
        self.stage3 = ResNetStage(8 * w, 4 * w, third, 2, c, compute, rngs)
        self.stage4 = ResNetStage(16 * w, 8 * w, fourth, 2, c, compute, rngs)
        if c.pool == "attention":
            self.attention_pool = AttentionPool(c, compute, rngs)

    def __call__(self, images: Array, keys: Array | None = None, patch_keep: float = 1.0) -> Array:
        """images float32 [B, S, S, 3], normalised. A ResNet has no patches to drop: `keys` is there for symmetry."""
        assert patch_keep == 1, "a ResNet has no patches to drop"
        x = self._positions(images)
        if self.config.pool == "none":
            return x
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        return self.attention_pool(x) if self.config.pool == "attention" else x.mean(axis=1)

    def patch_states(self, images: Array) -> Array:
        """The positions of the last stage as [B, P, D], row by row from the upper left."""
        x = self._positions(images)
        return x.reshape(x.shape[0], -1, x.shape[-1])

    def patch_features(self, images: Array) -> Array:
        """What each position gives to the pooled features, [B, P, D]: its value in attention pooling, as in MaskCLIP."""
        x = self.patch_states(images)
        return self.attention_pool.value(x) if self.config.pool == "attention" else x

    def _positions(self, images: Array) -> Array:
        """[B, S/32, S/32, D]"""
        x = images.astype(self.compute.dtype)
        if self.config.style == "clip":
            for stem in (self.stem1, self.stem2, self.stem3):
                x = jax.nn.relu(stem(x))
            x = _halve(x)
        else:
            x = _largest_of_3(jax.nn.relu(self.stem(x)))
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
        return x
