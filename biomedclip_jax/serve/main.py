"""From a model's name to a server that answers, and back: what is opened in which order, and closed at the end."""

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from biomedclip_jax.config import ComputeConfig
from biomedclip_jax.pretrained import load
from biomedclip_jax.search import open_index
from biomedclip_jax.serve._app import Server, keep_uploads_in_memory
from biomedclip_jax.serve._metrics import Metrics
from biomedclip_jax.serve._model import ServedModel
from biomedclip_jax.serve._server import Listening, bound
from biomedclip_jax.serve._work import Work
from biomedclip_jax.serve.settings import Settings
from biomedclip_jax.support.xla_cache import enable_compilation_cache


def serve(
    source: str, settings: Settings, *, adapter: Path | None = None, dtype: str = "float32", index: Path | None = None
) -> None:
    """Answer requests about a model until SIGTERM or Ctrl-C; then those that are inside, and return.

    source, adapter, dtype: as of `from_pretrained`. index: a folder to search in, made with this model. UserError, before
    anybody is answered, for an address that is taken, and for a model or an index that cannot be read.
    """
    opened = None if index is None else open_index(index)
    with bound(settings) as socket:
        address = socket.getsockname()[:2]
        settings = replace(settings, port=address[1])
        metrics = Metrics()
        enable_compilation_cache()
        _say(f"reading {source}")
        loaded = load(source, adapter)
        clip = ServedModel(loaded, ComputeConfig(dtype=dtype), settings.batch_size, metrics.ran)  # type: ignore[arg-type]
        del loaded
        metrics.watch("rows_waiting", "Images and texts that no batch has taken yet", lambda: clip.batches.waiting)
        clip.encode_texts(["a first text reads the tokenizer"])
        _say(f"model {clip.fingerprint}")  # read once, which takes seconds
        limits = settings.limits
        Image.MAX_IMAGE_PIXELS = limits.pixels // 2  # from twice of it on, Pillow refuses what the heads did not tell
        keep_uploads_in_memory(limits.body_bytes)
        if opened is not None:
            opened.check_model(clip, source)
        work = Work(clip, limits, opened)
        _say("compiling the heat map")
        work.heatmap(work.upload(_small_picture(), "first.png"), "a first phrase").picture()
        server = Server(work, settings, metrics)
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        ready = f"ready at http://{shown}:{settings.port}, {'with' if settings.token else 'without'} a token"
        Listening(server.guard, limits, lambda: _say(ready)).run([socket])
        server.seats.close()
        server.map_seats.close()
        clip.batches.close()
        _say("stopped")


def _small_picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8), (64, 1))).save(file, "PNG")
    return file.getvalue()


def _say(line: str) -> None:
    print(f"biomedclip serve: {line}", file=sys.stderr, flush=True)
