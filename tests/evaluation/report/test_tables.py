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
from biomedclip_jax.evaluation.report.results import Result, merged, read_results, write_clip_benchmark, write_results
from biomedclip_jax.evaluation.report.tables import markdown, tables, write_results_page

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
)
ZERO_SHOT = Result(
    model="ours",
    task="zero-shot",
    dataset="pcam",
    n=32_768,
    metrics={"accuracy": 0.7, "balanced_accuracy": 0.6, "macro_f1": 0.5, "auroc": 0.8, "majority_accuracy": 0.55},
    intervals={"accuracy": (0.69, 0.71)},
    details={"differences": {"other": {"accuracy": [0.05, 0.01, 0.09, 0.98]}}},
)


def few(method: str, budget: str, labels: int, accuracy: float, **more: str) -> Result:
    details = {"zero_shot": {"accuracy": 0.4}} | ({"spread": {"accuracy": 0.02}} if budget != "100 %" else {})
    return Result(
        "ours",
        method,
        "pcam",
        32_768,
        {"accuracy": accuracy},
        settings={"budget": budget, "labels": labels} | more,
        details=details,
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


def test_paired_differences() -> None:
    details = {"differences": {"ours": {"accuracy": [-0.05, -0.09, -0.01, 0.02]}}}
    other = dataclasses.replace(ZERO_SHOT, model="other", details=details)
    found = rows(markdown(tables([*ALL, other], published)), "Differences between models")
    assert found == [["pcam: ours less other", "+5.00 (+1.0 to +9.0)"]]


def test_few_labels_have_a_column_for_each_budget() -> None:
    text = markdown(tables(ALL, published))
    assert "| model | method | zero-shot | 5 per class | 100 % |" in text
    found = rows(text, "Few labels: pcam, 32,768 images")
    assert found == [["ours", "probe", "40.00", "60.00 ± 2.00", "90.00"], ["ours", "coop", "40.00", "65.00 ± 2.00", "-"]]


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
    back = read_results(tmp_path)
    assert [result.metrics for result in back] == [result.metrics for result in ALL]
    assert back[0] == RETRIEVAL


def test_new_rows_replace_only_their_own(tmp_path: Path) -> None:
    again = few("probe", "5 per class", 10, 0.7)
    found = merged(ALL, [again])
    assert len(found) == len(ALL) and found[-1] == again and FEW[0] in found and FEW[2] in found
    assert read_results(tmp_path) == []


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}', '[{"model": "x"}]'])
def test_a_foreign_results_file_is_left_alone(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json: not a table of results"):
        read_results(tmp_path)


def test_clip_benchmark_can_build_its_table_from_ours(tmp_path: Path) -> None:
    """`clip_benchmark build`, the real one, reads the files."""
    write_clip_benchmark(tmp_path / "json", ALL)
    files = sorted((tmp_path / "json").glob("*.json"))
    assert [file.name for file in files] == [
        "pairs_ours_ours_en_zeroshot_retrieval.json",
        "pcam_ours_ours_en_zeroshot_classification.json",
    ]
    command = [sys.executable, clip_benchmark_peer.__file__, "build", *map(str, files), "--output", str(tmp_path / "all.csv")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "all.csv").open() as file:
        by_task = {row["task"]: row for row in csv.DictReader(file)}
    assert float(by_task["zeroshot_classification"]["acc1"]) == 0.7
    assert float(by_task["zeroshot_classification"]["mean_per_class_recall"]) == 0.6
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
