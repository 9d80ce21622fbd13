"""Results as tables to read: those of one task on the same images side by side, and nothing else with them."""

from collections.abc import Mapping, Sequence

from biomedclip_jax.evaluation._intervals import FEWEST, TOO_FEW
from biomedclip_jax.evaluation.report._groups import Group, groups, names_apart
from biomedclip_jax.evaluation.report._multi_label import MULTI_LABEL, finding_tables, findings_overview
from biomedclip_jax.evaluation.report._table import SURE, Published, Table, cell, missing, percent
from biomedclip_jax.evaluation.report._vqa import ANSWERS, answer_tables
from biomedclip_jax.evaluation.report.differences import Difference
from biomedclip_jax.evaluation.report.results import Result, digest

_RECALLS = {
    f"{way}_recall_at_{k}": f"{way.replace('_', ' ')} R@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)
}
_ZERO_SHOT = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "expected_calibration_error": "calibration error",
}


def tables(results: Sequence[Result], published: Published, differences: Sequence[Difference] = ()) -> list[Table]:
    """All tables that fit the results. published: gives the rows of papers for a task and a data set.

    Rows share a table where they are of one task, on the same images with the same labels or captions, and asked with the
    same sentences; learned prompts stand beside any sentences. differences: of these rows.
    """
    found = []
    for group in groups(results, "retrieval"):
        found += [_retrieval(group, published), *_differences(group, "retrieval", _RECALLS, differences)]
    for group in groups(results, "zero-shot"):
        found += [_zero_shot(group, published), *_differences(group, "zero-shot", _ZERO_SHOT, differences)]
    for group in groups(results, "multi-label"):
        overview = findings_overview(group, published)
        found += [overview, *_differences(group, "multi-label", MULTI_LABEL, differences), *finding_tables(group)]
    for group in groups(results, "vqa"):
        overview, *others = answer_tables(group, published)
        found += [overview, *_differences(group, "vqa", ANSWERS, differences), *others]
    found += [_few_labels(group, published) for group in groups(results, "few-labels")]
    found += [_base_to_novel(group) for group in groups(results, "base-to-novel")]
    return [*found, *_measured(results)]


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


def _note(group: Group) -> str:
    """What the numbers are, what of the data is not in them, and what is not known of them."""
    rows = group.rows
    parts = [SURE]
    rare = {
        name: each["n"]
        for row in rows
        if TOO_FEW in row.details.get("no_interval", {}).values()
        for name, each in row.details.get("per_class", {}).items()
        if 0 < each["n"] < FEWEST
    }
    if rare:
        shown = ", ".join(f"{name} {n}" for name, n in rare.items())
        parts.append(
            f"Too few to say: of less than {FEWEST} images of a class ({shown}) an interval would be too narrow, and hold "
            "the true value too rarely."
        )
    if asked := dict.fromkeys(row.asked for row in rows if row.asked):
        parts.append(f"Asked with {'; '.join(asked)}.")
    parts += missing(group)
    if any(row.measured is None for row in rows):
        parts.append("Measured by a version that did not record which weights and data these are.")
    return " ".join(parts)


def _retrieval(group: Group, published: Published) -> Table:
    head = ("model", *_RECALLS.values(), "median rank, image to text", "text to image")
    ranks = ("image_to_text_median_rank", "text_to_image_median_rank")
    body = []
    for name, row in zip(names_apart([_searched(row) for row in group.rows], group.rows), group.rows, strict=True):
        median = [f"{row.metrics[rank]:g}" if rank in row.metrics else "-" for rank in ranks]
        body.append((name, *(cell(row, metric) for metric in _RECALLS), *median))
    papers = published("retrieval", group.dataset)
    body += [(whose, *(percent(metrics.get(metric)) for metric in _RECALLS), "-", "-") for whose, metrics in papers]
    note = _note(group)
    if papers:
        note += (
            f" The papers' rows are on their own test set, 725,739 pairs; among {group.n:,} the right one is easier to find, "
            "so they cannot be compared with these."
        )
    return Table(f"Retrieval: {group.title}", head, tuple(body), note)


def _searched(result: Result) -> str:
    """The model's name, and of an approximate search its name and how many of the exact neighbours it found."""
    search = result.settings.get("search", "exact")
    measured = result.details.get("recall_against_exact")
    if measured is None:
        return result.model if search == "exact" else f"{result.model}, {search}"
    shares = [100 * measured[way]["recall_at_10"] for way in ("image_to_text", "text_to_image")]
    return f"{result.model}, {search} (finds {shares[0]:.1f} and {shares[1]:.1f} % of the nearest ten)"


def _zero_shot(group: Group, published: Published) -> Table:
    rows = group.rows
    names = names_apart([row.who for row in rows], rows)
    body = [(name, *(cell(row, metric) for metric in _ZERO_SHOT)) for name, row in zip(names, rows, strict=True)]
    majority = {name: rows[0].metrics.get(f"majority_{name}") for name in _ZERO_SHOT}
    body.append(("always the most frequent class", *(percent(value) for value in majority.values())))
    for whose, metrics in published("zero-shot", group.dataset):
        body.append((whose, *(percent(metrics.get(metric)) for metric in _ZERO_SHOT)))
    return Table(f"Zero-shot classification: {group.title}", ("model", *_ZERO_SHOT.values()), tuple(body), _note(group))


def _differences(group: Group, task: str, metrics: Mapping[str, str], differences: Sequence[Difference]) -> list[Table]:
    """Pairs of rows on the same resamples, each pair once: whether a difference is more than chance."""
    labels = [_searched(row) if task == "retrieval" else row.who for row in group.rows]
    names = dict(zip((row.id for row in group.rows), names_apart(labels, group.rows), strict=True))
    rows = {row.id: row for row in group.rows}
    body = []
    for pair in differences:
        if pair.after in names and pair.before in names:
            both = rows[pair.after], rows[pair.before]
            cells = (_difference(pair, metric, *both) for metric in metrics)
            body.append((f"{names[pair.after]} minus {names[pair.before]}", *cells))
    head = ("after minus before", *metrics.values())
    note = "Points of percent, with 95 % intervals from the same resamples of the same rows: one that holds 0 may be chance."
    return [Table(f"Differences, {task}: {group.title}", head, tuple(body), note)] if body else []


def _difference(pair: Difference, metric: str, after: Result, before: Result) -> str:
    if metric not in pair.metrics:
        return "-"
    difference, low, high, *_ = pair.metrics[metric]
    if any(row.details.get("no_interval", {}).get(metric) == TOO_FEW for row in (after, before)):
        return f"{100 * difference:+.2f} ({TOO_FEW})"
    return f"{100 * difference:+.2f} ({100 * low:+.1f}\u00a0to\u00a0{100 * high:+.1f})"


def _few_labels(group: Group, published: Published) -> Table:
    """A row for each model and method, a column for each budget of labels."""
    own = sorted(group.rows, key=lambda row: row.settings["labels"])
    budgets = list(dict.fromkeys(row.settings["budget"] for row in own))
    lines: dict[tuple[str, tuple[int, ...]], dict[str, Result]] = {}
    for row in sorted(own, key=lambda row: row.settings["budget"] == "100 %"):
        learner, seeds = _learner(row), tuple(row.settings.get("seeds", ()))
        beside = [line for (name, drawn), line in lines.items() if name == learner and drawn[:1] == seeds]
        # all labels are drawn once, with the first of the seeds
        whole = beside if row.settings["budget"] == "100 %" else []
        for line in whole or [lines.setdefault((learner, seeds), {})]:
            line[row.settings["budget"]] = row
    firsts = [next(iter(line.values())) for line in lines.values()]
    names = names_apart([f"{row.model}\0{row.task}" for row in firsts], firsts)
    body = []
    for name, line, first in zip(names, lines.values(), firsts, strict=True):
        model, method = name.split("\0")
        cells = (_reached(line[budget]) if budget in line else "-" for budget in budgets)
        body.append((model, method, percent(first.details["zero_shot"]["accuracy"]), *cells))
    for whose, metrics in published("few-labels", group.dataset):
        if metrics.keys().isdisjoint(budgets):
            continue  # of other shares of the labels
        body.append((whose, "", "", *(percent(metrics.get(budget)) for budget in budgets)))
    head = ("model", "method", "zero-shot", *budgets)
    note = "Accuracy in percent on all test images, mean ± standard deviation over the seeds; columns: labels learned from."
    note = " ".join([note, *missing(group)])
    return Table(f"Few labels: {group.title}", head, tuple(body), note)


def _learner(row: Result) -> str:
    weights = row.measured.model_fingerprint if row.measured is not None else ""
    return digest([row.model, row.task, weights, *(row.settings.get(name) for name in ("method", "selection"))])


def _reached(row: Result) -> str:
    text = percent(row.metrics["accuracy"])
    if "spread" in row.details:
        text += f" ± {100 * row.details['spread']['accuracy']:.2f}"
    return f"{text} (best test epoch)" if row.settings.get("selection") == "best_test_epoch" else text


def _base_to_novel(group: Group) -> Table:
    """Learned on half of the classes, tested on each half; beside it what the same model does without learning."""
    reached = ("base_accuracy", "novel_accuracy", "harmonic_mean")
    metrics = [f"{prefix}{name}" for prefix in ("", "zero_shot_") for name in reached]
    names = names_apart([f"{row.model}\0{row.task.split()[0]}\0{row.settings['budget']}" for row in group.rows], group.rows)
    body = [(*name.split("\0"), *(cell(row, each) for each in metrics)) for name, row in zip(names, group.rows, strict=True)]
    head = ("model", "method", "labels", "base", "novel", "harmonic mean", "zero-shot: base", "novel", "harmonic mean")
    note = "Accuracy in percent among the classes learned from (base) and among the others (novel), means over the seeds."
    note = " ".join([note, *missing(group)])
    return Table(f"Base to novel classes: {group.title}", head, tuple(body), note)


def _measured(results: Sequence[Result]) -> list[Table]:
    """Where each row is from; the budgets and seeds of one evaluation stand in one line."""
    body: dict[tuple[str, ...], None] = {}
    for row in results:
        if (known := row.measured) is not None:
            asked = row.settings.get("prompts_file") or row.asked or "-"
            model = f"{known.model}::{known.adapter}" if known.adapter else known.model
            trained = f", learned from {row.settings['train']}" if "train" in row.settings else ""
            cells = (
                f"{row.task}, {row.dataset}: {row.model}",
                f"{model} ({known.model_fingerprint[:12]})",
                f"{known.data or row.dataset} ({known.data_fingerprint[:12]}){trained}",
                f"{row.n:,} of {known.total:,}{f'; {row.left_out}' if row.left_out else ''}",
                asked,
                f"{known.date}, biomedclip_jax {known.version}",
                known.command or "-",
            )
            body[cells] = None
    head = ("row", "model (hash)", "data (hash)", "measured", "prompts", "when", "command")
    note = (
        "Hashes are of the weights and all files of a model, and of the rows that were measured; all of it is in results.json."
    )
    return [Table("What was measured", head, tuple(body), note)] if body else []
