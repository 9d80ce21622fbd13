"""What the loader's bench times, one side a process: `python -m biomedclip_jax.bench.loader_sides SIDE SECONDS < task`."""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from biomedclip_jax.bench.loader import DECODING, OPEN_CLIP, OURS, TABLE, Rate, shard_count, shards
from biomedclip_jax.bench.task import Task
from biomedclip_jax.support.parallel import core_count


def ours(task: Task) -> Generator[int, None, None]:
    """Rows of the batches of our training loader, on the tars."""
    from biomedclip_jax.data.loader import TrainLoader
    from biomedclip_jax.data.sources import open_pairs

    loader = TrainLoader(
        open_pairs(shards(task)), _tokenizer(task), task.config.preprocess_in(task.stage), task.config.data, 0, print
    )
    for batch in loader.batches(0, task.stage.batch_size, 1_000_000):
        yield len(batch)


def open_clip(task: Task) -> Generator[int, None, None]:
    """Rows of the batches of open_clip's own WebDataset loader, on the same tars, shuffled and without end."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from biomedclip_jax.bench._open_clip import import_open_clip

    library = import_open_clip()
    from open_clip.transform import AugmentationCfg
    from open_clip_train.data import get_wds_dataset

    scale = task.config.data.crop_scale
    transform = library.image_transform(task.image_size, is_train=True, aug_cfg=AugmentationCfg(scale=scale))
    tokenizer = library.tokenizer.HFTokenizer(task.files, context_length=task.config.model.text.context_length)
    arguments = SimpleNamespace(
        train_data=shards(task),
        train_data_upsampling_factors=None,
        train_num_samples=100_000_000,
        dataset_resampled=True,
        seed=0,
        workers=min(core_count(), shard_count()),
        batch_size=task.stage.batch_size,
        world_size=1,
    )
    for images, _ in get_wds_dataset(arguments, transform, True, tokenizer=tokenizer).dataloader:
        yield len(images)


def decoding(task: Task, seconds: float) -> Rate:
    """All processors together decode, crop, resize and tokenise, and throw it away."""
    context = multiprocessing.get_context("spawn")
    count = core_count()
    ready, results = context.Barrier(count), context.Queue()
    arguments = (task.to_json(), seconds, ready, results)
    processes = [context.Process(target=_decode, args=(number, *arguments)) for number in range(count)]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    rows, wall, cpu = (sum(values) for values in zip(*found, strict=True))
    return Rate(rows / (wall / count), 1e3 * cpu / rows)


def _decode(number: int, text: str, seconds: float, ready: Any, results: Any) -> None:
    from PIL import Image

    from biomedclip_jax.data.tables import read_table

    task = Task.from_json(text)
    assert task.files is not None
    pairs = read_table(Path(task.files) / TABLE, "image", "caption")
    tokenizer, side = _tokenizer(task), task.image_size
    ready.wait()
    start, cpu, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        pair = pairs[(number + done) % len(pairs)]
        with Image.open(pair.image) as image:  # type: ignore[arg-type]
            width, height = image.size
            box = (width // 50, height // 50, width - width // 50, height - height // 50)  # 0.92 of the area
            image.crop(box).resize((side, side), Image.Resampling.BICUBIC).convert("RGB")
        tokenizer(list(pair.captions))
        done += 1
    results.put((done, time.perf_counter() - start, time.process_time() - cpu))


def steady_rate(batches: Iterator[int], seconds: float) -> Rate:
    """Pairs a second, and processor time a pair, from when the buffers of all workers have been emptied once."""
    for _ in range(2 * core_count() + 2):
        next(batches)
    start, cpu, rows = time.perf_counter(), _cpu_seconds(), 0
    while time.perf_counter() - start < seconds:
        rows += next(batches)
    wall = time.perf_counter() - start
    return Rate(rows / wall, 1e3 * (_cpu_seconds() - cpu) / rows)


def _cpu_seconds() -> float:
    """Of this process and its workers, user and system."""
    ticks = 0
    for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _tokenizer(task: Task) -> Any:
    from biomedclip_jax.data.text import Tokenizer

    text = task.config.model.text
    assert task.files is not None
    return Tokenizer(Path(task.files), text.context_length, text.pad_id, text.vocab_size)


def main() -> None:
    """Prints the rate and the processor time as JSON."""
    side, seconds = sys.argv[1], float(sys.argv[2])
    task = Task.from_json(sys.stdin.readline())
    if side == DECODING:
        print(json.dumps(vars(decoding(task, seconds))), flush=True)
        return
    batches = {OURS: ours, OPEN_CLIP: open_clip}[side](task)
    print(json.dumps(vars(steady_rate(batches, seconds))), flush=True)
    batches.close()  # ends its workers


if __name__ == "__main__":
    main()
