"""LoRA, AdaLoRA's final form, (IA)³ and prefix tuning in the blocks of a tower, and their merging into the weights.

The parameters of an adapter are siblings of the layer's own: `text/blocks/attention/qkv/lora_a` beside `.../kernel`, or
`query_lora_a` where only the queries of the fused layer are adapted. So `Stage.trainable = ("*lora*",)` means them and nothing
else. The sizes are those of PEFT, transposed: a [in, A], b [A, out] for rank A.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from biomedclip_jax.config import AdaLoRAConfig, AdapterConfig, CLIPConfig, ComputeConfig, IA3Config, LoRAConfig, PrefixConfig
from biomedclip_jax.config.adapters import LAYERS, PARTS, Layers, block_layers
from biomedclip_jax.models.layers import dropout, linear, product
from biomedclip_jax.models.shapes import Index, Keys

LowRankConfig = LoRAConfig | AdaLoRAConfig

CONTEXT = "context"  # the path of the learned context, which like adapters is no part of a model folder
_NAMES = ("lora_a", "lora_b", "lora_e", "ia3", "virtual_keys", "virtual_values")
_FIRST_SITE = 3  # of dropout; 0 to 2 are the block's own


def is_adapter(path: str) -> bool:
    """Whether the parameter at this path belongs to an adapter, or is the learned context."""
    return path.endswith(_NAMES) or path == CONTEXT


def adapted_parts(layer: str, names: tuple[str, ...]) -> dict[str, int | None]:
    """What of a dense layer has an adapter: {prefix of its parameters: third of the output}; {"": None}: all of it."""
    if layer in names:
        return {"": None}
    thirds = PARTS if layer == "attention/qkv" else {}
    return {f"{part.rpartition('/')[2]}_": third for part, third in thirds.items() if part in names}


class BlockLinear(nnx.Linear):
    """A dense layer of a block. Its adapter, where it has one, looks at the example's keys and the block's index, too."""

    def __call__(  # pyright: ignore
        self, x: Float[Array, "B *n D"], keys: Keys | None = None, index: Index | int = 0
    ) -> Float[Array, "B *n F"]:
        return super().__call__(x)


class LowRankLinear(BlockLinear):
    """x·W + b + scale · dropout(x)·A·B, or ·A·diag(e)·B. Never a matrix of W's size; one mask for all parts of a layer."""

    def adapt(self, layer: str, parts: dict[str, int | None], adapter: LowRankConfig, site: int, rngs: nnx.Rngs) -> None:
        """Add the parameters. As in PEFT: LoRA's A is uniform within ±1/sqrt(in), B zero; AdaLoRA's normal, its e zero.

        site: of dropout.
        """
        self.parts = tuple(parts.items())
        self.site = site
        self.rate = adapter.dropout
        self.scale = scale_of(adapter)
        self.ranks: dict[str, tuple[int, ...]] = {}
        for prefix, part in parts.items():
            d_out = self.out_features if part is None else self.out_features // 3
            if isinstance(adapter, LoRAConfig):
                bound = self.in_features**-0.5
                a = jax.random.uniform(rngs.params(), (self.in_features, adapter.rank), minval=-bound, maxval=bound)
                b = jnp.zeros((adapter.rank, d_out))
            else:
                ranks = adapter.ranks_of(_part_name(layer, prefix))
                rank = adapter.rank if ranks is None else max(1, *ranks)
                a, b = (0.02 * jax.random.normal(rngs.params(), s) for s in ((self.in_features, rank), (rank, d_out)))
                setattr(self, f"{prefix}lora_e", nnx.Param(jnp.zeros(rank)))
                if ranks is not None:
                    self.ranks = self.ranks | {prefix: ranks}
            setattr(self, f"{prefix}lora_a", nnx.Param(a))
            setattr(self, f"{prefix}lora_b", nnx.Param(b))

    def __call__(self, x: Float[Array, "B *n D"], keys: Keys | None = None, index: Index | int = 0) -> Float[Array, "B *n F"]:
        y = super().__call__(x)
        x = dropout(x.astype(y.dtype), self.rate, keys, self.site)
        added = {}
        for prefix, part in self.parts:
            narrow = product(x, getattr(self, f"{prefix}lora_a")[...].astype(y.dtype))
            e = getattr(self, f"{prefix}lora_e", None)
            if e is not None:
                narrow = narrow * _kept(e[...], self.ranks.get(prefix), index).astype(y.dtype)
            added[part] = product(narrow, getattr(self, f"{prefix}lora_b")[...].astype(y.dtype))
        return y + _whole(added, jnp.zeros_like) * jnp.asarray(self.scale, y.dtype)


class ScaledLinear(BlockLinear):
    """(x·in)·W·out with one trained vector, of ones at first, either before or after."""

    def adapt(self, parts: dict[str, int | None], before: bool) -> None:
        """Add the parameters; before: of the input."""
        self.parts = tuple(parts.items())
        self.before = before
        for prefix, part in parts.items():
            width = self.in_features if before else self.out_features if part is None else self.out_features // 3
            setattr(self, f"{prefix}ia3", nnx.Param(jnp.ones(width)))

    def __call__(self, x: Float[Array, "B *n D"], keys: Keys | None = None, index: Index | int = 0) -> Float[Array, "B *n F"]:
        factors = {part: getattr(self, f"{prefix}ia3")[...] for prefix, part in self.parts}
        factor = _whole(factors, jnp.ones_like)
        if self.before:
            return super().__call__(x * factor.astype(x.dtype))
        y = super().__call__(x)
        return y * factor.astype(y.dtype)


class Prefix(nnx.Module):
    """Trained keys and values [T, D] before those of the tokens; PEFT begins with N(0, 1), too."""

    def __init__(self, config: PrefixConfig, width: int, rngs: nnx.Rngs):
        self.virtual_keys = nnx.Param(jax.random.normal(rngs.params(), (config.tokens, width)))
        self.virtual_values = nnx.Param(jax.random.normal(rngs.params(), (config.tokens, width)))

    def __call__(
        self, keys: Float[Array, "B H N K"], values: Float[Array, "B H N K"], mask: Array | np.ndarray | None
    ) -> tuple[Float[Array, "B H _ K"], Float[Array, "B H _ K"], Array | None]:
        """keys and values with the prefix before them, T + N; every token looks at the prefix, whatever the mask says."""
        b, heads, _, k = keys.shape

        def extended(x: Array, prefix: Array) -> Array:
            first = prefix.reshape(-1, heads, k).transpose(1, 0, 2).astype(x.dtype)
            return jnp.concatenate([jnp.broadcast_to(first, (b, *first.shape)), x], axis=2)

        if mask is not None:
            mask = jnp.pad(mask, ((0, 0),) * (mask.ndim - 1) + ((len(self.virtual_keys), 0),), constant_values=True)
        return extended(keys, self.virtual_keys[...]), extended(values, self.virtual_values[...]), mask


def block_linear(
    layer: str,
    d_in: int,
    d_out: int,
    adapter: AdapterConfig | None,
    compute: ComputeConfig,
    rngs: nnx.Rngs,
    *,
    block: Layers = LAYERS,
    bias: bool = True,
) -> BlockLinear:
    """The dense layer `layer` of a block, with what `adapter` has for it. block: all of its layers (`config.adapters`)."""
    if isinstance(adapter, LoRAConfig | AdaLoRAConfig) and (parts := adapted_parts(layer, adapter.layers_in(block))):
        low_rank = linear(d_in, d_out, compute, rngs, bias=bias, kind=LowRankLinear)
        low_rank.adapt(layer, parts, adapter, _FIRST_SITE + block.index(layer), rngs)
        return low_rank
    if isinstance(adapter, IA3Config):
        outputs, inputs = adapter.layers_in(block)
        parts, before = adapted_parts(layer, outputs), layer in inputs
        if parts or before:
            scaled = linear(d_in, d_out, compute, rngs, bias=bias, kind=ScaledLinear)
            scaled.adapt(parts or {"": None}, before)
            return scaled
    return linear(d_in, d_out, compute, rngs, bias=bias, kind=BlockLinear)


def scale_of(adapter: LowRankConfig) -> float:
    """What the product of A and B is multiplied by."""
    return adapter.alpha / (adapter.rank if isinstance(adapter, LoRAConfig) else adapter.rank + 1e-5)  # PEFT's epsilon


def prefix_tokens(adapter: AdapterConfig | None) -> int:
    """Trained keys before those of the tokens."""
    return adapter.tokens if isinstance(adapter, PrefixConfig) else 0


def _part_name(layer: str, prefix: str) -> str:
    return f"attention/{prefix[:-1]}" if prefix else layer


def _kept(e: Array, ranks: tuple[int, ...] | None, index: Array | int) -> Array:
    """AdaLoRA's λ [A] of a block, or [L, A] with the index of each: those that the search removed are zero, and stay so."""
    if ranks is None:
        return e
    return jnp.where(jnp.arange(e.shape[-1]) < jnp.asarray(ranks)[index][..., None], e, 0)


def _whole(parts: dict[int | None, Array], other: Any) -> Array:
    """Thirds of a layer's output put together, `other` (zeros or ones) where there is none; or the one array for all of it."""
    one = next(iter(parts.values()))
    if None in parts:
        return one
    blank: Array = other(one)
    return jnp.concatenate([parts.get(third, blank) for third in range(3)], axis=-1)


# --- merging --------------------------------------------------------------------------------------------------------


def merged(config: CLIPConfig, params: dict[str, Any]) -> tuple[CLIPConfig, dict[str, Any]]:
    """The same function with LoRA, AdaLoRA and (IA)³ in the weights, float32, and the config without them.

    W + scale·A·B, or W and b times the vector. A prefix cannot be merged and stays; learned context, which plain texts do
    not use, is left out. Pure: it can be jitted.
    """
    params = {name: leaf for name, leaf in params.items() if name != CONTEXT}
    without = merged_config(config)
    for tower in ("image", "text"):
        adapter = getattr(config, f"{tower}_adapter")
        if adapter is None or isinstance(adapter, PrefixConfig):
            continue
        blocks = dict(params[tower]["blocks"])
        layers = block_layers(getattr(config, tower))
        for layer in layers:
            group, name = layer.split("/")
            blocks[group] = blocks[group] | {name: _merged_layer(layer, blocks[group][name], adapter, layers)}
        params[tower] = params[tower] | {"blocks": blocks}
    return without, params


def merged_config(config: CLIPConfig) -> CLIPConfig:
    """The config of a model after `merged`: without adapters, except prefixes."""
    left = {f"{t}_adapter": getattr(config, f"{t}_adapter") for t in ("image", "text")}
    kept = {name: a if isinstance(a, PrefixConfig) else None for name, a in left.items()}
    return dataclasses.replace(config, context=0, **kept)


def _merged_layer(layer: str, leaves: dict[str, Array], adapter: AdapterConfig, block: Layers) -> dict[str, Array]:
    """leaves: of one layer, stacked [L, ...]; block: all layers of one."""
    own = {name: leaf for name, leaf in leaves.items() if not is_adapter(name)}
    if own.keys() == leaves.keys():
        return own
    kernel = own["kernel"].astype(jnp.float32)
    if isinstance(adapter, IA3Config):
        parts = adapted_parts(layer, adapter.layers_in(block)[0])
        if not parts:
            return own | {"kernel": kernel * leaves["ia3"][..., None]}
        factor = _whole({part: leaves[f"{prefix}ia3"] for prefix, part in parts.items()}, jnp.ones_like)
        bias = {"bias": own["bias"] * factor} if "bias" in own else {}
        return own | {"kernel": kernel * factor[:, None]} | bias
    assert isinstance(adapter, LoRAConfig | AdaLoRAConfig)
    added = {}
    for prefix, part in adapted_parts(layer, adapter.layers_in(block)).items():
        a, b = leaves[f"{prefix}lora_a"], leaves[f"{prefix}lora_b"]
        if isinstance(adapter, AdaLoRAConfig):
            ranks = adapter.ranks_of(_part_name(layer, prefix))
            a = a * _kept(leaves[f"{prefix}lora_e"], ranks, jnp.arange(len(a)))[:, None]
        added[part] = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return own | {"kernel": kernel + jnp.float32(scale_of(adapter)) * _whole(added, jnp.zeros_like)}
