"""The state of a run: made, described, and moved to another image size."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.sharding import Mesh

from biomedclip_jax.config import UNADAPTED, Adaptation, CLIPConfig, TrainConfig
from biomedclip_jax.interop import initial
from biomedclip_jax.interop.fingerprint import fingerprint
from biomedclip_jax.interop.model import Model
from biomedclip_jax.models import abstract_model, init_params
from biomedclip_jax.models.adapters import is_adapter, merged
from biomedclip_jax.models.vit import resize_positions
from biomedclip_jax.sharding import placed, replicated, state_shardings
from biomedclip_jax.train._frozen import made_again, stored
from biomedclip_jax.train.optimizer import Flat, Optimizer, make_optimizer


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that an update changes; a checkpoint holds it."""

    params: dict[str, Any]  # nested, as `models.abstract_model` has them
    opt: dict[str, Any]  # the optimizer's state of each set of parameters (`optimizer.py`)
    step: Array  # int32: updates done
    ema: Flat = field(default_factory=dict)  # {path: moving average} with `OptimizerConfig.ema`, else {}

    @property
    def mesh(self) -> Mesh:
        """The devices that hold the state."""
        return self.step.sharding.mesh  # type: ignore[attr-defined]

    @property
    def averaged_params(self) -> dict[str, Any]:
        """The parameters that are evaluated and exported: the moving average where there is one."""
        return unflatten_dict(flatten_dict(self.params, sep="/") | self.ema, sep="/")


def initial_state(params: dict[str, Any], config: TrainConfig, optimizer: Optimizer) -> TrainState:
    """The state before the first update."""
    flat = flatten_dict(params, sep="/")
    ema = {} if config.optimizer.ema is None else {path: flat[path] for path in optimizer.all_trained()}
    return TrainState(params, optimizer.init(flat), jnp.int32(0), ema)


def abstract_state(config: TrainConfig, image_size: int, optimizer: Optimizer, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state in a stage with this image size."""
    shapes = abstract_model(config.model_at(image_size), adaptation=config.adaptation)[1]
    state = jax.eval_shape(lambda params: initial_state(stored(params, config, optimizer), config, optimizer), shapes)
    return placed(state, mesh)


def new_state(config: TrainConfig, image_size: int, optimizer: Optimizer, mesh: Mesh) -> TrainState:
    """The state that a run starts from: fresh or pretrained parameters, an empty optimizer, step 0."""
    abstract = abstract_state(config, image_size, optimizer, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    params = stored(starting_params(config, image_size, abstract.params), config, optimizer)
    # a copy of its own for the moving average: the two are donated apart
    return jax.jit(lambda p: jax.tree.map(jnp.copy, initial_state(p, config, optimizer)), out_shardings=shardings)(params)


def starting_params(config: TrainConfig, image_size: int, like: dict[str, Any]) -> dict[str, Any]:
    """Fresh or pretrained parameters, each sharded as that of `like` is: arrays, or shapes with dtypes and shardings.

    They are a function of the config alone, but for rounding: a pretrained text tower is read into the dtypes of `like`.
    """
    model = config.model_at(image_size)
    # first: what does not fit is said before anything is compiled
    if config.model_init is not None:
        given = flatten_dict(initial.whole_model(_load(config.model_init), config.model_init, model), sep="/")
    else:
        given = flatten_dict(_pretrained_towers(config, model, like), sep="/")
    wanted: Flat = flatten_dict(like, sep="/")
    shardings = {path: leaf.sharding for path, leaf in wanted.items()}
    rest = {path: sharding for path, sharding in shardings.items() if path not in given}

    def fresh() -> Flat:
        params = flatten_dict(init_params(model, config.seed, config.adaptation), sep="/")
        return {path: params[path] for path in rest}

    made = jax.jit(fresh, out_shardings=rest)() if rest else {}
    given = jax.device_put(given, {path: shardings[path] for path in given})
    return unflatten_dict({path: given[path] if path in given else made[path] for path in shardings}, sep="/")


def _load(source: str | Path) -> Model:
    """The model behind a name that any command takes."""
    from biomedclip_jax.pretrained import load  # here: the bench measures without what reads images

    return load(source)


def _pretrained_towers(config: TrainConfig, model: CLIPConfig, like: dict[str, Any]) -> dict[str, Any]:
    towers = {}
    if config.image_init is not None:
        towers["image"] = initial.starting_image_tower(config.image_init, model.vit, _load)
    if config.text_init is not None:
        towers["text"] = initial.starting_text_tower(config.text_init, model.text, _load, flatten_dict(like, sep="/"))
    return towers


def at_image_size(state: TrainState, config: TrainConfig, image_size: int) -> TrainState:
    """The state for another image size: the position table resized, with its moments in Adam and its average."""
    image, mesh = config.model.vit, state.mesh

    def resized(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not name.endswith("image/position"):
            return leaf

        def resize(table: jax.Array) -> jax.Array:
            table = jnp.asarray(resize_positions(table, image.prefix_positions, image_size // image.patch_size))
            # cubic interpolation overshoots: a second moment below 0 would be a NaN
            return jnp.maximum(table, 0) if "/nu/" in name else table

        # the rule may split the table of another size along another axis
        sharding = state_shardings({name: jax.eval_shape(resize, leaf)}, mesh)[name]
        return jax.jit(resize, out_shardings=sharding)(leaf)

    return jax.tree_util.tree_map_with_path(resized, state)


def exported_params(state: TrainState, config: TrainConfig, image_size: int) -> dict[str, Any]:
    """The parameters that a run exports, float32: the moving average where there is one, else the weights.

    Adapters are merged into them; with `TrainConfig.interpolate` below 1 they are mixed with the starting weights.

    `interpolate` is WiSE-FT's alpha (arXiv 2109.01903): 1 gives the trained weights, 0 the starting ones. They are
    split as in training, because one device may not hold all of them; on several hosts they come as numpy arrays.
    """
    params = state.averaged_params
    mesh = state.mesh
    share = config.interpolate

    def plain(params: dict[str, Any]) -> dict[str, Any]:
        return jax.tree.map(lambda x: x.astype(jnp.float32), merged(config.model, config.adaptation, params))

    shardings = state_shardings(jax.eval_shape(plain, params), mesh)
    if share == 1:
        return _within_reach(jax.jit(plain, out_shardings=shardings)(params), mesh)
    start = starting_params(config, image_size, params)

    def mix(trained: dict[str, Any], start: dict[str, Any]) -> dict[str, Any]:
        return jax.tree.map(lambda x, y: share * x + (1 - share) * y, plain(trained), plain(start))

    return _within_reach(jax.jit(mix, out_shardings=shardings)(params, start), mesh)


def _within_reach(params: dict[str, Any], mesh: Mesh) -> dict[str, Any]:
    """What this host can read: where parts are on others, the whole arrays, gathered one at a time."""
    if jax.process_count() == 1:
        return params
    whole = jax.jit(lambda x: x, out_shardings=replicated(mesh))
    return jax.tree.map(lambda x: np.asarray(whole(x)), params)


def learned_params(state: TrainState, config: TrainConfig, optimizer: Optimizer) -> tuple[Flat, str]:
    """What a run with adapters hands over in its adapter folder: {path: array}, the moving average where there is one, whole
    on each device; and the fingerprint of the parameters that are not there.
    """
    flat = flatten_dict(state.params, sep="/")
    still = set(made_again(list(flat), config, optimizer))
    learned = {path: leaf for path, leaf in (flat | state.ema).items() if path not in still}
    learned = jax.jit(lambda leaves: leaves, out_shardings=replicated(state.mesh))(learned)
    return learned, fingerprint({path: flat[path] for path in still})


def optimizer_for(config: TrainConfig) -> Optimizer:
    """The optimizer of a run. UserError for a pattern in the config that means no parameter."""
    return make_optimizer(config.optimizer, config.stages, list(abstract_leaves(config.model, config.adaptation)))


def abstract_leaves(model: CLIPConfig, adaptation: Adaptation = UNADAPTED) -> Flat:
    """The shapes of all parameters of a model, with what is added to it, {path: `jax.ShapeDtypeStruct`}."""
    return flatten_dict(abstract_model(model, adaptation=adaptation)[1], sep="/")


def parameter_count(model: CLIPConfig, paths: Sequence[str] | None = None, adaptation: Adaptation = UNADAPTED) -> int:
    """How many numbers the parameters of a model have, with what is added to it, or those at `paths`."""
    leaves = abstract_leaves(model, adaptation)
    return sum(leaves[path].size for path in (leaves if paths is None else paths))


def trained_groups(config: TrainConfig, stage: int | None = None) -> dict[str, int]:
    """Numbers that a stage trains, or any stage, by group: {"text adapter": 2621440, "text_head": 1311232, ...}."""
    optimizer = optimizer_for(config)
    leaves = abstract_leaves(config.model, config.adaptation)
    groups: dict[str, int] = {}
    for path in optimizer.all_trained() if stage is None else optimizer.trained(stage):
        tower, below, _ = path.partition("/")
        name = f"{tower} adapter" if below and is_adapter(path) else tower
        groups[name] = groups.get(name, 0) + leaves[path].size
    return dict(sorted(groups.items()))
