"""The vocabulary of the demo's captions for a causal language model."""

from pathlib import Path

import numpy as np
import pytest

from biomedclip_jax.data.demo import sources as causal_demo
from biomedclip_jax.data.text import Tokenizer

CAPTIONS = ("a close-up of the skull, mostly dark", "an MR image of the shoulder")


@pytest.fixture
def tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    """Of two captions, where the demo has two thousand."""

    def make_demo(workdir: Path) -> None:
        (workdir / "data").mkdir(exist_ok=True)
        rows = "".join(f'{i}.png,"{caption}"\n' for i, caption in enumerate(CAPTIONS))
        (workdir / "data" / "train.csv").write_text(f"image,caption\n{rows}", encoding="utf-8")

    monkeypatch.setattr(causal_demo, "make_demo", make_demo)
    causal_demo.make_causal_demo(tmp_path)
    first = (tmp_path / "words" / "tokenizer.json").read_bytes()
    causal_demo.make_causal_demo(tmp_path)
    assert (tmp_path / "words" / "tokenizer.json").read_bytes() == first
    return Tokenizer(tmp_path / "words", 32, 0, 512)


def test_every_word_has_a_token_and_texts_have_no_ends(tokenizer: Tokenizer) -> None:
    tokens = tokenizer([*CAPTIONS, "This is a photo of head CT", ""])
    lengths = (tokens != 0).sum(axis=1)
    assert lengths.tolist() == [10, 6, 7, 0] and not (tokens == 1).any(), "1 is what is not known"
    assert all((row[:length] != 0).all() for row, length in zip(tokens, lengths, strict=True)), "padding is on the right"
    assert np.array_equal(tokenizer(["the skull"])[0][:2], tokens[0][5:7])


def test_an_unknown_word_is_one_token(tokenizer: Tokenizer) -> None:
    assert tokenizer(["skull xylophone"])[0][:3].tolist()[1:] == [1, 0]
