"""figures.jsonl: the figures of the written articles as they should be, the same bytes every time, and what is left out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.article_truth import compare_line, compare_packages
from helpers.faulty_s3 import BUCKET, FaultyS3, small_article

from biomedclip_jax.cli import main
from biomedclip_jax.data.pmc import _description as description
from biomedclip_jax.data.pmc._description import describe
from biomedclip_jax.data.pmc.figures_file import write_figures
from biomedclip_jax.data.pmc.jats.article import ArticleFiles, Metadata
from biomedclip_jax.data.pmc.sources.open import open_source
from biomedclip_jax.errors import UserError


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def written(pmc_articles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("figures") / "figures.jsonl"
    counts = write_figures(open_source(str(pmc_articles / "cloud")), out)
    assert counts == {"articles": 9, "figures": 51, "figures with a picture": 47, "articles without figures": 0}
    return out


def test_the_written_articles(written: Path, pmc_articles: Path) -> None:
    """Against `expected.json`, field by field."""
    expected = json.loads((pmc_articles / "expected.json").read_text(encoding="utf-8"))["articles"]
    for line, article in zip(lines_of(written), expected, strict=True):
        compare_line(line, article)
    pictures = {figure["graphic_ref"] for line in lines_of(written) for figure in line["figures"]} - {None}
    assert len(pictures) == 47 and all((pmc_articles / "cloud" / picture).is_file() for picture in pictures)


def test_the_old_packages_tell_the_same(written: Path, pmc_articles: Path, tmp_path: Path) -> None:
    write_figures(open_source(str(pmc_articles / "packages")), tmp_path / "x.jsonl")
    compare_packages(lines_of(written), lines_of(tmp_path / "x.jsonl"))


def test_the_same_bytes_whatever_the_processes(tmp_path: Path) -> None:
    files = {key: data for number in range(40, 80) for key, data in small_article(number, 1).items()}
    for key, data in files.items():
        (tmp_path / "cloud" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cloud" / key).write_bytes(data)
    (tmp_path / "cloud" / "PMC50.1" / "PMC50.1.xml").write_bytes(b"<article")
    source = open_source(str(tmp_path / "cloud"))
    for workers in (1, 2):
        counts = write_figures(source, tmp_path / str(workers) / "f.jsonl", workers=workers)
        assert counts["articles"] == 39 and counts["cannot be read"] == 1
    assert (tmp_path / "1" / "f.jsonl").read_bytes() == (tmp_path / "2" / "f.jsonl").read_bytes()
    assert (tmp_path / "1" / "f.rejects.jsonl").read_bytes() == (tmp_path / "2" / "f.rejects.jsonl").read_bytes()
    keys = [line["pmcid"] for line in lines_of(tmp_path / "2" / "f.jsonl")]
    assert keys == sorted(keys) and "PMC50" not in keys
    assert sorted(path.name for path in (tmp_path / "2").iterdir()) == ["f.jsonl", "f.rejects.jsonl"]


def test_straight_from_the_cloud(s3: FaultyS3, written: Path, tmp_path: Path) -> None:
    """The same bytes as from a copy, in two processes, and not one picture is fetched."""
    s3.fail(r"\.xml", "truncated", 3)
    write_figures(open_source(f"s3://{BUCKET}"), tmp_path / "f.jsonl", workers=2)
    assert (tmp_path / "f.jsonl").read_bytes() == written.read_bytes()
    assert not s3.asked(r"\.(jpg|JPG|png|tif|gif)$|_fig")


def test_what_is_left_out_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "plain"
    statement = b"<permissions><license><license-p>CC BY-NC 4.0</license-p></license></permissions>"
    articles = {
        "PMC1": b"<article><body><fig id='a'/></body></article>",
        "PMC2": b"<article><body/></article>",
        "PMC3": b"<html/>",
        "PMC4": b"<article><front><article-meta>" + statement + b"</article-meta></front><body><fig/></body></article>",
        "PMC5": b"",
        "PMC6": b"<article><body><fig id='a'/></body></article>",
    }
    for name, data in articles.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "a.nxml").write_bytes(data)
    parse = description.parse_article

    def with_a_mistake(xml: bytes, name: str) -> Any:
        return 1 / 0 if "PMC6" in name else parse(xml, name)

    monkeypatch.setattr(description, "parse_article", with_a_mistake)
    counts = write_figures(open_source(str(folder)), tmp_path / "f.jsonl")
    assert (counts["articles"], counts["figures"], counts["articles without figures"]) == (3, 2, 1)
    rejects = lines_of(tmp_path / "f.rejects.jsonl")
    assert [(line["article"], line["reason"]) for line in rejects] == [
        ("PMC3/a.nxml", "cannot be read"),
        ("PMC5/a.nxml", "cannot be read"),
        ("PMC6/a.nxml", "error of the reader"),
    ]
    assert "ZeroDivisionError" in rejects[2]["detail"]
    assert [line["license"] for line in lines_of(tmp_path / "f.jsonl")] == [None, None, "CC BY-NC"]
    counts = write_figures(open_source(str(folder)), tmp_path / "f.jsonl", licenses=frozenset({"CC BY-NC"}))
    assert (counts["articles"], counts["licence not wanted"]) == (1, 2)


def files(xml: str, metadata: dict[str, Any] | None = None, key: str = "x/y", media: tuple[str, ...] = ()) -> ArticleFiles:
    facts = None if metadata is None else Metadata.of(metadata)
    return ArticleFiles(key, f"{key}/a.xml", xml.encode(), facts, media, lambda name: b"")


def line_of(files: ArticleFiles) -> dict[str, Any]:
    """What figures.jsonl says of an article."""
    return json.loads(json.dumps(vars(describe(files)), default=vars))


META = "<front><article-meta>{}</article-meta></front>"


def test_ids_of_metadata_xml_and_names() -> None:
    ids = META.format('<article-id pub-id-type="pmc">12</article-id><article-id pub-id-type="pmid">34</article-id>')
    xml = f"<article>{ids}<body><fig id='a'/></body></article>"
    line = line_of(files(xml, {"pmcid": "PMC7", "version": 3, "pmid": 56}, key="PMC9.1"))
    assert (line["pmcid"], line["pmc"], line["version"], line["pmid"]) == ("PMC7", "7", 3, "56")
    line = line_of(files(xml, key="PMC9.2"))
    assert (line["pmcid"], line["pmc"], line["version"], line["pmid"]) == ("PMC12", "12", 2, "34")
    assert line["figures"][0]["pair_id"] == "34_a"
    line = line_of(files("<article><body><fig id='a'/></body></article>", key="PMC9.2"))
    assert (line["pmcid"], line["pmid"], line["figures"][0]["pair_id"]) == ("PMC9", None, "PMC9_a")
    line = line_of(files("<article><body><fig id='a'/></body></article>"))
    assert (line["pmcid"], line["pmc"], line["version"], line["figures"][0]["pair_id"]) == (None, None, None, "x/y_a")
    assert line["is_historical_ocr"] is None and line["license"] is line["license_source"] is None


def test_pair_ids_are_unique() -> None:
    figures = "".join(f"<fig {attribute}/>" for attribute in ("id='a'", "id='a'", "", "id='a~2'", "id='a'", "", "id='fig-2'"))
    line = line_of(files(f"<article><body>{figures}</body></article>", key="PMC9"))
    names = [figure["pair_id"].removeprefix("PMC9_") for figure in line["figures"]]
    assert names == ["a", "a~3", "fig-2", "a~2", "a~4", "fig-5", "fig-2~2"]


def test_licences_and_flags_of_metadata() -> None:
    xml = "<article article-type='research-article'><body/></article>"
    line = line_of(files(xml, {"license_code": "CC BY-NC", "is_retracted": True, "is_historical_ocr": False, "citation": "X."}))
    assert (line["license"], line["license_source"], line["citation"]) == ("CC BY-NC", "metadata", "X.")
    assert line["is_retracted"] is True and line["is_historical_ocr"] is False and line["is_manuscript"] is False
    assert line_of(files(xml, {"license_code": "TDM"}))["license"] == "TDM"
    assert line_of(files(xml, {"license_code": "Custom"}))["license"] == "Custom"
    assert line["figures"] == []


def test_pictures(tmp_path: Path) -> None:
    xml = (
        '<article xmlns:x="http://www.w3.org/1999/xlink"><body><fig id="a"><alternatives><graphic x:href="a.tif"/>'
        '<graphic x:href="a.jpg"/></alternatives></fig><fig id="b"><graphic x:href="gone"/></fig></body></article>'
    )
    names = ("a.tif", "a.jpg", "a.gif")
    both, gone = line_of(files(xml, key="PMC9.1", media=names))["figures"]
    assert both["graphic_ref"] == "PMC9.1/a.jpg" and both["pictures"] == ["a.jpg"]
    assert [graphic["media"] for graphic in both["graphics"]] == ["a.tif", "a.jpg"]
    assert gone["graphic_ref"] is None and gone["graphics"] == [{"href": "gone", "media": None, "in_alternatives": False}]
    at_the_top = replace(files(xml, media=names), location="a.xml")
    assert line_of(at_the_top)["figures"][0]["graphic_ref"] == "a.jpg"


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x\udcff.xml").write_bytes(b"<article><body><fig id='a'/></body></article>")
    write_figures(open_source(str(tmp_path / "in")), tmp_path / "f.jsonl")
    assert lines_of(tmp_path / "f.jsonl")[0]["location"] == "x\udcff.xml"


def test_nothing_to_list(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "PMC1.nxml").write_bytes(b"<article/>")
    with pytest.raises(UserError, match="no article in this source"):
        write_figures(open_source(str(tmp_path / "a"), ids=()), tmp_path / "f.jsonl")
    assert not (tmp_path / "f.jsonl").exists()


def test_images_outside_figures_and_licences_that_nobody_knows_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xml = (
        '<article xmlns:xlink="http://www.w3.org/1999/xlink"><front><article-meta><permissions>'
        '<license xlink:href="https://x.org/open-government"/></permissions></article-meta></front>'
        '<body><p><graphic xlink:href="a"/></p></body></article>'
    )
    (tmp_path / "PMC5.nxml").write_text(xml)
    assert main(["data", "figures", str(tmp_path), "--out", str(tmp_path / "f.jsonl")]) == 0
    assert "  images outside figures   1\n" in capsys.readouterr().out
    assert lines_of(tmp_path / "f.jsonl")[0]["loose_images"] == ["a"]
    assert main(["data", "figures", str(tmp_path), "--out", str(tmp_path / "g.jsonl"), "--licenses", "cc-by"]) == 0
    (reject,) = lines_of(tmp_path / "g.rejects.jsonl")
    assert "its licence is https://x.org/open-government; wanted CC BY" in reject["detail"]
