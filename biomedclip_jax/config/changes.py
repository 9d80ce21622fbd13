"""How two configs differ, field by field, and which fields of a run may change when it goes on."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from biomedclip_jax.config.checks import decisive
from biomedclip_jax.config.run import TrainConfig

# None of these has a part in an update of the weights. Where data and tokenizer lie may change, because a run knows its
# data by what they are (`train._same_data`).
_OF_NO_UPDATE = frozenset({"name", "export", "patience", "interpolate", "data.held_out", "data.train", "data.tokenizer"})


@dataclass(frozen=True)
class Change:
    """A field, by its path in the config such as `stages.0.batch_size`, with its value now and before."""

    path: str
    now: Any
    before: Any

    def __str__(self) -> str:
        return f"{self.path} = {_short(self.now)}, there {_short(self.before)}"


def changes(now: Any, before: Any, path: str = "") -> Iterator[Change]:
    """The fields that differ, as deep as the two are of one kind."""
    if dataclasses.is_dataclass(now) and type(now) is type(before):
        for field in dataclasses.fields(now):
            deeper = f"{path}.{field.name}" if path else field.name
            yield from changes(getattr(now, field.name), getattr(before, field.name), deeper)
    elif isinstance(now, tuple) and isinstance(before, tuple) and len(now) == len(before) and _of_parts(now + before):
        for number, (ours, theirs) in enumerate(zip(now, before, strict=True)):
            yield from changes(ours, theirs, f"{path}.{number}")
    elif now != before:
        yield Change(path, now, before)


def refused_changes(now: TrainConfig, before: TrainConfig) -> list[Change]:
    """The changes by which a run that goes on would no longer be the run that it was."""
    found = [change for change in changes(decisive(now), decisive(before)) if change.path not in _OF_NO_UPDATE]
    # learned context starts from the words of the template; else it only words the questions of an evaluation
    if now.adaptation.context == before.adaptation.context == 0:
        found = [change for change in found if change.path != "data.template"]
    mixed = not isinstance(now.data.train, str) and not isinstance(before.data.train, str)
    if mixed and [weight for _, weight in now.data.train] == [weight for _, weight in before.data.train]:
        return found
    one = isinstance(now.data.train, str) and isinstance(before.data.train, str)
    if one or now.data.train == before.data.train:
        return found
    return [*found, Change("data.train", now.data.train, before.data.train)]


def _of_parts(values: tuple[Any, ...]) -> bool:
    return bool(values) and all(map(dataclasses.is_dataclass, values))


def _short(value: Any) -> str:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = [field for field in dataclasses.fields(value) if getattr(value, field.name) != field.default]
        return f"{type(value).__name__}({', '.join(f'{f.name}={_short(getattr(value, f.name))}' for f in given)})"
    if isinstance(value, tuple) and value:
        return f"({', '.join(map(_short, value))})"
    return repr(value)
