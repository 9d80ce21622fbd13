"""LoRA, AdaLoRA's final form, (IA)³ and prefix tuning in the blocks of a tower, and their merging into the weights.

The parameters of an adapter are siblings of the layer's own: `text/blocks/attention/qkv/lora_a` beside `.../kernel`,
or `query_lora_a` where only the queries of the fused layer are adapted. So the pattern "*lora*" in `Stage.trainable`
means them and nothing else. `with_adapters` puts other layers in the place of a tower's own; the towers know nothing
of them. The sizes are those of PEFT, transposed: a [in, A], b [A, out] for rank A.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from biomedclip_jax.config import AdaLoRAConfig, Adaptation, AdapterConfig, CLIPConfig, IA3Config, LoRAConfig, PrefixConfig
from biomedclip_jax.config.adapters import PARTS, Layers, block_layers
from biomedclip_jax.models._shapes import Index, Keys
from biomedclip_jax.models.layers import dropout, product, spread
from biomedclip_jax.models.transformer import BlockLinear

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


def with_adapters(clip: Any, adaptation: Adaptation, rngs: nnx.Rngs) -> None:
    """Add what is to be trained to a `CLIP` module, in place: its other parameters keep their paths and values.

    UserError for what a model of these sizes has no place for.
    """
    adaptation.check_fits(clip.config)
    for tower in ("image", "text"):
        adapter, sizes = getattr(adaptation, tower), getattr(clip.config, tower)
        if adapter is not None:
            _adapt_blocks(getattr(clip, tower).blocks, adapter, block_layers(sizes), rngs)
    if adaptation.context:  # CoOp's random start; a run may start it from words (`train/_prompt_stage.py`)
        clip.context = nnx.Param(0.02 * jax.random.normal(rngs.params(), (adaptation.context, clip.config.text.width)))


def _adapt_blocks(blocks: Any, adapter: AdapterConfig, layers: Layers, rngs: nnx.Rngs) -> None:
    """blocks: those of a tower, stacked; layers: all dense layers of one, by name."""
    if isinstance(adapter, PrefixConfig):
        keys = blocks.attention.key if "attention/key" in layers else blocks.attention.out  # G heads in a LLaMA, else H
        blocks.attention.prefix = Prefix(adapter, len(keys.kernel), keys.out_features, rngs)
        return
    for site, name in enumerate(layers, start=_FIRST_SITE):
        group, attribute = name.split("/")
        owner = getattr(blocks, group)
        setattr(owner, attribute, _adapted(name, getattr(owner, attribute), adapter, layers, site, rngs))


def _adapted(name: str, layer: BlockLinear, adapter: AdapterConfig, layers: Layers, site: int, rngs: nnx.Rngs) -> BlockLinear:
    """The dense layer, of stacked blocks, with what the adapter has for it: itself, if that is nothing."""
    if isinstance(adapter, LoRAConfig | AdaLoRAConfig) and (parts := adapted_parts(name, adapter.layers_in(layers))):
        return LowRankLinear(
            layer, {prefix: (part, _ranks_of(adapter, name, prefix)) for prefix, part in parts.items()}, adapter, site, rngs
        )
    if isinstance(adapter, IA3Config):
        outputs, inputs = adapter.layers_in(layers)
        parts, before = adapted_parts(name, outputs), name in inputs
        if parts or before:
            return ScaledLinear(layer, parts or {"": None}, before, rngs)
    return layer


class _Around(BlockLinear):
    """A dense layer in the place of another, whose kernel and bias it takes over, of one block or of stacked ones."""

    def __init__(self, layer: BlockLinear, rngs: nnx.Rngs):
        zeros = nnx.initializers.zeros_init()
        sizes, bias = (layer.in_features, layer.out_features), layer.bias is not None
        super().__init__(*sizes, use_bias=bias, dtype=layer.dtype, kernel_init=zeros, rngs=rngs)
        self.kernel, self.bias = layer.kernel, layer.bias


class LowRankLinear(_Around):
    """x·W + b + scale · dropout(x)·A·B, or ·A·diag(e)·B. Never a matrix of W's size; one mask for all parts of a layer."""

    def __init__(
        self,
        layer: BlockLinear,
        parts: dict[str, tuple[int | None, tuple[int, ...] | None]],
        adapter: LowRankConfig,
        site: int,
        rngs: nnx.Rngs,
    ):
        """layer: of stacked blocks. parts: {prefix of parameters: (third of the output, AdaLoRA's rank in each block)}.

        As in PEFT, LoRA's A is uniform within ±1/sqrt(in) and B zero; AdaLoRA's are normal, its e zero. site: of dropout.
        """
        super().__init__(layer, rngs)
        # tuples, because programs are compiled for the model's graph, which must be hashable
        self.parts = tuple((prefix, part, ranks) for prefix, (part, ranks) in parts.items())
        self.site = site
        self.rate = adapter.dropout
        self.scale = scale_of(adapter)
        depth, d_in = layer.kernel.shape[0], self.in_features
        for prefix, (part, ranks) in parts.items():
            d_out = self.out_features if part is None else self.out_features // 3
            if isinstance(adapter, LoRAConfig):
                a = jax.random.uniform(rngs.params(), (depth, d_in, adapter.rank), minval=-(d_in**-0.5), maxval=d_in**-0.5)
                b = jnp.zeros((depth, adapter.rank, d_out))
            else:
                rank = adapter.rank if ranks is None else max(1, *ranks)
                shapes = ((depth, d_in, rank), (depth, rank, d_out))
                a, b = (0.02 * jax.random.normal(rngs.params(), shape) for shape in shapes)
                setattr(self, f"{prefix}lora_e", nnx.Param(jnp.zeros((depth, rank))))
            setattr(self, f"{prefix}lora_a", nnx.Param(a))
            setattr(self, f"{prefix}lora_b", nnx.Param(b))

    def __call__(self, x: Float[Array, "B *n D"], keys: Keys | None = None, index: Index | int = 0) -> Float[Array, "B *n F"]:
        y = super().__call__(x)
        x = dropout(x.astype(y.dtype), self.rate, keys, self.site)
        added = {}
        for prefix, part, ranks in self.parts:
            narrow = product(x, getattr(self, f"{prefix}lora_a")[...].astype(y.dtype))
            e = getattr(self, f"{prefix}lora_e", None)
            if e is not None:
                narrow = narrow * spread(_kept(e[...], ranks, index), narrow.shape, y.dtype)
            added[part] = product(narrow, getattr(self, f"{prefix}lora_b")[...].astype(y.dtype))
        return y + _whole(added, jnp.zeros_like) * jnp.asarray(self.scale, y.dtype)


class ScaledLinear(_Around):
    """(x·in)·W·out with one trained vector, of ones at first, either before or after."""

    def __init__(self, layer: BlockLinear, parts: dict[str, int | None], before: bool, rngs: nnx.Rngs):
        """layer: of stacked blocks; parts: {prefix of parameters: third of the output}; before: the vector is the input's."""
        super().__init__(layer, rngs)
        self.parts = tuple(parts.items())
        self.before = before
        for prefix, part in parts.items():
            width = self.in_features if before else self.out_features if part is None else self.out_features // 3
            setattr(self, f"{prefix}ia3", nnx.Param(jnp.ones((layer.kernel.shape[0], width))))

    def __call__(self, x: Float[Array, "B *n D"], keys: Keys | None = None, index: Index | int = 0) -> Float[Array, "B *n F"]:
        factors = {part: getattr(self, f"{prefix}ia3")[...] for prefix, part in self.parts}
        factor = _whole(factors, jnp.ones_like)
        if self.before:
            return super().__call__(x * spread(factor, x.shape, x.dtype))
        y = super().__call__(x)
        return y * spread(factor, y.shape, y.dtype)


class Prefix(nnx.Module):
    """Trained keys and values [L, T, D] before those of the tokens; PEFT begins with N(0, 1), too."""

    def __init__(self, config: PrefixConfig, depth: int, width: int, rngs: nnx.Rngs):
        shape = (depth, config.tokens, width)
        self.virtual_keys, self.virtual_values = (nnx.Param(jax.random.normal(rngs.params(), shape)) for _ in range(2))

    def __call__(
        self, keys: Float[Array, "B H N K"], values: Float[Array, "B H N K"], mask: Array | np.ndarray | None
    ) -> tuple[Float[Array, "B H _ K"], Float[Array, "B H _ K"], Array | None]:
        """keys and values with the prefix before them, T + N; every token looks at the prefix, whatever the mask says."""
        b, heads, _, k = keys.shape

        def extended(x: Array, prefix: Array) -> Array:
            first = prefix.reshape(-1, heads, k).transpose(1, 0, 2)
            return jnp.concatenate([spread(first, (b, *first.shape), x.dtype), x], axis=2)

        if mask is not None:
            mask = jnp.pad(mask, ((0, 0),) * (mask.ndim - 1) + ((len(self.virtual_keys), 0),), constant_values=True)
        return extended(keys, self.virtual_keys[...]), extended(values, self.virtual_values[...]), mask


def scale_of(adapter: LowRankConfig) -> float:
    """What the product of A and B is multiplied by."""
    return adapter.alpha / (adapter.rank if isinstance(adapter, LoRAConfig) else adapter.rank + 1e-5)  # PEFT's epsilon


def _ranks_of(adapter: LowRankConfig, layer: str, prefix: str) -> tuple[int, ...] | None:
    """AdaLoRA's rank in each block, of the part of a layer whose parameters have this prefix; None: the same in all."""
    return adapter.ranks_of(f"attention/{prefix[:-1]}" if prefix else layer) if isinstance(adapter, AdaLoRAConfig) else None


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


def merged(config: CLIPConfig, adaptation: Adaptation, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the same function with LoRA, AdaLoRA and (IA)³ in the weights, float32.

    W + scale·A·B, or W and b times the vector. A prefix cannot be merged and stays (`Adaptation.unmergeable`); learned
    context, which plain texts do not use, is left out. Pure: it can be jitted.
    """
    params = {name: leaf for name, leaf in params.items() if name != CONTEXT}
    for tower in ("image", "text"):
        adapter = getattr(adaptation, tower)
        if adapter is None or isinstance(adapter, PrefixConfig):
            continue
        blocks = dict(params[tower]["blocks"])
        layers = block_layers(getattr(config, tower))
        for layer in layers:
            group, name = layer.split("/")
            blocks[group] = blocks[group] | {name: _merged_layer(layer, blocks[group][name], adapter, layers)}
        params[tower] = params[tower] | {"blocks": blocks}
    return params


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
            a = a * _kept(leaves[f"{prefix}lora_e"], _ranks_of(adapter, layer, prefix), jnp.arange(len(a)))[:, None]
        added[part] = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return own | {"kernel": kernel + jnp.float32(scale_of(adapter)) * _whole(added, jnp.zeros_like)}
