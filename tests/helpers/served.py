"""A tiny model behind a server, asked in this process."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from biomedclip_jax.config import ComputeConfig
from biomedclip_jax.pretrained import load
from biomedclip_jax.serve._app import Server
from biomedclip_jax.serve._metrics import Metrics
from biomedclip_jax.serve._model import ServedModel
from biomedclip_jax.serve._server import Listening, bound
from biomedclip_jax.serve._work import Work
from biomedclip_jax.serve.settings import Settings
from helpers.reference import open_clip_model

VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 40}


def write_model(folder: Path) -> Path:
    """A model folder."""
    open_clip_model(folder, VISION, TEXT, bert={"num_hidden_layers": 1})
    return folder


def served(folder: Path, metrics: Metrics, batch_size: int = 4) -> ServedModel:
    return ServedModel(load(folder), ComputeConfig(), batch_size, metrics.ran)


def server(clip: ServedModel, settings: Settings) -> Server:
    metrics = Metrics()
    return Server(Work(clip, settings.limits), settings, metrics)


def client(made: Server) -> TestClient:
    """A client on this machine, to whom exceptions of the server are errors 500."""
    return TestClient(made.guard, "http://127.0.0.1", raise_server_exceptions=False, follow_redirects=False)


def image_file(seed: int, kind: str = "PNG", size: tuple[int, int] = (40, 50)) -> bytes:
    """A picture of noise of a colour of its own."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 128, (*size, 3)) + rng.integers(0, 128, 3)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, kind)
    return file.getvalue()


@contextmanager
def listening(made: Server) -> Iterator[int]:
    """A server that really listens, at the port that is given; told to stop after the block, and stopped."""
    with bound(made.settings) as own:
        ready = threading.Event()
        listening = Listening(made.guard, made.settings.limits, ready.set)
        thread = threading.Thread(target=listening.run, args=([own],))
        thread.start()
        try:
            assert ready.wait(60)
            yield own.getsockname()[1]
        finally:
            made.guard.stop()
            listening.should_exit = True
            thread.join(30)
    assert not thread.is_alive()
