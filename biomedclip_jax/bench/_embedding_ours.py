"""Our side of `bench embedding`: what `biomedclip embed` does with a list of files."""

import time
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np

from biomedclip_jax.bench._alternate import Facts, Work, resident_peak, serve
from biomedclip_jax.bench.embedding import MODEL, OURS, RESULT
from biomedclip_jax.bench.loader import TABLE
from biomedclip_jax.bench.task import Task
from biomedclip_jax.data.tables import read_table
from biomedclip_jax.pretrained import from_pretrained
from biomedclip_jax.train.state import parameter_count


def build(task: Task) -> Work:
    """The model read, and its program compiled by a first call whose embeddings are kept."""
    assert task.files is not None
    place = Path(task.files)
    clip = from_pretrained(place / MODEL, dtype=task.config.compute.dtype, every_device=True)
    paths = [pair.image for pair in read_table(place / TABLE, "image", "caption")]

    def call() -> None:
        np.save(place / RESULT.format(OURS.name), clip.encode_images(paths, task.stage.batch_size))

    start = time.perf_counter()
    call()
    facts = Facts(
        platform=jax.default_backend(),
        devices=f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        versions={name: version(name) for name in ("jax", "pillow")},
        parameters=parameter_count(task.config.model),
        compile_seconds={OURS.name: time.perf_counter() - start},
    )
    return Work(facts, {OURS.name: call}, resident_peak)


if __name__ == "__main__":
    serve(build)
