"""Articles as files: the cloud's layout, and any XML with images beside it. What a source is, is recognised."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
from helpers.faulty_s3 import small_article

from biomedclip_jax.data.pmc.sources._packages import Packages
from biomedclip_jax.data.pmc.sources.folders import CloudFolder, PlainFolder
from biomedclip_jax.data.pmc.sources.open import open_source
from biomedclip_jax.data.pmc.sources.selection import NotWanted, read_ids, read_licenses
from biomedclip_jax.errors import UserError

XML = b"<article/>"


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_the_clouds_layout(pmc_articles: Path) -> None:
    source = pickle.loads(pickle.dumps(open_source(str(pmc_articles / "cloud"))))
    assert isinstance(source, CloudFolder)
    expected = json.loads((pmc_articles / "expected.json").read_text())["articles"]
    keys = list(source.keys())
    assert keys == [article["pmcid"] for article in expected]
    for key, article in zip(keys, expected, strict=True):
        files = pickle.loads(pickle.dumps(source.open(key)))
        assert files.key == article["id"] and f"cloud/{files.location}" == article["xml"]
        assert set(files.media) == set(article["media"]) and files.metadata.doi == article["doi"]
        assert all(len(files.read(name)) == facts["bytes"] for name, facts in article["media"].items())


def test_the_best_version_and_what_changes_it(tmp_path: Path) -> None:
    write(tmp_path, small_article(5, 1) | small_article(5, 3) | small_article(5, 4, is_manuscript=True) | small_article(6, 2))
    source = open_source(str(tmp_path))
    assert list(source.keys()) == ["PMC5", "PMC6"]
    assert source.open("PMC5").key == "PMC5.3" and source.open("PMC5.1").key == "PMC5.1" and source.open("PMC6").key == "PMC6.2"
    before = [source.version(key) for key in ("PMC5", "PMC6")]
    assert [source.version(key) for key in ("PMC5", "PMC6")] == before
    write(tmp_path, small_article(5, 10))
    assert source.version("PMC5") != before[0] and source.version("PMC6") == before[1]
    assert source.open("PMC5").key == "PMC5.10"
    os.utime(tmp_path / "PMC6.2" / "f1.png", ns=(1, 1))
    assert source.version("PMC6") != before[1]


def test_a_copy_without_metadata_or_with_holes(tmp_path: Path) -> None:
    write(tmp_path, small_article(5, 1) | small_article(6, 1) | small_article(7, 1))
    shutil.rmtree(tmp_path / "metadata")
    (tmp_path / "PMC6.1" / "PMC6.1.json").unlink()
    (tmp_path / "PMC7.1" / "PMC7.1.xml").unlink()
    write(tmp_path, {"PMC6.1/f2.png.xlsx": b"", "PMC6.1/.f1.png": b"", "PMC6.1/PMC6.1.pdf": b"", "PMC6.1/g": b""})
    source = open_source(str(tmp_path), licenses=frozenset({"CC BY"}))
    assert list(source.keys()) == ["PMC5", "PMC6", "PMC7"], "none is lost without a word"
    metadata = source.open("PMC5").metadata
    assert metadata is not None and metadata.license_code == "CC BY"
    files = source.open("PMC6")
    assert files.metadata is None and files.media == ("f1.png", "g")
    with pytest.raises(UserError, match=r"PMC7\.1: no PMC7\.1\.xml in it"):
        source.open("PMC7")
    with pytest.raises(UserError, match=r"PMC8: no such article"):
        open_source(str(tmp_path), ids=("PMC8",)).open("PMC8")
    with pytest.raises(NotWanted, match=r"PMC5\.1: its licence is CC BY; wanted CC0"):
        open_source(str(tmp_path), licenses=frozenset({"CC0"})).open("PMC5")
    (tmp_path / "PMC5.1" / "PMC5.1.json").write_text("{")
    with pytest.raises(UserError, match=r"PMC5\.1\.json: not JSON"):
        source.open("PMC5")


def test_plain_folders(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a/PMC12/main.nxml": XML,
            "a/PMC12/f1.jpg": b"1",
            "a/PMC12/supplement.xml": b"<sbml/>",
            "b/one.jats.xml": XML,
            "b/two.XML": XML,
            "b/f.tif": b"2",
            ".git/x.xml": XML,
            "b/._one.jats.xml": b"",
            "c/no.txt": b"",
        },
    )
    source = pickle.loads(pickle.dumps(open_source(str(tmp_path))))
    assert isinstance(source, PlainFolder)
    assert list(source.keys()) == ["a/PMC12/main.nxml", "b/one.jats.xml", "b/two.XML"]
    files = source.open("a/PMC12/main.nxml")
    assert (files.key, files.location, files.media, files.metadata) == ("PMC12", "a/PMC12/main.nxml", ("f1.jpg",), None)
    assert files.read("f1.jpg") == b"1"
    files = source.open("b/one.jats.xml")
    assert (files.key, files.media) == ("b/one.jats", ("f.tif",))
    assert list(open_source(str(tmp_path), ids=("PMC12",)).keys()) == ["a/PMC12/main.nxml"]
    before = source.version("b/two.XML")
    write(tmp_path, {"b/g.tif": b"3"})
    assert source.version("b/two.XML") != before
    (tmp_path / "b" / "f.tif").unlink()
    with pytest.raises(UserError, match=r"f\.tif: cannot be read \(No such file"):
        files.read("f.tif")


def test_one_file(tmp_path: Path, pmc_articles: Path) -> None:
    source = open_source(str(pmc_articles / "cloud" / "PMC99000002.2" / "PMC99000002.2.xml"))
    (key,) = source.keys()
    files = source.open(key)
    assert files.key == "PMC99000002.2" and files.metadata is not None and "fig1.jpg" in files.media
    (tmp_path / "x.nxml").write_bytes(XML)
    assert list(open_source(str(tmp_path / "x.nxml")).keys()) == ["x.nxml"]


def test_what_is_no_source(tmp_path: Path, pmc_articles: Path) -> None:
    assert isinstance(open_source(str(pmc_articles / "packages")), Packages)
    (tmp_path / "x.csv").write_text("")
    cases = {
        str(tmp_path): "no article in this folder or below it; expected s3://",
        str(tmp_path / "none"): "no such file or folder; expected s3://",
        str(tmp_path / "x.csv"): r"x\.csv: expected s3://",
        "gs://bucket/x": r"gs://bucket/x: expected s3://",
        str(pmc_articles): r"holds both packages \(packages/PMC\d+\.tar\.gz\) and articles \(cloud/PMC",
    }
    for source, message in cases.items():
        with pytest.raises(UserError, match=message):
            open_source(source)
    with pytest.raises(UserError, match="--inventory belongs to s3://"):
        open_source(str(tmp_path), inventory="latest")


def test_ids(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("\ufeffPMC9, pmc8.2  # two\n\n#PMC1\n7\n", encoding="utf-8")
    assert read_ids(["PMC10", str(tmp_path / "ids.txt"), "10"]) == ("PMC10", "PMC7", "PMC8.2", "PMC9")
    (tmp_path / "bad.txt").write_text("PMC1\nhttps://x\n")
    (tmp_path / "empty.txt").write_text("# none\n")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    for name, message in {
        "bad.txt": r"bad\.txt, line 2: 'https://x'; expected an id such as PMC123",
        "empty.txt": "no ids in it",
        "image.png": "cannot be read as a list of ids",
        "none": "neither an id .* nor a file of ids",
        "": "cannot be read as a list of ids",
    }.items():
        with pytest.raises(UserError, match=message):
            read_ids([str(tmp_path / name)])


def test_licences() -> None:
    assert read_licenses(["cc-by", "CC0", "CC BY-NC-ND"]) == {"CC BY", "CC0", "CC BY-NC-ND"}
    assert read_licenses(["any"]) is None
    with pytest.raises(UserError, match="--licenses MIT: no licence known by this name"):
        read_licenses(["CC0", "MIT"])
