"""One shard of a build: first every pair of its articles, aside; then, when duplicates are known, the file that is
kept.

All that is known of a shard is under `.build/` of the destination: `NAME.array_record` (until it is finished),
`NAME.npz` (hashes), `NAME.rejects.jsonl`, `NAME.json` (`ShardPairs`; written last, so that it says "complete") and
`NAME.final.json` (`FinishedShard`).
"""

import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields

import numpy as np

from biomedclip_jax.data._tfds_write import Encoder, read_records, write_records
from biomedclip_jax.data.pmc.build._reading import KILLER, STAGING, STATE, Apart, ReadingLog
from biomedclip_jax.data.pmc.build.pairs import Filters, Pair, Reject, pairs_of_article
from biomedclip_jax.data.pmc.build.record import ShardId, record_features, shard_name
from biomedclip_jax.data.pmc.sources.open import Source, identity
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.support.parallel import in_order
from biomedclip_jax.support.storage import Storage, sha256_of

_ARTICLES_AT_ONCE = 4  # from far away most of the time is waiting


@dataclass(frozen=True)
class Work:
    """What a worker needs for a shard: its articles, sorted, and a hash of all that the result depends on."""

    shard: ShardId
    articles: tuple[str, ...]
    fingerprint: str

    @property
    def path(self) -> str:
        """The files of the shard in the destination, without their endings."""
        return f"{STATE}/{self.shard.name}"


@dataclass(frozen=True)
class ShardPairs:
    """What was found in a shard's articles.

    counts: of "articles" and "articles without figures". pictures: that passed. rejected: by kind and reason
    ("picture: no caption"). licenses: pictures that passed, by licence. articles: that gave pairs, by `identity`.
    """

    fingerprint: str
    counts: dict[str, int]
    pictures: int
    rejected: dict[str, int]
    licenses: dict[str, int]
    articles: list[str]

    @staticmethod
    def read(storage: Storage, work: Work) -> "ShardPairs":
        """Read what was found of a shard that is built.

        FileNotFoundError, ValueError or TypeError where the file is missing, or has another content.
        """
        return ShardPairs(**storage.read_json(f"{work.path}.json"))


@dataclass(frozen=True)
class FinishedShard:
    """The file that is kept of a shard. dropped: the positions of pictures left out as duplicates. panels: records of
    these.
    """

    fingerprint: str
    dropped: list[int]
    records: int
    panels: int
    bytes: int
    sha256: str

    @staticmethod
    def read(storage: Storage, work: Work) -> "FinishedShard":
        """Read about a shard that is finished. Errors as of `ShardPairs.read`."""
        return FinishedShard(**storage.read_json(f"{work.path}.final.json"))


@dataclass(frozen=True)
class Hashes:
    """What is remembered of a shard's n pictures, in their order, to find duplicates.

    digests: uint8 [n, 32], SHA-256 of the files. looks: uint8 [n, 32], perceptual hashes. ids: bytes [n], pair ids.
    articles: int64 [n], PMC numbers. panels: int64 [n], how many records of panels follow a picture's own.
    """

    digests: np.ndarray
    looks: np.ndarray
    ids: np.ndarray
    articles: np.ndarray
    panels: np.ndarray

    @staticmethod
    def of(pairs: Sequence["_PairHashes"]) -> "Hashes":
        """The hashes of a shard's pairs in their order."""
        return Hashes(
            np.frombuffer(b"".join(pair.digest for pair in pairs), np.uint8).reshape(-1, 32),
            np.asarray([pair.look for pair in pairs], np.uint8).reshape(-1, 32),
            np.asarray([pair.id for pair in pairs], np.bytes_),
            np.asarray([pair.article for pair in pairs], np.int64),
            np.asarray([pair.panels for pair in pairs], np.int64),
        )

    @staticmethod
    def read(storage: Storage, work: Work) -> "Hashes":
        """Read the hashes of a shard that is built. UserError where they are missing or damaged."""
        try:
            with np.load(io.BytesIO(storage.read(f"{work.path}.npz"))) as arrays:
                return Hashes(**arrays)
        except (FileNotFoundError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{storage.root}/{work.path}.npz: missing or damaged ({first_line(error)}); remove {work.path}.json beside it"
                " and run the same again: that shard is made anew"
            ) from error

    @staticmethod
    def read_all(storage: Storage, works: Sequence[Work]) -> tuple["Hashes", list[int]]:
        """The hashes of several shards, one shard after the other, and the number of pictures of each."""
        parts = [Hashes.read(storage, work) for work in works]
        sizes = [len(part) for part in parts]
        columns = [[getattr(part, each.name) for part in parts] for each in fields(Hashes)]
        del parts  # of each column only one copy is needed, or memory would double
        return Hashes(*(np.concatenate(columns.pop(0)) for _ in fields(Hashes))), sizes

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class _PairHashes:
    digest: bytes
    look: np.ndarray
    id: bytes
    article: int
    panels: int

    @staticmethod
    def of(pair: Pair) -> "_PairHashes":
        digits = pair.record.pmcid.removeprefix("PMC")
        number = int(digits) if digits.isdecimal() else 2**62
        return _PairHashes(pair.picture.digest, pair.picture.look, pair.record.pair_id.encode(), number, len(pair.panels))


def is_built(storage: Storage, work: Work) -> bool:
    """Whether the pairs of a shard are known, of its articles as they are now."""
    try:
        return ShardPairs.read(storage, work).fingerprint == work.fingerprint
    except (ValueError, TypeError, FileNotFoundError):
        return False


@dataclass
class _Found:
    """What reading the articles of a shard has found besides the records."""

    counts: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    hashes: list[_PairHashes] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    articles: list[str] = field(default_factory=list)


def build_shard(work: Work, source: Source, filters: Filters, storage: Storage) -> None:
    """Read the shard's articles and write all of their pairs aside, with hashes, rejects and counts."""
    killers = _killers(storage, work)
    storage.remove(f"{work.path}.json")
    found = _Found()
    with storage.staging(STAGING) as folder:
        file = folder / "records"
        with ReadingLog(storage, work.shard) as log, Apart() as apart:
            read = _Reader(source, filters, log, killers | log.suspects(), apart)
            write_records(file, _records(work, read, found))
        storage.put(file, f"{work.path}.array_record")
        file = folder / "hashes"
        with file.open("wb") as out:  # to a path numpy would add an ending
            np.savez(out, **vars(Hashes.of(found.hashes)))
        storage.put(file, f"{work.path}.npz")
    storage.write(f"{work.path}.rejects.jsonl", b"".join(reject.line() for reject in found.rejects))
    rejected = Counter(f"{reject.kind}: {reject.reason}" for reject in found.rejects)
    pairs = ShardPairs(
        work.fingerprint,
        dict(found.counts),
        len(found.hashes),
        dict(sorted(rejected.items())),
        dict(found.licenses),
        found.articles,
    )
    storage.write_json(f"{work.path}.json", vars(pairs))


def _killers(storage: Storage, work: Work) -> frozenset[str]:
    """The articles that ended the process that read them when the shard was built before."""
    try:
        rejects = [json.loads(line) for line in storage.read(f"{work.path}.rejects.jsonl").splitlines()]
    except (FileNotFoundError, ValueError):
        return frozenset()
    return frozenset(reject["article"] for reject in rejects if reject.get("reason") == KILLER)


@dataclass(frozen=True)
class _Reader:
    """Gives the pairs of an article, noting that it is read; those of `suspects` it lets another process read."""

    source: Source
    filters: Filters
    log: ReadingLog
    suspects: frozenset[str]
    apart: Apart

    def __call__(self, key: str) -> list[Pair | Reject]:
        with self.log.reading(key):
            read = self.apart.read if key in self.suspects else pairs_of_article
            return read(self.source, key, self.filters)


def _records(work: Work, read: _Reader, found: _Found) -> Iterator[bytes]:
    """The encoded records of all pairs of the shard's articles; `found` is filled meanwhile."""
    # now, before there are threads: while TFDS is imported it takes over the import statement of all of them
    encode = Encoder(record_features())
    with ThreadPoolExecutor(_ARTICLES_AT_ONCE) as threads:
        items_of = in_order(threads, read, work.articles, 2 * _ARTICLES_AT_ONCE)
        for key, items in zip(work.articles, items_of, strict=True):
            found.counts["articles"] += 1
            found.counts["articles without figures"] += not items
            if any(isinstance(item, Pair) for item in items):
                found.articles.append(identity(read.source, key))
            for item in items:
                if isinstance(item, Reject):
                    found.rejects.append(item)
                    continue
                for record in (item.record, *item.panels):
                    yield encode(record.example())
                found.hashes.append(_PairHashes.of(item))
                found.licenses[item.record.license] += 1


def is_finished(storage: Storage, work: Work, dropped: Sequence[int]) -> bool:
    """Whether the file that is kept of a shard exists and lacks just these pictures."""
    try:
        final = FinishedShard.read(storage, work)
    except (ValueError, TypeError, FileNotFoundError):
        return False
    known = final.fingerprint == work.fingerprint and final.dropped == list(dropped)
    return known and storage.exists(shard_name(work.shard))


def finish_shard(work: Work, dropped: Sequence[int], source: Source, filters: Filters, storage: Storage) -> None:
    """Write the file that is kept: the shard's pairs without the pictures at these positions, and without their
    panels.
    """
    if not storage.exists(f"{work.path}.array_record"):
        build_shard(work, source, filters, storage)  # finished before, with other duplicates
    panels = Hashes.read(storage, work).panels
    picture_of = np.repeat(np.arange(len(panels)), panels + 1)
    leave_out = set(np.flatnonzero(np.isin(picture_of, np.asarray(dropped, int))).tolist())
    storage.remove(f"{work.path}.final.json")
    with storage.staging(STAGING) as folder:
        file = folder / "shard"
        staged = storage.get(f"{work.path}.array_record", folder)
        kept = (record for i, record in enumerate(read_records(staged)) if i not in leave_out)
        records = write_records(file, kept)
        final = FinishedShard(
            fingerprint=work.fingerprint,
            dropped=list(dropped),
            records=records,
            panels=int(panels.sum() - panels[list(dropped)].sum()),
            bytes=file.stat().st_size,
            sha256=sha256_of(file),
        )
        storage.put(file, shard_name(work.shard))
    storage.write_json(f"{work.path}.final.json", vars(final))
    storage.remove(f"{work.path}.array_record")
