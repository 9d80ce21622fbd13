"""Captions to ids, equal to open_clip's tokenizers on captions of articles and on nasty ones."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.jats_writer import truth_of
from helpers.nasty_captions import NASTY
from helpers.reference import load_open_clip, write_vocabulary
from helpers.written_articles import ARTICLES

from biomedclip_jax.data.text import Tokenizer, clean_caption, used_length
from biomedclip_jax.data.unread_texts import unread_lines
from biomedclip_jax.errors import UserError

VOCABULARY = 30_522


@pytest.fixture(scope="module")
def captions() -> list[str]:
    """Captions of written articles, and nasty strings."""
    written = [figure["caption"] for article in ARTICLES for figure in truth_of(article)["figures"] if figure["caption"]]
    assert len(written) > 30
    return written + NASTY


@pytest.mark.parametrize("length", [256, 77, 5])
def test_equal_to_open_clip_on_a_wordpiece_vocabulary(vocabulary: Path, captions: list[str], length: int) -> None:
    theirs = load_open_clip().tokenizer.HFTokenizer(str(vocabulary), context_length=length)(captions).numpy()
    ours = Tokenizer(vocabulary, length, 0, VOCABULARY)(captions)
    assert ours.dtype == np.int32 and ours.shape == (len(captions), length)
    different = [c for c, a, b in zip(captions, ours, theirs, strict=True) if not np.array_equal(a, b)]
    assert different == []
    assert (ours[:, 0] == 2).all() and (ours == 3).any(axis=1).all(), "[CLS] first, [SEP] kept when a caption is cut"
    assert len(np.unique(ours, axis=0)) > 0.5 * len(captions)


def test_equal_to_open_clip_on_clips_vocabulary(tmp_path: Path, captions: list[str]) -> None:
    """CLIP's BPE: open_clip's own Python tokenizer against transformers' files of the same vocabulary."""
    tokenizer = load_open_clip().tokenizer
    reference = tokenizer.SimpleTokenizer(context_length=77)
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {special.get(token, token): number for token, number in reference.encoder.items()}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    merges = gzip.decompress(Path(tokenizer.default_bpe()).read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    ours = Tokenizer(tmp_path, 77, 0, 49_408)(captions)
    theirs = reference(captions).numpy()
    different = [c for c, a, b in zip(captions, ours, theirs, strict=True) if not np.array_equal(a, b)]
    assert different == []


def test_equal_to_open_clip_on_clips_own_file(tmp_path: Path, captions: list[str]) -> None:
    """The file that OpenAI ships beside its code; alone, and in a folder beside a model's other files."""
    tokenizer = load_open_clip().tokenizer
    captions = [*captions, "ΟΔΟΣ ΣΑΣ, Σ2 Σ", "it's I'M we'LL", "<end_of_text> in a <start_of_text> caption", "½ Ⅳ ﬁ ǅ"]
    theirs = tokenizer.SimpleTokenizer(context_length=77)(captions).numpy()
    file = Path(tokenizer.default_bpe())
    different = [
        c for c, a, b in zip(captions, Tokenizer(file, 77, 0, 49_408)(captions), theirs, strict=True) if (a != b).any()
    ]
    assert different == []
    shutil.copyfile(file, tmp_path / file.name)
    assert np.array_equal(Tokenizer(tmp_path, 77, 0, 49_408)(captions), theirs)
    (tmp_path / file.name).write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"bpe_simple_vocab_16e6\.txt\.gz: not a readable tokenizer"):
        Tokenizer(tmp_path, 77, 0, 49_408)


def test_tokenizer_json_is_as_good(tmp_path: Path, vocabulary: Path, captions: list[str]) -> None:
    """The release has tokenizer.json; it is read without transformers, and its own padding and cutting are overruled."""
    from transformers import BertTokenizer

    saved = BertTokenizer.from_pretrained(vocabulary)
    saved.backend_tokenizer.enable_padding(length=12, pad_id=7)
    saved.backend_tokenizer.enable_truncation(6)
    saved.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert np.array_equal(Tokenizer(tmp_path, 64, 0, VOCABULARY)(captions), Tokenizer(vocabulary, 64, 0, VOCABULARY)(captions))


def test_padding_with_another_id(vocabulary: Path) -> None:
    ids = Tokenizer(vocabulary, 8, 9, VOCABULARY)(["", "tumor"])
    assert list(ids[0]) == [2, 3, 9, 9, 9, 9, 9, 9]
    assert list(ids[1, 3:]) == [9] * 5


def test_cleaning() -> None:
    assert clean_caption("  a\u00a0&amp;amp;\n b  schÃ¶n ") == "a & b schön"
    assert clean_caption("p < 0.05 &amp;amp; q") == "p < 0.05 & q"


def test_no_tokenizer_and_broken_ones(tmp_path: Path, vocabulary: Path) -> None:
    with pytest.raises(UserError, match="no tokenizer here"):
        Tokenizer(tmp_path, 8, 0, VOCABULARY)
    for content in ("", "{", '{"version": "1.0"}', "[]"):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(UserError, match=r"tokenizer\.json: not a readable tokenizer") as caught:
            Tokenizer(tmp_path, 8, 0, VOCABULARY)
        assert "\n" not in str(caught.value)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text("{}")  # with neither merges nor a config
    with pytest.raises(UserError, match="not a readable tokenizer") as caught:
        Tokenizer(tmp_path, 8, 0, VOCABULARY)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_vocabulary_that_is_too_large_for_the_tower(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, 200)
    Tokenizer(tmp_path, 8, 0, 200)
    with pytest.raises(UserError, match="ids up to 199, the text tower has 199"):
        Tokenizer(tmp_path, 8, 0, 199)


def test_used_length() -> None:
    ids = np.array([[2, 5, 3, 0, 0], [2, 0, 0, 3, 0]])  # 0 inside a caption is CLIP's "!", not padding
    assert used_length(ids, 0) == 4
    assert used_length(ids[:1], 0) == 3
    assert used_length(np.zeros((2, 5), int), 0) == 1
    assert used_length(np.ones((2, 5), int), 0) == 5


def test_texts_that_are_not_read_as_they_are(tmp_path: Path, vocabulary: Path) -> None:
    """Cut at the context; words of another script, spelt in letters or unknown; nothing left of a text."""
    read = ["a chest ray", "5 µm, β and δ", "x", "edema (right), 3 ≥ 2", "Röntgen of the chest"]
    cut, unknown = "tumor of the lung " * 20, ["胸部レントゲン", "Рентген грудной клетки", "", "\u200b", "🫁 🫁"]
    texts = [*read, cut, *unknown]
    found = Tokenizer(vocabulary, 32, 0, VOCABULARY).unread(texts)
    assert (found.cut, found.unknown) == ([len(read)], list(range(len(read) + 1, len(texts))))
    just = Tokenizer(vocabulary, 5, 0, VOCABULARY)
    assert just.unread(["a chest ray"]).cut == [] and just.unread(["a chest ray 5"]).cut == [0]


def test_unknown_signs_of_a_byte_level_vocabulary(tmp_path: Path) -> None:
    """Every sign has a token there, or several: one that is taken apart into its bytes is as good as unknown."""
    from tokenizers import Tokenizer as Tokens
    from tokenizers import models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokens(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.save(str(tmp_path / "tokenizer.json"))
    found = Tokenizer(tmp_path, 64, 0, 256).unread(["chest ray", "胸部レントゲン", "an edema of 5 µm"])
    assert (found.cut, found.unknown) == ([], [1])


def test_lines_about_them(vocabulary: Path) -> None:
    tokenizer = Tokenizer(vocabulary, 5, 0, VOCABULARY)
    assert unread_lines(tokenizer, ["chest", "lung"]) == []
    (line,) = unread_lines(tokenizer, ["chest", "the lung of the chest"])
    assert line.startswith("1 of 2 is longer than the 5 tokens") and line.endswith(": 'the lung of the chest'")
    (line,) = unread_lines(tokenizer, ["chest", *["レントゲン"] * 7], [f"line {i}" for i in range(8)])
    assert line.startswith("7 of 8 are mostly in signs")
    assert line.endswith(": line 1, line 2, line 3, line 4, line 5 and 2 more")
