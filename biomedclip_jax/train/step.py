"""One update of a run: a pure function (state, batch) -> (state, metrics), compiled for a mesh.

Loss and gradient come from `_gradient.py`, where the towers run in `jax.shard_map`; the optimizer works outside it,
in the same jit, on parameters, moments and gradients that are sharded alike.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.sharding import Mesh

from biomedclip_jax.config import TrainConfig, check_stage
from biomedclip_jax.models import abstract_model
from biomedclip_jax.prompts.layout import Layout
from biomedclip_jax.sharding import replicated, rows, state_shardings
from biomedclip_jax.train._compiler_options import step_options
from biomedclip_jax.train._gradient import Batch, loss_and_gradient
from biomedclip_jax.train.optimizer import Flat, Optimizer, averaged
from biomedclip_jax.train.state import TrainState, initial_state
from biomedclip_jax.train.text_buckets import Buckets

Metrics = dict[str, Array]
MAX_LOGIT_SCALE = math.log(100)


def make_step(
    config: TrainConfig,
    number: int,
    mesh: Mesh,
    optimizer: Optimizer,
    rate: optax.Schedule,
    buckets: Buckets = (),
    prompts: Layout | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The compiled update of stage `number`. The state that goes in is donated: use the one that comes out.

    rate: step -> learning rate. buckets, prompts: as for `loss_and_gradient`. Metrics are float32 scalars of the
    state that went in: loss, grad_norm (before clipping), logit_scale (as exp), learning_rate, and logit_bias where
    the model has one. A batch may have `signal`, int32 [B], what each host asks of all: its largest value is a
    metric, too.
    """
    stage = config.stages[number]
    check_stage(stage, mesh.size)
    gradient = loss_and_gradient(config, stage, mesh, buckets, prompts)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        params: Flat = flatten_dict(state.params, sep="/")
        now = jnp.asarray(rate(state.step))
        loss, gradients = gradient(state.params, {name: x for name, x in batch.items() if name != "signal"})
        new, opt = optimizer.update(gradients, state.opt, params, number, now)
        if "logit_scale" in new:
            most = None if "logit_bias" in params else MAX_LOGIT_SCALE  # SigLIP's goes on to 117 and has no limit
            new["logit_scale"] = jnp.clip(new["logit_scale"], 0, most)
        scale = jnp.exp(params["logit_scale"])
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(gradients), "learning_rate": now, "logit_scale": scale}
        metrics |= {"logit_bias": params["logit_bias"]} if "logit_bias" in params else {}
        metrics |= {"signal": batch["signal"].max()} if "signal" in batch else {}
        ema = averaged(state.ema, params | new, config.optimizer.ema) if config.optimizer.ema is not None else state.ema
        return TrainState(unflatten_dict(params | new, sep="/"), opt, state.step + 1, ema), metrics

    shapes = abstract_model(config.model_in(stage), adaptation=config.adaptation)[1]
    shardings = state_shardings(jax.eval_shape(lambda params: initial_state(params, config, optimizer), shapes), mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(shardings, rows(mesh) if config.compute.images_in == "device" else None),  # None: as they are
        out_shardings=(shardings, replicated(mesh)),
        compiler_options=step_options(mesh),
    )
