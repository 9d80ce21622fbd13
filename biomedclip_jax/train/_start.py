"""What a run says at its start: what it was asked to do, and what of that is unwise. What cannot work is refused.

A healthy run has three lines or so: the pairs and the model, the updates and their rate, the memory where it is
worth a word. Each unwise setting is one more line, with the flag that mends it. Nothing here is compiled, and a
data set of any size is looked at in samples: a few seconds.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from biomedclip_jax.config import Loss, PairLoss, Softmax, Stage, TrainConfig
from biomedclip_jax.data.loader import TrainLoader, record_order
from biomedclip_jax.data.pairs import Pairs
from biomedclip_jax.data.text import TokenMaker
from biomedclip_jax.errors import UserError
from biomedclip_jax.sharding import make_mesh
from biomedclip_jax.train._same_pairs import held_out_in_training
from biomedclip_jax.train.multihost.hosts import is_first, say
from biomedclip_jax.train.optimizer import Flat, learning_rate, stage_steps
from biomedclip_jax.train.state import abstract_state, optimizer_for, parameter_count, trained_groups

_SAMPLE = 4_096  # captions that are looked at, and positions of the run for each stage
_MUCH = 0.1  # of the loss: what equal captions may put under it without a word
_MANY_TWICE = 0.05  # of a batch's rows
_FEW = 10  # updates of a run that only tries whether it runs
_WORTH_A_WORD = 1 << 28  # bytes a device


@dataclass(frozen=True)
class Asked:
    """What a run is asked to do: its config, and the data as they were opened."""

    config: TrainConfig
    pairs: Pairs
    held_out: Pairs | None
    tokenizer: TokenMaker

    @property
    def steps(self) -> list[int]:
        """Updates in each stage."""
        return stage_steps(self.config.stages, len(self.pairs))


def announce(asked: Asked) -> None:
    """Say what is trained, on what and for how long, with a line for each unwise setting; the first process alone prints.

    UserError for what cannot work: batches that compare nothing, and a state that is larger than the devices' memory.
    """
    check_compared(asked.config.stages)
    memory = _memory(asked.config)
    if not is_first():
        return
    for line in (_model(asked), _trained(asked.config), _length(asked), memory, *unwise(asked)):
        if line is not None:
            say(line)


def unwise(asked: Asked) -> list[str]:
    """A line for each setting that works, and that nobody would choose."""
    found = [*_warmups(asked), *_evaluations(asked), *_averages(asked), *_twice(asked), *_equal_captions(asked)]
    return [*found, *_learned_by_heart(asked)]


def check_compared(stages: Sequence[Stage]) -> None:
    """UserError for a stage that compares a pair with nothing: its loss and gradient would be 0."""
    for number, stage in enumerate(stages):
        if not stage.prompted and isinstance(stage.loss, PairLoss) and (stage.loss.negatives or stage.batch_size) == 1:
            name = "batch_size" if stage.batch_size == 1 else "loss.negatives"
            raise UserError(
                f"stages.{number}.{name} = 1: expected 2 or more; a pair that is compared with no other teaches nothing"
            )


# --- what is done -----------------------------------------------------------------------------------------------------


def _model(asked: Asked) -> str:
    config = asked.config
    total, learning = parameter_count(config.model, adaptation=config.adaptation), sum(trained_groups(config).values())
    return (
        f"{config.name}: {len(asked.pairs)} pairs ({len(asked.pairs.rejects)} rejected), {total:,} parameters"
        f"{'' if total == learning else f', of which {learning:,} are trained'}, "
        f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        f"{'' if jax.process_count() == 1 else f' in {jax.process_count()} processes'}"
    )


def _trained(config: TrainConfig) -> str | None:
    trained = trained_groups(config)
    if parameter_count(config.model, adaptation=config.adaptation) == sum(trained.values()):
        return None
    return "trained: " + ", ".join(f"{name} {count:,}" for name, count in trained.items())


def _length(asked: Asked) -> str:
    """Updates, pairs and epochs, and the learning rate at its peak."""
    stages, steps, config = asked.config.stages, asked.steps, asked.config
    parts = [f"{count:,} of {stage.batch_size:,} pairs" for stage, count in zip(stages, steps, strict=True)]
    seen = sum(stage.batch_size * count for stage, count in zip(stages, steps, strict=True))
    updates = f"steps: {parts[0]}" if len(parts) == 1 else f"steps: {sum(steps):,} in {len(parts)} stages ({', '.join(parts)})"
    return (
        f"{updates}; {seen:,} pairs seen, {seen / len(asked.pairs):.3g} epochs; "
        f"learning rate {_peak(asked):.3g} at its peak, warm-up {config.optimizer.warmup_steps:,} steps"
    )


def _peak(asked: Asked, stages: slice = slice(None)) -> float:
    """The largest learning rate of the run, or of some of its stages."""
    steps = asked.steps
    rate = learning_rate(asked.config.optimizer, asked.config.stages, steps)
    first = sum(steps[: stages.start or 0])
    return float(jnp.max(jnp.asarray(rate(first + jnp.arange(sum(steps[stages]))))))


def _memory(config: TrainConfig) -> str | None:
    """What weights, moments and gradients take of each device's memory. UserError if that alone is more than it has."""
    optimizer, mesh = optimizer_for(config), make_mesh(fsdp=config.sharding.fsdp)
    state = abstract_state(config, config.image_size(config.stages[0]), optimizer, mesh)
    params: Flat = flatten_dict(state.params, sep="/")
    sizes = {path: _bytes(leaf) for path, leaf in params.items()}
    gradients = max(sum(sizes[path] for path in optimizer.trained(number)) for number in range(len(config.stages)))
    needed = sum(map(_bytes, jax.tree.leaves(state))) + gradients
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit is not None and needed > limit:
        raise UserError(
            f"{config.name}: weights, moments and gradients alone take {_gib(needed)} of each device's {_gib(limit)}; "
            "split them over devices (--sharding.fsdp), train fewer parameters (an adapter, --stages.0.trainable), or take "
            "devices with more memory"
        )
    if needed < _WORTH_A_WORD:
        return None
    have = "" if limit is None else f" of {_gib(limit)}"
    return f"memory of each device: {_gib(needed)}{have} for weights, moments and gradients; activations come on top"


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
    """On one device."""
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize  # type: ignore[union-attr]


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


# --- what is unwise ---------------------------------------------------------------------------------------------------


def _warmups(asked: Asked) -> list[str]:
    """Warm-ups that take more than half of their updates."""
    stages, steps = asked.config.stages, asked.steps
    own = [number for number, stage in enumerate(stages) if stage.optimizer is not None]
    shared = [number for number in range(len(stages)) if number not in own]
    curves = [("", asked.config.optimizer, shared)] if shared else []
    curves += [(f"stages.{number}.", stages[number].optimizer, [number]) for number in own]
    lines = []
    for prefix, optimizer, members in curves:
        assert optimizer is not None
        count = sum(steps[number] for number in members)
        if optimizer.warmup_steps <= max(count // 2, min(count, _FEW)):
            continue
        flag = f"--{prefix}optimizer.warmup-steps {count // 10}"
        if optimizer.warmup_steps > count:
            peak = max(_peak(asked, slice(number, number + 1)) for number in members)
            lines.append(
                f"warm-up: {optimizer.warmup_steps:,} steps, but there are only {count:,}: the learning rate never rises above "
                f"{peak:.2g} of {optimizer.learning_rate:.2g}; {flag}"
            )
        else:
            lines.append(f"warm-up: {optimizer.warmup_steps:,} of {count:,} steps, more than half of them; {flag}")
    return lines


def _evaluations(asked: Asked) -> list[str]:
    """Evaluations that come too seldom for what is asked of them."""
    every, total, patience = asked.config.run.evaluate_every, sum(asked.steps), asked.config.patience
    if every is None or asked.held_out is None:
        return []
    between = (total - 1) // every
    if between == 0:
        return [f"run.evaluate_every = {every:,}: of {total:,} steps, so held-out pairs are evaluated at start and end alone"]
    if patience is not None and patience > between:
        return [f"patience = {patience}: there are only {between + 1} evaluations after the start, so no run can end early"]
    return []


def _averages(asked: Asked) -> list[str]:
    """A moving average that is still the start when the run ends."""
    ema, total = asked.config.optimizer.ema, sum(asked.steps)
    if ema is None or ema**total < 0.5:
        return []
    return [
        f"optimizer.ema = {ema}: after {total:,} steps the average is {ema**total:.0%} the starting weights, and it is what is "
        f"exported; --optimizer.ema None, or {max(0.5, 1 - 10 / total):.2g}"
    ]


def _twice(asked: Asked) -> list[str]:
    """Batches in which a pair is there twice, and a negative of itself."""
    order, first = record_order(asked.pairs, asked.config.seed), 0
    for number, (stage, count) in enumerate(zip(asked.config.stages, asked.steps, strict=True)):
        size = stage.loss.negatives or stage.batch_size
        looked = min(count * (stage.batch_size // size), max(1, _SAMPLE // size))
        if isinstance(stage.loss, PairLoss) and not stage.prompted and stage.loss.equal_captions == "negatives" and size > 1:
            groups = [[int(order[first + group * size + row]) for row in range(size)] for group in range(looked)]
            again = [size - len(set(group)) for group in groups]
            if sum(again) > _MANY_TWICE * size * looked:
                of, hold = (
                    ("every batch", "holds")
                    if all(again)
                    else (f"{sum(map(bool, again))} of the first {looked} batches", "hold")
                )
                return [
                    f"stages.{number}: {of} of {size:,} pairs, out of {len(asked.pairs):,}, {hold} pairs twice, on average "
                    f"{sum(again) / looked:.3g} of them, which are then negatives of themselves; a smaller batch is wiser"
                    f"{_or_positives(number)}"
                ]
        first += count * stage.batch_size
    return []


def _or_positives(number: int) -> str:
    return f", or --stages.{number}.loss.equal-captions positives"


def _least(loss: Loss, others: np.ndarray) -> np.ndarray:
    """The least that the loss of a pair can be, where so many others of its batch have the same caption."""
    if isinstance(loss, Softmax):
        return np.log1p(others)
    if loss.equal_captions == "positives":
        return np.zeros_like(others)
    return np.log1p(others) + others * np.log1p(1 / np.maximum(others, 1e-9))  # one score says yes and, so often, no


def _equal_captions(asked: Asked) -> list[str]:
    """What equal captions do to the loss, of the first stage that compares captions."""
    stages = [(n, s) for n, s in enumerate(asked.config.stages) if isinstance(s.loss, PairLoss) and not s.prompted]
    if not stages or len(asked.pairs) < 2:
        return []
    config = asked.config
    loader = TrainLoader(asked.pairs, asked.tokenizer, config.preprocess, config.data, config.seed, lambda _: None)
    captions, complete = loader.sample_texts(_SAMPLE)
    if len(captions) < 2:
        return []
    counts = np.array(list(Counter(row.tobytes() for row in asked.tokenizer(captions)).values()))
    number, stage = stages[0]
    size, total = stage.loss.negatives or stage.batch_size, len(captions)
    others = (size - 1) * (counts - 1) / (total - 1)  # of a batch's other pairs, those with the same caption
    least = float((counts / total * _least(stage.loss, others)).sum())
    if len(counts) == 1:
        return [
            f"all {total:,} captions{'' if complete else ' of a sample'} are the same to the model, so they tell no image from "
            f"another: the loss cannot fall below {least:.2f}, and nothing is learned"
        ]
    if least < _MUCH:
        return []
    share = counts[counts > 1].sum() / total
    found = (
        f"equal captions: {share:.0%} of the pairs{'' if complete else ' of a sample'} share theirs ({len(counts):,} different "
        f"ones of {total:,}); in a batch of {size:,} the loss cannot fall below about {least:.2f}"
    )
    if stage.loss.equal_captions == "positives":
        return [f"{found}, as they are positives"]
    return [f"{found}, and pairs with one caption push each other apart{_or_positives(number)}"]


def _learned_by_heart(asked: Asked) -> list[str]:
    """Held-out pairs whose image is one of the training images."""
    if asked.held_out is None:
        return []
    found = held_out_in_training(asked.pairs, asked.held_out)
    if not found.names:
        return []
    looked = "" if found.complete else f" (of {found.looked:,} training pairs that were looked at)"
    return [
        f"held out: {len(found.names):,} of {found.compared:,} held-out images are training images{looked}, such as "
        f"{found.names[0][0]} ({found.names[0][1]}): they say nothing of new images; leave them out of one side"
    ]
