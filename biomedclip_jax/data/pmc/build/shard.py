"""One shard of a build: first every pair of its articles, aside; then, when duplicates are known, the file that is kept.

All that is known of a shard lies under `.build/` of the destination: `NAME.array_record` (until it is finished), `NAME.npz`
(hashes), `NAME.rejects.jsonl`, `NAME.json` (counts; written last, so that it says "complete") and `NAME.final.json`.
"""

import dataclasses
import functools
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.data.tfds_write import Encoder, read_records, write_records
from biomedclip_jax.support.parallel import in_order
from biomedclip_jax.data.pmc.build.pairs import Filters, Pair, Reject, pairs_of_article
from biomedclip_jax.data.pmc.build.record import record_features, shard_name
from biomedclip_jax.data.pmc.sources.open import Source
from biomedclip_jax.data.pmc.build.splits import Place
from biomedclip_jax.data.pmc.build.storage import Storage, sha256_of

STATE = ".build"
_ARTICLES_AT_ONCE = 4  # from far away most of the time is waiting


@dataclass(frozen=True)
class Work:
    """What a worker needs for a shard: its articles, sorted, and a hash of all that the result depends on."""

    place: Place
    articles: tuple[str, ...]
    fingerprint: str


def is_built(storage: Storage, work: Work) -> bool:
    """Whether the shard's pairs are known and as its articles are now."""
    state = _state(storage, work.place)
    return state is not None and state["fingerprint"] == work.fingerprint


def _state(storage: Storage, place: Place, suffix: str = "json") -> dict[str, Any] | None:
    try:
        return storage.read_json(f"{STATE}/{place.name}.{suffix}")
    except (ValueError, FileNotFoundError):
        return None


def build_shard(work: Work, source: Source, filters: Filters, storage: Storage) -> None:
    """Read the shard's articles and write all of their pairs aside, with hashes, rejects and counts."""
    base = f"{STATE}/{work.place.name}"
    storage.remove(f"{base}.json")
    counts: Counter[str] = Counter()
    hashes = _Hashes()
    licenses: Counter[str] = Counter()
    rejects: list[Reject] = []
    # now, before there are threads: while TFDS is imported it takes over the import statement of all of them
    encode = Encoder(record_features())

    def encoded() -> Iterator[bytes]:
        read = functools.partial(pairs_of_article, source, filters=filters)
        with ThreadPoolExecutor(_ARTICLES_AT_ONCE) as threads:
            for items in in_order(threads, read, work.articles, 2 * _ARTICLES_AT_ONCE):
                counts["articles"] += 1
                counts["articles without figures"] += not items
                for item in items:
                    if isinstance(item, Reject):
                        rejects.append(item)
                        continue
                    yield encode(item.fields | {"image": item.picture.jpeg})
                    for panel in item.panels:
                        yield encode(panel)
                    hashes.add(item)
                    licenses[item.fields["license"]] += 1

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records"
        write_records(file, encoded())
        storage.put(file, f"{base}.array_record")
        file = Path(folder) / "hashes"
        hashes.save(file)
        storage.put(file, f"{base}.npz")
    lines = [json.dumps({k: v for k, v in dataclasses.asdict(r).items() if v is not None}, ensure_ascii=False) for r in rejects]
    storage.write(f"{base}.rejects.jsonl", "".join(f"{line}\n" for line in lines).encode())
    rejected = Counter(f"{reject.kind}: {reject.reason}" for reject in rejects)
    state = {"fingerprint": work.fingerprint, "counts": dict(counts), "pictures": len(hashes.ids)}
    storage.write_json(f"{base}.json", state | {"rejected": dict(sorted(rejected.items())), "licenses": dict(licenses)})


@dataclass(frozen=True)
class _Hashes:
    """What is remembered of a shard's pictures, in their order."""

    digests: list[bytes] = field(default_factory=list)
    looks: list[np.ndarray] = field(default_factory=list)
    ids: list[bytes] = field(default_factory=list)
    articles: list[int] = field(default_factory=list)
    panels: list[int] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        self.digests.append(pair.picture.digest)
        self.looks.append(pair.picture.look)
        self.ids.append(pair.fields["pair_id"].encode())
        self.articles.append(_number(pair.fields["pmcid"]))
        self.panels.append(len(pair.panels))

    def save(self, path: Path) -> None:
        """See `read_hashes`."""
        with path.open("wb") as out:  # to a path numpy would add an ending
            np.savez(
                out,
                digests=np.frombuffer(b"".join(self.digests), np.uint8).reshape(-1, 32),
                looks=np.asarray(self.looks, np.uint8).reshape(-1, 32),
                ids=np.asarray(self.ids, np.bytes_),
                articles=np.asarray(self.articles, np.int64),
                panels=np.asarray(self.panels, np.int64),
            )


def _number(pmcid: str) -> int:
    digits = pmcid.removeprefix("PMC")
    return int(digits) if digits.isdecimal() else 2**62


def read_hashes(storage: Storage, place: Place) -> dict[str, np.ndarray]:
    """digests, looks, ids, articles (PMC numbers), panels (records that follow a picture's own), each of length n."""
    with np.load(io.BytesIO(storage.read(f"{STATE}/{place.name}.npz"))) as arrays:
        return dict(arrays)


def is_finished(storage: Storage, work: Work, dropped: Sequence[int]) -> bool:
    """Whether the shard that is kept is there, and without just these pictures."""
    final = _state(storage, work.place, "final.json")
    return final is not None and final["fingerprint"] == work.fingerprint and final["dropped"] == list(dropped)


def finish_shard(work: Work, dropped: Sequence[int], source: Source, filters: Filters, storage: Storage) -> None:
    """Write the shard that is kept: its pairs without the pictures at these positions, and without the panels of those."""
    place, base = work.place, f"{STATE}/{work.place.name}"
    if not storage.exists(f"{base}.array_record"):
        build_shard(work, source, filters, storage)  # finished before, with other duplicates
    panels = read_hashes(storage, place)["panels"]
    picture_of = np.repeat(np.arange(len(panels)), panels + 1)
    leave_out = set(np.flatnonzero(np.isin(picture_of, np.asarray(dropped, int))).tolist())
    storage.remove(f"{base}.final.json")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "shard"
        staged = storage.get(f"{base}.array_record", Path(folder))
        kept = (record for i, record in enumerate(read_records(staged)) if i not in leave_out)
        records = write_records(file, kept)
        final = {
            "fingerprint": work.fingerprint,
            "dropped": list(dropped),
            "records": records,
            "panels": int(panels.sum() - panels[list(dropped)].sum()),
            "bytes": file.stat().st_size,
            "sha256": sha256_of(file),
        }
        storage.put(file, shard_name(place))
    storage.write_json(f"{base}.final.json", final)
    storage.remove(f"{base}.array_record")
