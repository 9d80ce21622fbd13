"""The same data: on all hosts before the first update, and each time when a run goes on."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from biomedclip_jax.config import TrainConfig, from_json, to_json
from biomedclip_jax.config.changes import refused_changes
from biomedclip_jax.data.identity import Identity, difference, digest, identity_from, spread
from biomedclip_jax.data.pairs import Pairs
from biomedclip_jax.data.text import TokenMaker
from biomedclip_jax.errors import UserError
from biomedclip_jax.train.multihost import hosts


@dataclass(frozen=True)
class DataIdentity:
    """What the data of a run are, wherever they lie.

    train, held_out: of their sources, held_out () where there is none. tokens: a hash of what the tokenizer makes of a
    sample of the training captions.
    """

    train: tuple[Identity, ...]
    held_out: tuple[Identity, ...]
    tokens: str

    def record(self) -> dict[str, Any]:
        """The fields as JSON keeps them."""
        return dataclasses.asdict(self)


def data_identity_from(record: Mapping[str, Any]) -> DataIdentity:
    """The inverse of `DataIdentity.record`."""
    train, held_out = (tuple(map(identity_from, record[name])) for name in ("train", "held_out"))
    return DataIdentity(train, held_out, record["tokens"])


def data_identity(pairs: Pairs, held_out: Pairs | None, tokenizer: TokenMaker) -> DataIdentity:
    """What these data are. Reads every text of a table; of shards, and of images, a sample."""
    captions: list[str] = []
    for index in spread(len(pairs)):
        try:
            captions += pairs.texts(index).captions
        except UserError:
            continue  # is met, and listed, when its turn comes
    tokens = digest([tokenizer(captions).tobytes()])
    return DataIdentity(pairs.identities(), () if held_out is None else held_out.identities(), tokens)


def pairs_mark(pairs: Pairs) -> str:
    """A short hash of what some pairs are, wherever they lie."""
    return digest(json.dumps(identity.record()).encode() for identity in pairs.identities())


def check_hosts(config: TrainConfig, data: DataIdentity, pairs: Pairs, held_out: Pairs | None, seconds: float) -> None:
    """UserError in every process, one line that says who differs and in what, unless all have one config and one data.

    Where the data lie may differ. seconds: how long the processes wait for each other.
    """
    own = json.dumps({"config": to_json(config), "data": data.record()})

    def judge(first: str) -> str:
        theirs = json.loads(first)
        me, whose = hosts.name(hosts.process()), f"{hosts.name(0)} has"
        if changed := refused_changes(config, from_json(theirs["config"])):
            return f"{me} has another config than {hosts.name(0)}: {', '.join(map(str, changed))}"
        other = data_identity_from(theirs["data"])
        found = _train_difference(config, data, other, pairs, whose) or _held_out_difference(
            config, data, other, held_out, whose
        )
        return f"{me} sees other data than {hosts.name(0)}: {found}" if found else ""

    found = hosts.objections("the comparison of the data", own, judge, seconds)
    if found:
        more = f"; and {len(found) - 1} more processes" if len(found) > 1 else ""
        raise UserError(f"{found[0]}{more}; give all processes the same data and the same config")


def check_still_same(config: TrainConfig, data: DataIdentity, before: DataIdentity, pairs: Pairs) -> None:
    """UserError unless the training data are those that the run began with; the held-out ones may be others."""
    if found := _train_difference(config, data, before, pairs, "this run began with"):
        raise UserError(f"{found}; bring the data back as it was, or choose another --workdir")


def _train_difference(config: TrainConfig, ours: DataIdentity, theirs: DataIdentity, pairs: Pairs, whose: str) -> str:
    sources = [config.data.train] if isinstance(config.data.train, str) else [source for source, _ in config.data.train]
    if len(ours.train) != len(theirs.train):
        return f"{', '.join(sources)}: {len(ours.train)} sources, but {whose} {len(theirs.train)}"
    before = 0
    for source, mine, other in zip(sources, ours.train, theirs.train, strict=True):
        first = before
        if found := difference(mine, other, whose, lambda index, first=first: pairs.name(first + index)):
            return f"{source}: {found}"
        before += mine.count
    if ours.tokens != theirs.tokens:
        return f"{config.data.tokenizer}: this tokenizer makes other tokens of the captions than the one that {whose}"
    return ""


def _held_out_difference(
    config: TrainConfig, ours: DataIdentity, theirs: DataIdentity, held_out: Pairs | None, whose: str
) -> str:
    if held_out is None or not theirs.held_out:
        return "" if ours.held_out == theirs.held_out else f"held-out pairs {config.data.held_out}, but {whose} others"
    found = difference(ours.held_out[0], theirs.held_out[0], whose, held_out.name)
    return f"{config.data.held_out} (held out): {found}" if found else ""
