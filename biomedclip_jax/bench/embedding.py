"""`biomedclip bench embedding`: images a second from JPEG files to unit embeddings, alone or beside other programs.

The others have the same weights: open_clip in PyTorch, eager and compiled, behind PyTorch's own loader, and the tower
as ONNX in onnxruntime where that is installed. The sides alternate, and what they compute is compared.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from biomedclip_jax.bench._alternate import Facts, Side, alternate
from biomedclip_jax.bench._machine import measured_on
from biomedclip_jax.bench.loader import make_table
from biomedclip_jax.bench.task import Task, check_possible
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text

OURS = Side("biomedclip_jax", "biomedclip_jax.bench._embedding_ours")
OTHERS = Side("others", "biomedclip_jax.bench._embedding_others")
MODEL, RESULT = "model", "embeddings of {}.npy"

_SAME = 0.999  # cosine of two sides' embeddings; the resizing of Pillow and torchvision differs by no more

Seconds = dict[str, list[float]]


def bench_embedding(task: Task, images: Path | None, *, against: bool, turns: int | None, json_file: Path | None) -> None:
    """Time the embedding of pictures on our side and, with `against`, on the others'; print images a second and ratios.

    images: a folder of JPEGs, instead of made ones. turns: of each side, by default 3 on CPU and 2 elsewhere. json_file:
    gets every time. UserError for a missing folder or package, and where the sides' embeddings differ.
    """
    check_possible(json_file, ("torch", "open_clip") if against else ())
    found: dict[str, list[Seconds]] = {}
    facts: dict[str, Facts] = {}
    with tempfile.TemporaryDirectory() as place:
        make_table(Path(place), task, images)
        _write_model(task, Path(place))
        task = Task(task.config, (), task.repeats, files=place, compiled=task.compiled)
        for side, about, times in alternate((OURS, OTHERS) if against else (OURS,), task, turns, {}):
            facts[side.name] = about
            found.setdefault(side.name, []).append(times.seconds)
            shown = "  ".join(f"{name} {statistics.median(values):.2f} s" for name, values in times.seconds.items())
            print(f"turn {len(found[side.name])}  {shown}", file=sys.stderr, flush=True)
        _check_same(Path(place))
        count = len(np.load(Path(place) / RESULT.format(OURS.name)))
    turns_of = {name: [each[name] for each in sides] for sides in found.values() for name in sides[0]}
    print("\n".join(describe(task, count, facts, turns_of)))
    if json_file is not None:
        record = {"images": count, "seconds": turns_of, "facts": {name: about.record() for name, about in facts.items()}}
        write_text(json_file, json.dumps(record, indent=1) + "\n")


def describe(task: Task, count: int, facts: Mapping[str, Facts], found: Mapping[str, list[list[float]]]) -> Iterator[str]:
    """The lines of the report. found: of each way the seconds of each turn's calls, in which `count` images are embedded."""
    batch, dtype = task.stage.batch_size, task.config.compute.dtype
    yield f"embedding: {count} images from files, {task.image_size} px, batches of {batch}, {dtype}, {measured_on()}"
    for name, about in facts.items():
        versions = ", ".join(f"{library} {number}" for library, number in about.versions.items())
        yield f"  {name}: {about.devices}; {versions}"
        yield from (f"  {name}: {what}: {note}" for what, note in (about.notes or {}).items())
    rates = {name: [count / statistics.median(turn) for turn in turns] for name, turns in found.items()}
    for name, each in rates.items():
        yield f"  {name:20s} {statistics.median(each):8.2f} images/s  ({min(each):.2f} to {max(each):.2f} by turn)"
    for name, each in rates.items():
        if name != OURS.name:
            ratios = [ours / theirs for ours, theirs in zip(rates[OURS.name], each, strict=True)]
            yield f"  {OURS.name} / {name}: {statistics.median(ratios):.3g} x ({min(ratios):.3g} to {max(ratios):.3g} by turn)"


def _write_model(task: Task, place: Path) -> None:
    """The model of the config with random weights, as a folder that each side reads."""
    import jax

    from biomedclip_jax.interop.model import Model
    from biomedclip_jax.interop.write import write_model
    from biomedclip_jax.models import init_params

    config = task.config
    model = config.model_in(task.stage)
    params = jax.tree.map(np.asarray, init_params(model, 0))
    write_model(Model(model, config.preprocess_in(task.stage), params, place), place / MODEL)


def _check_same(place: Path) -> None:
    ours = np.load(place / RESULT.format(OURS.name))
    for path in sorted(place.glob(RESULT.format("*"))):
        theirs = np.load(path)
        least = float((ours * theirs).sum(axis=1).min())
        if least < _SAME:
            raise UserError(f"{path.stem} are not ours: a cosine of {least:.4f}, expected {_SAME} or more; nothing is compared")
