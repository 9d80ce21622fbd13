"""tokenizer_config.json and open_clip's tokenizer_kwargs: what they say is done, as open_clip does it, or refused."""

import gzip
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.reference import load_open_clip, write_vocabulary

from biomedclip_jax.data.text import Tokenizer, token_counter
from biomedclip_jax.errors import UserError

TEXTS = ["The Tumor, café tissue_of the LUNG.", "", "chest x-ray " * 10, "(brain) [MASK] image"]


def message(folder: Path, pad_id: int = 0) -> str:
    with pytest.raises(UserError) as caught:
        Tokenizer(folder, 12, pad_id, 50_000)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_config(folder: Path, **changes: Any) -> Path:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "absent"}))
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A BERT's tokenizer as transformers saves it: tokenizer.json and tokenizer_config.json with every field."""
    load_open_clip()
    from transformers import BertTokenizer

    write_vocabulary(tmp_path)
    BertTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"do_lower_case": False},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"truncation_side": "left"},
        {"model_max_length": 4, "clean_up_tokenization_spaces": True, "name_or_path": "x", "never_split": None},
        {"cls_token": dict.fromkeys(("lstrip", "rstrip", "normalized"), False) | {"__type": "AddedToken", "content": "[CLS]"}},
    ],
)
def test_a_berts_config_counts_as_in_open_clip(saved: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """With tokenizer.json beside it and with vocab.txt alone."""
    shutil.copyfile(tmp_path / "vocab.txt", tmp_path / "away.txt")
    for folder in (with_config(saved, **changes), with_config(tmp_path, **changes)):
        theirs = load_open_clip().tokenizer.HFTokenizer(str(folder), context_length=12)(TEXTS).numpy()
        assert np.array_equal(Tokenizer(folder, 12, 0, 200)(TEXTS), theirs), folder


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"padding_side": "left"}, "padding_side = 'left' is not supported"),
        ({"do_basic_tokenize": False}, "do_basic_tokenize = False is not supported"),
        ({"never_split": ["the"]}, "never_split = ['the'] is not supported"),
        ({"split_special_tokens": True}, "split_special_tokens = True"),
        ({"cls_token": "[MASK]"}, "cls_token = '[MASK]', but the tokenizer has '[CLS]' in its place"),
        ({"do_lower_case": "yes"}, "do_lower_case = 'yes': expected true or false"),
        ({"truncation_side": "middle"}, "truncation_side = 'middle' is not supported; supported: 'left', 'right'"),
        ({"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}, "auto_map = {'AutoTokenizer'"),
        ({"bpe_dropout": 0.1}, "unknown or unsupported field 'bpe_dropout' = 0.1"),
    ],
)
def test_what_a_tokenizer_cannot_be_made_to_do_is_refused(saved: Path, changes: dict[str, Any], expected: str) -> None:
    found = message(with_config(saved, **changes))
    assert found.startswith(f"{saved}/tokenizer_config.json: ") and expected in found


def test_a_cased_tokenizer_says_so_or_is_refused(saved: Path, tmp_path: Path) -> None:
    content = json.loads((saved / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    (saved / "tokenizer.json").write_text(json.dumps(content))
    assert "no do_lower_case" in message(with_config(saved, do_lower_case="absent"))
    (saved / "tokenizer_config.json").unlink()
    assert Tokenizer(saved, 12, 0, 200)(["The"])[0, 1] == 1, "tokenizer.json alone counts: an unknown word"
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<lesion>": 200}))
    assert "without '<lesion>', which was added to the tokenizer" in message(tmp_path)
    (tmp_path / "added_tokens.json").unlink()
    assert "tokenizer_class = 'BertJapaneseTokenizer'" in message(
        with_config(tmp_path, tokenizer_class="BertJapaneseTokenizer")
    )


@pytest.mark.parametrize("field", ["pad_token", "sep_token", "cls_token", "unk_token"])
def test_the_older_map_of_special_tokens_counts_as_in_open_clip(tmp_path: Path, field: str) -> None:
    write_vocabulary(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({field: "[unused1]"}))
    theirs = load_open_clip().tokenizer.HFTokenizer(str(tmp_path), context_length=12)(TEXTS).numpy()
    assert np.array_equal(Tokenizer(tmp_path, 12, theirs[1, -1], 200)(TEXTS), theirs)


def test_padding_that_the_text_tower_would_look_at_is_refused(saved: Path, tmp_path: Path) -> None:
    """open_clip fills up with the tokenizer's token, and passes over the one that BERT's config names."""
    for folder in (saved, tmp_path):
        assert Tokenizer(folder, 12, 5, 200)(["the"])[0, -1] == 5, "what is not open_clip's fills up as the tower asks for"
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"text_cfg": {}}}))
        Tokenizer(folder, 12, 0, 200)
        expected = f"{folder}: the tokenizer fills texts up with '[PAD]', id 0, but the text tower's pad_id is 5"
        assert message(folder, pad_id=5).startswith(expected)
        assert "fills texts up with '[unused1]'" in message(with_config(folder, pad_token="[unused1]"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", {"additional_special_tokens": ["lung"]}),
        ("tokenizer_config.json", {"extra_special_tokens": {"organ_token": "lung"}}),
        ("special_tokens_map.json", {"additional_special_tokens": [{"content": "lung"}]}),
        ("added_tokens.json", {"lung": 100}),
    ],
)
def test_added_words_are_refused_also_where_the_vocabulary_has_them(tmp_path: Path, file: str, content: dict[str, Any]) -> None:
    """Added, they are found inside of other words, too."""
    write_vocabulary(tmp_path)
    (tmp_path / file).write_text(json.dumps(content))
    assert "without 'lung', which was added to the tokenizer" in message(tmp_path)


def gpt2(folder: Path, **config: Any) -> Path:
    """A byte-level tokenizer of few words as GPT-2's is saved."""
    from tokenizers import Tokenizer as Made
    from tokenizers import models, pre_tokenizers

    words = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    words["<|endoftext|>"] = len(words)
    made = Made(models.BPE(words, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"} | ends | config))
    return folder


def test_blanks_and_ends_of_a_gpt2(tmp_path: Path) -> None:
    load_open_clip()
    from transformers import AutoTokenizer

    for prefix in (False, True):
        folder = gpt2(tmp_path, add_prefix_space=prefix, add_bos_token=False, padding_side="left")
        theirs = AutoTokenizer.from_pretrained(folder)(["lung"]).input_ids[0]
        assert list(Tokenizer(folder, 12, 256, 257)(["lung"])[0, : len(theirs)]) == theirs
        assert len(theirs) == 4 + prefix
    assert "add_bos_token = True, but tokenizer.json does not add that token" in message(gpt2(tmp_path, add_bos_token=True))
    assert "do_lower_case = True, but this tokenizer keeps" in message(gpt2(tmp_path, do_lower_case=True))


def roberta(folder: Path, **config: Any) -> Path:
    """A byte-level tokenizer of few words as RoBERTa's is saved."""
    from tokenizers import Tokenizer as Made
    from tokenizers import models, pre_tokenizers, processors

    ends = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
    words = [*ends.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Made(models.BPE({word: i for i, word in enumerate(words)}, []))
    made.add_special_tokens(list(ends.values()))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    made.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "RobertaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    described |= {f"{name}_token": token for name, token in ends.items()} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return folder


def test_a_robertas_tokenizer_as_in_open_clip(tmp_path: Path) -> None:
    for prefix in (False, True):
        folder = roberta(tmp_path, add_prefix_space=prefix)
        theirs = load_open_clip().tokenizer.HFTokenizer(str(folder), context_length=12)(TEXTS).numpy()
        assert np.array_equal(Tokenizer(folder, 12, 1, 300)(TEXTS), theirs) and list(theirs[1, :3]) == [0, 2, 1]
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"text_cfg": {}}}))
    assert "fills texts up with '<pad>', id 1, but the text tower's pad_id is 0" in message(tmp_path)
    assert "cls_token = '<mask>', but the tokenizer has '<s>' in its place" in message(roberta(tmp_path, cls_token="<mask>"))


@pytest.mark.parametrize("clean", ["whitespace", "lower", "canonicalize"])
def test_open_clips_way_of_cleaning(saved: Path, clean: str) -> None:
    with_config(saved, do_lower_case=False)
    described = {"model_cfg": {"text_cfg": {"tokenizer_kwargs": {"clean": clean}, "hf_tokenizer_name": "x"}}}
    (saved / "open_clip_config.json").write_text(json.dumps(described))
    theirs = load_open_clip().tokenizer.HFTokenizer(str(saved), context_length=12, clean=clean)(TEXTS).numpy()
    ours = pickle.loads(pickle.dumps(Tokenizer(saved, 12, 0, 200)))
    assert np.array_equal(ours(TEXTS), theirs)
    assert [min(count, 12) for count in token_counter(saved)(TEXTS)] == [int((row != 0).sum()) for row in theirs]
    described["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "upper"}
    (saved / "open_clip_config.json").write_text(json.dumps(described))
    assert "tokenizer_kwargs: clean = 'upper' is not supported" in message(saved)


def test_clips_own_vocabulary_without_punctuation(tmp_path: Path) -> None:
    tokenizer = load_open_clip().tokenizer
    file = Path(tokenizer.default_bpe())
    shutil.copyfile(file, tmp_path / file.name)
    assert gzip.decompress(file.read_bytes())
    described = {"model_cfg": {"text_cfg": {"tokenizer_kwargs": {"clean": "canonicalize"}}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    theirs = tokenizer.SimpleTokenizer(context_length=16, clean="canonicalize")(TEXTS).numpy()
    assert np.array_equal(Tokenizer(tmp_path, 16, 0, 49_408)(TEXTS), theirs)
