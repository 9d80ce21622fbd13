"""Articles -> a data set of image-caption pairs in ArrayRecord shards, as TFDS reads them.

Every shard is a unit of work that depends on nothing but its articles; what is finished stays finished, so that a
build which was killed goes on where it was, and the result is the same byte for byte. Only the choice among duplicates
needs all shards at once: it reads their hashes (100 bytes a picture) and tells each shard what to leave out.
"""

import dataclasses
import functools
import hashlib
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.data._tfds_write import write_metadata
from biomedclip_jax.data.pmc.build._pictures import find_duplicates
from biomedclip_jax.data.pmc.build._shard import (
    STATE,
    FinishedShard,
    Hashes,
    ShardPairs,
    Work,
    build_shard,
    finish_shard,
    is_built,
    is_finished,
)
from biomedclip_jax.data.pmc.build._storage import Storage
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
from biomedclip_jax.data.pmc.build.runner import Runner
from biomedclip_jax.data.pmc.jats.article import TEXT_RULE
from biomedclip_jax.data.pmc.sources.folders import id_in_path
from biomedclip_jax.data.pmc.sources.open import Source
from biomedclip_jax.errors import UserError

_OPTIONS = f"{STATE}/options.json"
_FORMAT = 1  # of a build; a build of another format is not continued


@dataclass(frozen=True)
class BuildOptions:
    """All that decides what a build holds, apart from its articles."""

    filters: Filters = field(default_factory=Filters)
    splits: tuple[tuple[str, float], ...] = tuple(PMC_15M.items())  # names and proportions
    shards: int | None = None  # of the first split; None: one for ARTICLES_PER_SHARD articles
    duplicates: str = "similar"  # leave out: "similar" pictures, "exact" copies only, "none"


@dataclass(frozen=True)
class Summary:
    """What a build holds and what it left out: numbers of articles, pictures and pairs, and numbers by reason.

    pairs: of each split, panels included. panels: of all pairs. licenses: of pictures, before duplicates went.
    bytes: of all shards.
    """

    articles_seen: int
    articles_with_pictures: int
    articles_without_figures: int
    articles_rejected: dict[str, int]
    pictures_seen: int
    pictures_kept: int
    pictures_rejected: dict[str, int]
    pairs: dict[str, int]
    panels: int
    licenses: dict[str, int]
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `summary.json` holds."""
        return {
            "articles": {
                "seen": self.articles_seen,
                "with pictures": self.articles_with_pictures,
                "without figures": self.articles_without_figures,
                "rejected": self.articles_rejected,
            },
            "pictures": {"seen": self.pictures_seen, "kept": self.pictures_kept, "rejected": self.pictures_rejected},
            "pairs": self.pairs,
            "of which panels": self.panels,
            "licenses of pictures before duplicates": self.licenses,
            "bytes": self.bytes,
        }


@dataclass(frozen=True)
class _Duplicates:
    """Of a shard: the positions of pictures to leave out, and the rejects that say why."""

    positions: list[int] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


def build(source: Source, destination: str, options: BuildOptions, runner: Runner) -> Summary:
    """Build, or go on with, or bring up to date what is in `destination`; `summary.json` there holds what is returned.

    Raises UserError for a destination that holds something else, or was built with other options.
    """
    storage = Storage(destination.rstrip("/"))
    articles = list(source.keys())
    if not articles:
        raise UserError(f"{source}: no article here; nothing to build")
    options = _agree(storage, options, len(articles))
    splits = {name: share for name, share in options.splits if share > 0}
    assert options.shards is not None, "_agree sets it"
    works = _divide(source, articles, splits, shard_counts(splits, options.shards), options)

    first = [work for work in works if not is_built(storage, work)]
    make = functools.partial(build_shard, source=source, filters=options.filters, storage=storage)
    runner.for_each(first, make, functools.partial(_count, storage, works, len(first), ".json"), "reading articles")

    duplicates = _duplicates(storage, works, options.duplicates)
    last = [(work, found.positions) for work, found in zip(works, duplicates, strict=True)]
    last = [(work, dropped) for work, dropped in last if not is_finished(storage, work, dropped)]
    finish = functools.partial(_finish, source=source, filters=options.filters, storage=storage)
    runner.for_each(last, finish, functools.partial(_count, storage, works, len(last), ".final.json"), "writing shards")
    return _conclude(storage, works, duplicates)


def _finish(item: tuple[Work, Sequence[int]], source: Source, filters: Filters, storage: Storage) -> None:
    finish_shard(item[0], item[1], source, filters, storage)


def _agree(storage: Storage, options: BuildOptions, articles: int) -> BuildOptions:
    """The options with the number of shards. UserError unless they are those of a build that the destination holds
    already.
    """
    if storage.exists(_OPTIONS):
        before = {"text_rule": 1} | storage.read_json(_OPTIONS)  # the first rule was not written down
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
    if storage.is_local and Path(storage.root).is_dir() and any(Path(storage.root).iterdir()):
        raise UserError(f"{storage.root}: holds something else than a build; choose an empty or a new folder")
    shards = options.shards or max(1, -(-articles // ARTICLES_PER_SHARD))
    options = dataclasses.replace(options, shards=shards)
    storage.write_json(_OPTIONS, _plain(options))
    return options


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
        for key in keys:
            digest.update(f"{key} {source.version(key)}\n".encode())
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
    """The duplicates among the pictures of all shards, for each shard."""
    duplicates = [_Duplicates() for _ in works]
    if which == "none":
        return duplicates
    hashes, sizes = Hashes.read_all(storage, works)
    # the earliest article keeps the picture; within it the earlier figure, as positions are in document order
    order = np.lexsort((np.arange(len(hashes)), hashes.articles))
    found = find_duplicates(hashes.digests, hashes.looks, order, similar=which == "similar")
    starts = np.cumsum([0, *sizes])
    for own, start, size in zip(duplicates, starts, sizes, strict=False):
        for position in np.flatnonzero(found.of[start : start + size] >= 0):
            i = start + position
            reason = "duplicate" if found.exact[i] else "similar picture"
            detail = f"of {_text(hashes.ids[found.of[i]])}"
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
    with tempfile.TemporaryDirectory() as folder:
        rejects = Path(folder) / "rejects.jsonl"
        with rejects.open("wb") as out:
            for work, found in zip(works, duplicates, strict=True):
                out.write(storage.read(f"{work.path}.rejects.jsonl"))
                out.writelines(reject.line() for reject in found.rejects)
        storage.put(rejects, "rejects.jsonl")
        if lengths:
            # TFDS takes names from the shards that it finds beside the metadata, which are not in this folder
            for work in works:
                if work.shard.split in lengths:
                    (Path(folder) / shard_name(work.shard)).touch()
            write_metadata(Path(folder), DATASET, VERSION, record_features(), lengths, sizes)
            for name in ("features.json", "dataset_info.json"):
                storage.put(Path(folder) / name, name)
    sums = [f"{final.sha256}  {shard_name(work.shard)}\n" for work, final in zip(works, finals, strict=True)]
    storage.write("SHA256SUMS", "".join(sums).encode())
    states = [ShardPairs.read(storage, work) for work in works]
    summary = _summary(states, finals, lengths, [reject for found in duplicates for reject in found.rejects])
    storage.write_json("summary.json", summary.to_json())
    if not lengths:
        raise UserError(f"{storage.root}: no pair is left; rejects.jsonl says why")
    return summary


def _summary(
    states: Sequence[ShardPairs],
    finals: Sequence[FinishedShard],
    lengths: Mapping[str, Sequence[int]],
    duplicates: Sequence[Reject],
) -> Summary:
    counts = _sum(state.counts for state in states)
    rejected = _sum(state.rejected for state in states)
    rejected.update(f"{reject.kind}: {reject.reason}" for reject in duplicates)
    articles, pictures = (
        {name.removeprefix(kind): count for name, count in sorted(rejected.items()) if name.startswith(kind)}
        for kind in ("article: ", "picture: ")
    )
    kept = sum(state.pictures for state in states) - len(duplicates)
    without = counts["articles without figures"]
    return Summary(
        articles_seen=counts["articles"],
        articles_with_pictures=counts["articles"] - without - sum(articles.values()),
        articles_without_figures=without,
        articles_rejected=articles,
        pictures_seen=kept + sum(pictures.values()),
        pictures_kept=kept,
        pictures_rejected=pictures,
        pairs={split: sum(shards) for split, shards in lengths.items()},
        panels=sum(final.panels for final in finals),
        licenses=dict(sorted(_sum(state.licenses for state in states).items())),
        bytes=sum(final.bytes for final in finals),
    )


def _sum(parts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total
