"""A place of the run and a record -> the arrays of an example. Everything random in it is keyed by (seed, place)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biomedclip_jax.config import DataConfig, PreprocessConfig
from biomedclip_jax.data.images.load import load_image, preprocess_train
from biomedclip_jax.data.labelled.classes import multi_hot
from biomedclip_jax.data.pairs import Pairs, Reject, Texts, reject
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError

_TEXT = 1  # the stream that texts are drawn from; without a number, that of the crop


@dataclass(frozen=True)
class ExampleMaker:
    """Decodes, augments and tokenises. Picklable, for worker processes. classes: of the labels; () where nobody asks."""

    pairs: Pairs
    tokenizer: Tokenizer
    preprocess: PreprocessConfig
    config: DataConfig
    seed: int
    classes: tuple[str, ...] = ()

    def examples(self, places: Sequence[int], records: list[int]) -> tuple[dict[str, np.ndarray], list[Reject]]:
        """images float32 [n, S, S, 3], tokens int32 [n, N], index uint32 [n] of these places; what could not be read.

        With `classes` also labels bool [n, C]. A record that cannot be read is replaced by the one after it.
        """
        size = self.preprocess.image_size
        images = np.empty((len(places), size, size, 3), np.float32)
        captions, labels, rejects = [], [], []
        for row, (place, record) in enumerate(zip(places, records, strict=True)):
            images[row], texts = self._example(place, record, rejects)
            captions.append(self.draw_text(texts, place))
            labels.append(texts.label)
        index = np.array([place & 0xFFFFFFFF for place in places], np.uint32)
        arrays = {"images": images, "tokens": self.tokenizer(captions), "index": index}
        if self.classes:
            arrays["labels"] = multi_hot(labels, self.classes, self.config.label_separator)
        return arrays, rejects

    def _example(self, place: int, record: int, rejects: list[Reject]) -> tuple[np.ndarray, Texts]:
        extras = self.config.augment if self.config.augment.is_on else None
        for attempt in range(len(self.pairs)):
            chosen = (record + attempt) % len(self.pairs)
            try:
                pair = self.pairs[chosen]
                image = load_image(pair.image, pair.name)
            except UserError as error:
                rejects.append(reject(self.pairs, chosen, error))
                continue
            generator = np.random.default_rng((self.seed, place))
            pixels = preprocess_train(image, self.preprocess, generator, self.config.crop_scale, extras)
            return pixels, pair
        raise UserError(f"none of the {len(self.pairs)} images of the training data can be read")

    def draw_text(self, texts: Texts, place: int) -> str:
        """One of the captions or, in `reference_share` of the cases, of the paragraphs that mention the figure."""
        share = self.config.reference_share if texts.references else 0.0
        if len(texts.captions) == 1 and not share:
            return texts.captions[0]
        generator = np.random.default_rng((self.seed, place, _TEXT))
        choices = texts.references if generator.random() < share else texts.captions
        return choices[int(generator.integers(len(choices)))]
