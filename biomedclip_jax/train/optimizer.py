"""AdamW or SGD over the parameters that any stage trains; each stage moves its own.

The state holds moments for trained parameters only: one optax state for each set of parameters that the same stages train
("stages 0,1"), with its own count of updates. A set that a stage leaves alone keeps its moments and its count, and one that
starts late gets Adam's bias correction from its own first update on. A stage with an optimizer of its own has sets of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optax
from jax import Array

from biomedclip_jax.config import OptimizerConfig, Stage
from biomedclip_jax.train.trainable import Flat, check_patterns, matches, trained_by

_DECAYED = ("kernel", "word", "position", "token_type", "class_token", "registers", "virtual_keys", "virtual_values", "context")
_LOW_RANK = ("lora_a", "lora_b")  # perhaps after the name of a part: query_lora_a


def decays(paths: Sequence[str]) -> dict[str, bool]:
    """True where weight decay applies: matrices and embeddings, by name. Biases, norms, factors of adapters
    and the temperature have none.

    The rule is open_clip's (`train/main.py`: ndim below 2, bn, ln, bias, logit_scale are left out) applied to timm and BERT.
    """
    return {path: path.rsplit("/", 1)[-1] in _DECAYED or path.endswith(_LOW_RANK) for path in paths}


@dataclass(frozen=True)
class ParameterSet:
    """Parameters that the same stages train by the same rule."""

    config: OptimizerConfig
    stages: tuple[int, ...]
    paths: tuple[str, ...]

    @property
    def rule(self) -> optax.GradientTransformation:
        """Gradients -> steps, to be multiplied by the learning rate."""
        c = self.config
        decay = optax.add_decayed_weights(c.weight_decay, mask=decays(self.paths))
        if c.rule == "sgd":
            return optax.chain(decay, optax.trace(c.momentum))
        return optax.chain(optax.scale_by_adam(b1=c.beta1, b2=c.beta2, eps=c.eps), decay)

    def factor(self, path: str) -> float:
        """Of the learning rate."""
        return next((factor for pattern, factor in self.config.groups if matches(path, pattern)), 1.0)


@dataclass(frozen=True)
class Optimizer:
    """See `make_optimizer`."""

    sets: dict[str, ParameterSet]  # "stages 0,1" -> what these train

    def trained(self, stage: int) -> list[str]:
        """Paths of the parameters that a stage trains."""
        return [path for each in self.sets.values() if stage in each.stages for path in each.paths]

    def all_trained(self) -> list[str]:
        """Paths of the parameters that any stage trains."""
        return list(dict.fromkeys(path for each in self.sets.values() for path in each.paths))

    def init(self, params: Flat) -> dict[str, Any]:
        """The state before the first update. params: {path: array}, at least those that are trained."""
        return {name: each.rule.init({path: params[path] for path in each.paths}) for name, each in self.sets.items()}

    def update(
        self, gradients: Flat, state: dict[str, Any], params: Flat, stage: int, rate: Array
    ) -> tuple[Flat, dict[str, Any]]:
        """(new values of the parameters that this stage trains, new state). gradients: {path: array} of these."""
        own = {name: each for name, each in self.sets.items() if stage in each.stages}
        clip_norm = next(iter(own.values())).config.clip_norm  # one stage has one config
        if clip_norm is not None:
            clipped: Any = optax.clip_by_global_norm(clip_norm).update(gradients, optax.EmptyState())
            gradients = clipped[0]
        state, new = dict(state), {}
        for name, each in own.items():
            old = {path: params[path] for path in each.paths}
            into: Any = {path: gradients[path] for path in each.paths}
            steps: Any
            steps, state[name] = each.rule.update(into, state[name], old)
            new |= {path: old[path] - rate * each.factor(path) * steps[path] for path in each.paths}
        return new, state


def make_optimizer(config: OptimizerConfig, stages: Sequence[Stage], paths: Sequence[str]) -> Optimizer:
    """The optimizer of a run over the model's parameters `paths`. UserError for a pattern that means none of them."""
    shared = [number for number, stage in enumerate(stages) if stage.optimizer is None]
    groups = [(config, shared)]
    groups += [(stage.optimizer, [number]) for number, stage in enumerate(stages) if stage.optimizer is not None]
    sets: dict[str, ParameterSet] = {}
    for own, members in groups:
        check_patterns(paths, (pattern for pattern, _ in own.groups), "OptimizerConfig.groups")
        trained_in: dict[str, tuple[int, ...]] = dict.fromkeys(paths, ())
        for number in members:
            check_patterns(paths, stages[number].trainable, f"stages.{number}.trainable")
            for path in trained_by(stages[number], paths):
                trained_in[path] += (number,)
        for numbers in sorted(set(trained_in.values()) - {()}):
            name = "stages " + ",".join(map(str, numbers))
            sets[name] = ParameterSet(own, numbers, tuple(path for path in paths if trained_in[path] == numbers))
    return Optimizer(sets)


def averaged(average: Flat, new: Flat, decay: float) -> Flat:
    """The moving average of the weights after one more update; parameters that did not move keep theirs."""
    return average | {path: decay * average[path] + (1 - decay) * value for path, value in new.items()}
