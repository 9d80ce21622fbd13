"""Batches of pairs, endlessly shuffled. What a batch holds is a function of (seed, position in the run) alone.

A position counts samples from the beginning of the run. The order is Grain's index shuffle: a new one each epoch,
without reading the data. Each example is augmented with a random stream of its own, keyed by its position, so that
resuming and the number of hosts, workers and threads change nothing. Work is handed out in chunks of a few examples,
so that a batch of any size is made by all processors together.
"""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from biomedclip_jax.config import DataConfig, PreprocessConfig
from biomedclip_jax.data.images.cache import ImageCache
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.images.preprocess import preprocess_train
from biomedclip_jax.data.names import multi_hot
from biomedclip_jax.data.pairs import Mixture, Pair, Pairs, Reject, Texts, reject
from biomedclip_jax.data.questions.pairs import QuestionPairs
from biomedclip_jax.data.text import TokenMaker
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.parallel import core_count

_Arrays = dict[str, np.ndarray]  # of a chunk: what crosses from a worker process is arrays

_CHUNK = 16  # examples: 2.4 MB of pixels at 224 px
_TEXT = 1  # the stream of random numbers that texts are drawn from; without a number, that of the crop
_STAND_IN = 2  # the stream that the stand-ins of records are drawn from
_ATTEMPTS = 20  # stand-ins that are drawn before all records of a source are put in order
_MOST_REJECTED, _FEWEST_REJECTED = 0.5, 100  # of the reads: more stop the run, once there are so many
_FEW_PAIRS = 4_096  # done by threads before processes have started
_FEW_CORES = 4  # threads keep so many busy: Pillow lets go of the interpreter while it decodes and resizes


@dataclass(frozen=True)
class Batch:
    """Examples of one step, those of this process.

    images: uint8 [b, S, S, 3], not normalised. tokens: int32 [b, N], padded. index: uint32 [b], the position in the run
    of each example, by which its random numbers are keyed. labels: bool [b, C] where labels were asked for, else None.
    """

    images: np.ndarray
    tokens: np.ndarray
    index: np.ndarray
    labels: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by the names of the fields, without labels where there are none: what a compiled step takes."""
        return {name: array for name, array in vars(self).items() if array is not None}

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class ExampleMaker:
    """Makes examples of records: decodes, augments and tokenises. Picklable, for worker processes.

    classes: of the labels; () where nobody asks. cache: of decoded images, where several pairs have one.
    """

    pairs: Pairs
    tokenizer: TokenMaker
    preprocess: PreprocessConfig
    config: DataConfig
    seed: int
    classes: tuple[str, ...] = ()
    cache: ImageCache | None = None

    def examples(self, positions: Sequence[int], records: list[int]) -> tuple[Batch, list[Reject]]:
        """The examples at some positions of the run, each made of the record beside it, and the records that failed.

        A record that cannot be read is replaced by a random one of its source. UserError if none of these can be read.
        """
        size = self.preprocess.image_size
        images = np.empty((len(positions), size, size, 3), np.uint8)
        captions, labels, rejects = [], [], []
        for row, (position, record) in enumerate(zip(positions, records, strict=True)):
            images[row], texts = self._example(position, record, rejects)
            captions.append(self.draw_text(texts, position))
            labels.append(texts.label)
        index = np.array([position & 0xFFFFFFFF for position in positions], np.uint32)
        hot = multi_hot(labels, self.classes, self.config.label_separator) if self.classes else None
        return Batch(images, self.tokenizer(captions), index, hot), rejects

    def _example(self, position: int, record: int, rejects: list[Reject]) -> tuple[np.ndarray, Texts]:
        for chosen in (record, *self._others(position, record)):
            try:
                pair = self.pairs[chosen]
                image = self._image(pair)
            except UserError as error:
                rejects.append(reject(self.pairs, chosen, error))
                continue
            generator = np.random.default_rng((self.seed, position))
            pixels = preprocess_train(image, self.preprocess, generator, self.config.crop_scale, self.config.augment)
            return pixels, pair
        first, count = self._source_of(record)
        raise UserError(f"none of the {count} images of the training data can be read, such as {self.pairs.name(first)}")

    def _image(self, pair: Pair) -> Image.Image:
        if self.cache is None:
            return load_image(pair.image, pair.name)
        return self.cache.get(pair.name, lambda: load_image(pair.image, pair.name))

    def _others(self, position: int, record: int) -> Iterator[int]:
        """The records that may stand in for one, in random order: all of its source.

        A neighbour would be drawn again and again where files that follow one another are broken.
        """
        first, count = self._source_of(record)
        for attempt in range(_ATTEMPTS):  # cheaper than to put all in order
            yield first + int(np.random.default_rng((self.seed, position, _STAND_IN, attempt)).integers(count))
        yield from (first + np.random.default_rng((self.seed, position, _STAND_IN)).permutation(count)).tolist()

    def _source_of(self, record: int) -> tuple[int, int]:
        """The first record of the source that one is from, and how many the source has."""
        return self.pairs.source_of(record) if isinstance(self.pairs, Mixture) else (0, len(self.pairs))

    def draw_text(self, texts: Texts, position: int) -> str:
        """One of the captions or, in `reference_share` of the cases, one of the paragraphs that mention the figure."""
        share = self.config.reference_share if texts.references else 0.0
        if len(texts.captions) == 1 and not share:
            return texts.captions[0]
        generator = np.random.default_rng((self.seed, position, _TEXT))
        choices = texts.references if generator.random() < share else texts.captions
        return choices[int(generator.integers(len(choices)))]


@dataclass(frozen=True)
class Sample:
    """A record for messages: its row in the data set, from 1, and the name of its image."""

    row: str
    image: str


@dataclass(frozen=True)
class TrainLoader:
    """Training batches of one data set.

    reject: called with each record that cannot be read. classes: of the labels, which are then in the batches.
    """

    pairs: Pairs
    tokenizer: TokenMaker
    preprocess: PreprocessConfig
    config: DataConfig
    seed: int
    reject: Callable[[Reject], object]
    classes: tuple[str, ...] = ()

    def at(self, preprocess: PreprocessConfig, *, labels: bool = True) -> "TrainLoader":
        """A loader of the same examples, made into pixels in another way, with their labels or without."""
        return dataclasses.replace(self, preprocess=preprocess, classes=self.classes if labels else ())

    def examples(self, start: int, count: int) -> list[Sample]:
        """The records at `count` positions of the run from `start` on."""
        order = record_order(self.pairs, self.seed)
        records = [int(order[position]) for position in range(start, start + count)]
        return [Sample(str(record + 1), self.pairs.name(record)) for record in records]

    def sample_texts(self, most: int) -> tuple[list[str], bool]:
        """The texts that would be drawn for `most` random records, and whether these are all texts of the data set."""
        chosen = np.random.default_rng(self.seed).permutation(len(self.pairs))[:most]
        maker = self._maker()
        texts, complete = [], len(chosen) == len(self.pairs)
        for record in chosen.tolist():
            try:
                found = self.pairs.texts(record)
            except UserError:  # it is listed when its turn comes
                continue
            texts.append(maker.draw_text(found, record))
            complete &= len(found.captions) == 1 and not (self.config.reference_share and found.references)
        return texts, complete

    def batches(self, start: int, batch_size: int, steps: int, process: int = 0, processes: int = 1) -> Generator[Batch]:
        """`steps` batches of `batch_size` / `processes` rows each, from position `start` of the run on.

        Each process gets its own consecutive rows of every batch. UserError when no image at all can be read, and when
        a worker process ends before its time.
        """
        rows = batch_size // processes
        work = _Chunks(self._maker(), start + process * rows, rows, batch_size, steps * rows)
        workers = self.config.workers
        if workers is None:
            few = core_count() <= _FEW_CORES or steps * rows < _FEW_PAIRS
            workers = 0 if few else core_count()
        with contextlib.closing(_stream(work, workers)) as chunks:
            yield from self._joined(chunks, rows, steps)

    def _maker(self) -> ExampleMaker:
        cache = ImageCache() if isinstance(self.pairs, QuestionPairs) else None
        return ExampleMaker(self.pairs, self.tokenizer, self.preprocess, self.config, self.seed, self.classes, cache)

    def _joined(self, chunks: Iterator[_Arrays], rows: int, steps: int) -> Iterator[Batch]:
        """Batches of `rows` from chunks of other lengths."""
        chunk, taken = {}, 0  # rows of the chunk that are in a batch
        drawn = rejected = 0
        for _ in range(steps):
            batch: _Arrays = {}
            filled = 0
            while filled < rows:
                if not chunk or taken == len(chunk["index"]):
                    chunk, taken = next(chunks), 0
                    rejects = [Reject(**each) for each in json.loads(chunk.pop("rejects").tobytes())]
                    for reject in rejects:
                        self.reject(reject)
                    drawn, rejected = drawn + len(chunk["index"]), rejected + len(rejects)
                    if rejected >= max(_FEWEST_REJECTED, _MOST_REJECTED * (drawn + rejected)):
                        raise UserError(
                            f"{rejected:,} of {rejected + drawn:,} images that were drawn cannot be read, more than "
                            f"{_MOST_REJECTED:.0%}; the last: {rejects[-1].image}, {rejects[-1].reason}; repair them, or take "
                            "them out of the data (rejects.jsonl lists them)"
                        )
                count = min(rows - filled, len(chunk["index"]) - taken)
                for name, array in chunk.items():
                    if name not in batch:
                        batch[name] = np.empty((rows, *array.shape[1:]), array.dtype)
                    batch[name][filled : filled + count] = array[taken : taken + count]
                filled, taken = filled + count, taken + count
            yield Batch(**batch)


def record_order(pairs: Pairs, seed: int) -> Sequence[int]:
    """order[position] is the record at this position of the run, for as many epochs as asked for."""
    import grain

    if not isinstance(pairs, Mixture):
        return grain.MapDataset.range(len(pairs)).seed(seed).shuffle().repeat()  # type: ignore[return-value]
    parts = []
    for number, (first, length) in enumerate(zip(pairs.starts, pairs.lengths, strict=True)):
        own = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])  # or equal sources would go in step
        parts.append(grain.MapDataset.range(first, first + length).seed(own).shuffle().repeat())
    return grain.MapDataset.mix(parts, pairs.weights)  # type: ignore[return-value]


@dataclass(frozen=True)
class _Chunks:
    """The examples of this process, `count` in all, by chunk.

    first: the position in the run of its first row. rows: of each batch that are this process's. stride: from batch to
    batch.
    """

    maker: ExampleMaker
    first: int
    rows: int
    stride: int
    count: int

    def __len__(self) -> int:
        return -(-self.count // _CHUNK)

    def __call__(self, number: int) -> _Arrays:
        order = record_order(self.maker.pairs, self.maker.seed)
        own = range(number * _CHUNK, min((number + 1) * _CHUNK, self.count))
        positions = [self.first + row // self.rows * self.stride + row % self.rows for row in own]
        batch, rejects = self.maker.examples(positions, [int(order[position]) for position in positions])
        return batch.arrays() | {"rejects": np.frombuffer(json.dumps([vars(each) for each in rejects]).encode(), np.uint8)}


def _stream(work: _Chunks, workers: int) -> Any:
    """The chunks in order, made ahead by threads or processes. A generator: closing it ends them."""
    import grain

    numbers = grain.MapDataset.range(len(work)).map(work)
    ahead = -(-work.rows // _CHUNK)  # one batch
    if workers == 0:
        threads = min(core_count(), len(work))
        data = numbers.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, ahead)))
    else:
        from absl import flags

        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain asks absl for its own flags, which nobody has parsed here
        data = numbers.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=max(1, -(-ahead // workers)))
        data = data.mp_prefetch(options, worker_init_fn=_end_with_parent)
    iterator = iter(data)
    try:
        yield from iterator
    except RuntimeError as error:
        if "Worker process was terminated" not in str(error):
            raise
        raise UserError(
            f"a process of the data loader has ended ({error}); if memory ran out, take fewer (data.workers); a script of "
            "your own that calls train needs `if __name__ == '__main__':` round the call"
        ) from error
    finally:
        iterator.close()  # type: ignore[attr-defined]


def _end_with_parent(number: int, count: int) -> None:
    """A worker whose run was killed would wait for ever, with its memory and the run's output held."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
