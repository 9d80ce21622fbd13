"""The state of a run: made, described, and moved to another image size."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from biomedclip_jax.config import BertConfig, CLIPConfig, TrainConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop import initial
from biomedclip_jax.interop.layout import flatten, nest
from biomedclip_jax.models import abstract_model, init_params
from biomedclip_jax.models.vit import resize_positions
from biomedclip_jax.sharding import replicated, state_shardings
from biomedclip_jax.train.optimizer import Optimizer, make_optimizer
from biomedclip_jax.train.step import State, state_of


def abstract_state(config: TrainConfig, image_size: int, optimizer: Optimizer, mesh: Mesh) -> State:
    """Shapes, dtypes and shardings of the state in a stage with this image size."""
    shapes = abstract_model(config.model_at(image_size))[1]
    state = jax.eval_shape(lambda params: state_of(params, config, optimizer), shapes)
    return jax.tree.map(
        lambda x, lies: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=lies), state, state_shardings(state, mesh)
    )


def new_state(config: TrainConfig, image_size: int, optimizer: Optimizer, mesh: Mesh) -> State:
    """The state that a run starts from: fresh or pretrained parameters, an empty optimizer, step 0."""
    abstract = abstract_state(config, image_size, optimizer, mesh)
    lying = jax.tree.map(lambda x: x.sharding, abstract)
    params = starting_params(config, image_size, lying["params"])
    # a copy of its own for the moving average: the two are donated apart
    return jax.jit(lambda p: jax.tree.map(jnp.copy, state_of(p, config, optimizer)), out_shardings=lying)(params)


def starting_params(config: TrainConfig, image_size: int, shardings: dict[str, Any]) -> dict[str, Any]:
    """Fresh or pretrained parameters. They are a function of the config alone."""
    model = config.model_at(image_size)
    if config.model_init is not None:
        return jax.device_put(initial.whole_model(config.model_init, model), shardings)
    towers = _pretrained_towers(config, model)  # first: what does not fit is said before anything is compiled
    params = jax.jit(init_params, static_argnums=(0, 1), out_shardings=shardings)(model, config.seed)
    return params | jax.device_put(towers, {tower: shardings[tower] for tower in towers})


def _pretrained_towers(config: TrainConfig, model: CLIPConfig) -> dict[str, Any]:
    towers = {}
    if config.image_init is not None:
        towers["image"] = initial.image_tower(config.image_init, model.image)
    if config.text_init is not None:
        if not isinstance(model.text, BertConfig):
            raise UserError("text_init: only a BERT text tower can start from pretrained weights")
        towers["text"] = initial.text_tower(config.text_init, model.text)
    return towers


def at_image_size(state: State, config: TrainConfig, image_size: int) -> State:
    """The same state with the position table, and Adam's moments and the average of it, for another image size."""
    image, mesh = config.model.image, state["step"].sharding.mesh

    def resized(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        place = jax.tree_util.keystr(path, simple=True, separator="/")
        if not place.endswith("image/position"):
            return leaf

        def resize(table: jax.Array) -> jax.Array:
            table = resize_positions(table, image.prefix_positions, image_size // image.patch_size)
            # cubic interpolation overshoots: a second moment below 0 would be a NaN
            return jnp.maximum(table, 0) if "/nu/" in place else table

        # the rule may split the table of another size along another axis
        lies = state_shardings({place: jax.eval_shape(resize, leaf)}, mesh)[place]
        return jax.jit(resize, out_shardings=lies)(leaf)

    return jax.tree_util.tree_map_with_path(resized, state)


def exported_params(state: State, config: TrainConfig, image_size: int) -> dict[str, Any]:
    """The parameters that a run hands over, whole on each device: the moving average where there is one, else the weights;
    with `TrainConfig.interpolate` below 1 mixed with the starting weights.

    `interpolate` is WiSE-FT's alpha (arXiv 2109.01903): 1 gives the trained weights, 0 the starting ones.
    """
    params = nest(flatten(state["params"]) | state.get("ema", {}))
    whole = replicated(state["step"].sharding.mesh)
    share = config.interpolate
    if share == 1:
        return jax.jit(lambda p: p, out_shardings=whole)(params)
    start = starting_params(config, image_size, jax.tree.map(lambda x: x.sharding, params))
    mix = jax.jit(lambda a, b: jax.tree.map(lambda x, y: share * x + (1 - share) * y, a, b), out_shardings=whole)
    return mix(params, start)


def optimizer_for(config: TrainConfig) -> Optimizer:
    """The optimizer of a run. UserError for a pattern in the config that means no parameter."""
    return make_optimizer(config.optimizer, config.stages, list(flatten(abstract_model(config.model)[1])))


def parameter_count(model: CLIPConfig, paths: Sequence[str] | None = None) -> int:
    """Numbers in the parameters of a model, or in those at `paths`."""
    leaves = flatten(abstract_model(model)[1])
    return sum(leaves[path].size for path in (leaves if paths is None else paths))
