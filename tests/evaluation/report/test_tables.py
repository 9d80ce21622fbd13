"""Results as tables, as CLIP_benchmark's JSON, as a page: each number where it belongs, and nothing lost on the way."""

import csv
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import clip_benchmark_peer

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.benchmarks import published
from biomedclip_jax.evaluation.report.clip_benchmark import write_clip_benchmark
from biomedclip_jax.evaluation.report.differences import Difference
from biomedclip_jax.evaluation.report.page import write_results_page
from biomedclip_jax.evaluation.report.results import Measured, Result, merged, read_results, write_results
from biomedclip_jax.evaluation.report.tables import markdown, tables

MEASURED = Measured(
    model="models/ours",
    adapter="",
    model_fingerprint="aaaaaaaaaaaaaaaa",
    data="data/pairs.csv",
    data_fingerprint="dddddddddddddddd",
    total=1_300,
    version="0.1.0",
    date="2026-11-30T10:00:00+00:00",
    command="biomedclip evaluate all models/ours",
)

RETRIEVAL = Result(
    model="ours",
    task="retrieval",
    dataset="pairs",
    n=1_234,
    metrics={
        f"{way}_recall_at_{k}": 0.01 * k + 0.5 * (way == "text_to_image")
        for way in ("image_to_text", "text_to_image")
        for k in (1, 5, 10)
    }
    | {"image_to_text_median_rank": 7.0, "text_to_image_median_rank": 3.5},
    intervals={"image_to_text_recall_at_1": (0.005, 0.02)},
    measured=MEASURED,
)
ZERO_SHOT = Result(
    model="ours",
    task="zero-shot",
    dataset="pcam",
    n=32_768,
    metrics={"accuracy": 0.7, "balanced_accuracy": 0.6, "macro_f1": 0.5, "auroc": 0.8, "majority_accuracy": 0.55},
    intervals={"accuracy": (0.69, 0.71)},
    settings={"classes": ["normal", "tumour"], "prompts": [["a photo of normal"], ["a photo of tumour"]], "aggregate": "mean"},
    measured=MEASURED,
)


def other(row: Result, model: str | None = None, settings: dict | None = None, **more: object) -> Result:
    """The row with other settings or another `Measured`."""
    known = dataclasses.replace(row.measured, **more)  # type: ignore[type-var]
    settings = row.settings | (settings or {})
    return dataclasses.replace(row, model=model or row.model, settings=settings, measured=known)


def few(method: str, budget: str, labels: int, accuracy: float, **more: str | list[int]) -> Result:
    details = {"zero_shot": {"accuracy": 0.4}} | ({"spread": {"accuracy": 0.02}} if budget != "100 %" else {})
    return Result(
        "ours",
        method,
        "pcam",
        32_768,
        {"accuracy": accuracy},
        settings={"budget": budget, "labels": labels, "seeds": [0] if budget == "100 %" else [0, 1, 2]} | more,
        details=details,
        measured=MEASURED,
    )


FEW = [few("probe", "100 %", 1_000, 0.9), few("probe", "5 per class", 10, 0.6), few("coop", "5 per class", 10, 0.65)]
ALL = [RETRIEVAL, ZERO_SHOT, *FEW]


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of the Markdown table under a title, without its head."""
    section = text.split(f"## {title}", 1)[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")][2:]


def test_retrieval_stands_beside_the_paper() -> None:
    found = rows(markdown(tables(ALL, published)), "Retrieval: pairs, 1,234 images")
    assert found[0] == ["ours", "1.00 (0.5\xa0to\xa02.0)", "5.00", "10.00", "51.00", "55.00", "60.00", "7", "3.5"]
    assert found[1] == [
        "paper: BiomedCLIP, PMC-15M test, 725,739 pairs",
        "70.10",
        "86.40",
        "90.20",
        "69.60",
        "86.30",
        "90.20",
        "-",
        "-",
    ]


def test_an_approximate_search_has_a_row_of_its_own() -> None:
    """It has no ranks, and does not take the place of the exact one."""
    metrics = {name: value for name, value in RETRIEVAL.metrics.items() if "median" not in name}
    details = {"recall_against_exact": {"image_to_text": {"recall_at_10": 0.995}, "text_to_image": {"recall_at_10": 0.99}}}
    exact = dataclasses.replace(RETRIEVAL, settings={"search": "exact"})
    faiss = dataclasses.replace(RETRIEVAL, metrics=metrics, settings={"search": "faiss"}, details=details)
    found = rows(markdown(tables(merged([exact], [faiss]), published)), "Retrieval: pairs, 1,234 images")
    assert found[0][-2:] == ["7", "3.5"] and found[1][-2:] == ["-", "-"]
    assert found[1][0] == "ours, faiss (finds 99.5 and 99.0 % of the nearest ten)"


def test_zero_shot_stands_beside_the_majority_and_the_paper() -> None:
    found = rows(markdown(tables(ALL, published)), "Zero-shot classification: pcam, 32,768 images")
    assert found[0] == ["ours", "70.00 (69.0\xa0to\xa071.0)", "60.00", "50.00", "80.00", "-", "-"]
    assert found[1] == ["always the most frequent class", "55.00", "-", "-", "-", "-", "-"]
    assert found[2][:2] == ["paper: BiomedCLIP (table)", "73.41"]
    assert any("read off a bar" in row[0] for row in found)


def test_paired_differences_say_which_from_which() -> None:
    second = other(ZERO_SHOT, model="tuned", model_fingerprint="b" * 16)
    metrics = {"accuracy": [0.05, 0.01, 0.09, 0.98], "auroc": [-0.1, -0.2, 0.05, 0.1]}
    pair = Difference(second.id, ZERO_SHOT.id, metrics)
    found = tables([*ALL, second], published, [pair])
    text = markdown(found)
    assert "| after minus before | accuracy | balanced accuracy | macro F1 | AUROC |" in text
    cells = ["tuned minus ours", "+5.00 (+1.0\xa0to\xa0+9.0)", "-", "-", "-10.00 (-20.0\xa0to\xa0+5.0)", "-", "-"]
    assert rows(text, "Differences, zero-shot: pcam, 32,768 images") == [cells]
    titles = [table.title for table in found]
    assert titles.index("Differences, zero-shot: pcam, 32,768 images") == 1 + titles.index(
        "Zero-shot classification: pcam, 32,768 images"
    )
    assert not any("Differences" in table.title for table in tables(ALL, published, [pair])), "a row that is not there"


WORDS = {"prompts": [["normal tissue"], ["tumour"]]}
OTHERS = {
    "data": other(ZERO_SHOT, data_fingerprint="e" * 16),
    "n": dataclasses.replace(ZERO_SHOT, n=60),
    "prompts": other(ZERO_SHOT, settings=WORDS),
    "aggregation": other(ZERO_SHOT, settings={"aggregate": "gloria"}),
    "all": dataclasses.replace(other(ZERO_SHOT, settings=WORDS, data_fingerprint="f" * 16), n=3),
}


@pytest.mark.parametrize("what", OTHERS)
def test_rows_that_differ_share_no_table_and_no_file(what: str, tmp_path: Path) -> None:
    """Of one model and one name of the data, in another order, too; and none takes the place of another."""
    second = OTHERS[what]
    assert second.id != ZERO_SHOT.id
    for both in ([ZERO_SHOT, second], [second, ZERO_SHOT]):
        assert merged(both[:1], both[1:]) == both
        found = [table for table in tables(both, published) if table.title.startswith("Zero-shot")]
        assert len({table.title for table in found}) == 2
        assert [table.rows[0][0] for table in found] == ["ours", "ours"]
        assert [len([row for row in table.rows if row[0] == "ours"]) for table in found] == [1, 1]
    write_clip_benchmark(tmp_path, [ZERO_SHOT, second])
    assert len(list(tmp_path.iterdir())) == 2
    asked = [table.note for table in found if "Asked with" in table.note]
    assert len(asked) == 2 and (what not in ("prompts", "aggregation") or asked[0] != asked[1])


def test_the_same_name_for_other_weights_is_told_apart() -> None:
    retrained = other(ZERO_SHOT, model_fingerprint="cccccccccccccccc")
    found = merged([ZERO_SHOT], [retrained])
    body = rows(markdown(tables(found, published)), "Zero-shot classification: pcam, 32,768 images")
    assert [row[0] for row in body[:2]] == ["ours (weights aaaaaaaa)", "ours (weights cccccccc)"]


def test_learned_prompts_stand_beside_sentences() -> None:
    about = {"prompts": "learned", "prompts_method": "coop", "prompts_file": "p.safetensors", "prompts_fingerprint": "1"}
    learned = other(ZERO_SHOT, settings=about)
    again = other(ZERO_SHOT, settings=about | {"prompts_fingerprint": "2"})
    assert len({learned.id, again.id, ZERO_SHOT.id}) == 3, "other prompts in the same file are others"
    body = rows(markdown(tables([ZERO_SHOT, learned], published)), "Zero-shot classification: pcam, 32,768 images")
    assert [row[0] for row in body[:2]] == ["ours", "ours, coop prompts (p)"]


def test_a_row_keeps_its_place_when_it_is_measured_again() -> None:
    second = other(ZERO_SHOT, model="tuned", model_fingerprint="b" * 16)
    again = dataclasses.replace(ZERO_SHOT, metrics={"accuracy": 0.1})
    again = other(again, date="2027-01-01", command="something else")
    assert again.id == ZERO_SHOT.id
    assert [row.metrics["accuracy"] for row in merged([ZERO_SHOT, second], [again])] == [0.1, 0.7]


def test_a_metric_without_an_interval_says_why() -> None:
    details = {"no_interval": {"auroc": "too few to say"}, "per_class": {"normal": {"n": 99}, "tumour": {"n": 1}}}
    found = tables([dataclasses.replace(ZERO_SHOT, details=details)], published)
    assert found[0].rows[0][4] == "80.00 (too few to say)"
    assert "of less than 10 images of a class (tumour 1)" in found[0].note
    second = other(dataclasses.replace(ZERO_SHOT, details=details), model="tuned", model_fingerprint="b" * 16)
    pair = Difference(second.id, ZERO_SHOT.id, {"auroc": [0.1, 0.1, 0.1, 1.0], "accuracy": [0.1, 0.0, 0.2, 0.9]})
    cells = tables([ZERO_SHOT, second], published, [pair])[1].rows[0]
    assert cells[4] == "+10.00 (too few to say)" and cells[1].startswith("+10.00 (+0.0")


def test_each_row_says_what_was_measured(tmp_path: Path) -> None:
    missing = {"left_out": [{"image": "1.png", "reason": "image file is not there"}] * 66}
    row = dataclasses.replace(RETRIEVAL, details=missing)
    note = markdown(tables([row, ZERO_SHOT], published))
    cells = rows(note, "What was measured")
    assert cells[0] == [
        "retrieval, pairs: ours",
        "models/ours (aaaaaaaaaaaa)",
        "data/pairs.csv (dddddddddddd)",
        "1,234 of 1,300; left out: 66 (image file is not there 66)",
        "-",
        "2026-11-30T10:00:00+00:00, biomedclip_jax 0.1.0",
        "biomedclip evaluate all models/ours",
    ]
    assert cells[1][4] == '"a photo of normal" (1 sentence a class, mean)'
    write_clip_benchmark(tmp_path, [row, ZERO_SHOT])
    theirs = [json.loads(path.read_text()) for path in sorted(tmp_path.iterdir())]
    for each in theirs:
        assert each["model_fingerprint"] == "a" * 16 and each["data_path"] == "data/pairs.csv"
        assert each["command"] == MEASURED.command and each["version"] == "0.1.0" and each["total"] == 1_300
    assert theirs[0]["left_out"].startswith("left out: 66") and "a photo of tumour" in theirs[1]["prompts"]
    write_results_page(tmp_path, [row], tables([row], published))
    page = (tmp_path / "report.html").read_text()
    assert "What was measured" in page and f"(row {row.id})" in page and "biomedclip evaluate all models/ours" in page
    assert "725,739 pairs; among 1,234" in page


def test_few_labels_have_a_column_for_each_budget() -> None:
    text = markdown(tables(ALL, published))
    assert "| model | method | zero-shot | 5 per class | 100 % |" in text
    found = rows(text, "Few labels: pcam, 32,768 images")
    assert found == [["ours", "probe", "40.00", "60.00 ± 2.00", "90.00"], ["ours", "coop", "40.00", "65.00 ± 2.00", "-"]]


def test_published_few_labels_stand_beside_ours_of_the_same_share() -> None:
    """The paper's number for 10 % of RSNA's labels; that for 100 % has no column here, and no row."""
    own = [dataclasses.replace(few("probe", budget, 10, 0.8), dataset="rsna") for budget in ("10 %", "5 per class")]
    found = rows(markdown(tables(own, published)), "Few labels: rsna, 32,768 images")
    assert found[-1] == ["paper: BiomedCLIP (figure, linear probe)", "", "", "83.00", "-"] and len(found) == 2
    whole = dataclasses.replace(few("probe", "100 %", 10, 0.8), dataset="rsna")
    assert [row[3:] for row in rows(markdown(tables([whole], published)), "Few labels: rsna")][1:] == [["82.40"]]


def test_what_is_missing_of_the_data_is_said_below_the_table() -> None:
    gone = {"left_out": [{"image": "x.png", "reason": "image file is not there"}], "caveats": ["5 per class, but 2 of 'a'"]}
    own = [dataclasses.replace(each, details=each.details | gone) for each in FEW]
    assert "Of the data left out: 1 (image file is not there 1); 5 per class, but 2 of 'a'." in markdown(tables(own, published))
    drawn = dataclasses.replace(ZERO_SHOT, details=ZERO_SHOT.details | {"caveats": ["drawn by us"]})
    assert "Of the data: drawn by us." in markdown(tables([drawn], published))


def test_few_labels_of_other_seeds_have_a_row_of_their_own() -> None:
    again = few("probe", "5 per class", 10, 0.5, seeds=[7])
    found = merged(FEW, [again])
    body = rows(markdown(tables(found, published)), "Few labels: pcam, 32,768 images")
    assert [row[:2] + row[3:] for row in body] == [
        ["ours", "probe (seeds 0 1 2)", "60.00 ± 2.00", "90.00"],
        ["ours", "coop", "65.00 ± 2.00", "-"],
        ["ours", "probe (seeds 7)", "50.00 ± 2.00", "-"],
    ]
    other_recipe = other(FEW[2], settings={"method": "CoOp(vectors=4)"})
    assert len(merged(FEW, [other_recipe])) == 4


def test_the_best_test_epoch_is_never_silent() -> None:
    text = markdown(tables([few("probe", "100 %", 9, 0.9, selection="best_test_epoch")], published))
    assert "90.00 (best test epoch)" in text


def test_a_bar_in_a_name_does_not_break_the_table() -> None:
    odd = Result("a|b", "zero-shot", "x", 3, {"accuracy": 0.5})
    assert "| a\\|b |" in markdown(tables([odd], published))


def test_results_come_back(tmp_path: Path) -> None:
    write_results(tmp_path, ALL)
    first = json.loads((tmp_path / "results.json").read_text())[0]
    assert first["image_to_text_recall_at_10"] == pytest.approx(0.1) and first["n"] == 1_234
    assert first["id"] == RETRIEVAL.id and first["measured"]["model_fingerprint"] == "a" * 16
    back = read_results(tmp_path)
    assert back == ALL and [row.id for row in back] == [row.id for row in ALL]


OLD = {
    "model": "ours",
    "task": "zero-shot",
    "dataset": "pcam",
    "n": 32_768,
    "accuracy": 0.6,
    "intervals": {"accuracy": [0.5, 0.7]},
    "settings": {
        "prompts": [["a photo of normal"], ["a photo of tumour"]],
        "aggregate": "mean",
        "classes": ["normal", "tumour"],
    },
    "details": {"differences": {"gone": {"accuracy": [0.1, 0.0, 0.2, 0.9]}}},
}


def test_rows_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """They stand in a table of their own, for their data are not known, and without what they said of other rows."""
    (tmp_path / "results.json").write_text(json.dumps([OLD]))
    old = read_results(tmp_path)
    assert old[0].measured is None and old[0].details == {} and old[0].metrics == {"accuracy": 0.6}
    found = tables(merged(old, [ZERO_SHOT]), published)
    first, second = (table for table in found if table.title.startswith("Zero-shot"))
    assert first.title.startswith("Zero-shot classification: pcam, 32,768 images (data not recorded)")
    assert "did not record which weights and data" in first.note and "did not record" not in second.note
    assert first.rows[0][1].startswith("60.00 (50.0") and second.rows[0][1].startswith("70.00")


def test_rows_that_fit_no_table_are_kept() -> None:
    odd = [Result("ours", "probe", "x", 3, {"accuracy": 0.5}, settings={"budget": "100 %"}), Result("a", "b", "c", 1, {})]
    assert tables(odd, published) == [] and merged(odd, ALL) == [*odd, *ALL]


def test_new_rows_replace_only_their_own(tmp_path: Path) -> None:
    again = few("probe", "5 per class", 10, 0.7)
    found = merged(ALL, [again])
    assert len(found) == len(ALL) and found[3] == again and FEW[0] in found and FEW[2] in found
    assert read_results(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[1]",
        '{"a": 1}',
        '[{"model": "x"}]',
        '[{"model": "x", "task": "t", "dataset": "d", "n": null}]',
        '[{"model": "x", "task": "t", "dataset": "d", "n": 1, "settings": 1}]',
        '[{"model": "x", "task": "t", "dataset": "d", "n": 1, "measured": {"later": 1}}]',
    ],
)
def test_a_foreign_results_file_is_left_alone(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json: not a table of results"):
        read_results(tmp_path)


def test_clip_benchmark_can_build_its_table_from_ours(tmp_path: Path) -> None:
    """`clip_benchmark build`, the real one, reads the files."""
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "pairs_ours_ours_en_zeroshot_retrieval.json").write_text("{}")  # as an earlier version wrote it
    write_clip_benchmark(tmp_path / "json", ALL)
    files = sorted((tmp_path / "json").glob("*.json"))
    assert [file.name for file in files] == [
        f"pairs_ours_ours_en_zeroshot_retrieval_{RETRIEVAL.id}.json",
        f"pcam_ours_ours_en_zeroshot_classification_{ZERO_SHOT.id}.json",
    ]
    command = [sys.executable, clip_benchmark_peer.__file__, "build", *map(str, files), "--output", str(tmp_path / "all.csv")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "all.csv").open() as file:
        by_task = {row["task"]: row for row in csv.DictReader(file)}
    assert float(by_task["zeroshot_classification"]["acc1"]) == 0.7
    assert float(by_task["zeroshot_classification"]["mean_per_class_recall"]) == 0.6
    assert by_task["zeroshot_retrieval"]["model_fingerprint"] == "a" * 16
    # theirs is named by what is retrieved: text for an image is our image to text
    assert float(by_task["zeroshot_retrieval"]["text_retrieval_recall@5"]) == pytest.approx(0.05)
    assert float(by_task["zeroshot_retrieval"]["image_retrieval_recall@5"]) == pytest.approx(0.55)


def test_the_page_holds_everything(tmp_path: Path) -> None:
    picture = Result("<b>", "zero-shot", "x", 3, {"accuracy": 0.5}, pictures={"a.png": "a picture"}, settings={"seed": 0})
    (tmp_path / "a.png").write_bytes(b"png")
    results = [*ALL, picture]
    write_results_page(tmp_path, results, tables(results, published))
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,cG5n") == 1
    assert not re.search(r"(src|href)=\"(?!data:)", page), "nothing is fetched from elsewhere"
    assert "<b>" not in page and "&lt;b&gt;" in page
    assert "jax " in page and "73.41" in page
