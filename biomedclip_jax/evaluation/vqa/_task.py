"""The task "vqa": answers of any model to the test questions, as rows of the results."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from biomedclip_jax.data.questions.answers import Vocabulary, normalised
from biomedclip_jax.data.questions.types import Question, QuestionSet
from biomedclip_jax.evaluation._bootstrap import bootstrap_means
from biomedclip_jax.evaluation.report.results import Measured, Result
from biomedclip_jax.evaluation.vqa._baselines import BLIND, Answers
from biomedclip_jax.evaluation.vqa._tokens import answer_tokens, token_f1
from biomedclip_jax.evaluation.vqa.scores import Outcome, intervals, metrics, samples

VQA = "vqa"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What the rows of one data set have in common.

    where: the data as the user named them. command: the command line. Both are only written down.
    resamples, seed: of the bootstrap behind each interval.
    """

    data: QuestionSet
    vocabulary: Vocabulary
    where: str
    resamples: int = 1_000
    seed: int = 0
    command: str = ""


def answered(asked: Measurement, found: Answers, fingerprint: str = "") -> Result:
    """The row of one model. fingerprint: of its weights; of a blind baseline, which has none, of what it learned from."""
    data = asked.data
    outcome, tokens = _outcome(asked, found)
    columns, drawn = outcome.columns(), samples(outcome, asked.resamples, asked.seed)
    known, reasons = intervals(columns, outcome.images, drawn)
    learned = questions_fingerprint(data.train)
    settings = {
        "split": data.split,
        "language": data.language,
        "vocabulary": asked.vocabulary.policy,
        "train_fingerprint": learned,
        "resamples": asked.resamples,
        "seed": asked.seed,
        "token_f1_of": tokens,
    }
    details: dict[str, Any] = {
        "parts": {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)},
        "answers_in_vocabulary": len(asked.vocabulary.answers),
        "per_question_type": _per_type(asked, outcome),
        "notes": list(data.notes),
        "caveats": list(data.caveats),
        "left_out": [{"image": f"question {each.row}", "reason": each.reason} for each in data.rejects],
        "no_interval": reasons,
        "answered": found.details,
    }
    if outcome.leaked is not None:
        details["leaked_questions"] = int(outcome.leaked.sum())
    is_blind = found.model.startswith(BLIND)
    return Result(
        model=found.model,
        task=VQA,
        dataset=dataset_name(data),
        n=len(data.test),
        split=data.split,
        metrics=metrics(outcome),
        intervals=known,
        settings=settings,
        details={name: value for name, value in details.items() if value or name == "answers_in_vocabulary"},
        measured=Measured(
            model="no model" if is_blind else found.model,
            adapter="",
            model_fingerprint=learned if is_blind else fingerprint,
            data=asked.where,
            data_fingerprint=questions_fingerprint(data.test),
            total=len(data.test) + len(data.rejects),
            command=asked.command,
        ).now(),
        outcomes=outcome.arrays(),
    )


def dataset_name(data: QuestionSet) -> str:
    """What tables call the data: "slake", "slake-zh"."""
    return data.name if data.language == "en" else f"{data.name}-{data.language}"


def questions_fingerprint(questions: Sequence[Question]) -> str:
    """The same for the same questions with the same answers, types and images, in the same order."""
    rows = [[each.image, each.question, each.answer, each.closed] for each in questions]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _outcome(asked: Measurement, found: Answers) -> tuple[Outcome, str]:
    """What happened to each question, and what token F1 counts."""
    data = asked.data
    tokens, tokenise = answer_tokens()
    gold, own = ([normalised(text) for text in texts] for texts in ([each.answer for each in data.test], found.answers))
    numbers = {image: number for number, image in enumerate(dict.fromkeys(each.image for each in data.test))}
    pairs = list(zip(own, gold, strict=True))
    return Outcome(
        right=np.array([answer == true for answer, true in pairs], bool),
        f1=np.array([token_f1(answer, true, tokenise) for answer, true in pairs]),
        closed=np.array([each.closed for each in data.test], bool),
        images=np.array([numbers[each.image] for each in data.test], np.int64),
        reachable=np.array(asked.vocabulary.holds(data.test), bool),
        leaked=None if data.leaked is None else np.array(data.leaked, bool),
    ), tokens


def _per_type(asked: Measurement, outcome: Outcome) -> dict[str, dict[str, Any]]:
    """Accuracy for each type of question, the most frequent first; a question of several types counts in each."""
    types = dict.fromkeys(each for question in asked.data.test for each in question.types)
    masks = {each: np.array([each in question.types for question in asked.data.test]) for each in types}
    columns = {each: (outcome.right, own) for each, own in masks.items()}
    if not columns:
        return {}
    known, reasons = intervals(columns, outcome.images, bootstrap_means(columns, outcome.images, asked.resamples, asked.seed))
    found = {}
    for each in sorted(types, key=lambda name: -int(masks[name].sum())):
        about: dict[str, Any] = {"n": int(masks[each].sum()), "accuracy": float(outcome.right[masks[each]].mean())}
        found[each] = about | ({"interval": list(known[each])} if each in known else {"no_interval": reasons[each]})
    return found
