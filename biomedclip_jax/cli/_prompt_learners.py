"""Options of `biomedclip evaluate` for methods that learn prompts or an adapter, and the methods as these have them."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.cli.arguments import count
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.evaluation.prompt_learning import BiomedCoOp, ClipAdapter, CoCoOp, CoOp, KgCoOp, ProGrad

LEARNERS = ("coop", "cocoop", "biomedcoop", "kgcoop", "prograd", "context-prompts")
_ADAPTER = "clip-adapter"  # has the options of a recipe, too
_RECIPE = {"epochs": "epochs", "learning_rate": "learning_rate", "images_per_update": "batch_size"}

# option: the one method that has it, the name of its field, help
_OF_ONE = {
    "sccm": ("biomedcoop", "sccm", "weight of the distance to the sentences"),
    "kdsp": ("biomedcoop", "kdsp", "weight of the divergence from zero-shot"),
    "threshold": ("biomedcoop", "threshold", "how far a sentence's score may be from the mean, in standard deviations"),
    "kg_weight": ("kgcoop", "weight", "weight of the distance from zero-shot (default: 8)"),
    "prograd_lambda": ("prograd", "weight", "how much of what leads away from zero-shot is taken out (default: 1)"),
    "prograd_temperature": ("prograd", "temperature", "of zero-shot and prompts, compared with each other (default: 1)"),
    "adapter_ratio": (_ADAPTER, "ratio", "how much of what it learns there is in an image's embedding, up to 1 (default: 0.2)"),
}


def add_learner_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of methods that learn prompts; those left out are as published for the task."""
    group = verb.add_argument_group(
        "methods that learn prompts, and clip-adapter",
        "Left out, each is as published: in probe CoOp has 16 vectors and 50, 100 or 200 epochs, by the shots; in "
        "base-to-novel CoOp and BiomedCoOp start from 4 words and have 50 epochs, CoCoOp 10; KgCoOp has 100 in both, ProGrad "
        "and CLIP-Adapter CoOp's epochs, ProGrad 100 in base-to-novel.",
    )
    group.add_argument("--sentences", type=Path, metavar="FILE", help="of biomedcoop: as --prompts, several for each class")
    context = "learned vectors, drawn at random, or the words that they start from: 'a photo of a'"
    group.add_argument("--context", metavar="N|WORDS", help=context)
    group.add_argument("--epochs", type=count, metavar="N", help="how often each labelled image is seen")
    group.add_argument("--learning-rate", type=_positive, metavar="X", help="at the start")
    group.add_argument("--images-per-update", type=count, metavar="N", help="the batch that is learned from")
    for name, (method, _, what) in _OF_ONE.items():
        group.add_argument(_spelled(name), type=_positive, metavar="X", help=f"of {method}: {what}")


def make_learner(name: str, arguments: argparse.Namespace) -> "CoOp | CoCoOp | BiomedCoOp | KgCoOp | ProGrad":
    """One of `LEARNERS`, with the options that were given. UserError for an option that it does not have."""
    from biomedclip_jax.evaluation.prompt_learning import BiomedCoOp, CoCoOp, CoOp, KgCoOp, ProGrad
    from biomedclip_jax.evaluation.prompt_learning.coop import ContextPrompts
    from biomedclip_jax.prompts.layout import ContextConfig

    kinds: dict[str, Any] = dict(zip(LEARNERS, (CoOp, CoCoOp, BiomedCoOp, KgCoOp, ProGrad, ContextPrompts), strict=True))
    method: Any = kinds[name](**_own(name, arguments))
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
    return _with_recipe(name, method, arguments)


def make_clip_adapter(arguments: argparse.Namespace) -> "ClipAdapter":
    """CLIP-Adapter, with the options that were given."""
    from biomedclip_jax.evaluation.prompt_learning import ClipAdapter

    return _with_recipe(_ADAPTER, ClipAdapter(**_own(_ADAPTER, arguments)), arguments)


def _own(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fields of a method by the options that it alone has, where given."""
    found = {field: getattr(arguments, option) for option, (one, field, _) in _OF_ONE.items() if one == name}
    return {field: value for field, value in found.items() if value is not None}


def _with_recipe(name: str, method: Any, arguments: argparse.Namespace) -> Any:
    from biomedclip_jax.evaluation.prompt_learning import Recipe

    changed = {field: value for option, field in _RECIPE.items() if (value := getattr(arguments, option)) is not None}
    if not changed:
        return method
    if method.recipe is None and "epochs" not in changed:
        raise UserError(f"--methods {name}: its epochs depend on the number of labels; expected --epochs, too")
    return dataclasses.replace(method, recipe=dataclasses.replace(method.recipe or Recipe(), **changed))


def check_learner_options(arguments: argparse.Namespace, methods: list[str]) -> None:
    """UserError for an option that none of the methods has."""
    for name in ("context", *_RECIPE):
        having = LEARNERS if name == "context" else (*LEARNERS, _ADAPTER)
        if getattr(arguments, name) is not None and not set(methods) & set(having):
            also = "" if name == "context" else f" and of {_ADAPTER}"
            raise UserError(f"{_spelled(name)}: of methods that learn prompts{also}; --methods {', '.join(having)}")
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
