"""Captions to ids with BiomedBERT's own vocabulary, equal to open_clip's tokenizer on real captions and on nasty ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.nasty_captions import NASTY
from helpers.real_data_folder import real_data
from helpers.reference import load_open_clip
from helpers.written_vocabulary import SIZE, SPECIAL, write_biomedical_vocabulary

from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.prompts.layout import ContextConfig, make_layout

VOCABULARY, ARTICLES = real_data("biomedbert-vocab"), real_data("pmc-articles")
WORDS = (VOCABULARY / "vocab.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def captions() -> list[str]:
    """Real captions of open-access articles, and nasty strings."""
    articles = json.loads((ARTICLES / "expected.json").read_text(encoding="utf-8"))["articles"]
    real = [figure["caption"] for article in articles for figure in article["figures"]]
    assert len(real) > 30
    return real + NASTY


@pytest.mark.parametrize("length", [256, 77, 5])
def test_equal_to_open_clip(captions: list[str], length: int) -> None:
    theirs = load_open_clip().tokenizer.HFTokenizer(str(VOCABULARY), context_length=length)(captions).numpy()
    ours = Tokenizer(VOCABULARY, length, 0, SIZE)(captions)
    assert ours.dtype == np.int32 and ours.shape == (len(captions), length)
    different = [c for c, a, b in zip(captions, ours, theirs, strict=True) if not np.array_equal(a, b)]
    assert different == []
    assert (ours[:, 0] == 2).all() and (ours == 3).any(axis=1).all(), "[CLS] first, [SEP] kept when a caption is cut"
    assert len(np.unique(ours, axis=0)) > 0.5 * len(captions)


def test_equal_to_open_clip_on_clips_own_file(captions: list[str]) -> None:
    """CLIP's BPE on real captions."""
    tokenizer = load_open_clip().tokenizer
    theirs = tokenizer.SimpleTokenizer(context_length=77)(captions).numpy()
    ours = Tokenizer(Path(tokenizer.default_bpe()), 77, 0, 49_408)(captions)
    assert [c for c, a, b in zip(captions, ours, theirs, strict=True) if (a != b).any()] == []


def test_tokenizer_json_is_as_good(tmp_path: Path, captions: list[str]) -> None:
    from transformers import BertTokenizer

    saved = BertTokenizer.from_pretrained(VOCABULARY)
    saved.backend_tokenizer.enable_padding(length=12, pad_id=7)
    saved.backend_tokenizer.enable_truncation(6)
    saved.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert np.array_equal(Tokenizer(tmp_path, 64, 0, SIZE)(captions), Tokenizer(VOCABULARY, 64, 0, SIZE)(captions))


def test_pieces_in_a_prompt() -> None:
    """Names of any length keep together: the pieces of BiomedBERT's vocabulary, and those that other tests count on."""
    names = ("glioma_tumor", "covid-19 lung opacity", "chest X-ray", "normal")
    pieces = (["glioma", "tumor"], ["cov", "##id", "-", "19", "lung", "opac", "##ity"], ["chest", "x", "-", "ray"], ["normal"])
    layout = make_layout(names, ContextConfig(5, position="end"), Tokenizer(VOCABULARY, 256, 0, SIZE))
    for tokens, slots, expected in zip(*layout, pieces, strict=True):
        read = [WORDS[token] for token, slot in zip(tokens, slots, strict=True) if slot < 0]
        assert [word for word in read if word != "[PAD]"] == ["[CLS]", *expected, ".", "[SEP]"]


def test_the_written_vocabulary_stands_for_it(tmp_path: Path) -> None:
    """Its size, special ids and configs are BiomedBERT's."""
    folder = write_biomedical_vocabulary(tmp_path)
    written = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert len(written) == len(WORDS) == SIZE and written[:5] == WORDS[:5] == list(SPECIAL)
    for name in ("config.json", "tokenizer_config.json"):
        ours, theirs = (json.loads((place / name).read_text()) for place in (folder, VOCABULARY))
        assert ours.items() <= theirs.items(), name
