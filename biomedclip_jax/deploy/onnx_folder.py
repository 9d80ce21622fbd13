"""A folder of ONNX files: a tower each, checked with onnxruntime, in float32 or with weights of 8 bits.

image.onnx        pixels float32 [batch, 3, S, S], normalised -> embedding float32 [batch, E], unit length
text.onnx         tokens int64 [batch, length], padded -> embedding float32 [batch, E], unit length
*.onnx.data       the weights of a tower that is too large for one file
model.json        the temperature, what an image becomes, and how texts are cut and padded
tokenizer files   tokenizer.json, which the tokenizers package reads, beside the model's own
README.md         how it is used, as code that runs
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.config import UNADAPTED
from biomedclip_jax.deploy._about import write_about
from biomedclip_jax.deploy._onnx_towers import PIXELS, TOKENS, check_towers, image_graph, text_graph
from biomedclip_jax.deploy._reference import Reference
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_folder
from biomedclip_jax.interop.model import Model

LEAST, LEAST_INT8 = 0.9999, 0.99
_ONE_FILE = 1_900_000_000  # bytes; a protocol buffer holds no more than 2 GiB


def write_onnx(model: Model, destination: Path, *, int8: bool = False) -> dict[str, float]:
    """Write the folder, whole or not at all; returns for each file the smallest cosine between its embeddings and ours.

    int8: weights of matrix products as 8-bit numbers, products on integers (dynamic quantisation of onnxruntime).
    UserError for a tower that there is no graph for, for packages that are missing, and, with nothing written, where
    the embeddings of a file are not the model's: below a cosine of 0.9999, with int8 0.99.
    """
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--format onnx: writing and checking needs {package}: pip install 'biomedclip_jax[onnx]'")
    check_towers(model.config, "ONNX")
    if model.adaptation != UNADAPTED:
        raise UserError(f"{destination}: the model has a prefix beside its weights, which the ONNX graph has no place for")
    reference, cosines = Reference(model), {}
    least = LEAST_INT8 if int8 else LEAST

    def write(folder: Path) -> None:
        for file, graph in (("image.onnx", image_graph), ("text.onnx", text_graph)):
            _save(graph(model.config, model.params), folder / file)
            check = reference.check_images if file == "image.onnx" else reference.check_texts
            cosines[file] = check(runner(folder / file), LEAST, file)
            if int8:
                _quantise(folder / file)
                cosines[file] = check(runner(folder / file), least, f"{file} with weights of 8 bits")
        write_about(model, folder, "onnx")

    write_folder(destination, write)
    return cosines


def runner(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Embeddings by onnxruntime on the processor, of pixels [n, S, S, 3] or tokens [n, N], whichever the file takes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()

    def run(batch: np.ndarray) -> np.ndarray:
        given = np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) if taken.name == PIXELS else batch.astype(np.int64)
        return np.asarray(session.run(None, {taken.name: given})[0])

    assert taken.name in (PIXELS, TOKENS)
    return run


def _save(proto: Any, file: Path) -> None:
    import onnx

    size = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    apart: dict[str, Any] = {"save_as_external_data": True, "all_tensors_to_one_file": True, "location": f"{file.name}.data"}
    onnx.save_model(proto, str(file), **(apart if size > _ONE_FILE else {}))
    onnx.checker.check_model(str(file), full_check=size <= _ONE_FILE)


def _quantise(file: Path) -> None:
    """The file with weights of 8 bits in its place."""
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    apart = file.with_name(f"{file.name}.data")
    whole = file.rename(file.with_name(f"whole.{file.name}"))
    logging.disable(logging.WARNING)  # it advises shape inference, which the graph does not need
    try:
        options = {"per_channel": True, "weight_type": QuantType.QInt8, "use_external_data_format": apart.exists()}
        quantize_dynamic(str(whole), str(file), op_types_to_quantize=["MatMul"], **options)
    finally:
        logging.disable(logging.NOTSET)
    whole.unlink()
