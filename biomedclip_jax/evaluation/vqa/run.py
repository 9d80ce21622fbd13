"""What `biomedclip evaluate vqa` runs: models and blind baselines on each data set; results are written after each."""

import csv
import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.data.questions.answers import Policy, Vocabulary, normalised, vocabulary
from biomedclip_jax.data.questions.types import QuestionSet
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._results_folder import results_of_before, write_evaluation
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.report.results import Result, merged
from biomedclip_jax.evaluation.vqa._baselines import Answers, blind_answers
from biomedclip_jax.evaluation.vqa._pictures import write_answers_page
from biomedclip_jax.evaluation.vqa._task import Measurement, answered, dataset_name
from biomedclip_jax.evaluation.vqa.answering import answers_of, by_predicted_type, other_images
from biomedclip_jax.files import write_file

_SHOWN = (
    "accuracy",
    "accuracy_open",
    "accuracy_closed",
    "token_f1",
    "accuracy_other_image",
    "accuracy_leaked",
    "accuracy_not_leaked",
)


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """policy: of the vocabulary of the baselines. batch_size: questions at once. resamples, seed: see `Measurement`.
    command: the command line, which each row says.
    """

    policy: Policy = "train"
    batch_size: int = 32
    resamples: int = 1_000
    seed: int = 0
    command: str = ""


def evaluate_answers(
    candidates: Sequence[Candidate], sets: Sequence[tuple[str, QuestionSet]], options: AnswerOptions, out: Path
) -> list[Result]:
    """Measure models, and the four baselines that see no pixels, on each data set, beside which stands what the user calls
    it.

    A model is asked the test questions whose image is there, once about that image and once about another. Without
    candidates the baselines answer all test questions. Written into `out` is what every evaluation writes; in answers/
    a table with the answers to each question and, of each model, a page of right and wrong ones beside their pictures.
    """
    found, new = results_of_before(out), list[Result]()
    for where, whole in sets:
        data = with_images(whole) if candidates else whole
        words = vocabulary(data, options.policy)
        asked = Measurement(
            data=data,
            vocabulary=words,
            where=where,
            resamples=options.resamples,
            seed=options.seed,
            command=options.command,
        )
        blind = blind_answers(data)
        results = [answered(asked, each) for each in blind]
        models = [_of_model(asked, each, options) for each in candidates]
        results = [*(row for _, row in models), *results]
        found, new = merged(found, results), new + results
        write_evaluation(out, found, results, options.resamples, options.seed)
        _write_answers(out, data, [*(own for own, _ in models), *blind])
        for own, _ in models:
            write_answers_page(out / "answers", data, own)
        print("\n".join([*_about(data, results[-1]), *map(_line, results)]))
    return new


def with_images(data: QuestionSet) -> QuestionSet:
    """The data set without the test questions whose image is not there. UserError where none is."""
    kept = [each.image in data.images for each in data.test]
    if all(kept):
        return data
    missing = [each for each, is_kept in zip(data.test, kept, strict=True) if not is_kept]
    if not any(kept):
        raise UserError(f"{data.name}: no image of the {len(kept):,} test questions is there, such as {missing[0].image}")
    rejects = [Reject(each.id, each.image, "its image is not there") for each in missing]
    lost = f"{len(missing):,} of {len(kept):,} test questions are about images that are not there: not the data set's numbers"
    leaked = data.leaked and tuple(own for own, is_kept in zip(data.leaked, kept, strict=True) if is_kept)
    test = tuple(each for each, is_kept in zip(data.test, kept, strict=True) if is_kept)
    return replace(data, test=test, leaked=leaked or None, rejects=(*data.rejects, *rejects), caveats=(*data.caveats, lost))


def _of_model(asked: Measurement, candidate: Candidate, options: AnswerOptions) -> tuple[Answers, Result]:
    """A model's answers, and its row. UserError for a model that answers no questions."""
    data, answering = asked.data, candidate.clip.config.answering
    if answering is None:
        raise UserError(f"{candidate.source}: this model answers no questions; expected one that was trained to")
    given = answers_of(candidate.clip, data.test, data.images, options.batch_size)
    for error in given.errors.values():
        print(f"not answered, and counted as wrong: {error}", file=sys.stderr)
    details: dict[str, str | float] = {"not_answered": sum(each == "" for each in given.answers)} if given.errors else {}
    readable = [each for each in data.test if each.image not in given.errors]
    if (others := other_images(readable, data.images, options.seed)) is not None:
        details["accuracy_other_image"] = float(
            answers_of(candidate.clip, readable, others, options.batch_size).right(readable).mean()
        )
    taken = candidate.clip.taken_as_closed([each.question for each in data.test])
    if taken is not None:
        details |= by_predicted_type(given.right(data.test), np.array([each.closed for each in data.test], bool), taken)
    found = Answers(model=candidate.name, answers=given.answers, details=details)
    known = tuple(dict.fromkeys(answering.answers))
    own = replace(asked, vocabulary=Vocabulary(known, _policy(known, data)))
    row = answered(own, found, candidate.fingerprint)
    more = {name: float(value) for name, value in details.items() if name.startswith(("accuracy_", "type_"))}
    return found, replace(row, metrics=row.metrics | more)


def _policy(answers: Sequence[str], data: QuestionSet) -> Policy:
    """Which parts of the data a model's answers are those of; "model" where of none."""
    named: tuple[Policy, ...] = ("train", "train+test")
    for each in named:
        if set(answers) == set(vocabulary(data, each).answers):
            return each
    return "model"


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
