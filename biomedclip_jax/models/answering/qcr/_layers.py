"""Dense layers whose weights are a direction and one length, convolutions, and keys for the parts of a model."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from biomedclip_jax.config import ComputeConfig
from biomedclip_jax.models._shapes import Features, Keys
from biomedclip_jax.models.layers import Linear, dropout, precision, product, spread


def part_keys(keys: Keys | None, part: int) -> Keys | None:
    """Keys of the examples for one of several parts, so that each draws its own dropout."""
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, part))(keys)


def dropped(x: Features, rate: float, keys: Keys | None, site: int) -> Features:
    """`dropout` of one vector an example."""
    return dropout(x[:, None], rate, keys, site)[:, 0]


def normed(kernel: Float[Array, "..."], scale: Float[Array, ""]) -> Float[Array, "..."]:
    """scale · kernel / |kernel|, with one length for the whole array, as PyTorch's `weight_norm(dim=None)` has it."""
    return kernel * (scale / jnp.sqrt(jnp.maximum(jnp.sum(kernel * kernel), 1e-30)))  # of no answers it is empty


class NormedLinear(nnx.Module):
    """Dense layer whose kernel [in, out] is kept as its direction `kernel` and its length `scale`, a single number."""

    def __init__(self, d_in: int, d_out: int, compute: ComputeConfig, rngs: nnx.Rngs):
        """Starts as a dense layer of variance 1 / (3·in), that of PyTorch's default."""
        bound = d_in**-0.5
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), (d_in, d_out), minval=-bound, maxval=bound))
        self.scale = nnx.Param(jnp.sqrt(jnp.sum(jnp.square(self.kernel[...]))))
        self.bias = nnx.Param(jnp.zeros(d_out))
        self.dtype = jnp.dtype(compute.dtype)

    def __call__(self, x: Float[Array, "*n D"]) -> Float[Array, "*n F"]:
        kernel = normed(self.kernel[...], self.scale[...])
        y = product(x.astype(self.dtype), kernel.astype(self.dtype))
        return y + spread(self.bias[...], y.shape, self.dtype)


def glorot_linear(d_in: int, d_out: int, compute: ComputeConfig, rngs: nnx.Rngs) -> Linear:
    """Dense layer that starts uniform with variance 2 / (in + out), as the question networks of the original do."""
    init = nnx.initializers.xavier_uniform()
    return Linear(d_in, d_out, dtype=jnp.dtype(compute.dtype), kernel_init=init, rngs=rngs)


class Convolution(nnx.Conv):
    """A convolution in its `dtype`; the gradient of its bias, a sum over all pixels, is summed in float32."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.use_bias = False  # it is added here

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B m n F"]:  # pyright: ignore
        y, bias = super().__call__(x), self.bias
        assert bias is not None
        return y + spread(bias[...], y.shape, y.dtype)


def convolution(c_in: int, c_out: int, compute: ComputeConfig, rngs: nnx.Rngs, **options: Any) -> Convolution:
    """3 x 3 convolution, kernel [3, 3, in, out]; a border of one pixel is added unless the options say otherwise."""
    init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    given: dict[str, Any] = {"padding": ((1, 1), (1, 1))} | options
    dtype = jnp.dtype(compute.dtype)
    exact = precision(jnp.zeros((), dtype))
    return Convolution(c_in, c_out, (3, 3), dtype=dtype, precision=exact, kernel_init=init, rngs=rngs, **given)
