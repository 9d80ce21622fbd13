"""One pass over a data set that counts all that `summary` tells of it, shard by shard in several processes.

Only counts are kept, so that memory does not grow with the data; they depend neither on the order of the records nor
on the number of processes.
"""

import hashlib
import multiprocessing
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from biomedclip_jax.data.images.load import image_size
from biomedclip_jax.data.pmc.figure_types import figure_types, one_type
from biomedclip_jax.data.text import token_counter
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.support.terminal import progress_bar, say_some

_SAMPLE = 50_000  # captions, about, whose words are counted
_WORD = re.compile(r"[^\W\d_][\w-]+[^\W_]")  # of three letters or more
_BATCH = 512  # captions given to the tokenizer at once
_PAIRS_A_PART = 10_000


@dataclass
class Counts:
    """Counts of whole pictures by a property; panels, which repeat what their figure has, are only counted as pairs.

    articles: of each year, 0 where it is unknown. vocabulary: words of the captions of a sample of articles, in small
    letters, once for each article that has them; of a source without articles each caption is one.
    """

    pairs: Counter[str] = field(default_factory=Counter)  # by split, panels included
    panels: Counter[str] = field(default_factory=Counter)
    articles: Counter[int] = field(default_factory=Counter)
    in_sub_articles: Counter[bool] = field(default_factory=Counter)
    characters: Counter[int] = field(default_factory=Counter)
    words: Counter[int] = field(default_factory=Counter)
    tokens: Counter[int] = field(default_factory=Counter)
    widths: Counter[int] = field(default_factory=Counter)
    heights: Counter[int] = field(default_factory=Counter)
    references: Counter[int] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)  # of figures by the words of their captions
    in_mixed: Counter[str] = field(default_factory=Counter)  # types in the figures of several
    licenses: Counter[str] = field(default_factory=Counter)
    vocabulary: Counter[str] = field(default_factory=Counter)
    sampled: Counter[bool] = field(default_factory=Counter)  # captions in that sample, and not
    sources: Counter[bool] = field(default_factory=Counter)  # articles in that sample, or captions that are of none
    left_out: Counter[str] = field(default_factory=Counter)  # pairs that cannot be used, by reason; counted nowhere else

    def add(self, other: "Counts") -> None:
        """Add the counts of another part of the data."""
        for entry in fields(self):
            getattr(self, entry.name).update(getattr(other, entry.name))


@dataclass(frozen=True)
class CountedRecord:
    """What is counted of a record. None, or "" of texts: the source says nothing of it. references: their number."""

    caption: str
    pair_id: str
    panel: str = ""
    pmcid: str | None = None
    year: int = 0
    width: int | None = None
    height: int | None = None
    references: int | None = None
    license: str | None = None
    in_sub_article: bool | None = None
    unusable: str = ""  # the reason why the pair cannot be used

    @staticmethod
    def of(features: Mapping[str, Any]) -> "CountedRecord":
        """From the features of a build's record, of which a foreign data set may have some only."""
        known = {name: features[name] for name in _COUNTED if name in features}
        known = {name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value for name, value in known.items()}
        if "references" in known:
            known["references"] = len(known["references"])
        return CountedRecord(**known)


_COUNTED = tuple(field.name for field in fields(CountedRecord))


class Part(Protocol):
    """A piece of a data set, for one process."""

    @property
    def split(self) -> str:
        """The split that the part belongs to."""
        ...

    @property
    def count(self) -> int:
        """The number of its records."""
        ...

    def records(self) -> Iterator[CountedRecord]:
        """Read the records, one after the other."""
        ...


@dataclass(frozen=True)
class BuildShard:
    """An ArrayRecord file of a build. Images stay undecoded."""

    folder: Path
    split: str
    path: Path
    count: int

    def records(self) -> Iterator[CountedRecord]:
        """Read the records, one after the other. UserError for a shard that cannot be read."""
        return map(CountedRecord.of, self.features())

    def features(self) -> Iterator[Mapping[str, Any]]:
        """Read the features of the records, images still encoded. UserError for a shard that cannot be read."""
        import tensorflow_datasets as tfds

        from biomedclip_jax.data._tfds_write import read_records

        features: Any = tfds.features.FeaturesDict.from_config(str(self.folder))
        decoders = {name: tfds.decode.SkipDecoding() for name, one in features.items() if isinstance(one, tfds.features.Image)}
        try:
            for record in read_records(self.path):
                yield features.deserialize_example_np(record, decoders=decoders)
        except Exception as error:  # RuntimeError, DecodeError ...
            raise UserError(f"{self.path}: cannot be read ({first_line(error)}); copy or build the shard again") from error


@dataclass(frozen=True)
class SomePairs:
    """Pairs of any source from `start` to `stop`."""

    source: str
    columns: tuple[str, str]
    start: int
    stop: int
    split: str = "all"

    @property
    def count(self) -> int:
        """The number of pairs in this part."""
        return self.stop - self.start

    def records(self) -> Iterator[CountedRecord]:
        """Read the texts of the pairs, one after the other, and the sizes of their images."""
        from biomedclip_jax.data.sources import open_pairs

        pairs = open_pairs(self.source, *self.columns)
        for index in range(self.start, self.stop):
            reason = "row unreadable"
            try:
                pair = pairs[index]
                reason = "image unreadable"
                width, height = image_size(pair.image, pair.name)
            except UserError as error:
                say_some(f"{error}; left out")
                yield CountedRecord("", "", unusable=reason)
                continue
            yield CountedRecord(pair.captions[0], pair.name, width=width, height=height)


def parts_of(source: str, columns: tuple[str, str] = ("image", "caption")) -> Sequence[Part]:
    """The shards of a build (a folder: all of its splits), or the pairs of another source (see `sources`) in
    pieces.

    Raises UserError for a source that cannot be opened.
    """
    folder = Path(source)
    if not (folder / "features.json").is_file():
        from biomedclip_jax.data.sources import open_pairs

        count = len(open_pairs(source, *columns))
        starts = range(0, count, _PAIRS_A_PART)
        return [SomePairs(source, columns, start, min(start + _PAIRS_A_PART, count)) for start in starts]
    try:
        import tensorflow_datasets as tfds

        splits = tfds.builder_from_directory(folder).info.splits
    except ImportError as error:
        raise UserError(f"{source}: reading a build needs more ({error}): pip install 'biomedclip_jax[tfds]'") from error
    except Exception as error:
        raise UserError(f"{source}: not a readable build ({first_line(error)})") from error
    shards = [
        BuildShard(folder, split, Path(path), count)
        for split, info in splits.items()
        for path, count in zip(info.filepaths, info.shard_lengths, strict=True)
    ]
    for shard in shards:
        if not shard.path.is_file():
            raise UserError(f"{shard.path}: this shard is missing; copy it there, or build it again")
    return shards


def count_part(part: Part, tokenizer: Path | None, share: float) -> Counts:
    """The counts of one part. tokenizer: a folder with one, or None. share: of captions whose words are counted."""
    counts = Counts()
    tokens_of = token_counter(tokenizer) if tokenizer else None
    waiting: list[str] = []
    article = None
    said = _Words(counts, share)
    for record in part.records():
        if record.unusable:
            counts.left_out[record.unusable] += 1
            continue
        counts.pairs[part.split] += 1
        if record.panel:
            counts.panels[part.split] += 1
            continue
        if record.pmcid != article:  # its pairs stand together
            article = record.pmcid
            counts.articles[int(record.year)] += 1
        _count_record(counts, record)
        said.add(record)
        waiting.append(record.caption)
        if tokens_of and len(waiting) == _BATCH:
            counts.tokens.update(tokens_of(waiting))
        if len(waiting) == _BATCH:
            waiting.clear()
    if tokens_of and waiting:
        counts.tokens.update(tokens_of(waiting))
    said.end_article()
    return counts


class _Words:
    """Counts the words of a share of the articles, each once an article: one that shows its 40 gels speaks once of gels."""

    def __init__(self, counts: Counts, share: float):
        self._counts, self._share = counts, share
        self._article: str | None = None
        self._words: set[str] = set()

    def add(self, record: CountedRecord) -> None:
        """Count a caption; those of an article stand together."""
        article = record.pmcid or f"{record.pair_id}\0{record.caption}"
        digest = hashlib.sha256(article.encode("utf-8", "surrogatepass")).digest()
        chosen = int.from_bytes(digest[:6], "big") < self._share * 2**48
        if article != self._article:
            self.end_article()
            self._article = article
            self._counts.sources[chosen] += 1
        self._counts.sampled[chosen] += 1
        if chosen:
            self._words.update(_WORD.findall(record.caption.lower()))

    def end_article(self) -> None:
        """Count the words of the article that was read last."""
        plurals = {word for word in self._words if word.endswith("s") and word[:-1] in self._words}
        self._counts.vocabulary.update(self._words - plurals)
        self._words.clear()


def _count_record(counts: Counts, record: CountedRecord) -> None:
    caption = record.caption
    counts.characters[len(caption)] += 1
    counts.words[len(caption.split())] += 1
    types = figure_types(caption)  # by today's words, whatever a build stored when it was made
    counts.types[one_type(types)] += 1
    counts.in_mixed.update(types if len(types) > 1 else ())
    if record.width is not None and record.height is not None:
        counts.widths[int(record.width)] += 1
        counts.heights[int(record.height)] += 1
    if record.references is not None:
        counts.references[record.references] += 1
    if record.license is not None:
        counts.licenses[record.license or "none stated"] += 1
    if record.in_sub_article is not None:
        counts.in_sub_articles[bool(record.in_sub_article)] += 1


def count(parts: Sequence[Part], tokenizer: Path | None, workers: int) -> Counts:
    """The counts of all parts, by so many processes."""
    total = Counts()
    share = _SAMPLE / max(1, sum(part.count for part in parts))
    with progress_bar(len(parts), "part") as bar:
        if workers <= 1 or len(parts) <= 1:
            for part in parts:
                total.add(count_part(part, tokenizer, share))
                bar.update()
            return total
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(parts)), mp_context=context) as pool:
            running = [pool.submit(count_part, part, tokenizer, share) for part in parts]
            for done in as_completed(running):
                running.remove(done)
                total.add(done.result())
                bar.update()
    return total
