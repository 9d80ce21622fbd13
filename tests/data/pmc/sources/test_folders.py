"""Articles as files: the cloud's layout, and any XML with images beside it. What a source is, is recognised."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
from helpers.faulty_s3 import small_article

from biomedclip_jax.data.pmc.sources import folders
from biomedclip_jax.data.pmc.sources._packages import Packages
from biomedclip_jax.data.pmc.sources.folders import CloudFolder, PlainFolder
from biomedclip_jax.data.pmc.sources.open import open_source
from biomedclip_jax.data.pmc.sources.selection import NotWanted, OlderVersion, read_ids, read_licenses, reject_of
from biomedclip_jax.errors import UserError

XML = b"<article/>"


def naming(*hrefs: str) -> bytes:
    return "".join(["<article>", *(f"<graphic xlink:href='{href}'/>" for href in hrefs), "</article>"]).encode()


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
            "b/one.jats.xml": naming("f"),
            "b/two.XML": naming("g.eps"),
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
    before = {key: source.version(key) for key in list(source.keys())}
    write(tmp_path, {"b/g.tif": b"3"})
    assert [key for key in before if source.version(key) != before[key]] == ["b/two.XML"], "the one that it belongs to"
    write(tmp_path, {"a/PMC12/any.tif": b"3"})
    assert source.version("a/PMC12/main.nxml") != before["a/PMC12/main.nxml"], "what lies beside one article is its own"
    (tmp_path / "b" / "f.tif").unlink()
    with pytest.raises(UserError, match=r"f\.tif: cannot be read \(No such file"):
        files.read("f.tif")


@pytest.mark.parametrize(
    ("href", "name"),
    [
        ("f1", "f1.jpg"),
        ("f1.tif", "f1.tif.png"),
        ("F1.eps", "f1.JPEG"),
        ("a/f%201.jpg?x=1", "f 1.jpg"),
        ("info:doi/10.1371/journal.pone.1.g001", "pone.1.g001.tif"),
        ("&#xe9;1.png", "e\u03011.png"),
        ("a&amp;b", "a&b.gif"),
        ("x_Fig1_Print.eps", "x_Fig1_HTML.jpg"),
    ],
)
def test_one_folder_of_several_articles_gives_each_its_own_files(tmp_path: Path, href: str, name: str) -> None:
    write(tmp_path, {"a.nxml": naming(href), "b.nxml": "<a>\u20ac</a>".encode("utf-16"), "c.nxml": b"<!DOCTYPE", name: b"1"})
    source = open_source(str(tmp_path))
    assert [source.open(key).media for key in list(source.keys())] == [(name,), (), ()]
    wide = naming(href).decode().encode("utf-16")
    write(tmp_path, {"b.nxml": wide})
    assert source.open("b.nxml").media == (name,)


def test_a_folder_of_many_articles_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {f"PMC{i}.nxml": naming(f"f{i}") for i in range(50)} | {f"f{i}.jpg": b"1" for i in range(50)})
    os.utime(tmp_path, (1, 1))
    listed = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or real(path))
    source = PlainFolder(tmp_path)
    versions = [source.version(f"PMC{i}.nxml") for i in range(50)]
    assert len(set(versions)) == 50 and len(listed) == 1
    assert [source.open(f"PMC{i}.nxml").media for i in range(50)] == [(f"f{i}.jpg",) for i in range(50)]
    assert len(listed) <= 2, "the second time for the versions of articles"


def test_of_two_versions_the_newer_counts(tmp_path: Path) -> None:
    write(
        tmp_path,
        {f"{folder}/PMC5{version}.nxml": XML for folder, version in (("z", ".1"), ("b", ".2"), ("a", ""), ("c", ".10"))},
    )
    write(tmp_path, {"copy/PMC5.10.nxml": XML, "PMC6/x.nxml": XML, "PMC6/y.nxml": XML, "d/PMC7.3/x.nxml": XML})
    source = pickle.loads(pickle.dumps(open_source(str(tmp_path))))
    older = ["a/PMC5.nxml", "b/PMC5.2.nxml", "z/PMC5.1.nxml"]
    for key in list(source.keys()):
        if key in older:
            with pytest.raises(OlderVersion, match=r"an older version of c/PMC5\.10\.nxml, which is taken"):
                source.open(key)
        else:
            source.open(key)
    reject = reject_of(older[0], OlderVersion("x"))
    assert reject.reason == "older version"
    asked = open_source(str(tmp_path), ids=("PMC5.2",))
    assert [asked.open(key).key for key in list(asked.keys())] == ["PMC5.2"]


def test_files_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"a.nxml": naming("f"), "f.jpg": b"1"})
    source = open_source(str(tmp_path))
    files = source.open("a.nxml")
    monkeypatch.setattr(folders, "_MAX_FILE_BYTES", 1)
    monkeypatch.setattr(folders, "MAX_BYTES", 10)
    with pytest.raises(UserError, match=r"a\.nxml: \d+ bytes; expected at most 10: leave it out"):
        source.open("a.nxml")
    assert files.read("f.jpg") == b"1"


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"latin\xff")
    try:
        write(tmp_path, {f"{name}.nxml": XML})
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    assert open_source(str(tmp_path)).open(f"{name}.nxml").key == "latin\\xff"


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


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path, {"real/PMC1/a.nxml": XML, "real/PMC2/b.nxml": XML, "some/PMC3/c.nxml": XML})
    (tmp_path / "some" / "PMC1").symlink_to(tmp_path / "real" / "PMC1")
    (tmp_path / "some" / "again").symlink_to(tmp_path / "some")
    (tmp_path / "some" / "the_same").symlink_to(tmp_path / "real" / "PMC1")
    (tmp_path / "some" / "gone").symlink_to(tmp_path / "nowhere")
    assert list(open_source(str(tmp_path / "some")).keys()) == ["PMC1/a.nxml", "PMC3/c.nxml"]
