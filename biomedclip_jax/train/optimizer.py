"""Which parameters a stage trains, how long it is, at which learning rate, and by which rule.

Parameters are named by path, `image/blocks/mlp/fc1/kernel`. A pattern means a path or what lies below it, with the
wildcards of `fnmatch`: "text" is the whole text tower, "*_head" both projections, "*/bias" every bias.

The state holds moments for trained parameters only: one optax state for each set of parameters that the same stages
train ("stages 0,1"), with its own count of updates. A set that a stage leaves alone keeps its moments and its
count, and one that starts late gets Adam's bias correction from its own first update on. A stage with an optimizer
of its own has sets of its own.
"""

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax
from jax import Array

from biomedclip_jax.config import OptimizerConfig, Stage
from biomedclip_jax.errors import UserError
from biomedclip_jax.models.adapters import CONTEXT

Flat = dict[str, Any]  # {path: leaf}

_DECAYED = ("kernel", "word", "position", "token_type", "class_token", "registers", "query")
_DECAYED += ("virtual_keys", "virtual_values", "context")
_LOW_RANK = ("lora_a", "lora_b")  # perhaps after the name of a part: query_lora_a


def matches(path: str, pattern: str) -> bool:
    """Whether the pattern means this parameter."""
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"{pattern}/*")


def chosen(paths: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The paths that any of the patterns means, in their order."""
    return [path for path in paths if any(matches(path, pattern) for pattern in patterns)]


def trained_by(stage: Stage, paths: Iterable[str]) -> list[str]:
    """The paths that a stage trains, in their order; the learned context only in a stage that uses it."""
    found = chosen(paths, stage.trainable)
    return found if stage.prompted else [path for path in found if path != CONTEXT]


def check_patterns(paths: Sequence[str], patterns: Iterable[str], where: str) -> None:
    """UserError for a pattern that means no parameter; it suggests the nearest path. `where`: the config field."""
    for pattern in patterns:
        if not chosen(paths, [pattern]):
            parts = {"/".join(path.split("/")[:n]) for path in paths for n in range(1, path.count("/") + 2)}
            near = difflib.get_close_matches(pattern, sorted(parts), n=1, cutoff=0.0)
            raise UserError(f"{where}: {pattern!r} is no parameter of this model; did you mean {near[0]!r}?")


def decays(paths: Sequence[str]) -> dict[str, bool]:
    """True where weight decay applies: matrices and embeddings, by name. Biases, norms, factors of adapters
    and the temperature have none.

    The rule is open_clip's (`train/main.py`: ndim below 2, bn, ln, bias, logit_scale are left out) applied to timm
    and BERT.
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
        decay = optax.add_decayed_weights(c.weight_decay, mask=self.decays())
        if c.rule == "sgd":
            return optax.chain(decay, optax.trace(c.momentum))
        if c.rule == "adamax":
            return optax.chain(decay, optax.scale_by_adamax(b1=c.beta1, b2=c.beta2, eps=c.eps))
        return optax.chain(optax.scale_by_adam(b1=c.beta1, b2=c.beta2, eps=c.eps), decay)

    def decays(self) -> dict[str, bool]:
        """True where weight decay applies: by name, and where the config says so."""
        further = set(chosen(self.paths, self.config.decayed))
        return {path: by_name or path in further for path, by_name in decays(self.paths).items()}

    def factor(self, path: str) -> float:
        """The factor of the learning rate for this parameter: of the first group that means it, else 1."""
        return next((factor for pattern, factor in self.config.groups if matches(path, pattern)), 1.0)


@dataclass(frozen=True)
class Optimizer:
    """What updates the parameters of a run; `make_optimizer` makes it."""

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
        check_patterns(paths, own.decayed, "OptimizerConfig.decayed")
        trained_in: dict[str, tuple[int, ...]] = dict.fromkeys(paths, ())
        for number in members:
            check_patterns(paths, stages[number].trainable, f"stages.{number}.trainable")
            for path in trained_by(stages[number], paths):
                trained_in[path] += (number,)
        for numbers in sorted(set(trained_in.values()) - {()}):
            name = "stages " + ",".join(map(str, numbers))
            sets[name] = ParameterSet(own, numbers, tuple(path for path in paths if trained_in[path] == numbers))
    return Optimizer(sets)


def averaged(average: Flat, params: Flat, decay: float) -> Flat:
    """The moving average of the weights after one more update.

    That of parameters which do not move any more comes to them: a tower that a later stage freezes is not left behind.
    """
    return {path: decay * mean + (1 - decay) * params[path] for path, mean in average.items()}


def stage_steps(stages: Sequence[Stage], pairs: int) -> list[int]:
    """Updates in each stage, for a data set of this many pairs; at least one each."""
    return [stage.steps or max(1, round((stage.epochs or 0) * pairs / stage.batch_size)) for stage in stages]


def samples_before(step: int, stages: Sequence[Stage], steps: Sequence[int]) -> int:
    """Pairs that the run has seen when `step` updates are done: the position in the data."""
    seen = 0
    for stage, count in zip(stages, steps, strict=True):
        seen += min(step, count) * stage.batch_size
        step = max(0, step - count)
    return seen


def learning_rate(config: OptimizerConfig, stages: Sequence[Stage], steps: Sequence[int]) -> optax.Schedule:
    """step -> learning rate: linear warm-up, then half a cosine, a straight line or no change, times the stage's factor.

    One curve runs over all stages that have the run's optimizer; each stage with an optimizer of its own has its
    own curve. The first update has learning_rate / warmup_steps, as in open_clip (`scheduler.py: cosine_lr`).
    """
    shared = sum(count for stage, count in zip(stages, steps, strict=True) if stage.optimizer is None)
    curves, done = [], 0
    for stage, count in zip(stages, steps, strict=True):
        if stage.optimizer is None:
            curves.append(_scaled(_curve(config, shared), stage.learning_rate_scale, done))
            done += count
        else:
            curves.append(_scaled(_curve(stage.optimizer, count), stage.learning_rate_scale, 0))
    return optax.join_schedules(curves, list(np.cumsum(steps)[:-1]))


def _curve(config: OptimizerConfig, total: int) -> optax.Schedule:
    """Warm-up and fall over `total` updates."""
    peak, warmup = config.learning_rate, config.warmup_steps
    after, falling = optax.constant_schedule(peak), max(total - warmup, 1)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, falling, config.final_learning_rate / peak)
    elif config.schedule == "linear":
        after = optax.linear_schedule(peak, config.final_learning_rate, falling)
    if warmup == 0:
        return after
    rise = optax.linear_schedule(peak / warmup, peak, warmup - 1) if warmup > 1 else optax.constant_schedule(peak)
    return optax.join_schedules([rise, after], [warmup])


def _scaled(curve: optax.Schedule, factor: float, start: int) -> optax.Schedule:
    """The curve from its update `start` on, times a factor."""
    return lambda step: factor * curve(step + start)
