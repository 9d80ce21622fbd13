"""How data are divided: no group, picture or near duplicate in two parts, each label in each part, all of it said."""

import json
from pathlib import Path

import pytest
from helpers.own_data import divide, images, labelled, write
from PIL import Image

from biomedclip_jax.errors import UserError
from biomedclip_jax.finetune._parts import write_rows


def test_without_a_split_groups_stay_whole_and_each_label_is_in_each_part(tmp_path: Path) -> None:
    data = write(tmp_path / "t.jsonl", labelled(tmp_path, patient_id=lambda i: f"p{i // 4}"))
    parts = divide(tmp_path, data)
    groups = [{row.group for row in parts.rows(part)} for part in ("train", "validation", "held_out")]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert len(parts.train) + len(parts.validation) + len(parts.held_out) == 60
    for part in ("train", "validation", "held_out"):
        assert {row.label for row in parts.rows(part)} == {"lung_aca", "heart"}
    assert 6 <= len(parts.held_out) <= 12 and parts.halved and parts.labelled
    assert any("divided here (by patient_id, seed 0)" in line for line in parts.lines)
    again = divide(tmp_path, data)
    assert [images(parts, part) for part in ("train", "held_out")] == [images(again, part) for part in ("train", "held_out")]
    other = divide(tmp_path, data, seed=1)
    assert images(parts, "held_out") != images(other, "held_out")


def test_a_near_duplicate_follows_its_picture(tmp_path: Path) -> None:
    rows = labelled(tmp_path)
    for i in range(0, 60, 2):
        with Image.open(tmp_path / f"{i}.png") as original:
            original.resize((40, 40)).save(tmp_path / f"{i}b.png")
        rows.append({"image": f"{i}b.png", "label": "lung_aca"})
    parts = divide(tmp_path, write(tmp_path / "t.jsonl", rows))
    for i in range(0, 60, 2):
        both = {f"{i}.png", f"{i}b.png"}
        assert [both & images(parts, part) for part in ("train", "validation", "held_out")].count(both) == 1
    assert any("60 pictures are copies or near duplicates of one another (30 groups)" in line for line in parts.lines)


def test_given_held_out_rows_are_halved_and_what_they_share_with_training_is_left_out_of_it(tmp_path: Path) -> None:
    data = write(tmp_path / "t.jsonl", labelled(tmp_path, 30, patient=lambda i: f"p{i}"))
    held_out = labelled(tmp_path, 110, first=100, patient=lambda i: f"p{i - 100}" if i < 103 else f"q{i}")
    held_out.append({"image": "7.png", "label": "heart", "patient": "someone"})
    parts = divide(tmp_path, data, held_out=write(tmp_path / "h.jsonl", held_out))
    assert images(parts, "train") == {f"{i}.png" for i in range(30)} - {"0.png", "1.png", "2.png", "7.png"}
    assert any("4 training rows have a picture, a near duplicate or a group that is held out" in line for line in parts.lines)
    assert parts.halved and not images(parts, "validation") & images(parts, "held_out")
    assert len(parts.validation) + len(parts.held_out) == 111


def test_few_held_out_rows_serve_twice_and_that_is_said(tmp_path: Path) -> None:
    data = write(tmp_path / "t.jsonl", labelled(tmp_path, 20))
    parts = divide(tmp_path, data, held_out=write(tmp_path / "h.jsonl", labelled(tmp_path, 10, first=50)))
    assert not parts.halved and parts.validation == parts.held_out
    assert any("only 10 held-out rows" in line and "flatters" in line for line in parts.lines)


def test_a_split_in_the_data_is_heeded(tmp_path: Path) -> None:
    names = {0: "train", 1: "train", 2: "train", 3: "validation", 4: "test"}
    parts = divide(tmp_path, write(tmp_path / "t.jsonl", labelled(tmp_path, 50, split=lambda i: names[i % 5])))
    assert images(parts, "held_out") == {f"{i}.png" for i in range(50) if i % 5 == 4}
    assert images(parts, "validation") == {f"{i}.png" for i in range(50) if i % 5 == 3}
    with pytest.raises(UserError, match="usable rows are of the split train alone; expected train, and validation or test"):
        divide(tmp_path, write(tmp_path / "u.jsonl", labelled(tmp_path, 20, split="train")))


def test_too_few_rows_or_one_group_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"6 usable rows in 6 groups give \d for \w+; expected at least"):
        divide(tmp_path, write(tmp_path / "t.jsonl", labelled(tmp_path, 6)))
    with pytest.raises(UserError, match=r"40 usable rows in 1 groups give"):
        divide(tmp_path, write(tmp_path / "u.jsonl", labelled(tmp_path, 40, patient="one")))


def test_data_that_say_one_thing_only_are_refused(tmp_path: Path) -> None:
    rows = [row | {"label": "heart"} for row in labelled(tmp_path, 40)]
    with pytest.raises(UserError, match="all rows say"):
        divide(tmp_path, write(tmp_path / "t.jsonl", rows))


def test_captions_beside_labels_held_out_are_refused(tmp_path: Path) -> None:
    rows = [{"image": row["image"], "caption": f"text {i}"} for i, row in enumerate(labelled(tmp_path, 40))]
    other = labelled(tmp_path, 20, first=50)
    with pytest.raises(UserError, match=r"h.jsonl: has labels alone, but .*t.jsonl has captions"):
        divide(tmp_path, write(tmp_path / "t.jsonl", rows), held_out=write(tmp_path / "h.jsonl", other))


def test_unreadable_pictures_are_left_out(tmp_path: Path) -> None:
    rows = labelled(tmp_path)
    (tmp_path / "3.png").write_bytes(b"broken")
    parts = divide(tmp_path, write(tmp_path / "t.jsonl", rows))
    assert [Path(reject.image).name for reject in parts.rejects] == ["3.png"]
    assert any("1 rows left out" in line for line in parts.lines)


def test_labels_become_captions_in_words(tmp_path: Path) -> None:
    parts = divide(tmp_path, write(tmp_path / "t.jsonl", labelled(tmp_path)))
    write_rows(parts.train, tmp_path / "train.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert {(line["caption"], line["label"]) for line in lines} == {
        ("a photo of lung aca", "lung_aca"),
        ("a photo of heart", "heart"),
    }
