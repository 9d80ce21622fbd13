"""Statistics of a small build, of a table, and what the files hold."""

import base64
import io
import json
import re
import unicodedata
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import tifffile
from PIL import Image

from biomedclip_jax.cli import main
from biomedclip_jax.data.statistics import _counts as statistics_counts
from biomedclip_jax.data.statistics._counts import BuildShard, count, count_part, parts_of
from biomedclip_jax.data.statistics._fonts import _signs, fonts_for
from biomedclip_jax.data.statistics._summary import Numbers
from biomedclip_jax.data.statistics.captioned import captioned_pictures
from biomedclip_jax.data.statistics.report import write_statistics
from biomedclip_jax.errors import UserError

pytest.importorskip("tensorflow_datasets", reason="needs: pip install 'biomedclip_jax[beam]'")

# TFDS 4.9.10 asks protobuf in an old way
pytestmark = pytest.mark.filterwarnings("ignore:label\\(\\) is deprecated:DeprecationWarning")

CAPTIONS = {
    "train": [
        ["Chest CT of a man with pneumonia.", "Bar chart of tumours; error bars, SD. " + "tumour cells " * 60],
        ["Axial CT scan of the liver."],
        ["Western blot of lysates.", "Western blot of cells (n = 3), in which tumours were seen."],
    ],
    "test": [["Flow chart of the study."]],
}


def _record(article: int, figure: int, caption: str, **more: Any) -> dict[str, Any]:
    from biomedclip_jax.data.pmc.figure_types import figure_type

    file = io.BytesIO()
    Image.fromarray(np.full((12, 16, 3), 9 * article, np.uint8)).save(file, "JPEG")
    return {
        "image": file.getvalue(),
        "caption": caption,
        "pair_id": f"{article}_f{figure}",
        "pmcid": f"PMC{article}",
        "pmid": "",
        "version": 1,
        "year": 2010 + article % 3 if article != 4 else 0,
        "figure_id": f"f{figure}",
        "label": f"Figure {figure}",
        "license": "CC0" if article == 1 else "CC BY",
        "citation": "A journal",
        "references": ["As Figure 1 shows."] * figure,
        "width": 600 + 100 * figure,
        "height": 300,
        "in_sub_article": article == 2,
        "figure_type": figure_type(caption),
        "panel": "",
    } | more


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits, three shards, four articles, six figures and a panel."""
    from biomedclip_jax.data._tfds_write import Encoder, write_metadata, write_records
    from biomedclip_jax.data.pmc.build.record import DATASET, VERSION, ShardId, record_features, shard_name

    folder = tmp_path_factory.mktemp("statistics") / "build"
    folder.mkdir()
    encode = Encoder(record_features())
    first = [_record(1, i, caption) for i, caption in enumerate(CAPTIONS["train"][0])]
    first += [_record(1, 9, "A panel of its own.", panel="A")]
    second = [
        _record(n, i, text) for n, texts in zip((2, 3), CAPTIONS["train"][1:], strict=True) for i, text in enumerate(texts)
    ]
    third = [_record(4, 0, CAPTIONS["test"][0][0])]
    lengths: dict[str, list[int]] = {"train": [], "test": []}
    for split, number, of, records in (("train", 0, 2, first), ("train", 1, 2, second), ("test", 0, 1, third)):
        lengths[split].append(write_records(folder / shard_name(ShardId(split, number, of)), map(encode, records)))
    write_metadata(folder, DATASET, VERSION, record_features(), lengths, {"train": 1, "test": 1})
    summary = {"articles": {"rejected": {"retracted": 2}}, "pictures": {"rejected": {"duplicate": 1, "no caption": 4}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_everything_is_counted(build: Path, vocabulary: Path, tmp_path: Path) -> None:
    found = write_statistics(str(build), tmp_path / "s", vocabulary).to_json()
    assert found == json.loads((tmp_path / "s" / "statistics.json").read_text())
    assert found["pairs"] == {"all": 7, "test": 1, "train": 6} and found["of which panels"] == 1
    assert found["articles"] == {"all": 4, "by year": {"unknown": 1, "2010": 1, "2011": 1, "2012": 1}}
    types = {name: n for name, n in found["figure types"].items() if n}
    assert types == {"CT": 2, "gel": 2, "chart": 1, "flowchart": 1}
    assert {"mixed", "unknown"} < found["figure types"].keys() and "table" not in found["figure types"]
    assert found["in mixed figures"] == {}
    assert found["licenses"] == {"CC BY": 4, "CC0": 2}
    assert found["in sub-articles"] == 1
    assert found["left out"] == {"articles": {"retracted": 2}, "pictures": {"no caption": 4, "duplicate": 1}}
    texts = [text for part in CAPTIONS.values() for texts in part for text in texts]
    words = found["caption"]["words"]
    assert words["max"] == max(len(text.split()) for text in texts) == 127
    assert words["mean"] == pytest.approx(np.mean([len(text.split()) for text in texts]), abs=0.01)
    assert found["caption"]["characters"]["min"] == min(map(len, texts))
    assert found["caption"]["tokens"]["share over"] == {"77": 0.1667, "256": 0.0, "512": 0.0}
    assert found["image"]["width"]["share over"] == {"224": 1.0, "336": 1.0, "512": 1.0}
    assert found["image"]["height"]["median"] == 300 and found["image"]["height"]["share over"]["336"] == 0.0
    assert found["references of a figure"]["max"] == 1 and found["references of a figure"]["mean"] == pytest.approx(
        2 / 6, abs=0.01
    )
    frequent = found["words"]["most frequent"]
    assert frequent["tumour"] == frequent["cells"] == 2, "articles, with its plurals"
    assert "the" not in frequent and found["words"]["captions read"] == 6 and found["words"]["articles read"] == 4


def test_histograms_hold_everybody(build: Path, tmp_path: Path) -> None:
    found = write_statistics(str(build), tmp_path / "s").to_json()
    assert "tokens" not in found["caption"]
    for numbers in (*found["caption"].values(), *found["image"].values(), found["references of a figure"]):
        histogram = numbers["histogram"]
        assert sum(histogram["counts"]) == 6
        assert histogram["start"] <= numbers["min"] < histogram["start"] + histogram["step"]


class _Sources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_needs_nothing_else(build: Path, vocabulary: Path, tmp_path: Path) -> None:
    pytest.importorskip("wordcloud", reason="needs: pip install 'biomedclip_jax[beam]'")
    write_statistics(str(build), tmp_path / "s", vocabulary)
    page = (tmp_path / "s" / "index.html").read_text()
    parser = _Sources()
    parser.feed(page)
    assert len(parser.found) == 8 and all(source.startswith("data:image/png;base64,") for source in parser.found)
    for source in parser.found:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("L"))
        assert picture.shape[0] > 90 and (picture < 200).mean() > 0.002, "something is drawn"
    assert "http" not in re.sub(r'src="[^"]*"', "", page)
    assert "16.7% over 77" in page and "licence" in page.lower()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_files_each_time_by_any_number_of_processes(build: Path, vocabulary: Path, tmp_path: Path) -> None:
    for name, workers in (("a", 1), ("b", 2)):
        write_statistics(str(build), tmp_path / name, vocabulary, workers)
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b") and {"index.html", "statistics.json", "1-length-of-captions.png"} <= first.keys()
    write_statistics(str(build), tmp_path / "a", vocabulary)
    assert contents(tmp_path / "a") == first, "older statistics are replaced"


def test_words_are_counted_of_a_sample(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_of(str(build))
    assert [part.count for part in parts] == [3, 3, 1] or sorted(part.count for part in parts) == [1, 3, 3]
    monkeypatch.setattr(statistics_counts, "_SAMPLE", 3)
    chosen = count(parts, None, 1)
    assert chosen.sampled.total() == 6 and 0 < chosen.sampled[True] < 6
    assert count(parts[::-1], None, 1).vocabulary == chosen.vocabulary, "whatever the order"
    assert count_part(parts[0], None, 0.0).vocabulary.total() == 0


def test_pictures_of_a_build_one_by_one(build: Path) -> None:
    found = [picture for part in parts_of(str(build)) for picture in captioned_pictures(part)]
    assert sorted(p.caption for p in found) == sorted(text for part in CAPTIONS.values() for texts in part for text in texts)
    assert {picture.image.load().size for picture in found} == {(16, 12)}, "the panel is not among them"


def test_a_table(tmp_path: Path) -> None:
    rows = ["picture,text"]
    for i, caption in enumerate(["Chest CT scan of a man", "Box plot; CT image", "Axial CT image"]):
        Image.new("RGB", (40 + i, 30)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{caption}")
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    flags = ["--image-column", "picture", "--caption-column", "text", "--out", str(tmp_path / "s"), "--workers", "1"]
    assert main(["data", "statistics", str(tmp_path / "t.csv"), *flags]) == 0
    found = json.loads((tmp_path / "s" / "statistics.json").read_text())
    assert found["pairs"] == {"all": 3} and found["image"]["width"]["max"] == 42
    assert found["figure types"]["CT"] == 2 and found["figure types"]["mixed"] == 1
    assert found["in mixed figures"] == {"CT": 1, "chart": 1}
    assert not found.keys() & {"licenses", "articles", "left out", "references of a figure", "in sub-articles"}


def test_sizes_of_whatever_load_image_reads(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "0.tif", np.zeros((7, 9, 3)), photometric="rgb")  # of a depth that Pillow does not open
    Image.new("RGB", (11, 5)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    (tmp_path / "t.csv").write_text("image,caption\n0.tif,a\n1.png,b\n2.png,c\n")
    flags = ["--out", str(tmp_path / "s"), "--workers", "1"]
    assert main(["data", "statistics", str(tmp_path / "t.csv"), *flags]) == 0
    found = json.loads((tmp_path / "s" / "statistics.json").read_text())
    assert found["pairs"] == {"all": 2} and found["image"]["width"]["max"] == 11 and found["image"]["height"]["max"] == 7
    assert found["left out"] == {"pairs": {"image unreadable": 1}}
    output = capfd.readouterr()
    said = [line for line in output.err.splitlines() if "left out" in line]
    assert len(said) == 1 and "2.png" in said[0] and "1 more pairs are left out: image unreadable" in output.out
    for name in ("0.tif", "1.png"):
        (tmp_path / name).unlink()
    assert main(["data", "statistics", str(tmp_path / "t.csv"), *flags]) == 2
    assert "none of its 1 pairs can be used" in capfd.readouterr().err


def test_the_median_of_an_even_number_lies_between() -> None:
    assert Numbers.of(Counter([1, 2, 3, 10])).median == 2.5
    assert Numbers.of(Counter([1, 2, 4, 10])).median == 3
    assert Numbers.of(Counter([1, 2, 2, 10])).median == Numbers.of(Counter([1, 2, 10])).median == 2
    generator = np.random.default_rng(0)
    for size in range(1, 30):
        values = generator.integers(-5, 9, size)
        assert Numbers.of(Counter(values.tolist())).median == np.median(values)


def test_signs_that_no_font_shows_are_said(capfd: pytest.CaptureFixture[str]) -> None:
    latin = fonts_for(["Größe \u03b1 \u2264 5\n"], [])
    assert (latin.families, latin.unshown) == (["DejaVu Sans"], frozenset())
    fonts = fonts_for(["\u80ba\u708e of 3"], [])
    assert fonts.fit("\u80ba\u708e of 3") == "\ufffd\ufffd of 3"
    assert "no font here shows 2 of the signs (U+708E, U+80BA)" in capfd.readouterr().err
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    own = _signs(str(folder / "STIXGeneral.ttf")) - _signs(str(folder / "DejaVuSans.ttf"))
    sign = min(sign for sign in own if unicodedata.category(sign)[0] in "LS")
    fonts = fonts_for([f"a {sign}"], [str(folder / "STIXGeneral.ttf")])
    assert fonts.families == ["DejaVu Sans", "STIXGeneral"] and fonts.fit(sign) == sign


def test_the_command(build: Path, vocabulary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "s"), "--workers", "1"]
    assert main(["data", "statistics", str(build), "--tokenizer", str(vocabulary), *out]) == 0
    printed = capsys.readouterr().out
    assert "index.html: 7 pairs, 1 of them panels" in printed and re.search(r"over 77 tokens +16\.7%", printed)


def test_mistakes_are_one_line(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    table = tmp_path / "t.csv"
    table.write_text("image,caption\n")
    for arguments, message in (
        ([build, "--out", tmp_path / "full"], "full: holds something else than statistics"),
        ([build, "--out", tmp_path / "new", "--tokenizer", tmp_path], "no tokenizer here"),
        ([tmp_path / "none", "--out", tmp_path / "new"], "no such file or folder"),
        ([table], "not a build's folder; then --out DIR"),
    ):
        assert main(["data", "statistics", *map(str, arguments), *(["--workers", "1"])]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "t.csv"]


def test_a_damaged_or_missing_shard(build: Path, tmp_path: Path) -> None:
    shard = next(part for part in parts_of(str(build)) if isinstance(part, BuildShard))
    broken = tmp_path / shard.path.name
    broken.write_bytes(shard.path.read_bytes()[:-40])
    with pytest.raises(UserError, match=f"{re.escape(shard.path.name)}.*cannot be read"):
        list(BuildShard(shard.folder, shard.split, broken, shard.count).records())
    for path in build.iterdir():
        if path.is_file() and path.name != shard.path.name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    broken.unlink()
    with pytest.raises(UserError, match="this shard is missing"):
        parts_of(str(tmp_path))
