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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.data.array_record import Encoder, read_records, write_records
from biomedclip_jax.data.pmc.in_order import in_order
from biomedclip_jax.data.pmc.pairs_of_article import Filters, Pair, Reject, pairs_of_article
from biomedclip_jax.data.pmc.record import record_features, shard_name
from biomedclip_jax.data.pmc.sources import Source
from biomedclip_jax.data.pmc.splits import Place
from biomedclip_jax.data.pmc.storage import Storage, sha256_of

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
    name = f"{STATE}/{place.name}.{suffix}"
    try:
        return storage.read_json(name) if storage.exists(name) else None
    except (ValueError, FileNotFoundError):
        return None


def build_shard(work: Work, source: Source, filters: Filters, storage: Storage) -> None:
    """Read the shard's articles and write all of their pairs aside, with hashes, rejects and counts."""
    base = f"{STATE}/{work.place.name}"
    storage.remove(f"{base}.json")
    counts: Counter[str] = Counter()
    kept: list[Pair] = []  # without their pictures' bytes
    panels: list[int] = []
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
                    kept.append(dataclasses.replace(item, picture=dataclasses.replace(item.picture, jpeg=b""), panels=()))
                    panels.append(len(item.panels))

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records"
        counts["records"] = write_records(file, encoded())
        storage.put(file, f"{base}.array_record")
        file = Path(folder) / "hashes"
        with file.open("wb") as out:
            out.write(_hashes(kept, panels))
        storage.put(file, f"{base}.npz")
    lines = [json.dumps({k: v for k, v in dataclasses.asdict(r).items() if v is not None}, ensure_ascii=False) for r in rejects]
    storage.write(f"{base}.rejects.jsonl", "".join(f"{line}\n" for line in lines).encode())
    rejected = Counter(f"{reject.kind}: {reject.reason}" for reject in rejects)
    licenses = Counter(pair.fields["license"] for pair in kept)
    state = {"fingerprint": work.fingerprint, "counts": dict(counts), "pictures": len(kept)}
    storage.write_json(f"{base}.json", state | {"rejected": dict(sorted(rejected.items())), "licenses": dict(licenses)})


def _hashes(kept: Sequence[Pair], panels: Sequence[int]) -> bytes:
    out = io.BytesIO()
    count = len(kept)
    digests = np.frombuffer(b"".join(pair.picture.digest for pair in kept), np.uint8).reshape(count, 32)
    looks = np.stack([pair.picture.look for pair in kept]) if kept else np.empty((0, 32), np.uint8)
    ids = np.asarray([pair.fields["pair_id"].encode() for pair in kept], np.bytes_)
    articles = np.asarray([_number(pair.fields["pmcid"]) for pair in kept], np.int64)
    np.savez(out, digests=digests, looks=looks, ids=ids, articles=articles, panels=np.asarray(panels, np.int64))
    return out.getvalue()


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
