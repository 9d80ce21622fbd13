"""The state of a run: made, described, and moved to another image size."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from biomedclip_jax.config import BertConfig, CLIPConfig, TrainConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop import initial
from biomedclip_jax.models import abstract_model, init_params
from biomedclip_jax.models.vit import resize_positions
from biomedclip_jax.sharding import replicated
from biomedclip_jax.train.step import State


def model_at(config: TrainConfig, image_size: int) -> CLIPConfig:
    """The model's config in a stage with this image size."""
    return dataclasses.replace(config.model, image=dataclasses.replace(config.model.image, image_size=image_size))


def abstract_state(config: TrainConfig, image_size: int, optimizer: optax.GradientTransformation, mesh: Mesh) -> State:
    """Shapes, dtypes and shardings of the state in a stage with this image size."""

    def init() -> State:
        params = init_params(model_at(config, image_size), config.seed)
        return {"params": params, "opt": optimizer.init(params), "step": jnp.int32(0)}

    everywhere = replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), jax.eval_shape(init))


def new_state(config: TrainConfig, image_size: int, optimizer: optax.GradientTransformation, mesh: Mesh) -> State:
    """The state that a run starts from: fresh or pretrained parameters, an empty optimizer, step 0."""
    everywhere = replicated(mesh)
    model = model_at(config, image_size)
    if config.model_init is not None:
        params = jax.device_put(initial.whole_model(config.model_init, model), everywhere)
    else:
        towers = _pretrained_towers(config, model)  # first: what does not fit is said before anything is compiled
        params = jax.jit(init_params, static_argnums=(0, 1), out_shardings=everywhere)(model, config.seed)
        params |= jax.device_put(towers, everywhere)
    opt = jax.jit(optimizer.init, out_shardings=everywhere)(params)
    return {"params": params, "opt": opt, "step": jax.device_put(jnp.int32(0), everywhere)}


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
    """The same state with the position table, and Adam's moments of it, for another image size."""
    image = config.model.image

    def resized(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        place = jax.tree_util.keystr(path, simple=True, separator="/")
        if not place.endswith("image/position"):
            return leaf
        table = resize_positions(leaf, image.prefix_positions, image_size // image.patch_size)
        # cubic interpolation overshoots: a second moment below 0 would be a NaN
        return jnp.maximum(table, 0) if "/nu/" in place else table

    return jax.tree_util.tree_map_with_path(resized, state)


def parameter_count(model: CLIPConfig) -> int:
    """Numbers in the parameters of a model."""
    return sum(leaf.size for leaf in jax.tree.leaves(abstract_model(model)[1]))
