"""The other side of `bench embedding`: open_clip's transforms and tower behind PyTorch's loader, or in onnxruntime."""

import importlib.util
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from biomedclip_jax.bench._alternate import Facts, Work, resident_peak, serve
from biomedclip_jax.bench._machine import version_of
from biomedclip_jax.bench._open_clip import build_model, import_open_clip, precision, wait
from biomedclip_jax.bench.embedding import MODEL, RESULT
from biomedclip_jax.bench.loader import TABLE
from biomedclip_jax.bench.task import Task
from biomedclip_jax.data.tables import read_table
from biomedclip_jax.errors import first_line
from biomedclip_jax.support.parallel import core_count

Encode = Callable[[torch.Tensor], np.ndarray]


class Pictures(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Files as open_clip's evaluation sees them."""

    def __init__(self, task: Task, place: Path):
        self.paths = [str(pair.image) for pair in read_table(place / TABLE, "image", "caption")]
        about = task.config.preprocess_in(task.stage)
        self.transform = import_open_clip().image_transform(
            about.image_size, False, about.mean, about.std, resize_mode=about.resize_mode, interpolation=about.interpolation
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        from PIL import Image

        with Image.open(self.paths[index]) as image:
            return self.transform(image)


class UnitEmbeddings(torch.nn.Module):
    """Pixels -> unit embeddings: what a user keeps of the model for an archive of images."""

    def __init__(self, model: Any):
        super().__init__()
        self.visual = model.visual

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Unit embeddings [n, E] of pixels [n, 3, S, S]."""
        return torch.nn.functional.normalize(self.visual(images), dim=-1)


def build(task: Task) -> Work:
    """Each way that works here; what cannot be compiled or exported is left out, and the facts say so."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    assert task.files is not None
    place = Path(task.files)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(task)
    model.load_state_dict(load_file(place / MODEL / "open_clip_model.safetensors"))
    tower = UnitEmbeddings(model).eval().to(device)
    loader = torch.utils.data.DataLoader(
        Pictures(task, place), task.stage.batch_size, num_workers=core_count(), persistent_workers=True
    )
    notes: dict[str, str] = {}
    seconds: dict[str, float] = {}
    calls: dict[str, Callable[[], None]] = {}
    ways: dict[str, Callable[[], Encode]] = {
        "open_clip eager": lambda: _in_torch(task, tower, device),
        "open_clip compiled": lambda: _in_torch(task, torch.compile(tower), device),
        "onnxruntime": lambda: _in_onnxruntime(task, tower, place),
    }
    if not task.compiled:
        del ways["open_clip compiled"]
    for name, make in ways.items():
        start = time.perf_counter()
        try:
            call = _call(make(), loader, place / RESULT.format(name))
            call()
        except Exception as error:  # torch's compiler and exporter raise anything
            notes[name] = f"left out ({first_line(error)[:100]})"
            continue
        calls[name], seconds[name] = call, time.perf_counter() - start
    names = ("torch", "torchvision", "timm", *(["onnxruntime"] if "onnxruntime" in calls else []))
    facts = Facts(
        platform=device.type,
        devices=f"{torch.get_num_threads()} threads, {core_count()} processes that decode",
        versions={"open_clip": version_of(import_open_clip())} | {name: version(name) for name in names},
        parameters=sum(p.numel() for p in model.parameters()),
        compile_seconds=seconds,
        notes=notes,
    )
    return Work(facts, calls, resident_peak)


def _call(encode: Encode, loader: Any, result: Path) -> Callable[[], None]:
    def call() -> None:
        np.save(result, np.concatenate([encode(images) for images in loader]))

    return call


def _in_torch(task: Task, tower: Any, device: torch.device) -> Encode:
    autocast = precision(task, device)

    def encode(images: torch.Tensor) -> np.ndarray:
        with torch.no_grad(), autocast():
            embeddings = tower(images.to(device))
            wait(device)
            return embeddings.float().cpu().numpy()

    return encode


def _in_onnxruntime(task: Task, tower: torch.nn.Module, place: Path) -> Encode:
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnxscript") is None:
        raise ImportError("onnxruntime and onnxscript are not installed")
    import onnxruntime

    file = place / "tower.onnx"
    example = torch.zeros(2, 3, task.image_size, task.image_size)
    shapes = {"images": {0: torch.export.Dim("n")}}
    torch.onnx.export(tower.cpu(), (example,), file, dynamo=True, dynamic_shapes=shapes, input_names=["images"])
    providers = [
        name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in onnxruntime.get_available_providers()
    ]
    session = onnxruntime.InferenceSession(file, providers=providers)
    return lambda images: np.asarray(session.run(None, {"images": images.numpy()})[0])


if __name__ == "__main__":
    serve(build)
