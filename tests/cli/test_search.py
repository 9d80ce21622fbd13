"""`biomedclip index` and `search`, as a user calls them."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.few_shot_task import make_candidate
from helpers.tiny_index import write_picture
from PIL import Image

from biomedclip_jax.cli import main
from biomedclip_jax.search import _approximate, open_index

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a table of six pictures of three patients, and its index."""
    folder = tmp_path_factory.mktemp("desk")
    make_candidate(folder / "model")
    rows = ["image,caption,license,patient"]
    for number in range(6):
        write_picture(folder / f"{number}.png", number)
        rows.append(f'{number}.png,"picture {number}, of ""x""",{"CC BY" if number % 2 else "CC0"},P{number // 2}')
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert run("index", folder / "model", "--data", folder / "pairs.csv", "--out", folder / "index") == 0
    return folder


def run(*words: object) -> int:
    return main(list(map(str, words)))


def found(capsys: Captured, *words: object) -> dict:
    """What `search --format json` prints."""
    capsys.readouterr()
    assert run("search", *words, "--format", "json") == 0
    return json.loads(capsys.readouterr().out)


def failure(capsys: Captured, *words: object) -> str:
    capsys.readouterr()
    assert run(*words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"biomedclip {words[0]}: ") and said.err.count("\n") == 1, said.err
    return said.err


def test_words_and_images_in_one_call(desk: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    said = found(capsys, "index", "chest ray", "3.png", "--top", 2)
    assert [(each["kind"], len(each["hits"])) for each in said["queries"]] == [("text", 2), ("image", 2)]
    best = said["queries"][1]["hits"][0]
    assert best["rank"] == 1 and best["score"] == pytest.approx(1, abs=1e-5)
    assert best["id"] == "3.png" and best["caption"] == 'picture 3, of "x"' and best["license"] == "CC BY"
    assert best["article"] is None and best["columns"] == {"patient": "P1"}
    assert said["images"] == said["queries"][0]["searched"] == 6 and said["exact"] is True
    assert found(capsys, "index", "3.png", "--text")["queries"][0]["kind"] == "text"
    (desk / "queries.txt").write_text("chest ray\n\n3.png\n", encoding="utf-8")
    assert found(capsys, "index", "--queries", "queries.txt", "--top", 2)["queries"] == said["queries"]


def test_options_may_stand_anywhere(desk: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    expected = found(capsys, "index", "chest ray", "3.png", "--top", 2)
    for words in (
        ("--top", 2, "index", "chest ray", "3.png"),
        ("index", "--top", 2, "chest ray", "3.png"),
        ("index", "chest ray", "--top", 2, "3.png"),
    ):
        assert found(capsys, *words) == expected
    (said,) = found(capsys, "index", "--filter", "license!=x", "--top", 1, "a", "--like", "3.png")["queries"][:1]
    assert said["query"] == "a"
    labels = ("--labels", "chest ray", "pie chart", "--format", "csv")
    assert run("classify", "model", "0.png", "1.png", *labels) == 0
    both = capsys.readouterr().out
    for words in (("model", "0.png", *labels, "--debug", "1.png"), ("model", *labels, "0.png", "1.png")):
        assert run("classify", *words) == 0
        assert capsys.readouterr().out == both
    for verb, *words in (("search", "index", "x"), ("evaluate", "retrieval"), ("classify", "model", "0.png")):
        with pytest.raises(SystemExit):
            run(verb, *words, "--no-such-option")
        assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            run(verb, *words, "--out" if verb == "evaluate" else "--format")
        assert capsys.readouterr().err.startswith(f"usage: biomedclip {verb} ")


def test_the_table_has_all_that_attribution_needs(desk: Path, capsys: Captured) -> None:
    capsys.readouterr()
    assert run("search", desk / "index", desk / "3.png", "--filter", "license=CC BY", "patient!=P0") == 0
    said = capsys.readouterr()
    assert said.err == "2 of 6 images match license=CC BY and patient!=P0\n"
    lines = said.out.splitlines()
    assert lines[0].endswith("3.png (image)") and lines[1].split() == ["1", "1.0000", "3.png"]
    assert lines[2].strip() == 'picture 3, of "x"' and lines[3].strip() == "CC BY" and len(lines) == 7
    assert run("search", desk / "index", desk / "3.png", "--filter", "license=cc by") == 0
    said = capsys.readouterr()
    assert "no hit" in said.out and "none has license = 'cc by'; there are: CC0 (3), CC BY (3)" in said.err


def test_like_an_image_and_like_a_patient(desk: Path, capsys: Captured) -> None:
    (like,) = found(capsys, desk / "index", "--like", "3.png")["queries"]
    assert like["kind"] == "like" and {hit["id"] for hit in like["hits"]} == {f"{n}.png" for n in (0, 1, 2, 4, 5)}
    for pool in ("best", "mean"):
        said = found(capsys, desk / "index", "--like", "P1", "--group", "patient", "--pool", pool)
        assert {hit["group"] for hit in said["queries"][0]["hits"]} == {"P0", "P2"} and said["pool"] == pool
        assert [hit["images"] for hit in said["queries"][0]["hits"]] == [2, 2]


def test_a_sheet_shows_the_hits(desk: Path, capsys: Captured, tmp_path: Path) -> None:
    sheet = tmp_path / "hits.png"
    assert run("search", desk / "index", "chest", desk / "1.png", "--like", "2.png", "--sheet", sheet) == 0
    with Image.open(sheet) as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        assert picture.width > 1_000 and len(np.unique(colours, axis=0)) > 1_000, "pictures of noise"


def test_what_is_wrong_is_one_line(desk: Path, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    index = desk / "index"
    assert "no such folder" in failure(capsys, "search", "nowhere", "x")
    assert "what is searched for?" in failure(capsys, "search", index)
    assert "found nothing" in failure(capsys, "search", index, " ")
    assert "scan.png: no such file; give --text" in failure(capsys, "search", index, "scan.png")
    assert "no column 'licence'" in failure(capsys, "search", index, "x", "--filter", "licence=CC0")
    assert "no column 'doctor'" in failure(capsys, "search", index, "x", "--group", "doctor")
    assert "no image of" in failure(capsys, "search", index, "--like", "P1")
    assert "ends in .png" in failure(capsys, "search", index, "x", "--sheet", "hits.jpg")
    assert "another model" in failure(capsys, "search", index, "x", "--model", make_other(tmp_path / "other"))


def make_other(folder: Path) -> Path:
    make_candidate(folder, seed=1)
    return folder


def test_a_query_that_cannot_be_read_costs_no_other(desk: Path, capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    said = found(capsys, desk / "index", tmp_path / "broken.png", "chest", "--top", 1)
    assert [len(each["hits"]) for each in said["queries"]] == [0, 1]
    assert "not an image" in said["queries"][0]["error"] and "error" not in said["queries"][1]
    assert run("search", desk / "index", tmp_path / "broken.png") == 2


def test_more_than_there_are_and_names_that_are_no_utf8(desk: Path, capsys: Captured, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    write_picture(scans / "köln \udcff.png", 1)
    write_picture(scans / "b.png", 2)
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).save(scans / "deep.png")
    assert run("index", desk / "model", "--data", scans, "--out", tmp_path / "index") == 0
    (said,) = found(capsys, tmp_path / "index", scans / "b.png", "--top", 50)["queries"]
    assert said["hits"][0]["id"] == "b.png" and len(said["hits"]) == 3
    assert "köln \\udcff.png" in {hit["id"] for hit in said["hits"]}
    hit = open_index(tmp_path / "index").search(open_index(tmp_path / "index").vectors([2]), 1)[0][0]
    assert open_index(tmp_path / "index").image(hit).size == (30, 20)


def test_an_approximate_index_finds_the_same_in_easy_data(
    desk: Path, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(20, 32))
    rows = (centres[random.integers(0, 20, 600)] + 0.3 * random.normal(size=(600, 32))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"{number}.png" for number in range(600)]
    from biomedclip_jax.data.embeddings_file import write_embeddings

    write_embeddings(tmp_path / "made.npz", rows, names)
    words = ["index", desk / "model", "--data", tmp_path / "made.npz", "--out", tmp_path / "index"]
    assert run(*words, "--approximate") == 0
    assert "no approximate index below" in capsys.readouterr().err
    monkeypatch.setattr("biomedclip_jax.search.update.FEWEST", 100)
    assert run(*words) == 0 and open_index(tmp_path / "index").is_exact()
    assert run(*words, "--approximate") == 0
    assert run(*words) == 0, "what an index had it keeps"
    index = open_index(tmp_path / "index")
    assert not index.is_exact() and index.is_exact(["id=5.png"]) and index.is_exact(exact=True)
    fast, slow = index.search(rows[:50], 10), index.search(rows[:50], 10, exact=True)
    same = [len({a.id for a in one} & {b.id for b in other}) for one, other in zip(fast, slow, strict=True)]
    assert np.mean(same) > 9 and all(len(own) == 10 for own in fast)
    assert all(one[0] == other[0] for one, other in zip(fast, slow, strict=True)), "scores are those of the exact search"
    state = tmp_path / "index" / json.loads((tmp_path / "index" / "index.json").read_text())["state"]
    assert (state / _approximate.FILE).is_file()
    assert run(*words, "--no-approximate") == 0 and open_index(tmp_path / "index").is_exact()
