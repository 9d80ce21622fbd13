"""The model card of a fine-tuning: what went in, what was chosen by what, and what came out.

Every number is one of results.json or a count of the rows. Paths of this machine stay out of it: of data and models
only the last part of their names is said.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.data.records import open_records
from biomedclip_jax.errors import UserError
from biomedclip_jax.finetune._parts import Parts
from biomedclip_jax.finetune.request import Request
from biomedclip_jax.interop.model_files import local_folder
from biomedclip_jax.train.model_card import FILE, HEAD, LIMITS, of_model, short_name

_LICENCE_COLUMNS = ("license", "licence")
_LICENCE = re.compile(r"\A---\n(?:.*\n)*?license: *(\S.*)\n(?:.*\n)*?---\n")
_KINDS_SHOWN = 8  # of licences


def model_card(request: Request, config: TrainConfig, parts: Parts, replayed: int, results: Mapping[str, Any]) -> str:
    """The card as Markdown. config: of the run. replayed: pairs that were trained on besides. results: of results.json."""
    config = dataclasses.replace(config, model_init=request.model)  # not the folder in it that the run read
    sections = [
        f"# {config.name}\n\nA fine-tuning of `{short_name(request.model)}`, written from its files; what is not here was not "
        "measured.\n",
        of_model(config, config.model.image.image_size)
        + f"- licence of `{short_name(request.model)}`: {_base_licence(request)}\n",
        _data(request, parts, replayed, results),
        _choices(request, config, results),
        _results(results),
        LIMITS,
    ]
    return HEAD + "\n".join(sections) + "\n"


def _base_licence(request: Request) -> str:
    """What the model card of the start says of its licence."""
    folder = local_folder(request.model)
    for card in (folder / FILE, folder / "model" / FILE):
        found = _LICENCE.match(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
        if found is not None and found[1] != "unknown":
            return f"{found[1]}, says its model card"
    return "unknown"


def _data(request: Request, parts: Parts, replayed: int, results: Mapping[str, Any]) -> str:
    given = short_name(request.held_out or request.data)
    judged = f"{len(parts.validation):,} pairs for choices, {len(parts.held_out):,} for the result"
    if not parts.halved:
        judged = f"{len(parts.held_out):,} pairs, for choices and for the result, which flatters it somewhat"
    lines = [f"- trained on {len(parts.train):,} pairs of `{short_name(request.data)}`"]
    if parts.labelled:
        lines[0] += f", whose labels became captions: {', '.join(parts.classes)}"
    if replayed and request.replay is not None:
        lines.append(
            f"- and on {replayed:,} pairs of `{short_name(request.replay)}`, {request.replay_share:.0%} of what was drawn"
        )
    lines.append(f"- held out, of `{given}`: {judged}")
    if "forgetting_check" in results:
        check = results["forgetting_check"]
        lines.append(f"- forgetting check: {check['before']['n']:,} images of `{short_name(check['data'])}`")
    lines.append(f"- rows that were left out: {len(parts.rejects):,}")
    sources = dict.fromkeys(filter(None, (request.data, request.held_out, request.replay if replayed else None)))
    lines += [f"- licences of `{short_name(source)}`: {_licences(source)}" for source in sources]
    said = [_without_paths(line, request) for line in parts.lines[1:]]
    return "\n".join(["## Data", "", *lines, "", "While it was divided:", "", *(f"- {line}" for line in said), ""])


def _licences(source: str) -> str:
    """How many records of the data name which licence."""
    try:
        found = Counter(
            next((record.cells[name] for name in _LICENCE_COLUMNS if record.cells.get(name)), "")
            for records in open_records(source)
            for record in records
        )
    except UserError:
        return "unknown"
    unknown = found.pop("", 0)
    shown = [f"{name} ({count:,})" for name, count in found.most_common(_KINDS_SHOWN)]
    if len(found) > _KINDS_SHOWN:
        shown.append(f"{len(found) - _KINDS_SHOWN} others")
    return ", ".join([*shown, *([f"unknown ({unknown:,})"] if shown and unknown else [])]) or "unknown"


def _without_paths(line: str, request: Request) -> str:
    for name in filter(None, (request.held_out, request.data)):
        line = line.replace(name, short_name(name))
    return line


def _choices(request: Request, config: TrainConfig, results: Mapping[str, Any]) -> str:
    stage, about = config.stages[0], results["exported"]
    lines = [
        f"- method {request.method}: {stage.steps:,} updates of {stage.batch_size} pairs, {type(stage.loss).__name__}, seed "
        f"{request.seed}, computed in {config.compute.dtype}",
        f"- rate {results['rate']:g}" + (", as it was asked for" if request.rate is not None else ""),
    ]
    if tried := results["rates_tried"]:
        losses = (f"{each['rate']:g}: " + ("no number" if each["loss"] is None else f"{each['loss']:.4f}") for each in tried)
        lines[-1] += f"; held-out losses of those that were tried: {', '.join(losses)}"
    if about["weights"] == "start":
        lines.append("- handed over: the weights of the START, as what was trained was not better")
    else:
        share = about["share_of_trained_weights"]
        mixed = "" if share == 1 else f", {share:.0%} of them mixed with {1 - share:.0%} of the start"
        why = "best" if about["weights"] == "best" else "last, as it was asked for, whatever it is worth"
        lines.append(f"- handed over: the weights after update {about['step']} ({why}){mixed}")
    lines.append(f"- {results['seconds']:,} seconds")
    tried = results["mixtures_tried"]
    if tried:
        lines += ["", "| trained weights | held-out loss | score | forgetting check |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {each['share']:.0%} | {each['loss']:.4f} | {each['score']:.1%} | "
            + ("" if each["keep"] is None else f"{each['keep']:.1%}")
            + " |"
            for each in tried
        ]
    return "\n".join(["## Training and choices", "", *lines, ""])


def _results(results: Mapping[str, Any]) -> str:
    sections = [_table("the held-out pairs", results)]
    if "forgetting_check" in results:
        check = results["forgetting_check"]
        sections.append(_table(f"the forgetting check, `{short_name(check['data'])}`", check))
    return "\n".join(["## Results", "", *sections])


def _table(what: str, found: Mapping[str, Any]) -> str:
    before, after = found["before"], found["after"]
    lines = [f"Of the start and of this model, on {what}: {before['n']:,} images; 95 % intervals.", ""]
    lines += ["| % | before | after | difference |", "| --- | --- | --- | --- |"]
    for name in (name for name in before if name not in ("n", "intervals")):
        sides = (_percent(side[name], side["intervals"].get(name)) for side in (before, after))
        change = found["difference"].get(name)
        shown = "" if change is None else f"{100 * change[0]:+.1f} [{100 * change[1]:+.1f}, {100 * change[2]:+.1f}]"
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(sides)} | {shown} |")
    return "\n".join([*lines, ""])


def _percent(value: float, interval: Any) -> str:
    return f"{100 * value:.1f}" + ("" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]")
