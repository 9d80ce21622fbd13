"""Batches of pairs, endlessly shuffled. What a batch holds is a function of (seed, place in the run) alone.

The order is Grain's index shuffle: a new one each epoch, without reading the data. Each example is augmented with a random
stream of its own, keyed by its place in the run, so that resuming, the number of hosts and threads change nothing.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images import load_image, preprocess_train
from biomedclip_jax.data.pairs import Pairs
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError


@dataclass(frozen=True)
class TrainLoader:
    """Training batches of one data set. `reject` is called with a record that cannot be read and the reason."""

    pairs: Pairs
    tokenizer: Tokenizer
    preprocess: PreprocessConfig
    crop_scale: tuple[float, float]
    seed: int
    reject: Callable[[dict[str, str]], object]

    def at(self, preprocess: PreprocessConfig) -> "TrainLoader":
        """The same examples, made into pixels in another way."""
        return dataclasses.replace(self, preprocess=preprocess)

    def _order(self) -> Sequence[int]:
        """order[place] is the record at this place of the run, for as many epochs as asked for."""
        import grain

        return grain.MapDataset.range(len(self.pairs)).seed(self.seed).shuffle().repeat()  # type: ignore[return-value]

    def examples(self, start: int, count: int) -> list[dict[str, str]]:
        """Row and image of the records from place `start` on, for messages."""
        order = self._order()
        records = [int(order[place]) for place in range(start, start + count)]
        return [{"row": str(record + 1), "image": str(self.pairs.images[record])} for record in records]

    def example(self, place: int, record: int) -> dict[str, np.ndarray]:
        """The example at this place of the run. A record that cannot be read is replaced by the one after it."""
        generator = np.random.default_rng((self.seed, place))
        for attempt in range(len(self.pairs)):
            chosen = (record + attempt) % len(self.pairs)
            try:
                image = load_image(self.pairs.images[chosen])
            except UserError as error:
                self.reject({"row": str(chosen + 1), "image": str(self.pairs.images[chosen]), "reason": str(error)})
                continue
            return {
                "images": preprocess_train(image, self.preprocess, generator, self.crop_scale),
                "tokens": self.tokenizer([self.pairs.captions[chosen]])[0],
                "index": np.asarray(place & 0xFFFFFFFF, np.uint32),
            }
        raise UserError(f"none of the {len(self.pairs)} images of the training data can be read")

    def batches(
        self, start: int, batch_size: int, steps: int, process: int = 0, processes: int = 1
    ) -> Iterator[dict[str, np.ndarray]]:
        """`steps` batches from place `start` on: images [b, S, S, 3], tokens [b, N], index [b] (b = batch_size / processes).

        Each process gets its own consecutive rows of every batch.
        """
        import grain

        order = self._order()
        rows = batch_size // processes

        def load(number: int) -> dict[str, np.ndarray]:
            batch, row = divmod(number, rows)
            place = start + batch * batch_size + process * rows + row
            return self.example(place, int(order[place]))

        local = grain.MapDataset.range(steps * rows).map(load).batch(rows)
        # Grain prefetches whole batches; two at a time keep memory flat
        return iter(local.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)))
