"""An index is searched: by filters, by groups, by the right model only; a damaged one says what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.few_shot_task import make_candidate
from helpers.tiny_index import Indexing, write_picture

import biomedclip_jax as bc
from biomedclip_jax.errors import UserError
from biomedclip_jax.search import open_index

ROWS = [  # image, caption, licence, patient, age
    ("0.png", "a chest", "CC BY", "P1", "30"),
    ("1.png", "", "CC BY", "P1", "41"),
    ("2.png", "ein Röntgenbild", "CC0", "P2", "9"),
    ("3.png", "a, b", "CC0", "P3", ""),
    ("4.png", "x", "", "", "100"),
    ("4.png", "another caption of it", "", "", "100"),
    ("gone.png", "no file", "CC BY", "P9", "1"),
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for number in range(5):
        write_picture(tmp_path / f"{number}.png", number)
    lines = [dict(zip(("image", "caption", "licence", "patient", "age"), row, strict=True)) for row in ROWS]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_hits_have_all_that_the_table_says(index: Indexing, table: Path, clip: bc.Pretrained, tmp_path: Path) -> None:
    changes = index(tmp_path / "index", table)
    assert (changes.count, changes.embedded, changes.renamed) == (6, 5, 1), "the picture with two captions is embedded once"
    assert [each.image.rpartition("/")[2] for each in changes.rejects] == ["gone.png"]
    found = open_index(tmp_path / "index")
    assert found.columns == ["id", "image", "caption", "article", "license", "citation", "licence", "patient", "age"]
    (hits,) = found.search(clip.encode_images([tmp_path / "2.png"]), top=10)
    assert len(hits) == 6 and hits[0].id == "2.png" and hits[0].score == pytest.approx(1, abs=1e-5)
    assert hits[0].caption == "ein Röntgenbild" and hits[0].license == "CC0" and hits[0].image == str(tmp_path / "2.png")
    assert dict(hits[0].columns) == {"licence": "CC0", "patient": "P2", "age": "9"}
    assert found.image(hits[0]).size == (30, 20)
    assert [hit.id for hit in hits if hit.id.startswith("4")] == ["4.png", "4.png#2"], "equal scores in the order of the table"


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (["license=CC BY"], {"0.png", "1.png"}),
        (["license!=CC BY"], {"2.png", "3.png", "4.png", "4.png#2"}),
        (["license=CC BY", "age>30"], {"1.png"}),
        (["age<=9"], {"2.png"}),
        (["age="], {"3.png"}),
        (["caption=ein Röntgenbild"], {"2.png"}),
        (["license=nobody's"], set()),
    ],
)
def test_filters_are_exact(index: Indexing, table: Path, tmp_path: Path, filters: list[str], ids: set[str]) -> None:
    index(tmp_path / "index", table)
    found = open_index(tmp_path / "index")
    (hits,) = found.search(found.vectors([0]), 10, filters)
    assert {hit.id for hit in hits} == ids and found.matching(filters) == len(ids)
    assert len(found.search(found.vectors([0]), 1, filters)[0]) == min(1, len(ids))


def test_patient_to_patient_without_their_own_images(index: Indexing, table: Path, tmp_path: Path) -> None:
    index(tmp_path / "index", table)
    found = open_index(tmp_path / "index")
    own = found.positions("patient", "P1")
    assert own == [0, 1] and found.positions("patient", "") == []
    vectors = found.vectors(range(6)).astype(np.float64)
    for pool in ("best", "mean"):
        hits = found.search_groups(found.vectors(own), "patient", leave_out=own, pool=pool)
        assert {hit.group for hit in hits} == {"P2", "P3", "4.png", "4.png#2"}, "an image without a patient stands for itself"
        wanted = (vectors[own] @ vectors[2]).max() if pool == "best" else (vectors[own] @ vectors[2]).mean()
        assert next(hit for hit in hits if hit.group == "P2").score == pytest.approx(wanted, abs=1e-6)
    assert [hit.images for hit in found.search_groups(found.vectors([0]), "patient", top=1)] == [2]


def test_no_two_rows_have_one_id(index: Indexing, tmp_path: Path) -> None:
    ids = ["a#2", "a", "a", "b", "b", "b#2", "a"]
    for number in range(len(ids)):
        write_picture(tmp_path / f"{number}.png", number)
    rows = [json.dumps({"image": f"{number}.png", "id": name}) + "\n" for number, name in enumerate(ids)]
    (tmp_path / "pairs.jsonl").write_text("".join(rows), encoding="utf-8")
    assert index(tmp_path / "index", tmp_path / "pairs.jsonl").renamed == 4
    found = open_index(tmp_path / "index")
    assert [found.hit(row).id for row in range(7)] == ["a#2", "a", "a#3", "b", "b#2", "b#2#2", "a#4"]


def test_another_model_is_refused(index: Indexing, scans: Path, clip: bc.Pretrained, tmp_path: Path) -> None:
    index(tmp_path / "index", scans)
    found = open_index(tmp_path / "index")
    assert found.load_model().fingerprint == clip.fingerprint
    make_candidate(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="another model than that of"):
        found.load_model(str(tmp_path / "other"))
    with pytest.raises(UserError, match="expected width 32"):
        found.search(np.ones((1, 7)))
    for broken in (np.zeros((1, 32)), np.full((1, 32), np.nan)):
        with pytest.raises(UserError, match="zero or not finite"):
            found.search(broken)


def test_damage_is_one_line(index: Indexing, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    with pytest.raises(UserError, match="no such folder"):
        open_index(out)
    with pytest.raises(UserError, match="no index in this folder"):
        open_index(scans)
    index(out, scans)
    state = out / json.loads((out / "index.json").read_text())["state"]
    for path in state.iterdir():
        content = path.read_bytes()
        if content:
            path.write_bytes(content[:-1])
            with pytest.raises(UserError, match=f"{path.name}: has {len(content) - 1:,} bytes, expected {len(content):,}"):
                open_index(out)
        path.unlink()
        with pytest.raises(UserError, match="is missing"):
            open_index(out)
        path.write_bytes(content)
    manifest = (out / "index.json").read_text()
    for text in ("", "{}", "[]", manifest[: len(manifest) // 2], manifest.replace('"format": 1', '"format": 2')):
        (out / "index.json").write_text(text)
        with pytest.raises(UserError, match=r"index\.json"):
            open_index(out)


def test_an_image_that_changed_since_is_not_shown(index: Indexing, scans: Path, tmp_path: Path) -> None:
    index(tmp_path / "index", scans)
    found = open_index(tmp_path / "index")
    write_picture(scans / "a" / "00.png", 99)
    with pytest.raises(UserError, match="has changed since it was indexed"):
        found.image(found.hit(0))
    assert found.image(found.hit(1)).size == (30, 20)
