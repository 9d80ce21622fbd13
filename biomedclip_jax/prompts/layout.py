"""Prompts with learned vectors in them, as a text tower takes them.

A layout says which positions of a prompt hold a token of the vocabulary and which a learned vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from biomedclip_jax.data.text import Tokenizer, used_length
from biomedclip_jax.errors import UserError
from biomedclip_jax.prompts.templates import in_words


class Layout(NamedTuple):
    """The prompts of C classes. Prompts are as long as the longest one; the others are padded.

    tokens: int32 [C, N], with placeholders for learned vectors. slots: int32 [C, N], the number of the learned vector that
    stands there, -1 where the token itself does.
    """

    tokens: np.ndarray
    slots: np.ndarray


def prompt_words(tokens: Array, slots: Array, context: Array, table: Array) -> Array:
    """Word embeddings [C, N, D] of the prompts; context: learned vectors [n, D], or [C, n, D]."""
    number = jnp.maximum(slots, 0)
    learned = context[number] if context.ndim == 2 else jnp.take_along_axis(context, number[..., None], axis=1)
    return jnp.where(slots[..., None] >= 0, learned, table[tokens])


def prompt_embeddings(clip: Any, tokens: ArrayLike, slots: ArrayLike) -> Array:
    """Unit embeddings float32 [C, E] of the prompts of a layout, by a `CLIP` with learned context; without dropout."""
    tokens = jnp.asarray(tokens)
    words = prompt_words(tokens, jnp.asarray(slots), clip.context[...], clip.text.word[...])
    return clip.encode_words(words, tokens)


Position = Literal["end", "middle", "front"]

_PLACEHOLDER = "X"  # stands where a learned vector goes; any word that is neither padding nor the end of a text would do


@dataclass(frozen=True)
class ContextConfig:
    """What is learned of a prompt "[v1] [v2] ... name."; the fields are CoOp's N_CTX or CTX_INIT, CSC, CLASS_TOKEN_POSITION.

    start: how many vectors, drawn from N(0, 0.02²), or the words that they start from, such as "a photo of a".
    vectors: how many, where they start from words: the words are said again until there are so many (CLEFT: 30).
    class_specific: vectors of its own for each class, where otherwise all classes share them.
    position: where the name of the class stands: after the vectors, between their halves, or before them.
    """

    start: int | str = 16
    class_specific: bool = False
    position: Position = "end"
    vectors: int | None = None

    def __post_init__(self) -> None:
        wrong = self.start < 1 if isinstance(self.start, int) else not self.start.strip()
        if wrong:
            raise UserError(f"context start = {self.start!r}: expected a number of vectors above 0, or words to start from")
        if self.vectors is not None and (self.vectors < 1 or isinstance(self.start, int)):
            raise UserError(f"context vectors = {self.vectors!r}: expected a number above 0, and words as start")
        if self.position not in get_args(Position):
            choices = ", ".join(map(repr, get_args(Position)))
            raise UserError(f"context position = {self.position!r}: expected one of {choices}")


def _ids(tokenizer: Tokenizer, text: str) -> np.ndarray:
    row = tokenizer([text])[0]
    return row[: used_length(row[None], tokenizer.pad_id)]


def _ends(tokenizer: Tokenizer) -> tuple[int, int]:
    ends = _ids(tokenizer, "")
    if len(ends) != 2:
        raise UserError("learned prompts need a tokenizer with one start and one end token; this model's gives others")
    return int(ends[0]), int(ends[1])


def _start_alone(tokenizer: Tokenizer) -> np.ndarray | None:
    """What a tokenizer without an end token puts before a text: nothing (GPT-2) or one token (LLaMA). None for the others."""
    ends = _ids(tokenizer, "")
    if tokenizer.ends_alone:
        raise UserError(
            "learned prompts need a text tower that is read at a start or end token; this one is read at the last of its "
            f"{tokenizer.context_length} tokens, padding or not (SigLIP, CLIPA)"
        )
    if (ends == tokenizer.pad_id).all():
        return ends[:0]
    return ends if len(ends) == 1 else None


def _body(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Ids of a text as it stands inside a sentence: after another word, without the ends."""
    before = len(_ids(tokenizer, _PLACEHOLDER)) - 1
    return _ids(tokenizer, f"{_PLACEHOLDER} {text}")[before:-1]


def _inner(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Ids without the ends, where the tokenizer gives any."""
    start = _start_alone(tokenizer)
    return _ids(tokenizer, text)[1:-1] if start is None else _ids(tokenizer, text)[len(start) :]


def context_length(config: ContextConfig, tokenizer: Tokenizer) -> int:
    """How many vectors are learned. UserError if no name fits beside them."""
    count = config.start if isinstance(config.start, int) else config.vectors or len(_inner(tokenizer, config.start))
    if _start_alone(tokenizer) is not None:
        return count  # before the text, beyond its context length
    most = tokenizer.context_length - 3
    if count > most:
        raise UserError(f"{count} learned vectors: this text tower takes at most {most} beside a name of one token")
    return count


def make_layout(names: Sequence[str], config: ContextConfig, tokenizer: Tokenizer) -> Layout:
    """Start token, learned vectors and the name of the class in the order asked for, ".", end token.

    What does not fit into the tower's context length is cut from the end of the name, never from the learned vectors.
    For a tokenizer without an end token (GPT-2, LLaMA) see `_prepended_names`.
    """
    count = context_length(config, tokenizer)
    if (alone := _start_alone(tokenizer)) is not None:
        return _prepended_names(names, config, tokenizer, count, alone)
    start, end = _ends(tokenizer)
    placeholder = int(_ids(tokenizer, _PLACEHOLDER)[1])
    learned = np.arange(count)
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    for name in names:
        spoken = _spoken(name)
        body = _body(tokenizer, spoken + ".")[: tokenizer.context_length - count - 2]
        # of the name alone: a class is as many tokens long as its own name has
        length = min(len(_body(tokenizer, spoken)), len(body))
        before = {"end": count, "middle": count // 2, "front": 0}[config.position]
        ids = np.concatenate([[start], np.full(count, placeholder), body, [end]])
        slots = np.concatenate([[-1], learned, np.full(len(body) + 1, -1)])
        # positions of the row above in their new order: vectors before the name, the name, the other vectors, the rest
        name_positions = 1 + count + np.arange(length)
        rest = np.arange(1 + count + length, len(ids))
        order = np.concatenate([[0], 1 + learned[:before], name_positions, 1 + learned[before:], rest])
        rows.append((ids[order], slots[order]))
    longest = max(len(ids) for ids, _ in rows)
    tokens = np.full((len(rows), longest), tokenizer.pad_id, np.int32)
    slots = np.full((len(rows), longest), -1, np.int32)
    for i, (ids, numbers) in enumerate(rows):
        tokens[i, : len(ids)], slots[i, : len(ids)] = ids, numbers
    return Layout(tokens, slots)


def prepended(tokens: np.ndarray, count: int, pad_id: int) -> Layout:
    """`count` learned vectors before each text, as CLEFT's second stage has them. tokens: int32 [C, N].

    CLEFT pads names to its whole context length N, and "first_eos" takes a text that fills N for cut.
    """
    before = np.full((len(tokens), count), 0 if pad_id else 1, np.int32)  # any token that is no padding
    slots = np.tile(np.arange(count, dtype=np.int32), (len(tokens), 1))
    after = np.full(tokens.shape, -1, np.int32)
    return Layout(np.concatenate([before, tokens], axis=1, dtype=np.int32), np.concatenate([slots, after], axis=1))


def _prepended_names(
    names: Sequence[str], config: ContextConfig, tokenizer: Tokenizer, count: int, start: np.ndarray
) -> Layout:
    """The same of names, each as it stands after another word, with the space before it, and after the start token if any."""
    if config.position != "end":
        raise UserError(f"context position = {config.position!r}: this text tower reads from left to right; expected 'end'")
    tokens = np.full((len(names), tokenizer.context_length), tokenizer.pad_id, np.int32)
    skipped = len(_ids(tokenizer, _PLACEHOLDER))
    for row, name in zip(tokens, names, strict=True):
        body = _ids(tokenizer, f"{_PLACEHOLDER} {_spoken(name)}")[skipped:]
        ids = np.concatenate([start, body])
        row[: len(ids)] = ids
    return prepended(tokens, count, tokenizer.pad_id)


def _spoken(name: str) -> str:
    if not in_words(name):
        raise UserError(f"class {name!r}: expected a name in words to put into a prompt")
    return in_words(name)


def start_tokens(config: ContextConfig, tokenizer: Tokenizer) -> np.ndarray | None:
    """Tokens whose embeddings the learned vectors are before any training, int [n]; None where they are drawn at random."""
    if isinstance(config.start, int):
        return None
    return np.resize(_inner(tokenizer, config.start), context_length(config, tokenizer))


def initial_context(
    config: ContextConfig, classes: int, tokenizer: Tokenizer, table: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The vectors before any training, float32 [n, D] or, if `class_specific`, [C, n, D]. table: word embeddings [V, D]."""
    count = context_length(config, tokenizer)
    if (tokens := start_tokens(config, tokenizer)) is not None:
        vectors = np.asarray(table)[tokens]
        return np.repeat(vectors[None], classes, axis=0) if config.class_specific else vectors
    shape = (classes, count, table.shape[1]) if config.class_specific else (count, table.shape[1])
    return rng.normal(0, 0.02, shape).astype(np.float32)
