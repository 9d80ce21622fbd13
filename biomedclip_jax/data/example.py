"""A position in the run and a record -> the arrays of an example. Everything random in it is keyed by (seed,
position).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biomedclip_jax.config import DataConfig, PreprocessConfig
from biomedclip_jax.data.images.augment import preprocess_train
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.labelled.classes import multi_hot
from biomedclip_jax.data.pairs import Pairs, Reject, Texts, reject
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError

_TEXT = 1  # the stream that texts are drawn from; without a number, that of the crop


@dataclass(frozen=True)
class Batch:
    """Examples of one step, those of this process.

    images: float32 [b, S, S, 3], normalised. tokens: int32 [b, N], padded. index: uint32 [b], the position in the run
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
    """Decodes, augments and tokenises. Picklable, for worker processes. classes: of the labels; () where nobody asks."""

    pairs: Pairs
    tokenizer: Tokenizer
    preprocess: PreprocessConfig
    config: DataConfig
    seed: int
    classes: tuple[str, ...] = ()

    def examples(self, positions: Sequence[int], records: list[int]) -> tuple[Batch, list[Reject]]:
        """The examples at some positions of the run, each made of the record beside it, and the records that failed.

        A record that cannot be read is replaced by the one after it. UserError if no record can be read.
        """
        size = self.preprocess.image_size
        images = np.empty((len(positions), size, size, 3), np.float32)
        captions, labels, rejects = [], [], []
        for row, (position, record) in enumerate(zip(positions, records, strict=True)):
            images[row], texts = self._example(position, record, rejects)
            captions.append(self.draw_text(texts, position))
            labels.append(texts.label)
        index = np.array([position & 0xFFFFFFFF for position in positions], np.uint32)
        hot = multi_hot(labels, self.classes, self.config.label_separator) if self.classes else None
        return Batch(images, self.tokenizer(captions), index, hot), rejects

    def _example(self, position: int, record: int, rejects: list[Reject]) -> tuple[np.ndarray, Texts]:
        extras = self.config.augment if self.config.augment.is_on else None
        for attempt in range(len(self.pairs)):
            chosen = (record + attempt) % len(self.pairs)
            try:
                pair = self.pairs[chosen]
                image = load_image(pair.image, pair.name)
            except UserError as error:
                rejects.append(reject(self.pairs, chosen, error))
                continue
            generator = np.random.default_rng((self.seed, position))
            pixels = preprocess_train(image, self.preprocess, generator, self.config.crop_scale, extras)
            return pixels, pair
        raise UserError(f"none of the {len(self.pairs)} images of the training data can be read")

    def draw_text(self, texts: Texts, position: int) -> str:
        """One of the captions or, in `reference_share` of the cases, one of the paragraphs that mention the figure."""
        share = self.config.reference_share if texts.references else 0.0
        if len(texts.captions) == 1 and not share:
            return texts.captions[0]
        generator = np.random.default_rng((self.seed, position, _TEXT))
        choices = texts.references if generator.random() < share else texts.captions
        return choices[int(generator.integers(len(choices)))]
