"""From files and sentences to arrays, the way a given model wants them."""

from collections.abc import Sequence
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
from biomedclip_jax.data.text import Tokenizer, TokenMaker
from biomedclip_jax.errors import UserError


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

    def questions(self, texts: Sequence[str]) -> np.ndarray:
        """The token ids of questions as int32 [n, question_length]."""
        return self.question_tokenizer(texts)

    def tokens(self, texts: Sequence[str]) -> np.ndarray:
        """The token ids of texts as int32 [n, context_length]."""
        return self.tokenizer(texts)


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
