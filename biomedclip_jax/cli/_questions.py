"""`biomedclip evaluate vqa`: its options, and what they ask for."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.evaluation.candidates import Candidate

VQA = "vqa"
_OPTIONS = ("blind", "split", "language", "vocabulary", "question_column", "answer_column")
_OTHERS = ("group", "prompts", "write_prompts", "approximate", "without", "methods", "labels")


def add_question_options(verb: Any) -> None:
    """Add the options that are of questions alone."""
    group = verb.add_argument_group(
        "vqa",
        "--data vqa-rad=DIR (trainset.json and testset.json, the official json, or Parquet), slake=DIR, pathvqa=DIR, or a "
        "table with image, question and answer columns, and split (train, test) or --train TABLE; answer_type (OPEN, "
        "CLOSED) and question_type are read where they are there",
    )
    group.add_argument(
        "--blind",
        action="store_true",
        help="no MODEL: only the four baselines that see no image, which stand beside every model",
    )
    group.add_argument(
        "--split",
        choices=["official", "clean", "mevf", "ours", "own"],
        help="vqa-rad: official (default), clean (more rewordings, none of a test question) or mevf (as most papers, with "
        "paraphrases of most test questions in training); any data: ours, divided by image; a table: own (default), its "
        "column split",
    )
    group.add_argument("--language", choices=["en", "zh", "both"], help="of slake (default: en); both only with --split ours")
    group.add_argument(
        "--vocabulary",
        choices=["train", "train+test"],
        help="whose answers count as reached by the baselines (default: train); a model knows those that it was trained with",
    )
    group.add_argument("--question-column", metavar="NAME", help="of a table (default: question)")
    group.add_argument("--answer-column", metavar="NAME", help="of a table (default: answer)")


def check_no_question_options(arguments: argparse.Namespace) -> None:
    """UserError for an option of questions where the task is another one."""
    for name in _OPTIONS:
        if getattr(arguments, name):
            raise UserError(f"--{name.replace('_', '-')}: is of the task vqa; {arguments.task} does not know it")


def evaluate_questions(arguments: argparse.Namespace, candidates: "Callable[[Sequence[str]], list[Candidate]]") -> None:
    """Measure answers to questions, as the task vqa asks. UserError for options that are of other tasks.

    candidates: what makes models of their names.
    """
    for name in _OTHERS:
        if getattr(arguments, name):
            raise UserError(f"--{name.replace('_', '-')}: is of other tasks; leave it out with vqa")
    if not arguments.blind and not arguments.models:
        raise UserError("MODEL: expected a model that answers questions, or --blind for the baselines that see no image alone")
    if arguments.blind and arguments.models:
        raise UserError(f"MODEL {arguments.models[0]}: --blind measures no model; leave it out")
    if not arguments.data:
        raise UserError("--data: expected vqa-rad=DIR, slake=DIR, pathvqa=DIR or a table (biomedclip evaluate --help)")
    if arguments.out is None:
        raise UserError("--out DIR: expected a folder for the results")
    from biomedclip_jax.data.questions.open import KNOWN, open_questions
    from biomedclip_jax.data.questions.table import QuestionColumns
    from biomedclip_jax.evaluation.vqa.run import AnswerOptions, evaluate_answers

    named = [text.partition("=")[0] for text in arguments.data]
    if arguments.language and "slake" not in named:
        raise UserError(f"--language {arguments.language}: is of slake, which is not among --data")
    if arguments.train and set(named) <= set(KNOWN):
        raise UserError(f"--train {arguments.train}: is of a table of your own; {named[0]} has its own training part")
    columns = QuestionColumns(
        arguments.image_column, arguments.question_column or "question", arguments.answer_column or "answer"
    )
    sets = [
        (
            text,
            open_questions(
                text,
                split=arguments.split,
                language=arguments.language or "en",
                train=Path(arguments.train) if arguments.train else None,
                columns=columns,
            ),
        )
        for text in arguments.data
    ]
    names = [data.name for _, data in sets]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--data: two sources are called {name!r}; name one otherwise, as in other=TABLE")
    options = AnswerOptions(
        policy=arguments.vocabulary or "train",
        batch_size=arguments.batch_size,
        resamples=arguments.resamples,
        seed=arguments.seed,
        command=arguments.command_line,
    )
    evaluate_answers(candidates(arguments.models), sets, options, arguments.out)
    print(f"{arguments.out}: results.json, results.md, report.html, answers/")
