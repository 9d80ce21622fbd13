"""Options of `biomedclip evaluate` for methods that learn prompts, and the methods as these options have them."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.cli.arguments import count
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.evaluation.prompt_learning import BiomedCoOp, CoCoOp, CoOp, KgCoOp, ProGrad

LEARNERS = ("coop", "cocoop", "biomedcoop", "kgcoop", "prograd", "context-prompts")

# option: the one method that has it, the name of its field, help
_OF_ONE = {
    "sccm": ("biomedcoop", "sccm", "weight of the distance to the sentences"),
    "kdsp": ("biomedcoop", "kdsp", "weight of the divergence from zero-shot"),
    "threshold": ("biomedcoop", "threshold", "how far a sentence's score may be from the mean, in standard deviations"),
    "kg_weight": ("kgcoop", "weight", "weight of the distance from zero-shot (default: 8)"),
    "prograd_lambda": ("prograd", "weight", "how much of what leads away from zero-shot is taken out (default: 1)"),
    "prograd_temperature": ("prograd", "temperature", "of zero-shot and prompts, compared with each other (default: 1)"),
}


def add_learner_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of methods that learn prompts; those left out are as published for the task."""
    group = verb.add_argument_group(
        "methods that learn prompts",
        "Left out, each is as published: in probe CoOp has 16 vectors and 50, 100 or 200 epochs, by the shots; in "
        "base-to-novel CoOp and BiomedCoOp start from 4 words and have 50 epochs, CoCoOp 10; KgCoOp has 100 in both, ProGrad "
        "CoOp's epochs, and 100 in base-to-novel.",
    )
    group.add_argument("--sentences", type=Path, metavar="FILE", help="of biomedcoop: as --prompts, several for each class")
    context = "learned vectors, drawn at random, or the words that they start from: 'a photo of a'"
    group.add_argument("--context", metavar="N|WORDS", help=context)
    group.add_argument("--epochs", type=count, metavar="N", help="how often each labelled image is seen")
    group.add_argument("--learning-rate", type=_positive, metavar="X", help="of the prompts, at the start")
    group.add_argument("--images-per-update", type=count, metavar="N", help="the batch that is learned from")
    for name, (method, _, what) in _OF_ONE.items():
        group.add_argument(_spelled(name), type=_positive, metavar="X", help=f"of {method}: {what}")


def make_learner(name: str, arguments: argparse.Namespace) -> "CoOp | CoCoOp | BiomedCoOp | KgCoOp | ProGrad":
    """One of `LEARNERS`, with the options that were given. UserError for an option that it does not have."""
    from biomedclip_jax.evaluation.prompt_learning import BiomedCoOp, CoCoOp, CoOp, KgCoOp, ProGrad, Recipe
    from biomedclip_jax.evaluation.prompt_learning.coop import ContextPrompts
    from biomedclip_jax.prompts.layout import ContextConfig

    kinds = dict(zip(LEARNERS, (CoOp, CoCoOp, BiomedCoOp, KgCoOp, ProGrad, ContextPrompts), strict=True))
    own = {field: getattr(arguments, option) for option, (one, field, _) in _OF_ONE.items() if one == name}
    method: Any = kinds[name](**{field: value for field, value in own.items() if value is not None})
    if name == "biomedcoop":
        if arguments.sentences is None:
            raise UserError(
                "--methods biomedcoop: expected --sentences FILE with sentences for each class, as BiomedCoOp had GPT-4 write"
            )
        method = dataclasses.replace(method, sentences=arguments.sentences)
    if arguments.context is not None:
        text = arguments.context.strip()
        start = ContextConfig(start=int(text) if text.isdecimal() else text)
        method = dataclasses.replace(method, context=start)
    if arguments.task == "base-to-novel":
        method = method.for_base_to_novel()
    names = {"epochs": "epochs", "learning_rate": "learning_rate", "images_per_update": "batch_size"}
    changed = {field: value for option, field in names.items() if (value := getattr(arguments, option)) is not None}
    if not changed:
        return method
    if method.recipe is None and "epochs" not in changed:
        raise UserError(f"--methods {name}: its epochs depend on the number of labels; expected --epochs, too")
    return dataclasses.replace(method, recipe=dataclasses.replace(method.recipe or Recipe(), **changed))


def check_learner_options(arguments: argparse.Namespace, methods: list[str]) -> None:
    """UserError for an option that none of the methods has."""
    of_all = ("context", "epochs", "learning_rate", "images_per_update")
    given = [name for name in of_all if getattr(arguments, name) is not None]
    if given and not set(methods) & set(LEARNERS):
        raise UserError(f"{_spelled(given[0])}: of methods that learn prompts; --methods {', '.join(LEARNERS)}")
    for name, one in (("sentences", "biomedcoop"), *((option, method) for option, (method, _, _) in _OF_ONE.items())):
        if getattr(arguments, name) is not None and one not in methods:
            raise UserError(f"{_spelled(name)}: of {one} alone; expected --methods {one}")


def _spelled(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return value
