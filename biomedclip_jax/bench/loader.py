"""`biomedclip bench loader`: pairs a second of the training loader alone, beside its floor and open_clip's loader.

The sides alternate, each time as a new process (`loader_sides.py`). What counts is the steady rate: the first
batches, for which processes start and buffers fill, are not timed. The floor is decoding, cropping, resizing and
tokenising on all processors, with nothing handed on.
"""

import csv
import io
import itertools
import json
import statistics
import string
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biomedclip_jax.bench._machine import measured_on
from biomedclip_jax.bench.task import Task, caption_lengths, check_possible
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text
from biomedclip_jax.support.parallel import core_count

DECODING, OURS, OPEN_CLIP = "decoding alone", "biomedclip_jax", "open_clip"
TABLE, SHARDS = "pairs.csv", "shards/{00000..%05d}.tar"

_PICTURES, _WIDTH, _HEIGHT = 128, 800, 600
_PER_SHARD = 100
_SECONDS = 10.0  # of each turn


@dataclass(frozen=True)
class Rate:
    """What a side reached in a turn; cpu_milliseconds: of all its processes together, a pair."""

    pairs_per_second: float
    cpu_milliseconds: float


def bench_loader(task: Task, images: Path | None, *, against: bool, turns: int, json_file: Path | None) -> None:
    """Time the training loader, the decoding that is its floor and, with `against`, open_clip's loader; print the rates.

    turns: of each side, alternating. images: a folder of pictures, instead of 128 made JPEGs of 800 x 600. json_file: gets
    every rate. UserError for a missing folder or package.
    """
    check_possible(json_file, ("torch", "open_clip", "webdataset", "pandas") if against else ())
    sides = (DECODING, OURS, OPEN_CLIP) if against else (DECODING, OURS)
    found: dict[str, list[Rate]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), task, images)
        task = Task(task.config, (), lengths=task.lengths, files=folder)
        for turn, side in itertools.product(range(turns), sides):
            found[side].append(_measured(side, task))
            print(f"turn {turn + 1}  {side:14s}  {found[side][-1].pairs_per_second:8.1f} pairs/s", file=sys.stderr, flush=True)
    print("\n".join(describe(task, found)))
    if json_file is not None:
        sides_found = {side: [vars(rate) for rate in rates] for side, rates in found.items()}
        write_text(json_file, json.dumps({"sides": sides_found, "task": json.loads(task.to_json())}, indent=1) + "\n")


def describe(task: Task, found: dict[str, list[Rate]]) -> Iterator[str]:
    """The lines of the report: medians, and ratios as the median of those of the turns."""
    workers = task.config.data.workers
    yield (
        f"loader: batches of {task.stage.batch_size:,}, {task.image_size} px, {task.lengths} captions, "
        f"{'workers as it chooses' if workers is None else f'{workers} workers'}, {measured_on()}"
    )
    for side, replies in found.items():
        rates, cpu = [each.pairs_per_second for each in replies], [each.cpu_milliseconds for each in replies]
        yield (
            f"  {side:14s} {statistics.median(rates):8.1f} pairs/s  ({min(rates):.1f} to {max(rates):.1f}), "
            f"{statistics.median(cpu):.3g} ms of a processor a pair"
        )
    for other in found:
        if other != OURS:
            turns = list(zip(found[OURS], found[other], strict=True))
            ratios = [ours.pairs_per_second / theirs.pairs_per_second for ours, theirs in turns]
            cpu = statistics.median(theirs.cpu_milliseconds / ours.cpu_milliseconds for ours, theirs in turns)
            yield (
                f"  {OURS} / {other}: {statistics.median(ratios):.3g} x its pairs/s ({min(ratios):.3g} to {max(ratios):.3g} "
                f"by turn), {cpu:.3g} x by processor time"
            )


def _measured(side: str, task: Task) -> Rate:
    command = [sys.executable, "-m", "biomedclip_jax.bench.loader_sides", side, str(_SECONDS)]
    done = subprocess.run(command, input=task.to_json(), capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(f"{side}: its process ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    return Rate(**json.loads(done.stdout.splitlines()[-1]))


def make_files(folder: Path, task: Task, images: Path | None = None) -> None:
    """Pictures, `pairs.csv` and tars of them with captions of the task's lengths, and a BERT vocabulary. Needs Pillow."""
    pictures, captions = make_table(folder, task, images)
    (folder / "shards").mkdir()
    pairs = itertools.cycle([(path.read_bytes(), caption.encode()) for path, caption in zip(pictures, captions, strict=True)])
    for shard in range(shard_count()):
        with tarfile.open(folder / "shards" / f"{shard:05d}.tar", "w") as tar:
            for number, members in zip(range(_PER_SHARD), pairs, strict=False):
                for suffix, content in zip(("jpg", "txt"), members, strict=True):
                    about = tarfile.TarInfo(f"{shard * _PER_SHARD + number:09d}.{suffix}")
                    about.size = len(content)
                    tar.addfile(about, io.BytesIO(content))


def make_table(folder: Path, task: Task, images: Path | None = None) -> tuple[list[Path], list[str]]:
    """The pictures and captions of `make_files`, with `pairs.csv` and the vocabulary written, and no tars."""
    rng = np.random.default_rng(0)
    text = task.config.model.text
    words = ["".join(rng.choice(list(string.ascii_lowercase), 6)) for _ in range(200)]
    letters = string.ascii_lowercase
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": text.context_length}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    pictures = _given(images) if images is not None else _made(folder, rng)
    captions = [" ".join(rng.choice(words, n - 2)) for n in caption_lengths(task.lengths, text.context_length, len(pictures))]
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "caption"], *zip(pictures, captions, strict=True)])
    return pictures, captions


def shard_count() -> int:
    """How many tars to write: open_clip wants as many as it has workers."""
    return max(4, core_count())


def shards(task: Task) -> str:
    """The pattern of the tars."""
    assert task.files is not None
    return f"{task.files}/{SHARDS % (shard_count() - 1)}"


def _given(folder: Path) -> list[Path]:
    from biomedclip_jax.data.images.search import find_images

    found = [path.resolve() for path in find_images(folder) if path.suffix.lower() in (".jpg", ".jpeg")]
    if not found:
        raise UserError(f"--images {folder}: no JPEG in it")
    return found


def _made(folder: Path, rng: np.random.Generator) -> list[Path]:
    from PIL import Image

    made = []
    for i in range(_PICTURES):
        coarse = rng.integers(0, 256, (_HEIGHT // 20, _WIDTH // 20, 3), np.uint8)
        made.append(folder / f"{i}.jpg")
        Image.fromarray(coarse).resize((_WIDTH, _HEIGHT)).save(made[-1], quality=90)
    return made
