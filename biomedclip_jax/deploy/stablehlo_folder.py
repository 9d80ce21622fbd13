"""A folder of StableHLO programs, which `jax.export` reads again: a tower each, for CPU, CUDA and TPU.

    image.stablehlo       (weights, pixels float32 [batch, S, S, 3], normalised) -> embedding float32 [batch, E]
    text.stablehlo        (weights, tokens int32 [batch, length], padded) -> embedding float32 [batch, E]
    weights.safetensors   our parameters by their paths, which both programs take
    model.json, tokenizer files, README.md   as `_about.py` writes them

Weights stay outside of the programs, which are a few kilobytes then and know no limit of size.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export

from biomedclip_jax.config import ComputeConfig
from biomedclip_jax.deploy._about import PLATFORMS, whole_context, write_about
from biomedclip_jax.deploy._reference import Reference
from biomedclip_jax.files import write_folder
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.tensor_files import write_safetensors
from biomedclip_jax.models import abstract_model

LEAST = 0.9999


def write_stablehlo(model: Model, destination: Path) -> dict[str, float]:
    """Write the folder, whole or not at all; returns for each program the smallest cosine between its embeddings and ours.

    Each is read from its file again and run here. UserError, with nothing written, for a cosine below 0.9999.
    """
    config, reference = model.config, Reference(model)
    text = config.text
    weights = {path: np.asarray(leaf) for path, leaf in flatten_dict(model.params, sep="/").items()}
    size = config.image.image_size
    most = () if whole_context(text) else ("length >= 1", f"length <= {text.context_length}")
    length = "length" if most else text.context_length
    batches = {
        "image.stablehlo": ("encode_image", export.symbolic_shape(f"batch, {size}, {size}, 3"), jnp.float32),
        "text.stablehlo": ("encode_text", export.symbolic_shape(f"batch, {length}", constraints=most), jnp.int32),
    }
    cosines: dict[str, float] = {}

    def write(folder: Path) -> None:
        for file, (method, shape, dtype) in batches.items():
            (folder / file).write_bytes(_exported(model, method, weights, jax.ShapeDtypeStruct(shape, dtype)))
            check = reference.check_images if method == "encode_image" else reference.check_texts
            run = _runner(folder / file, weights, (text.context_length, text.pad_id) if whole_context(text) else None)
            cosines[file] = check(run, LEAST, file)
        write_safetensors(folder / "weights.safetensors", weights)
        write_about(model, folder, "stablehlo")

    write_folder(destination, write)
    return cosines


def _exported(model: Model, method: str, weights: dict[str, np.ndarray], batch: jax.ShapeDtypeStruct) -> bytes:
    compute = ComputeConfig(attention="plain")  # a kernel for one kind of device would be no program for the others
    graph, _ = abstract_model(model.config, compute, adaptation=model.adaptation, inference=True)

    def run(weights: dict[str, jax.Array], batch: jax.Array) -> jax.Array:
        return getattr(nnx.merge(graph, unflatten_dict(weights, sep="/")), method)(batch)

    run.__name__ = method
    shapes = {path: jax.ShapeDtypeStruct(array.shape, array.dtype) for path, array in weights.items()}
    return bytes(export.export(jax.jit(run), platforms=PLATFORMS)(shapes, batch).serialize())


def _runner(file: Path, weights: dict[str, Any], fill: tuple[int, int] | None) -> Callable[[np.ndarray], np.ndarray]:
    """What the program in a file makes of a batch. fill: the length that texts are filled up to, and with what."""
    program = export.deserialize(bytearray(file.read_bytes()))

    def run(batch: np.ndarray) -> np.ndarray:
        if batch.ndim == 2 and fill is not None:
            batch = np.pad(batch, ((0, 0), (0, fill[0] - batch.shape[1])), constant_values=fill[1])
        return np.asarray(program.call(weights, batch))

    return run
