"""The model card of a run, on top of its model folder's README.md: what the run's own files say, and what they do not.

Every number comes from config.json, rejects.jsonl or results.json. Paths of this machine stay out of it: of data only
the last part of its name is said.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.files import write_text
from biomedclip_jax.models import abstract_model

FILE = "README.md"
END = "<!-- end of the model card -->\n"
HEAD = """---
library_name: biomedclip_jax
license: unknown
pipeline_tag: zero-shot-image-classification
---

"""
LIMITS = """## Limits

For research; not for clinical use. Not known to this run, and to be found out before anything depends on it:

- the licences of the training data and of weights that it began from, and with them the licence of this model
- of which patients, devices and hospitals the data are, and whether patients are on both sides of training and held-out
- how the model does for groups of patients, on data from elsewhere, and how well its probabilities are calibrated
"""


def write_model_card(config: TrainConfig, workdir: Path, image_size: int, record: Mapping[str, Any]) -> None:
    """Put the card on top of `model/README.md`.

    image_size: of the exported tower. record: `Results.record()`.
    """
    put_on_top(model_card(config, workdir, image_size, record), workdir / "model")


def put_on_top(card: str, folder: Path) -> None:
    """Put a card on top of the README.md of a model folder, in the place of an earlier one; the rest stays below."""
    file = folder / FILE
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    below = before.partition(END)[2] if END in before else before
    write_text(file, card + END + below)


def model_card(config: TrainConfig, workdir: Path, image_size: int, record: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    parts = [
        f"# {config.name}\n\nWritten from the files of the run; what is not here was not measured.\n",
        of_model(config, image_size),
        _data(config, workdir, record),
        _training(config, record),
        _results(record),
        LIMITS,
    ]
    return HEAD + "\n".join(parts) + "\n"


def of_model(config: TrainConfig, image_size: int) -> str:
    """The section on the model: its towers, how large it is, and which weights it began with."""
    model = config.model_at(image_size)
    _, shapes = abstract_model(model, adaptation=config.adaptation.unmergeable)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    towers = [_tower(name, getattr(model, name)) for name in ("image", "text")]
    begun = {"model_init": "the whole model", "image_init": "the image tower", "text_init": "the text tower"}
    from_ = [f"{what} from `{short_name(getattr(config, field))}`" for field, what in begun.items() if getattr(config, field)]
    lines = [
        *towers,
        f"- {count:,} parameters; embeddings of {model.embed_width} numbers",
        f"- began with {', '.join(from_) if from_ else 'random weights'}",
    ]
    return "\n".join(["## Model", "", *lines, ""])


def _tower(name: str, tower: Any) -> str:
    kind = type(tower).__name__.removesuffix("Config")
    fields = ("image_size", "patch_size", "context_length", "width", "depth", "heads", "pool")
    sizes = ", ".join(f"{field} {getattr(tower, field)}" for field in fields if hasattr(tower, field))
    return f"- {name} tower: {kind}, {sizes}"


def _data(config: TrainConfig, workdir: Path, record: Mapping[str, Any]) -> str:
    train = config.data.train
    parts = [(train, None)] if isinstance(train, str) else list(train)
    named = ", ".join(
        f"`{short_name(part)}`" + (f" (weight {weight:g})" if weight is not None else "") for part, weight in parts
    )
    held_out = "none" if config.data.held_out is None else f"`{short_name(config.data.held_out)}`"
    if "held_out_pairs" in record:
        held_out += f", {record['held_out_pairs']:,} pairs"
    if "held_out_data" in record:
        held_out += f" (data {record['held_out_data']})"
    rejects = [len(file.read_text(encoding="utf-8").splitlines()) for file in sorted(workdir.glob("rejects*.jsonl"))]
    rejected = f"{sum(rejects):,}" if rejects else "unknown"
    lines = [
        f"- trained on {named}",
        f"- held out: {held_out}",
        f"- records that could not be used: {rejected}",
        "- licences: unknown",
    ]
    return "\n".join(["## Data", "", *lines, ""])


def _training(config: TrainConfig, record: Mapping[str, Any]) -> str:
    rows = ["| stage | length | batch | image | patches kept | loss |", "| --- | --- | --- | --- | --- | --- |"]
    for i, stage in enumerate(config.stages):
        length = f"{stage.steps} updates" if stage.steps is not None else f"{stage.epochs} epochs"
        kept = f"{stage.patch_keep:.0%}"
        rows.append(
            f"| {i} | {length} | {stage.batch_size:,} | {config.image_size(stage)} px | {kept} | {type(stage.loss).__name__} |"
        )
    optimizer, step = config.optimizer, record.get("exported_step")
    lines = [
        f"- {optimizer.rule}, learning rate {optimizer.learning_rate:g} ({optimizer.schedule}), weight decay "
        f"{optimizer.weight_decay:g}, seed {config.seed}, computed in {config.compute.dtype}",
        f"- these are the weights after {'an unknown number of' if step is None else f'{step:,}'} updates"
        + ("" if config.interpolate == 1 else f", mixed with the start: {config.interpolate:g} of what was trained"),
        f"- {record['seconds']:,} seconds" if "seconds" in record else "- duration: unknown",
    ]
    return "\n".join(["## Training", "", *rows, "", *lines, ""])


def _results(record: Mapping[str, Any]) -> str:
    scores = {name: value for name, value in record.items() if isinstance(value, float) and name != "seconds"}
    if not scores:
        return "## Results\n\nNot measured: the run had nothing held out.\n"
    rows = [f"| {name.replace('_', ' ')} | {value:.2%} |" for name, value in scores.items()]
    below = []
    if "zero_shot_images" in record:
        prompts = ", ".join(f'"{prompt}"' for prompt in record.get("zero_shot_prompts", []))
        below = ["", f"Zero-shot: {record['zero_shot_images']:,} images, {record['classes']} classes, sentences {prompts}."]
    return "\n".join(
        ["## Results", "", "On the held-out data, by this model folder.", "", "| | |", "| --- | --- |", *rows, *below, ""]
    )


def short_name(source: str) -> str:
    """What a source is called, without the folders of this machine that lead there; names of the hub and of demos whole."""
    if source.startswith(("hf-hub:", "demo:")):
        return source
    return source.rstrip("/").rpartition("/")[2] or source
