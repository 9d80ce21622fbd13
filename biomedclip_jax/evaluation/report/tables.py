"""Results as tables to read, in a Markdown file and in one HTML page that holds every table and picture."""

import importlib.metadata
import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.evaluation.report.results import Result
from biomedclip_jax.files import write_file
from biomedclip_jax.support import html as html_page

# (task, data set) -> rows of papers: whose, and metrics as fractions
Published = Callable[[str, str], Sequence[tuple[str, Mapping[str, float]]]]

_RECALLS = [f"{way}_recall_at_{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
_ZERO_SHOT = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "expected_calibration_error": "calibration error",
}


@dataclass(frozen=True)
class Table:
    """A table of text: head and rows have the same number of cells, and the first of each row names it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables(results: Sequence[Result], published: Published) -> list[Table]:
    """All tables that fit the results. published: gives the rows of papers for a task and a data set."""
    found = [*_retrieval(results, published), *_zero_shot(results, published), *_differences(results)]
    return [*found, *_few_labels(results, published), *_base_to_novel(results)]


def markdown(tables: Sequence[Table]) -> str:
    """The tables as one text in GitHub's Markdown, each with its title and note."""
    lines: list[str] = []
    for table in tables:
        lines += [f"## {table.title}", "", _line(table.head), _line(["---"] + ["---:"] * (len(table.head) - 1))]
        lines += [*map(_line, table.rows), ""]
        if table.note:
            lines += [table.note, ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f}"


def _cell(result: Result, metric: str) -> str:
    """A metric in percent, with the 95 % interval where there is one."""
    text = _percent(result.metrics.get(metric))
    if metric in result.intervals and text != "-":
        low, high = result.intervals[metric]
        text += f" ({100 * low:.1f}\u00a0to\u00a0{100 * high:.1f})"  # no line break inside
    return text


def _by_dataset(results: Sequence[Result], task: str) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in results:
        if result.task == task:
            found.setdefault(result.dataset, []).append(result)
    return found


def _retrieval(results: Sequence[Result], published: Published) -> list[Table]:
    made = []
    for dataset, rows in _by_dataset(results, "retrieval").items():
        head = ("model", *(f"{way} R@{k}" for way in ("image to text", "text to image") for k in (1, 5, 10)))
        head += ("median rank, image to text", "text to image")
        ranks = ("image_to_text_median_rank", "text_to_image_median_rank")
        body = []
        for row in rows:
            median = [f"{row.metrics[rank]:g}" if rank in row.metrics else "-" for rank in ranks]
            body.append((_searched(row), *(_cell(row, metric) for metric in _RECALLS), *median))
        for whose, metrics in published("retrieval", dataset):
            body.append((whose, *(_percent(metrics.get(metric)) for metric in _RECALLS), "-", "-"))
        note = _note(rows)
        if len(body) > len(rows):
            note += (
                f" The papers' rows are on their own test set, 725,739 pairs; among {rows[0].n:,} the right one is easier to "
                "find, so they cannot be compared with these."
            )
        made.append(Table(f"Retrieval: {dataset}, {rows[0].n:,} images", head, tuple(body), note))
    return made


def _note(rows: Sequence[Result]) -> str:
    """What the numbers are, and what of the data is not in them."""
    missing = "; ".join(dict.fromkeys(row.left_out for row in rows if row.left_out))
    return "Percent, with 95 % bootstrap intervals." + (f" Of the data {missing}." if missing else "")


def _searched(result: Result) -> str:
    """The model's name, and of an approximate search how many of the exact neighbours it found."""
    measured = result.details.get("recall_against_exact")
    if measured is None:
        return result.model
    shares = [100 * measured[way]["recall_at_10"] for way in ("image_to_text", "text_to_image")]
    return f"{result.model}, {result.settings['search']} (finds {shares[0]:.1f} and {shares[1]:.1f} % of the nearest ten)"


def _zero_shot(results: Sequence[Result], published: Published) -> list[Table]:
    made = []
    for dataset, rows in _by_dataset(results, "zero-shot").items():
        body = [(row.who, *(_cell(row, metric) for metric in _ZERO_SHOT)) for row in rows]
        majority = {name: rows[0].metrics.get(f"majority_{name}") for name in _ZERO_SHOT}
        body.append(("always the most frequent class", *(_percent(value) for value in majority.values())))
        for whose, metrics in published("zero-shot", dataset):
            body.append((whose, *(_percent(metrics.get(metric)) for metric in _ZERO_SHOT)))
        title = f"Zero-shot classification: {dataset}, {rows[0].n:,} images"
        made.append(Table(title, ("model", *_ZERO_SHOT.values()), tuple(body), _note(rows)))
    return made


def _differences(results: Sequence[Result]) -> list[Table]:
    """Pairs of models on the same resamples, each pair once: whether a difference is more than chance."""
    body = []
    seen: set[tuple[str, str, str]] = set()
    for result in results:
        for other, metrics in result.details.get("differences", {}).items():
            seen.add((result.dataset, result.model, other))
            if (result.dataset, other, result.model) in seen:
                continue
            for metric, (difference, low, high, *_) in metrics.items():
                if metric == "accuracy":
                    cell = f"{100 * difference:+.2f} ({100 * low:+.1f} to {100 * high:+.1f})"
                    body.append((f"{result.dataset}: {result.model} less {other}", cell))
    head = ("zero-shot accuracy", "difference in points (95 % interval, paired)")
    return [Table("Differences between models", head, tuple(body))] if body else []


def _few_labels(results: Sequence[Result], published: Published) -> list[Table]:
    """A row for each model and method, a column for each budget of labels."""
    made = []
    learned = [result for result in results if "budget" in result.settings and "accuracy" in result.metrics]
    for dataset in dict.fromkeys(result.dataset for result in learned):
        own = sorted((row for row in learned if row.dataset == dataset), key=lambda row: row.settings["labels"])
        budgets = list(dict.fromkeys(row.settings["budget"] for row in own))
        cells: dict[tuple[str, str], dict[str, str]] = {}
        zero_shot: dict[str, float] = {}
        for row in own:
            text = _percent(row.metrics["accuracy"])
            if "spread" in row.details:
                text += f" ± {100 * row.details['spread']['accuracy']:.2f}"
            if row.settings.get("selection") == "best_test_epoch":
                text += " (best test epoch)"
            cells.setdefault((row.model, row.task), {})[row.settings["budget"]] = text
            zero_shot[row.model] = row.details["zero_shot"]["accuracy"]
        body = [
            (model, method, _percent(zero_shot[model]), *(found.get(budget, "-") for budget in budgets))
            for (model, method), found in cells.items()
        ]
        for whose, metrics in published("few-labels", dataset):
            body.append((whose, "", "", *(_percent(metrics.get(budget)) for budget in budgets)))
        head = ("model", "method", "zero-shot", *budgets)
        note = "Accuracy in percent on all test images, mean ± standard deviation over the seeds; columns: labels learned from."
        made.append(Table(f"Few labels: {dataset}, {own[0].n:,} images", head, tuple(body), note))
    return made


def _base_to_novel(results: Sequence[Result]) -> list[Table]:
    """Learned on half of the classes, tested on each half; beside it what the same model does without learning."""
    made = []
    metrics = [
        f"{prefix}{name}" for prefix in ("", "zero_shot_") for name in ("base_accuracy", "novel_accuracy", "harmonic_mean")
    ]
    rows = [result for result in results if "novel_accuracy" in result.metrics]
    for dataset in dict.fromkeys(row.dataset for row in rows):
        own = [row for row in rows if row.dataset == dataset]
        body = [
            (row.model, row.task.split()[0], row.settings["budget"], *(_cell(row, each) for each in metrics)) for row in own
        ]
        head = ("model", "method", "labels", "base", "novel", "harmonic mean", "zero-shot: base", "novel", "harmonic mean")
        note = "Accuracy in percent among the classes learned from (base) and among the others (novel), means over the seeds."
        made.append(Table(f"Base to novel classes: {dataset}, {own[0].n:,} images", head, tuple(body), note))
    return made


_LIBRARIES = ("biomedclip_jax", "jax", "flax", "numpy", "scikit-learn", "pillow")
# the details that a reader wants to see beside the tables
_SHOWN = ("left_out", "differences", "per_class", "approximate")


def write_results_page(folder: Path, results: Sequence[Result], tables: Sequence[Table]) -> None:
    """Write `report.html` into `folder`, with the pictures that the results name, which are files in this folder."""
    parts = [html_page.paragraph(f"Made with {_versions()}.")]
    for table in tables:
        parts += [html_page.heading(table.title), html_page.table(table.head, table.rows)]
        if table.note:
            parts.append(html_page.paragraph(table.note))
    pictures = {file: title for result in results for file, title in result.pictures.items()}
    parts += [html_page.picture(title, folder / file) for file, title in pictures.items() if (folder / file).is_file()]
    parts.append(html_page.heading("Settings and details"))
    for result in results:
        known = {"settings": result.settings} | {name: result.details[name] for name in _SHOWN if name in result.details}
        parts.append(html_page.folded(f"{result.task}, {result.dataset}, {result.who}", json.dumps(known, indent=1)))
    write_file(folder / "report.html", lambda partial: html_page.write_page(partial, "Evaluation", parts))


def _versions() -> str:
    found = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([*found, f"Python {platform.python_version()}"])
