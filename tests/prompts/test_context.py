"""Which token or learned vector stands where, on a WordPiece vocabulary."""

from pathlib import Path

import numpy as np
import pytest

from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError
from biomedclip_jax.prompts.layout import ContextConfig, initial_context, make_layout, prompt_words

NAMES = ("glioma_tumor", "covid-19 lung opacity", "chest X-ray", "normal")
PIECES = (["glioma", "tumor"], ["cov", "##id", "-", "19", "lung", "opac", "##ity"], ["chest", "x", "-", "ray"], ["normal"])


@pytest.fixture(scope="module")
def tokenizer(vocabulary: Path) -> Tokenizer:
    return Tokenizer(vocabulary, 256, 0, 30_522)


def read(vocabulary: Path, tokens: np.ndarray, slots: np.ndarray) -> list[str]:
    words = (vocabulary / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return [f"v{slot}" if slot >= 0 else words[token] for token, slot in zip(tokens, slots, strict=True)]


@pytest.mark.parametrize(
    ("position", "order"),
    [
        ("end", lambda name: ["v0", "v1", "v2", "v3", "v4", *name]),
        ("middle", lambda name: ["v0", "v1", *name, "v2", "v3", "v4"]),
        ("front", lambda name: [*name, "v0", "v1", "v2", "v3", "v4"]),
    ],
)
def test_names_of_any_length_keep_together(position, order, tokenizer: Tokenizer, vocabulary: Path) -> None:
    layout = make_layout(NAMES, ContextConfig(5, position=position), tokenizer)
    assert layout.tokens.shape == layout.slots.shape == (4, 5 + 7 + 3)
    for tokens, slots, pieces in zip(*layout, PIECES, strict=True):
        expected = ["[CLS]", *order(pieces), ".", "[SEP]"]
        assert read(vocabulary, tokens, slots) == expected + ["[PAD]"] * (15 - len(expected))
        assert (tokens[: len(expected)] != tokenizer.pad_id).all(), "a placeholder that looks like padding would be masked"


def test_a_phrase_is_as_many_vectors_as_it_has_tokens(tokenizer: Tokenizer) -> None:
    table = np.random.default_rng(0).normal(size=(30_522, 3)).astype(np.float32)
    config = ContextConfig("a photomicrograph of")  # "photomicrograph" is three word pieces or one, but not a word count
    ids = tokenizer(["a photomicrograph of"])[0]
    ids = ids[ids != 0][1:-1]
    vectors = initial_context(config, 2, tokenizer, table, np.random.default_rng(0))
    assert np.array_equal(vectors, table[ids])
    # with the phrase's own vectors the prompt is the sentence itself
    layout = make_layout(NAMES, config, tokenizer)
    sentence = tokenizer([f"a photomicrograph of {name.replace('_', ' ')}." for name in NAMES])[:, : layout.tokens.shape[1]]
    assert np.array_equal(prompt_words(*layout, vectors, table), table[sentence])
    own = initial_context(ContextConfig("a photo of a", class_specific=True), 3, tokenizer, table, np.random.default_rng(0))
    assert own.shape == (3, 4, 3) and np.array_equal(own[0], own[2])


def test_drawn_vectors_are_small_and_of_the_asked_shape(tokenizer: Tokenizer) -> None:
    table = np.zeros((30_522, 64), np.float32)
    shared, own = (
        initial_context(ContextConfig(16, class_specific=c), 5, tokenizer, table, np.random.default_rng(0))
        for c in (False, True)
    )
    assert shared.shape == (16, 64) and own.shape == (5, 16, 64) and shared.dtype == np.float32
    assert abs(own.std() - 0.02) < 1e-3


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_a_long_name_is_cut_and_the_vectors_stay(position, vocabulary: Path) -> None:
    short = Tokenizer(vocabulary, 12, 0, 30_522)
    layout = make_layout(("glioma " * 40, "normal"), ContextConfig(5, position=position), short)
    assert layout.tokens.shape == (2, 12)
    assert sorted(layout.slots[0][layout.slots[0] >= 0]) == [0, 1, 2, 3, 4]
    assert read(vocabulary, layout.tokens[0], layout.slots[0]).count("glioma") == 5
    assert read(vocabulary, layout.tokens[0], layout.slots[0])[-1] == "[SEP]"


@pytest.mark.parametrize("start", ["", "<s> "])
def test_vectors_stand_before_the_text_of_a_causal_tower(start: str, tmp_path: Path) -> None:
    """Also before the start token that LLaMA's tokenizer gives, as PEFT prepends them."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, processors

    words = ("</s>", "<s>", "X", "a", "photo", "of", "brain", "tumor", "normal")
    library = Library(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="</s>"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if start:
        library.post_processor = processors.TemplateProcessing(single=f"{start}$A", special_tokens=[("<s>", 1)])
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path, 6, 0, len(words))
    config = ContextConfig("a photo of", vectors=4)
    layout = make_layout(("brain_tumor", "normal"), config, tokenizer)
    said = [start.split() + name for name in (["brain", "tumor"], ["normal"])]
    assert [[words[i] for i in row[4:] if i] for row in layout.tokens] == said
    assert layout.slots.tolist() == [[0, 1, 2, 3] + [-1] * 6] * 2 and (layout.tokens[:, :4] != 0).all()
    vectors = initial_context(config, 2, tokenizer, np.arange(9, dtype=np.float32)[:, None], np.random.default_rng(0))
    assert [words[int(i)] for i in vectors[:, 0]] == ["a", "photo", "of", "a"]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda t: ContextConfig(0), "start = 0"),
        (lambda t: ContextConfig("  "), "words to start from"),
        (lambda t: ContextConfig(position="back"), "position = 'back'"),
        (lambda t: make_layout(["a", " _ "], ContextConfig(4), t), "' _ '"),
        (lambda t: make_layout(["a"], ContextConfig(254), t), "at most 253"),
    ],
)
def test_what_cannot_be_a_prompt_is_said(make, named: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=named) as error:
        make(tokenizer)
    assert "\n" not in str(error.value)
