"""What `biomedclip evaluate vqa` runs: the blind baselines on each data set, with all results written after each."""

import csv
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.data.questions.answers import Policy, normalised, vocabulary
from biomedclip_jax.data.questions.types import QuestionSet
from biomedclip_jax.evaluation._results_folder import results_of_before, write_evaluation
from biomedclip_jax.evaluation.report.results import Result, merged
from biomedclip_jax.evaluation.vqa._baselines import Answers, blind_answers
from biomedclip_jax.evaluation.vqa._task import Measurement, answered, dataset_name
from biomedclip_jax.files import write_file

_SHOWN = ("accuracy", "accuracy_open", "accuracy_closed", "token_f1", "accuracy_leaked", "accuracy_not_leaked")


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """policy: of the vocabulary. resamples, seed: see `Measurement`. command: the command line, which each row says."""

    policy: Policy = "train"
    resamples: int = 1_000
    seed: int = 0
    command: str = ""


def evaluate_blind(sets: Sequence[tuple[str, QuestionSet]], options: AnswerOptions, out: Path) -> list[Result]:
    """Measure the four baselines that see no pixels on each data set, which stands beside what the user calls it.

    Written into `out` is what every evaluation writes, and answers/DATASET_SPLIT.csv with the answers to each question.
    """
    found, new = results_of_before(out), list[Result]()
    for where, data in sets:
        words = vocabulary(data, options.policy)
        asked = Measurement(
            data=data,
            vocabulary=words,
            where=where,
            resamples=options.resamples,
            seed=options.seed,
            command=options.command,
        )
        every = blind_answers(data)
        results = [answered(asked, each) for each in every]
        found, new = merged(found, results), new + results
        write_evaluation(out, found, results, options.resamples, options.seed)
        _write_answers(out, data, every)
        print("\n".join([*_about(data, results[0]), *map(_line, results)]))
    return new


def _about(data: QuestionSet, row: Result) -> list[str]:
    """What was read, in lines: parts, notes, and how far the vocabulary reaches."""
    images = len({each.image for each in data.test})
    closed = sum(each.closed for each in data.test)
    lines = [
        f"{dataset_name(data)}, split {data.split}: {len(data.train):,} training, {len(data.validation):,} validation and "
        f"{len(data.test):,} test questions ({closed:,} closed, {len(data.test) - closed:,} open) about {images:,} images"
    ]
    lines += [f"  {text}" for text in (*data.caveats, *data.notes)]
    reach = ", ".join(
        f"{name or 'all'} {100 * row.metrics[key]:.1f} %"
        for name in ("", "open", "closed")
        if (key := f"vocabulary_reach{'_' * bool(name)}{name}") in row.metrics
    )
    lines.append(
        f"  {row.details['answers_in_vocabulary']:,} different answers ({row.settings['vocabulary']}) reach of the test "
        f"questions: {reach}; token F1 counts {row.settings['token_f1_of']}"
    )
    return lines


def _line(result: Result) -> str:
    shown = "  ".join(f"{name} {result.metrics[name]:.4f}" for name in _SHOWN if name in result.metrics)
    return f"{result.task} {result.dataset}, {result.split} ({result.n:,}): {result.model}: {shown}"


def _write_answers(out: Path, data: QuestionSet, every: Sequence[Answers]) -> None:
    """A table of the test questions with every baseline's answer, right or wrong."""
    head = ["id", "image", "question", "answer", "closed", *(each.model for each in every)]

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(head)
            for question, *own in zip(data.test, *(each.answers for each in every), strict=True):
                gold = normalised(question.answer)
                writer.writerow([question.id, question.image, question.question, gold, question.closed, *own])

    called = f"{dataset_name(data)}_{data.split}"
    name = re.sub(r"[^\w.-]+", "-", called)
    if name != called:  # "a b" and "a-b" are two data sets
        name += f"-{hashlib.sha256(called.encode()).hexdigest()[:6]}"
    write_file(out / "answers" / f"{name}.csv", write)
