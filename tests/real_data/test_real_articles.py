"""Seven real articles of PubMed Central, read, fetched and built, against what is known of them by other means."""

import json
import pickle
import timeit
from pathlib import Path
from typing import Any

import pytest
from helpers.article_truth import compare_article, compare_line, compare_packages, marked_figures, without_marks
from helpers.caption_checks import assert_no_character_is_lost
from helpers.faulty_s3 import BUCKET, faulty_s3
from helpers.picture_checks import distances_of_looks, offered_panels
from helpers.real_data_folder import real_data

from biomedclip_jax.cli import main
from biomedclip_jax.data.pmc.figure_types import figure_types
from biomedclip_jax.data.pmc.figures_file import write_figures
from biomedclip_jax.data.pmc.jats.parse import parse_article
from biomedclip_jax.data.pmc.panels._caption_parts import split_caption
from biomedclip_jax.data.pmc.sources._packages import Packages
from biomedclip_jax.data.pmc.sources.folders import CloudFolder
from biomedclip_jax.data.pmc.sources.open import open_source
from biomedclip_jax.errors import UserError

ARTICLES = real_data("pmc-articles")
EXPECTED: list[dict[str, Any]] = json.loads((ARTICLES / "expected.json").read_text(encoding="utf-8"))["articles"]
PANELS = Path(__file__).with_name("panels_truth.json")


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def captions() -> dict[str, str]:
    return {
        f"{article['id']}/{figure['index']}": figure.get("caption_if_mathml_text_kept") or figure["caption"]
        for article in EXPECTED
        for figure in article["figures"]
    }


# --- articles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda expected: expected["id"])
def test_article(expected: dict[str, Any]) -> None:
    xml = (ARTICLES / expected["xml"]).read_bytes()
    compare_article(parse_article(xml, expected["xml"]), expected, formulas=True, marked=marked_figures(xml))
    # the ground truth's own rule drops formulas and flattens superscripts: without any in the XML every text must be equal
    compare_article(parse_article(without_marks(xml), expected["xml"]), expected, formulas=False)


def test_how_many_captions_have_superscripts_subscripts_or_formulas() -> None:
    """Only these are compared without the signs that tell them; all 45 also letter for letter, without the markup."""
    marked = [marked_figures((ARTICLES / expected["xml"]).read_bytes()) for expected in EXPECTED]
    assert [len(figures) for figures in marked] == [3, 0, 7, 9, 1, 5, 0]


def test_the_articles_have_the_cases_compared() -> None:
    figures = [figure for expected in EXPECTED for figure in expected["figures"]]
    assert len(figures) == 45
    assert sum("caption_if_mathml_text_kept" in f for f in figures) == 9
    assert sum(len(f["references"]["paragraphs"]) for f in figures) > 100


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("figures") / "figures.jsonl"
    counts = write_figures(open_source(str(ARTICLES / "cloud")), out)
    assert counts == {"articles": 7, "figures": 45, "figures with a picture": 42, "articles without figures": 0}
    return out


def test_figures_file(written: Path) -> None:
    """MathML's text is kept, as the articles' README gives for that choice."""
    for line, article in zip(lines_of(written), EXPECTED, strict=True):
        compare_line(line, article, marked_figures((ARTICLES / article["xml"]).read_bytes()))
    pictures = {figure["graphic_ref"] for line in lines_of(written) for figure in line["figures"]} - {None}
    assert len(pictures) == 42 and all((ARTICLES / "cloud" / picture).is_file() for picture in pictures)


def test_the_old_packages_tell_the_same(written: Path, tmp_path: Path) -> None:
    write_figures(open_source(str(ARTICLES / "packages")), tmp_path / "x.jsonl")
    compare_packages(lines_of(written), lines_of(tmp_path / "x.jsonl"))


# --- sources --------------------------------------------------------------------------------------------------------


def test_the_clouds_layout() -> None:
    source = pickle.loads(pickle.dumps(open_source(str(ARTICLES / "cloud"))))
    assert isinstance(source, CloudFolder)
    keys = list(source.keys())
    assert keys == [article["pmcid"] for article in EXPECTED]
    for key, article in zip(keys, EXPECTED, strict=True):
        files = pickle.loads(pickle.dumps(source.open(key)))
        assert files.key == article["id"] and f"cloud/{files.location}" == article["xml"]
        assert set(files.media) == set(article["media"]) and files.metadata.doi == article["doi"]
        assert all(len(files.read(name)) == facts["bytes"] for name, facts in article["media"].items())


def test_packages() -> None:
    source = pickle.loads(pickle.dumps(open_source(str(ARTICLES / "packages"))))
    assert list(source.keys()) == ["PMC99000001.tar.gz", "PMC99000006.tar.gz"]
    for key, cloud in (("PMC99000001", "PMC99000001.1"), ("PMC99000006", "PMC99000006.1")):
        files = source.open(f"{key}.tar.gz")
        assert files.key == key and files.location.startswith(f"{key}.tar.gz/{key}/") and files.metadata is None
        assert files.xml == (ARTICLES / "cloud" / cloud / f"{cloud}.xml").read_bytes()
        again = pickle.loads(pickle.dumps(files))
        assert sorted(again.media) == sorted(files.media) and len(files.media) in (5, 8)
        for name in files.media:
            original = name if cloud.startswith("PMC99000001") else name.removesuffix(".jpg")
            assert files.read(name) == again.read(name) == (ARTICLES / "cloud" / cloud / original).read_bytes()
        with pytest.raises(UserError, match=r"no other\.jpg in this package"):
            files.read("other.jpg")


def test_a_damaged_package(tmp_path: Path) -> None:
    whole = (ARTICLES / "packages" / "PMC99000001.tar.gz").read_bytes()
    path = tmp_path / "PMC99000001.tar.gz"
    flipped = bytearray(whole)
    flipped[len(whole) * 3 // 4] ^= 255
    for data in (whole[: len(whole) // 2], whole[:-4], whole[:20], bytes(flipped)):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"PMC99000001\.tar\.gz: damaged at or after '.*; fetch it again$"):
            Packages(tmp_path).open(path.name)


def test_fetched_from_a_bucket_and_built(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same figures and files as from a folder, over a network that fails now and then; and 42 pairs of them."""
    pytest.importorskip("apache_beam", reason="needs: pip install 'biomedclip_jax[beam]'")
    from biomedclip_jax.data.pmc.sources import _s3 as ours

    with faulty_s3(ARTICLES / "cloud") as s3:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.endpoint)
        monkeypatch.setattr(ours, "_PAUSE", 0.01)
        ours._client.cache_clear()
        s3.fail(r"\.xml", "truncated", 3)
        write_figures(open_source(f"s3://{BUCKET}"), tmp_path / "f.jsonl")
        assert (tmp_path / "f.jsonl").read_bytes() == written.read_bytes()
        assert not s3.asked(r"\.(jpg|png)$|_fig")
        s3.fail(r"\.jpg", "wrong", 2)
        assert main(["data", "fetch", f"s3://{BUCKET}", str(tmp_path / "copy")]) == 0
        ours._client.cache_clear()
    for path in (ARTICLES / "cloud").rglob("*"):
        if path.is_file():
            assert (tmp_path / "copy" / path.relative_to(ARTICLES / "cloud")).read_bytes() == path.read_bytes()
    capsys.readouterr()
    assert main(["data", "build", str(tmp_path / "copy"), str(tmp_path / "pmc"), "--workers", "1", "--shards", "2"]) == 0
    assert "42 pairs" in capsys.readouterr().out


# --- captions -------------------------------------------------------------------------------------------------------


def test_labels_of_captions() -> None:
    """Read by eye: what all 45 captions have. One more (PMC99000001.1/1) tells "(left)" and "(right)" in passing."""
    truth = dict.fromkeys(captions(), "")
    for article, labels in {
        "PMC99000001.1": {0: "AB", 2: "ABCDEFGH", 3: "ABCDEFGH", 4: "AB"},
        "PMC99000002.2": {1: "left right"},
        "PMC99000003.3": {0: "ab", 1: "ab", 2: "abc", 3: "ab", 4: "abcd", 5: "ab", 6: "abcd", 7: "abcd"},
        "PMC99000004.2": {
            0: "ABCDEFGHIJ",
            1: "ABCDEFGHIJKLM",
            4: "ABCDEFGHI",
            6: "upper lower",
            7: "ABCDEFGHIJ",
            9: "ABCDEFG",
            11: "ABC",
        },
        "PMC99000005.1": {2: "AB", 4: "ABC", 5: "AB"},
        "PMC99000006.1": {0: "abcdefg", 1: "abcdef", 2: "abcdefghij", 3: "abcde", 5: "abcdefg", 6: "abcd", 7: "ab"},
        "PMC99000007.1": {0: "abc", 1: "abc"},
    }.items():
        truth |= {f"{article}/{index}": text for index, text in labels.items()}
    found = {}
    for key, caption in captions().items():
        labels = [part.label for part in split_caption(caption).parts]
        found[key] = ("" if all(len(label) == 1 for label in labels) else " ").join(labels)
    assert found == truth


@pytest.mark.parametrize("seed", range(4))
def test_no_character_is_lost(seed: int) -> None:
    """Every character lies in one piece, or in a marker between two pieces."""
    assert_no_character_is_lost(captions().values(), seed)


def test_types_of_captions() -> None:
    """By eye, these types are in the pictures."""
    by_figure = {(article["id"], f["index"]): f["caption"] for article in EXPECTED for f in article["figures"]}
    for key, name in {
        ("PMC99000001.1", 1): "chart",
        ("PMC99000002.2", 0): "diagram",
        ("PMC99000005.1", 3): "chart",
        ("PMC99000003.3", 7): "gene sequence, gel",
        ("PMC99000004.2", 9): "chart, diagram",
        ("PMC99000006.1", 0): "chart, gel",
        ("PMC99000006.1", 1): "fluorescence microscopy, chart, diagram",
        ("PMC99000006.1", 7): "fluorescence microscopy",
    }.items():
        assert ", ".join(figure_types(by_figure[key])) == name, key
    assert sum(not figure_types(caption) for caption in by_figure.values()) == 7, "of 45 are unknown, two of them maps"
    texts = list(by_figure.values())
    seconds = min(timeit.repeat(lambda: [figure_types(text) for text in texts], number=1, repeat=5)) / len(texts)
    assert seconds < 0.5e-3, "0.06 ms on a machine at rest"


# --- pictures -------------------------------------------------------------------------------------------------------


def test_panels() -> None:
    """The level that was measured: 97 of 147 panels are offered, in 26 of 30 figures, and every one is right."""
    truth = json.loads(PANELS.read_text(encoding="utf-8"))
    assert len(truth) == 30 and sum(map(len, truth.values())) == 147
    figures, offered, right = offered_panels(ARTICLES, truth)
    assert right == offered, "precision before recall"
    assert figures >= 26 and offered >= 97


def test_looks_survive_size_and_compression_and_tell_pictures_apart() -> None:
    """Of 47 real figures 46 are near enough to their own small, strongly compressed copies, and none to another figure."""
    pytest.importorskip("imagehash", reason="needs: pip install 'biomedclip_jax[beam]'")
    from biomedclip_jax.data.pmc.build._pictures import DISTANCE

    paths = sorted(path for path in (ARTICLES / "cloud").glob("PMC*/*") if path.suffix not in (".xml", ".json"))
    assert len(paths) == 48, f"{ARTICLES} is not as expected"
    same, others = distances_of_looks([path for path in paths if path.name != "e001.png"])  # a formula, 31 pixels high
    assert len(same) == 47 and sum(bits <= DISTANCE for bits in same) >= 46, sorted(same)
    assert min(others) > 2 * DISTANCE, sorted(others)[:5]
