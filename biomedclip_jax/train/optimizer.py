"""AdamW over the parameters that any stage trains; each stage moves its own.

The state holds moments for trained parameters only: one optax state for each set of parameters that the same stages train
("stages 0,1"), with its own count of updates. A set that a stage leaves alone keeps its moments and its count, and one that
starts late gets Adam's bias correction from its own first update on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optax
from jax import Array

from biomedclip_jax.config import OptimizerConfig, Stage
from biomedclip_jax.train.selection import Flat, check_patterns, chosen, matches

_DECAYED = ("kernel", "word", "position", "token_type", "class_token", "registers", "virtual_keys", "virtual_values")
_LOW_RANK = ("lora_a", "lora_b")  # perhaps after the name of a part: query_lora_a


def decays(paths: Sequence[str]) -> dict[str, bool]:
    """True where weight decay applies: matrices and embeddings, by name. Biases, norms, factors of adapters
    and the temperature have none.

    The rule is open_clip's (`train/main.py`: ndim below 2, bn, ln, bias, logit_scale are left out) applied to timm and BERT.
    """
    return {path: path.rsplit("/", 1)[-1] in _DECAYED or path.endswith(_LOW_RANK) for path in paths}


@dataclass(frozen=True)
class Optimizer:
    """See `make_optimizer`."""

    config: OptimizerConfig
    sets: dict[str, tuple[tuple[int, ...], tuple[str, ...]]]  # name -> (stages that train it, paths)

    def trained(self, stage: int) -> list[str]:
        """Paths of the parameters that a stage trains."""
        return [path for stages, paths in self.sets.values() if stage in stages for path in paths]

    def all_trained(self) -> list[str]:
        """Paths of the parameters that any stage trains."""
        return [path for _, paths in self.sets.values() for path in paths]

    def _adamw(self, paths: Sequence[str]) -> optax.GradientTransformation:
        c = self.config
        return optax.chain(
            optax.scale_by_adam(b1=c.beta1, b2=c.beta2, eps=c.eps),
            optax.add_decayed_weights(c.weight_decay, mask=decays(paths)),
        )

    def init(self, params: Flat) -> dict[str, Any]:
        """The state before the first update. params: {path: array}, at least those that are trained."""
        return {name: self._adamw(paths).init({p: params[p] for p in paths}) for name, (_, paths) in self.sets.items()}

    def update(
        self, gradients: Flat, state: dict[str, Any], params: Flat, stage: int, rate: Array
    ) -> tuple[Flat, dict[str, Any]]:
        """(new values of the parameters that this stage trains, new state). gradients: {path: array} of these."""
        if self.config.clip_norm is not None:
            clipped: Any = optax.clip_by_global_norm(self.config.clip_norm).update(gradients, optax.EmptyState())
            gradients = clipped[0]
        state, new = dict(state), {}
        for name, (stages, paths) in self.sets.items():
            if stage in stages:
                old = {path: params[path] for path in paths}
                into: Any = {path: gradients[path] for path in paths}
                steps: Any
                steps, state[name] = self._adamw(paths).update(into, state[name], old)
                new |= {path: old[path] - rate * self._factor(path) * steps[path] for path in paths}
        return new, state

    def _factor(self, path: str) -> float:
        return next((factor for pattern, factor in self.config.groups if matches(path, pattern)), 1.0)


def make_optimizer(config: OptimizerConfig, stages: Sequence[Stage], paths: Sequence[str]) -> Optimizer:
    """The optimizer of a run over the model's parameters `paths`. UserError for a pattern that means none of them."""
    check_patterns(paths, (pattern for pattern, _ in config.groups), "OptimizerConfig.groups")
    trained_in: dict[str, tuple[int, ...]] = dict.fromkeys(paths, ())
    for number, stage in enumerate(stages):
        check_patterns(paths, stage.trainable, f"stages.{number}.trainable")
        for path in chosen(paths, stage.trainable):
            trained_in[path] += (number,)
    sets: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {}
    for numbers in sorted(set(trained_in.values()) - {()}):
        name = "stages " + ",".join(map(str, numbers))
        sets[name] = numbers, tuple(path for path in paths if trained_in[path] == numbers)
    return Optimizer(config, sets)


def averaged(average: Flat, new: Flat, decay: float) -> Flat:
    """The moving average of the weights after one more update; parameters that did not move keep theirs."""
    return average | {path: decay * average[path] + (1 - decay) * value for path, value in new.items()}
