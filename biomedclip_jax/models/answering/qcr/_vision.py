"""What sees the image besides CLIP: a small convolutional network on 84 x 84 pixels, an auto-encoder on 128 x 128."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from biomedclip_jax.config import ComputeConfig, QCRConfig
from biomedclip_jax.models._shapes import Features, Images
from biomedclip_jax.models.answering.qcr._layers import convolution
from biomedclip_jax.models.layers import linear

FEATURES = 64  # numbers that each of the two says of an image
MAML_SIDE, AUTOENCODER_SIDE = 84, 128
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's mode L
_EPS = 1e-5

Gray = Float[Array, "B s s 1"]  # from 0 (black) to 1


def gray(config: QCRConfig, images: Images, side: int) -> Gray:
    """Gray images of side x side pixels, from 0 to 1, of the normalised ones that the image tower sees.

    The original makes them of the file itself, which it squeezes into a square; here they show what the preprocessing
    has left of it: with resize_mode "shortest" the middle, in its own proportions. They are resized bilinearly, over
    all pixels that a new one covers.
    """
    colours = jnp.asarray(images, jnp.float32) * jnp.asarray(config.std) + jnp.asarray(config.mean)
    luma = jnp.clip((colours * jnp.asarray(_LUMA)).sum(axis=-1, keepdims=True), 0, 1)
    return jax.image.resize(luma, (len(luma), side, side, 1), "linear")


class FixedNorm(nnx.Module):
    """Batch normalisation as in evaluation: with a mean and a variance of each channel that training does not change.

    The statistics of a batch would make an example depend on the others in its batch. The original's are those of the
    batch in training; `MAML.statistics` measures such ones for the start.
    """

    def __init__(self, channels: int):
        self.mean = nnx.Param(jnp.zeros(channels))
        self.variance = nnx.Param(jnp.ones(channels))
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        return self.normalised(x, *jax.lax.stop_gradient((self.mean[...], self.variance[...])))

    def normalised(self, x: Float[Array, "B h w C"], mean: Array, variance: Array) -> Float[Array, "B h w C"]:
        """With another mean and variance of each channel."""
        factor = self.scale[...] * jax.lax.rsqrt(variance + _EPS)
        return (x.astype(jnp.float32) - mean) * factor + self.bias[...]


class MAML(nnx.Module):
    """Four convolutions of stride 2, each with ReLU and then normalisation, and the mean over what is left: 64 numbers."""

    def __init__(self, compute: ComputeConfig, rngs: nnx.Rngs):
        for number in range(1, 5):
            c_in = 1 if number == 1 else FEATURES
            setattr(self, f"conv{number}", convolution(c_in, FEATURES, compute, rngs, strides=2))
            setattr(self, f"norm{number}", FixedNorm(FEATURES))

    def __call__(self, x: Gray) -> Features:
        for number in range(1, 5):
            conv, norm = getattr(self, f"conv{number}"), getattr(self, f"norm{number}")
            x = norm(jax.nn.relu(conv(x)))
        return x.mean(axis=(1, 2))

    def statistics(self, x: Gray) -> dict[str, dict[str, Array]]:
        """The mean and the variance of each channel over these images, before each normalisation, by the name of it."""
        found: dict[str, dict[str, Array]] = {}
        for number in range(1, 5):
            conv, norm = getattr(self, f"conv{number}"), getattr(self, f"norm{number}")
            x = jax.nn.relu(conv(x)).astype(jnp.float32)
            mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
            x, found[f"norm{number}"] = norm.normalised(x, mean, variance), {"mean": mean, "variance": variance}
        return found


def _halved(x: Float[Array, "B h w C"]) -> Float[Array, "B n m C"]:
    return nnx.max_pool(x, (2, 2), (2, 2))


class AutoEncoder(nnx.Module):
    """Features of an image, and the image that its decoder makes of the same code of 16 channels, a quarter as wide.

    `up1` and `up2` are transposed convolutions of stride 2, as PyTorch's with padding 1 and output padding 1, kept as the
    convolutions with spread input that they are: with kernels [3, 3, in, out], turned by 180 degrees.
    """

    def __init__(self, compute: ComputeConfig, rngs: nnx.Rngs):
        doubling = {"input_dilation": 2, "padding": ((1, 2), (1, 2))}
        self.conv1 = convolution(1, 64, compute, rngs)
        self.conv2 = convolution(64, 32, compute, rngs)
        self.conv3 = convolution(32, 16, compute, rngs)
        self.up1 = convolution(16, 32, compute, rngs, **doubling)
        self.conv4 = convolution(32, 32, compute, rngs)
        self.up2 = convolution(32, 64, compute, rngs, **doubling)
        self.conv5 = convolution(64, 1, compute, rngs)
        self.features = linear(16 * (AUTOENCODER_SIDE // 4) ** 2, FEATURES, compute, rngs)

    def __call__(self, x: Gray) -> Features:
        return self.seen(self.encoded(x))

    def encoded(self, x: Gray) -> Float[Array, "B n n 16"]:
        """The code of an image."""
        x = _halved(jax.nn.relu(self.conv1(x)))
        x = _halved(jax.nn.relu(self.conv2(x)))
        return jax.nn.relu(self.conv3(x))

    def seen(self, code: Float[Array, "B n n 16"]) -> Features:
        """64 numbers of a code, read row by row, the channels of a place together."""
        return self.features(code.reshape(len(code), -1)).astype(jnp.float32)

    def decoded(self, code: Float[Array, "B n n 16"]) -> Gray:
        """The image that a code stands for."""
        x = jax.nn.relu(self.conv4(jax.nn.relu(self.up1(code))))
        return jax.nn.sigmoid(self.conv5(jax.nn.relu(self.up2(x))).astype(jnp.float32))
