"""Tables of answers to questions: all, open and closed; of a split that leaks, the leaked questions apart; and by type."""

from biomedclip_jax.evaluation.report._groups import Group, names_apart
from biomedclip_jax.evaluation.report._table import SURE, Published, Table, cell, ends, missing, percent
from biomedclip_jax.evaluation.report.results import Result

ANSWERS = {"accuracy": "all", "accuracy_closed": "closed", "accuracy_open": "open", "token_f1": "token F1"}
_REACH = ("vocabulary_reach", "vocabulary_reach_closed", "vocabulary_reach_open")
_MEVF = (
    "The papers' rows were learned from VQA-RAD's split mevf, with paraphrases of 284 of the 451 test questions in it: no "
    "other split can be compared with them."
)

_ANSWERED = {  # of the baselines, what they do where they have nothing to go by
    "answered_by_type": "are asked in no training question, and get the most frequent answer of the type",
    "answered_from_other_images": "are about images without a training question, and get the answer to the nearest of all",
}


def _share(row: Result, name: str, text: str) -> str:
    share = row.details.get("answered", {}).get(name)
    return f"{percent(share)} % of the questions {text}." if share else ""


def answer_tables(group: Group, published: Published) -> list[Table]:
    """The tables of models on the same questions, the overview first."""
    names = names_apart([row.who for row in group.rows], group.rows)
    found = [_overview(group, names, published)]
    if any("accuracy_leaked" in row.metrics for row in group.rows):
        found.append(_leaked(group, names))
    if any(row.details.get("per_question_type") for row in group.rows):
        found.append(_by_type(group, names))
    return found


def _overview(group: Group, names: list[str], published: Published) -> Table:
    first = group.rows[0]
    body = [(name, *(cell(row, metric) for metric in ANSWERS)) for name, row in zip(names, group.rows, strict=True)]
    reached: dict[tuple[str, ...], list[str]] = {}
    for name, row in zip(names, group.rows, strict=True):
        if any(metric in row.metrics for metric in _REACH):
            whose = "the vocabulary" if name.startswith("blind: ") else f"the answers of {name}"
            reached.setdefault(tuple(percent(row.metrics.get(metric)) for metric in _REACH), []).append(whose)
    for shares, owners in reached.items():
        whose = "the vocabulary" if len(reached) == 1 else " and ".join(dict.fromkeys(owners))
        body.append((f"reached by {whose}, at most", *shares, "-"))
    papers = published("vqa", group.dataset) if first.split != "ours" else []
    body += [(whose, *(percent(metrics.get(metric)) for metric in ANSWERS)) for whose, metrics in papers]
    counted = ", ".join(dict.fromkeys(str(row.settings.get("token_f1_of", "not recorded")) for row in group.rows))
    parts = [SURE, "Intervals are of resampled images.", f"Token F1 counts {counted}."]
    known = first.details.get("answers_in_vocabulary", 0)
    parts.append(f"The vocabulary has {known:,} answers ({first.settings.get('vocabulary', 'not recorded')}).")
    parts += filter(None, dict.fromkeys(_share(row, *each) for row in group.rows for each in _ANSWERED.items()))
    swapped = [
        f"{name} {percent(row.metrics['accuracy_other_image'])} %"
        for name, row in zip(names, group.rows, strict=True)
        if "accuracy_other_image" in row.metrics
    ]
    parts += [f"Asked about another image in place of the right one: {', '.join(swapped)}."] if swapped else []
    as_taken = ("accuracy_closed_as_taken", "accuracy_open_as_taken")
    taken = [
        f"{name} {' and '.join(percent(row.metrics.get(each)) for each in as_taken)} %"
        for name, row in zip(names, group.rows, strict=True)
        if "type_accuracy" in row.metrics
    ]
    parts += [f"Of questions that are taken to be closed, and open (QCR's own metric): {', '.join(taken)}."] if taken else []
    lost = [
        (name, int(row.details.get("answered", {}).get("not_answered", 0))) for name, row in zip(names, group.rows, strict=True)
    ]
    parts += [f"{name} could not read the image of {count:,} questions, which count as wrong." for name, count in lost if count]
    parts += [_MEVF] if papers and group.dataset == "vqa-rad" else []
    note = " ".join([*parts, *missing(group)])
    return Table(f"Question answering: {group.title}", ("model", *ANSWERS.values()), tuple(body), note)


def _leaked(group: Group, names: list[str]) -> Table:
    columns = [f"accuracy{kind}_{part}" for part in ("leaked", "not_leaked") for kind in ("", "_closed", "_open")]
    body = [(name, *(cell(row, metric) for metric in columns)) for name, row in zip(names, group.rows, strict=True)]
    head = ("model", "leaked: all", "closed", "open", "others: all", "closed", "open")
    counts = ", ".join(dict.fromkeys(f"{row.details.get('leaked_questions', 0):,} of {row.n:,}" for row in group.rows))
    note = f"Leaked: {counts} test questions have a paraphrase of their own, about the same image, in the training part."
    return Table(f"Leaked questions: {group.title}", head, tuple(body), f"{SURE} {note}")


def _by_type(group: Group, names: list[str]) -> Table:
    """A row for each type of question, a column for each model."""
    per_type = [row.details.get("per_question_type", {}) for row in group.rows]
    types = {each: about["n"] for own in per_type for each, about in own.items()}
    body = [(f"{each} ({n:,})", *(_of_type(own.get(each)) for own in per_type)) for each, n in types.items()]
    note = "Accuracy by type of question, in percent with 95 % intervals; a question of several types counts in each."
    return Table(f"By type of question: {group.title}", ("type", *names), tuple(body), note)


def _of_type(about: dict[str, object] | None) -> str:
    if about is None:
        return "-"
    text = percent(about["accuracy"])  # type: ignore[arg-type]
    return text + (ends(about["interval"]) if "interval" in about else f" ({about['no_interval']})")  # type: ignore[arg-type]
