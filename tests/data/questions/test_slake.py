"""SLAKE's files: its languages, the file with two names, the empty answer, copies without a test part."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from biomedclip_jax.data.questions._slake import read_slake
from biomedclip_jax.data.questions.types import PARTS
from biomedclip_jax.errors import UserError


def row(qid: int, image: int, answer: str, language: str = "en", kind: str = "OPEN", **more: Any) -> dict[str, Any]:
    own = {"img_id": image, "img_name": f"xmlab{image}/source.jpg", "question": f"Question {qid}?", "answer": answer}
    return own | {"q_lang": language, "answer_type": kind, "content_type": "Organ", "qid": qid} | more


TRAIN = [row(1, 1, "Liver"), row(2, 2, "Yes", kind="CLOSED"), row(3, 9, "肝", "zh"), row(1622, 1, "")]
VALIDATION = [row(4, 5, "MRI"), row(5, 1, "脑", "zh")]
TEST = [row(6, 9, "No", kind="CLOSED"), row(7, 8, "Lung", content_type="Position"), row(8, 2, "不", "zh", "CLOSED")]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(**files: Any) -> Path:
        for name, rows in ({"train": TRAIN, "validate": VALIDATION, "test": TEST} | files).items():
            if rows is not None:
                (tmp_path / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize("name", ["validate", "validation"])
def test_english_and_chinese(write: Callable[..., Path], name: str) -> None:
    folder = write(validate=None) if name == "validation" else write()
    (folder / f"{name}.json").write_text(json.dumps(VALIDATION), encoding="utf-8")
    (folder / "imgs/xmlab8").mkdir(parents=True)
    (folder / "imgs/xmlab8/source.jpg").write_bytes(b"8")
    english, chinese = read_slake(folder), read_slake(folder, language="zh")
    assert [[each.id for each in english.part(part)] for part in PARTS] == [["1", "2"], ["4"], ["6", "7"]]
    assert [[each.id for each in chinese.part(part)] for part in PARTS] == [["3"], ["5"], ["8"]]
    assert english.test[0].closed and english.test[1].types == ("Position",) and chinese.test[0].language == "zh"
    assert list(english.images) == ["xmlab8/source.jpg"]
    assert "left out of train: answer is empty: 1 (such as 1622)" in english.notes
    assert "none of 2 test images is in the train part" in english.notes
    assert any("questions: train 3, validation 1, test 2" in text for text in english.caveats)


def test_both_languages_only_divided_anew(write: Callable[..., Path]) -> None:
    many = [row(n, n // 4, "Yes", "zh" if n % 2 else "en", "CLOSED") for n in range(10, 200)]
    folder = write(train=many)
    with pytest.raises(UserError, match=r"divided differently, 72 of 96 .* say --split ours"):
        read_slake(folder, language="both")
    data = read_slake(folder, "ours", "both")
    parts = [{each.image for each in own} for own in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) and all(parts)
    assert {each.language for each in data.train} == {"en", "zh"} and data.language == "both"


def test_without_a_test_part(write: Callable[..., Path]) -> None:
    data = read_slake(write(test=None))
    assert [each.id for each in data.test] == ["4"] and not data.validation
    assert "there is no test.json: measured on validate.json" in data.caveats


def test_an_empty_answer_cannot_be_tested(write: Callable[..., Path]) -> None:
    data = read_slake(write(test=[*TEST, row(9, 8, " "), row(10, 8, "x", "fr")]))
    assert [each.id for each in data.test] == ["6", "7"]
    assert {each.row: each.reason for each in data.rejects} == {
        "9": "answer is empty",
        "10": "language 'fr' is neither en nor zh",
    }


def test_what_is_no_slake(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no SLAKE here; expected train\.json, validate\.json and test\.json"):
        read_slake(tmp_path)
    folder = write()
    with pytest.raises(UserError, match="slake: no split 'mevf'; expected one of official, ours"):
        read_slake(folder, "mevf")
    (folder / "validation.json").write_text(json.dumps(VALIDATION[:1]))
    with pytest.raises(UserError, match=r"validate\.json and validation\.json differ"):
        read_slake(folder)
    for name in ("test", "validate", "validation"):
        (folder / f"{name}.json").unlink()
    with pytest.raises(UserError, match=r"test\.json: not there, nor is validate\.json"):
        read_slake(folder)


def test_parquet_files_with_both_languages(tmp_path: Path) -> None:
    """Chinese rows of a copy are not taken for English ones; how many rows the whole data set has is said."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    rows = [row(1, 1, "Yes"), row(2, 2, "\u662f", "zh"), row(3, 3, "No", "fr")]
    for name in ("train", "test"):
        pictures = [{"bytes": b"%d" % each["img_id"], "path": None} for each in rows]
        table = pa.Table.from_pylist([each | {"image": own} for each, own in zip(rows, pictures, strict=True)])
        write_table(table, tmp_path / f"{name}-00000-of-00001.parquet")
    english, chinese = read_slake(tmp_path), read_slake(tmp_path, language="zh")
    assert [each.answer for each in english.test] == ["Yes"] and [each.answer for each in chinese.train] == ["\u662f"]
    assert chinese.language == chinese.test[0].language == "zh"
    assert [each.reason for each in english.rejects] == ["language 'fr' is neither en nor zh"]
    assert any("2, 0, 2 questions" in text and "4,919, 1,053, 1,061: not its numbers" in text for text in english.caveats)


def test_a_folder_that_holds_slake_is_named(write: Callable[..., Path]) -> None:
    folder = write()
    with pytest.raises(UserError, match=r"no SLAKE here.*has them: give that folder"):
        read_slake(folder.parent)
    with pytest.raises(UserError, match=r"no question to test \(split official, language zh; there are: 1 train, 1 validation"):
        read_slake(write(test=TEST[:2]), language="zh")
