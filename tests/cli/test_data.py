"""`biomedclip data` in the hands of somebody who makes mistakes: one line, exit code 2, nothing half-written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from biomedclip_jax.cli import main

ARTICLE = b"<article xmlns:x='http://www.w3.org/1999/xlink'><body><fig id='f1'><graphic x:href='f1'/></fig></body></article>"


@pytest.fixture
def articles(tmp_path: Path) -> Path:
    folder = tmp_path / "articles"
    for name in ("PMC5", "PMC6"):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.nxml").write_bytes(ARTICLE)
        (folder / name / "f1.jpg").write_bytes(b"")
    (folder / "PMC6" / "a.nxml").write_bytes(b"<broken")
    return folder


def failure(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: object) -> str:
    before = sorted(tmp_path.rglob("*"))
    assert main(["data", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert sorted(tmp_path.rglob("*")) == before
    assert out == "" and err.startswith("biomedclip data: ") and err.count("\n") == 1, err
    return err.removeprefix("biomedclip data: ")


def test_figures(articles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "figures.jsonl"
    assert main(["data", "figures", str(articles), "--out", str(out), "--workers", "1"]) == 0
    printed = capsys.readouterr()
    rejects = tmp_path / "new" / "figures.rejects.jsonl"
    assert printed.err == "" and printed.out.splitlines() == [
        f"{out}: 1 articles",
        "  figures                  1",
        "  figures with a picture   1",
        "  articles without figures 0",
        "  cannot be read           1",
        f"{rejects}: 1 articles left out, each with its reason",
    ]
    (line,) = map(json.loads, out.read_text().splitlines())
    assert line["figures"][0]["graphic_ref"] == "PMC5/f1.jpg" and json.loads(rejects.read_text())["article"] == "PMC6/a.nxml"
    assert main(["data", "figures", str(articles), "--out", str(out), "--ids", "PMC5", "--licenses", "CC0"]) == 0
    assert "licence not wanted       1" in capsys.readouterr().out and out.read_text() == ""


def test_mistakes(articles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "f.jsonl"
    (tmp_path / "file").write_text("")
    cases = {
        r"f\.json: expected a name that ends in \.jsonl": ("figures", articles, "--out", tmp_path / "f.json"),
        r"none: no such file or folder; expected s3://": ("figures", tmp_path / "none", "--out", out),
        r"PMCx: neither an id": ("figures", articles, "--out", out, "--ids", "PMCx"),
        r"--licenses MIT: no licence known": ("figures", articles, "--out", out, "--licenses", "MIT"),
        r"file/f\.jsonl: cannot be written": ("figures", articles, "--out", tmp_path / "file" / "f.jsonl"),
        r"articles: expected an address such as s3://pmc-oa-opendata": ("fetch", articles, tmp_path / "copy"),
        r"s3://: no bucket named": ("fetch", "s3://", tmp_path / "copy"),
    }
    for message, arguments in cases.items():
        assert re.search(message, failure(capsys, tmp_path, *arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: VERB"),
        (["mend"], "invalid choice: 'mend'"),
        (["figures", "x"], "the following arguments are required: --out"),
        (["figures", "x", "--out", "y.jsonl", "--workers", "0"], "'0': expected a whole number above 0"),
        (["fetch", "s3://x"], "the following arguments are required: DIR"),
        (["figures", "x", "--out", "y.jsonl", "--speed"], "unrecognized arguments: --speed"),
    ],
)
def test_what_argparse_says(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", *arguments])
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("action", ["fetch", "figures", "preview", "convert", "captions"])
def test_help_has_an_example_that_parses(capsys: pytest.CaptureFixture[str], action: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", action, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and f"example:\n  biomedclip data {action} " in shown


def test_nobody_answers(tmp_path: Path) -> None:
    """One line, soon, and no folder, where there is no network."""
    command = [sys.executable, "-m", "biomedclip_jax.cli", "data", "fetch", "s3://b", str(tmp_path / "copy"), "--ids", "5"]
    environment = {**os.environ, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"biomedclip data: s3://b/: Could not connect to the endpoint URL.+\n", done.stderr), done.stderr


def test_without_the_extra(tmp_path: Path) -> None:
    """Told what to install, where botocore or lxml is missing."""
    (tmp_path / "a.nxml").write_bytes(ARTICLE)
    code = "import sys; sys.modules['botocore'] = sys.modules['lxml'] = None\n"
    code += "from biomedclip_jax.cli import main; main(sys.argv[1:])"
    for arguments in (["fetch", "s3://b", "copy"], ["figures", "a.nxml", "--out", "f.jsonl"]):
        command = [sys.executable, "-c", code, "data", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert "pip install 'biomedclip_jax[pmc]'" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.nxml"]


# --- pairs of any kind ----------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (30, 20), "green").save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("picture,text,kind\na.png,one,x\nnone.png,two,y\n")
    return tmp_path / "t.csv"


COLUMNS = ("--image-column", "picture", "--caption-column", "text")


def test_preview_and_convert(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "preview", str(table), "--out", str(tmp_path / "sheet.png"), "-n", "3", *COLUMNS]) == 0
    out = capsys.readouterr().out
    assert "1 records cannot be used; the first: " in out and "none.png: image file is not there" in out
    assert out.endswith("sheet.png: 1 of 1 pairs\n") and (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    made = tmp_path / "made"
    assert main(["data", "convert", str(table), str(made), "--to", "jsonl", *COLUMNS, "--label-column", "kind"]) == 0
    assert f"{made}: 1 pairs (jsonl)" in capsys.readouterr().out
    assert json.loads((made / "pairs.jsonl").read_text()) == {"image": "images/00000000.png", "caption": "one", "label": "x"}
    assert json.loads((made / "rejects.jsonl").read_text())["reason"] == "image file is not there"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["preview", "t.csv", "--out", "x.png"], "no column 'image'; there are 'picture', 'text', 'kind'"),
        (["preview", "t.csv", "--out", "x.jpg", *COLUMNS], "--out x.jpg: expected a name that ends in .png"),
        (["preview", "x.tar", "--out", "x.png"], "this shard is missing"),
        (["convert", "t.csv", ".", *COLUMNS], "is there already and not empty"),
        (["convert", "none", "new"], "not a source of pairs; expected a table"),
    ],
)
def test_mistakes_with_pairs(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = subprocess.run([sys.executable, "-m", "biomedclip_jax.cli", "data", *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert sorted(tmp_path.iterdir()) == before
