"""Articles -> a data set of image-caption pairs in ArrayRecord shards, as TFDS reads them.

Every shard is a unit of work that depends on nothing but its articles; what is finished stays finished, so that a
build which was killed goes on where it was, and the result is the same byte for byte. Only the choice among duplicates
needs all shards at once: it reads their hashes (100 bytes a picture) and tells each shard what to leave out.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.data._tfds_write import write_metadata
from biomedclip_jax.data.pmc.build._pictures import find_duplicates
from biomedclip_jax.data.pmc.build._reading import LOCK, STAGING, STATE
from biomedclip_jax.data.pmc.build._shard import (
    FinishedShard,
    Hashes,
    ShardPairs,
    Work,
    build_shard,
    finish_shard,
    is_built,
    is_finished,
)
from biomedclip_jax.data.pmc.build._summary import Summary, summarize
from biomedclip_jax.data.pmc.build.pairs import Filters, Reject
from biomedclip_jax.data.pmc.build.record import (
    ARTICLES_PER_SHARD,
    DATASET,
    PMC_15M,
    VERSION,
    ShardId,
    record_features,
    shard_counts,
    shard_name,
    shard_of,
)
from biomedclip_jax.data.pmc.build.runner import Runner, WorkerDied
from biomedclip_jax.data.pmc.jats.article import TEXT_RULE
from biomedclip_jax.data.pmc.sources.folders import id_in_path
from biomedclip_jax.data.pmc.sources.open import Source, identity
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.support.owner import owned
from biomedclip_jax.support.storage import Storage

_OPTIONS = f"{STATE}/options.json"
_FORMAT = 2  # of a build; a build of another format is not continued
_DEATHS = 3  # of worker processes, after which a build goes on by itself


_SAME_ID = "pair_id is there twice"


@dataclass(frozen=True)
class BuildOptions:
    """All that decides what a build holds, apart from its articles."""

    filters: Filters = field(default_factory=Filters)
    splits: tuple[tuple[str, float], ...] = tuple(PMC_15M.items())  # names and proportions
    shards: int | None = None  # of the first split; None: one for ARTICLES_PER_SHARD articles
    duplicates: str = "similar"  # leave out: "similar" pictures, "exact" copies only, "none"


@dataclass(frozen=True)
class _Duplicates:
    """Of a shard: the positions of pictures to leave out, and the rejects that say why."""

    positions: list[int] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


def build(source: Source, destination: str, options: BuildOptions, runner: Runner, *, may_replace: bool = False) -> Summary:
    """Build, or go on with, or bring up to date what is in `destination`; `summary.json` there holds what is returned.

    may_replace: also where articles that gave pairs before are in the source no more.
    Raises UserError for a destination that holds something else, was built with other options, holds articles that would
    disappear, or is being written by another build; nothing is touched then.
    """
    storage = Storage(destination.rstrip("/"))
    articles = list(source.keys())
    if not articles:
        raise UserError(f"{source}: no article here; nothing to build")
    options = _agree(storage, options, len(articles))
    splits = {name: share for name, share in options.splits if share > 0}
    assert options.shards is not None, "_agree sets it"
    works = _divide(source, articles, splits, shard_counts(splits, options.shards), options)
    if not may_replace:
        _check_that_none_disappears(storage, works, {identity(source, key) for key in articles})
    with owned(storage, LOCK, writer="build", instead="another destination"), storage.writing():
        storage.clear_staging(STAGING)
        storage.write_json(_OPTIONS, _plain(options))
        summary = _build(storage, source, works, options, runner)
        storage.clear_staging(STAGING)
    return summary


def _build(storage: Storage, source: Source, works: Sequence[Work], options: BuildOptions, runner: Runner) -> Summary:
    def read_articles() -> bool:
        first = [work for work in works if not is_built(storage, work)]
        make = functools.partial(_make, source=source, filters=options.filters, storage=storage)
        runner.for_each(first, make, functools.partial(_count, storage, works, len(first), ".json"), "reading articles")
        return True

    for _ in range(_DEATHS):
        with contextlib.suppress(WorkerDied):  # what it read is read again apart, see `_reading`
            if read_articles():
                break
    else:
        read_articles()

    duplicates = _duplicates(storage, works, options.duplicates)
    last = [(work, found.positions) for work, found in zip(works, duplicates, strict=True)]
    last = [(work, dropped) for work, dropped in last if not is_finished(storage, work, dropped)]
    finish = functools.partial(_finish, source=source, filters=options.filters, storage=storage)
    runner.for_each(last, finish, functools.partial(_count, storage, works, len(last), ".final.json"), "writing shards")
    return _conclude(storage, works, duplicates)


def _make(work: Work, source: Source, filters: Filters, storage: Storage) -> None:
    with storage.writing():
        build_shard(work, source, filters, storage)


def _finish(item: tuple[Work, Sequence[int]], source: Source, filters: Filters, storage: Storage) -> None:
    with storage.writing():
        finish_shard(item[0], item[1], source, filters, storage)


def _agree(storage: Storage, options: BuildOptions, articles: int) -> BuildOptions:
    """The options with the number of shards. UserError unless they are those of a build that the destination holds
    already.
    """
    if storage.exists(_OPTIONS):
        try:
            before = {"text_rule": 1} | storage.read_json(_OPTIONS)  # the first rule was not written down
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{storage.root}/{_OPTIONS}: damaged ({first_line(error)}); choose another destination, or remove this one"
            ) from error
        if before.get("format") != _FORMAT:
            raise UserError(
                f"{storage.root}: was built by another version of this program; choose another destination, or remove this one"
            )
        options = dataclasses.replace(options, shards=options.shards or before["shards"])
        now = _plain(options)
        different = [name for name in now if now[name] != before.get(name)]
        if different:
            name = different[0]
            raise UserError(
                f"{storage.root}: was built with {name} = {before.get(name)}, not {now[name]}; "
                "choose another destination, or remove this one"
            )
        return options
    folder = Path(storage.root)
    if storage.is_local and folder.is_dir() and any(entry.name != STATE for entry in folder.iterdir()):
        raise UserError(f"{storage.root}: holds something else than a build; choose an empty or a new folder")
    return dataclasses.replace(options, shards=options.shards or max(1, -(-articles // ARTICLES_PER_SHARD)))


def _check_that_none_disappears(storage: Storage, works: Sequence[Work], articles: Collection[str]) -> None:
    """UserError if what is built of some shards are pairs of articles that are not among `articles`."""
    before: set[str] = set()
    for work in works:
        with contextlib.suppress(ValueError, TypeError, FileNotFoundError):  # that shard is not built yet
            before.update(ShardPairs.read(storage, work).articles)
    if lost := sorted(before.difference(articles)):
        shown = ", ".join(lost[:3]) + (" ..." if len(lost) > 3 else "")
        raise UserError(
            f"{storage.root}: {len(lost):,} of the {len(before):,} articles that its pairs are of are not in this source"
            f" ({shown}); choose another destination, or say --replace to lose them"
        )


def _plain(options: BuildOptions) -> dict[str, Any]:
    plain = dataclasses.asdict(options)
    filters = plain.pop("filters")
    return json.loads(json.dumps({"format": _FORMAT, "text_rule": TEXT_RULE} | plain | filters))


def _divide(
    source: Source, articles: Sequence[str], splits: Mapping[str, float], shards: Mapping[str, int], options: BuildOptions
) -> list[Work]:
    members: dict[ShardId, list[str]] = {
        ShardId(split, shard, count): [] for split, count in shards.items() for shard in range(count)
    }
    for article in articles:
        members[shard_of(_article_id(article), splits, shards)].append(article)
    base = json.dumps(_plain(options), sort_keys=True)
    works = []
    for shard, keys in members.items():
        digest = hashlib.sha256(base.encode())
        for key in keys:  # not every file system's names are UTF-8
            digest.update(f"{key} {source.version(key)}\n".encode("utf-8", "surrogateescape"))
        works.append(Work(shard, tuple(keys), digest.hexdigest()))
    return works


def _article_id(key: str) -> str:
    """The PMC id without version, also of a package or file that is named by it: a split must not depend on the
    source.
    """
    found = id_in_path(key)
    return found.partition(".")[0] if found else key


def _count(storage: Storage, works: Sequence[Work], todo: int, suffix: str) -> int:
    """How many of `todo` shards are done by now, told from the files of all shards."""
    names = set(storage.names(STATE))
    return todo - sum(f"{work.shard.name}{suffix}" not in names for work in works)


def _duplicates(storage: Storage, works: Sequence[Work], which: str) -> list[_Duplicates]:
    """What to leave out of all shards' pictures, for each shard: what has the id of another, and duplicates."""
    duplicates = [_Duplicates() for _ in works]
    hashes, sizes = Hashes.read_all(storage, works)
    # the earliest article keeps the picture; within it the earlier figure, as positions are in document order
    order = np.lexsort((np.arange(len(hashes)), hashes.articles))
    first = np.zeros(len(hashes), bool)
    first[order[np.unique(hashes.ids[order], return_index=True)[1]]] = True
    of, exact = np.full(len(hashes), -1), np.zeros(len(hashes), bool)
    if which != "none":
        order = order[np.argsort(~first[order], kind="stable")]  # what goes anyway is no reason for another to go
        found = find_duplicates(hashes.digests, hashes.looks, order, similar=which == "similar")
        of, exact = found.of, found.exact
    starts = np.cumsum([0, *sizes])
    for own, start, size in zip(duplicates, starts, sizes, strict=False):
        for position in np.flatnonzero(~first[start : start + size] | (of[start : start + size] >= 0)):
            i = start + position
            reason, detail = "duplicate" if exact[i] else "similar picture", f"of {_text(hashes.ids[of[i]])}"
            if of[i] < 0:
                reason, detail = _SAME_ID, "another article, or a copy of this one, has this id"
            own.positions.append(int(position))
            own.rejects.append(Reject("picture", reason, None, _text(hashes.ids[i]), detail=detail))
    return duplicates


def _text(value: Any) -> str:
    return bytes(value).decode()


def _conclude(storage: Storage, works: Sequence[Work], duplicates: Sequence[_Duplicates]) -> Summary:
    """Write `rejects.jsonl`, TFDS's metadata, `SHA256SUMS` and, last, `summary.json`."""
    finals = [FinishedShard.read(storage, work) for work in works]
    lengths: dict[str, list[int]] = defaultdict(list)
    sizes: Counter[str] = Counter()
    for work, final in zip(works, finals, strict=True):
        lengths[work.shard.split].append(final.records)
        sizes[work.shard.split] += final.bytes
    lengths = {split: shards for split, shards in lengths.items() if sum(shards)}  # TFDS cannot read a split without records
    with storage.staging(STAGING) as folder:
        rejects = folder / "rejects.jsonl"
        with rejects.open("wb") as out:
            for work, found in zip(works, duplicates, strict=True):
                out.write(storage.read(f"{work.path}.rejects.jsonl"))
                out.writelines(reject.line() for reject in found.rejects)
        storage.put(rejects, "rejects.jsonl")
        if lengths:
            # TFDS takes names from the shards that it finds beside the metadata, which are not in this folder
            for work in works:
                if work.shard.split in lengths:
                    (folder / shard_name(work.shard)).touch()
            write_metadata(folder, DATASET, VERSION, record_features(), lengths, sizes)
            for name in ("features.json", "dataset_info.json"):
                storage.put(folder / name, name)
    sums = [f"{final.sha256}  {shard_name(work.shard)}\n" for work, final in zip(works, finals, strict=True)]
    storage.write("SHA256SUMS", "".join(sums).encode())
    states = [ShardPairs.read(storage, work) for work in works]
    summary = summarize(states, finals, lengths, [reject for found in duplicates for reject in found.rejects])
    storage.write_json("summary.json", summary.to_json())
    if not lengths:
        raise UserError(f"{storage.root}: no pair is left; rejects.jsonl says why")
    return summary
