"""From files and sentences to arrays, the way a given model wants them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from biomedclip_jax.config import AnsweringConfig, PreprocessConfig, QCRConfig, TextConfig
from biomedclip_jax.data.images.load import ImageSource, load_image
from biomedclip_jax.data.images.preprocess import preprocess
from biomedclip_jax.data.questions.words import QuestionWords
from biomedclip_jax.data.text import Tokenizer, TokenMaker, used_length
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.parallel import read_ahead

_TEXTS = 16_384  # tokenised at a time: the tokens of all could take more memory than their embeddings


class Processor:
    """Makes arrays of images and texts as one model wants them. The tokenizer is read when a text is first seen."""

    def __init__(self, config: PreprocessConfig, text: TextConfig, tokenizer: Path, answering: AnsweringConfig | None = None):
        """answering: what the model answers questions by, for `questions`."""
        self.config = config
        self._text = text
        self._answering = answering
        self._folder = tokenizer

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model's folder."""
        text = self._text
        return Tokenizer(self._folder, text.context_length, text.pad_id, text.vocab_size)

    @cached_property
    def question_tokenizer(self) -> TokenMaker:
        """The tokenizer of questions."""
        assert self._answering is not None
        return question_tokenizer(self._folder, self._text, self._answering)

    def image(self, source: ImageSource) -> np.ndarray:
        """The pixels of one image as float32 [S, S, 3], normalised. UserError names a file that is no image."""
        return preprocess(load_image(source), self.config)

    def images(self, sources: Sequence[ImageSource]) -> np.ndarray:
        """The pixels of n images as float32 [n, S, S, 3]; decoded on threads (Pillow lets go of the interpreter
        meanwhile).
        """
        with ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(self.image, sources)))

    def images_or_errors(self, sources: Sequence[ImageSource]) -> list[np.ndarray | UserError]:
        """The pixels of images, one by one: float32 [S, S, 3], or the UserError of an image that cannot be read."""

        def attempt(source: ImageSource) -> np.ndarray | UserError:
            try:
                return self.image(source)
            except UserError as error:
                return error

        with ThreadPoolExecutor() as pool:
            return list(pool.map(attempt, sources))

    def batches(
        self,
        sources: Sequence[ImageSource],
        at_once: int,
        progress: Callable[[int], object] | None = None,
        on_error: Callable[[int, UserError], object] | None = None,
    ) -> Iterator[np.ndarray]:
        """The pixels of images, `at_once` together, float32 [k, S, S, 3]; decoded on threads while the caller works.

        progress: called with a number of images that are done. on_error: called with position and error of an image that
        cannot be read, which is left out then; without it the first one's UserError is raised.
        """
        batch: list[np.ndarray] = []
        for position, pixels in enumerate(read_ahead(self.image, sources, ahead=2 * at_once)):
            if isinstance(pixels, UserError):
                if on_error is None:
                    raise pixels
                on_error(position, pixels)
            else:
                batch.append(pixels)
            if len(batch) == at_once:
                yield np.stack(batch)
                batch.clear()
            if progress is not None:
                progress(1)
        if batch:
            yield np.stack(batch)

    def questions(self, texts: Sequence[str]) -> np.ndarray:
        """The token ids of questions as int32 [n, question_length]."""
        return self.question_tokenizer(texts)

    def tokens(self, texts: Sequence[str]) -> np.ndarray:
        """The token ids of texts as int32 [n, context_length]."""
        return self.tokenizer(texts)

    def text_batches(self, texts: Sequence[str], at_once: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Texts by their length, `at_once` together: (positions of these texts, their token ids as int32 [k, N]).

        N is the length of the longest of them, rounded up to 16, 32, 64, ... tokens.
        """
        pad = self._text.pad_id
        for first in range(0, len(texts), _TEXTS):
            tokens = self.tokens(texts[first : first + _TEXTS])
            order = np.argsort((tokens != pad).sum(axis=1), kind="stable")
            for start in range(0, len(tokens), at_once):
                chosen = order[start : start + at_once]
                width = max(16, 1 << (used_length(tokens[chosen], pad) - 1).bit_length())
                yield first + chosen, tokens[chosen, :width]


def question_tokenizer(folder: Path, text: TextConfig, answering: AnsweringConfig) -> TokenMaker:
    """What makes token ids of questions, as a model answers them. folder: of the model's tokenizer."""
    if isinstance(answering, QCRConfig):
        return QuestionWords(answering.words, answering.question_length)
    length = min(answering.question_length, text.context_length)
    return Tokenizer(folder, length, text.pad_id, text.vocab_size)


def as_list(values: Sequence[Any], name: str) -> list[Any]:
    """The values as a list. UserError, which calls them `name`, for one text, path or image where several are expected."""
    # an array [H,W,3] is one image, though it could be iterated over
    one_array = isinstance(values, np.ndarray) and values.ndim == 3 and values.shape[2] <= 4
    if one_array or isinstance(values, str | bytes | Path | Image.Image):
        shown = f" ({str(values)!r})" if isinstance(values, str | Path) else ""
        raise UserError(f"{name}: expected a list, found one {type(values).__name__}{shown}; put it in [ ]")
    return list(values)
