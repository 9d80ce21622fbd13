"""One update: a pure function (state, batch) -> (state, metrics), compiled for a mesh.

State is a plain dict of arrays: params, opt (optax's state), step. The towers run in `jax.shard_map`; parameters are made
device-varying before they are differentiated, so that no gradient is summed inside a loop and one `psum` at the end is the
only reduction (measured: shared facts, `nnx_and_sharding_patterns.md` section 2). The optimizer works outside, in the same jit.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from biomedclip_jax.config import OptimizerConfig, Stage
from biomedclip_jax.errors import UserError
from biomedclip_jax.objective import local_contrastive_loss
from biomedclip_jax.sharding import DATA, replicated, rows
from biomedclip_jax.train.accumulate import encode_in_microbatches

State = dict[str, Any]
Batch = dict[str, Array]  # images [B, S, S, 3], tokens [B, N], index [B]: the example's place in the run

MAX_LOGIT_SCALE = math.log(100)
_DECAYED = ("kernel", "word", "position", "token_type", "class_token", "registers")


def example_keys(seed: int, index: Array) -> Array:
    """One random key an example [B]: a function of the seed and the example's place in the run alone."""
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(index)


def decays(params: dict[str, Any]) -> dict[str, Any]:
    """True where weight decay applies: matrices and embeddings, by name. Biases, norms and the temperature have none.

    The rule is open_clip's (`train/main.py`: ndim below 2, bn, ln, bias, logit_scale are left out) applied to timm and BERT.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in _DECAYED, params)


def make_optimizer(config: OptimizerConfig, rate: Callable[[Any], Array]) -> optax.GradientTransformation:
    """AdamW, after clipping by the global norm where the config asks for it."""
    adamw = optax.adamw(rate, b1=config.beta1, b2=config.beta2, eps=config.eps, weight_decay=config.weight_decay, mask=decays)
    return adamw if config.clip_norm is None else optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def check_stage(stage: Stage, devices: int) -> None:
    """UserError if the stage's batch cannot be split evenly over the devices and microbatches."""
    if stage.batch_size % (devices * stage.microbatches):
        raise UserError(
            f"Stage.batch_size = {stage.batch_size}: expected a multiple of {devices} devices x "
            f"{stage.microbatches} microbatches = {devices * stage.microbatches}"
        )


def loss_and_gradient(graph: Any, mesh: Mesh, stage: Stage, seed: int) -> Callable[[dict, Batch], tuple[Array, dict]]:
    """(params, batch) -> (loss, gradient) of the whole batch on this mesh; both replicated."""

    def on_device(params: dict, batch: Batch) -> tuple[Array, dict]:
        params = jax.tree.map(lambda x: lax.pcast(x, DATA, to="varying"), params)

        def loss(params: dict) -> Array:
            def encode(part: Batch) -> tuple[Array, Array]:
                model = nnx.merge(graph, params)
                keys = example_keys(seed, part["index"])
                image = model.encode_image(part["images"], keys, stage.patch_keep)
                return image, model.encode_text(part["tokens"], keys)

            image, text = encode_in_microbatches(encode, batch, stage.microbatches)
            return local_contrastive_loss(image, text, params["logit_scale"])

        return lax.psum(jax.value_and_grad(loss)(params), DATA)

    return jax.shard_map(on_device, mesh=mesh, in_specs=(P(), P(DATA)), out_specs=P())


def make_step(
    graph: Any, mesh: Mesh, stage: Stage, optimizer: optax.GradientTransformation, rate: Callable, seed: int
) -> Callable[[State, Batch], tuple[State, dict[str, Array]]]:
    """The compiled update of a stage. The state that goes in is donated: use the one that comes out.

    graph: from `models.abstract_model`. rate: step -> learning rate, for the metrics. Metrics: loss, grad_norm,
    logit_scale (as exp) and learning_rate, float32 scalars, of the state that went in.
    """
    check_stage(stage, mesh.size)
    gradient = loss_and_gradient(graph, mesh, stage, seed)

    def step(state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
        params = state["params"]
        loss, gradients = gradient(params, batch)
        updates, opt = optimizer.update(gradients, state["opt"], params)
        new: Any = optax.apply_updates(params, updates)
        new["logit_scale"] = jnp.clip(new["logit_scale"], 0, MAX_LOGIT_SCALE)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(gradients),
            "logit_scale": jnp.exp(params["logit_scale"]),
            "learning_rate": rate(state["step"]),
        }
        return {"params": new, "opt": opt, "step": state["step"] + 1}, metrics

    everywhere = replicated(mesh)
    return jax.jit(step, donate_argnums=0, in_shardings=(everywhere, rows(mesh)), out_shardings=(everywhere, everywhere))
