"""From a model's name to a server that answers, and back: what is opened in which order, and closed at the end."""

import importlib.util
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
from biomedclip_jax.serve._private_folder import private_folder
from biomedclip_jax.serve._server import Listening, bound, taken
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
    has_page = importlib.util.find_spec("gradio") is not None
    with bound(settings) as socket, private_folder() as folder:
        settings = replace(settings, port=socket.getsockname()[1])
        limits, metrics = settings.limits, Metrics()
        enable_compilation_cache()
        _say(f"reading {source}")
        loaded = load(source, adapter)
        _say("compiling")
        clip = ServedModel(loaded, ComputeConfig(dtype=dtype), settings.batch_size, metrics.ran)  # type: ignore[arg-type]
        del loaded
        if opened is not None:
            opened.check_model(clip, source)
        metrics.watch("rows_waiting", "Images and texts that no batch has taken yet", lambda: clip.batches.waiting)
        Image.MAX_IMAGE_PIXELS = limits.pixels // 2  # from twice of it on, Pillow refuses what the heads did not tell
        keep_uploads_in_memory(limits.body_bytes)
        work = Work(clip, limits, opened)
        _warm_up(work)
        server = Server(work, settings, metrics, folder if has_page else None)
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        page = "" if has_page else "; no page without gradio (pip install 'biomedclip_jax[serve]')"
        ready = f"ready at http://{shown}:{settings.port}, {'with' if settings.token else 'without'} a token{page}"
        try:
            socket.listen()  # another server may have been bound to it meanwhile, and listen already
        except OSError as error:
            raise taken(settings, error) from None
        Listening(server.guard, limits, lambda: _say(ready)).run([socket])
        server.close()
        clip.batches.close()
        _say("stopped")


def _warm_up(work: Work) -> None:
    """Do once what would keep a first client waiting: read the tokenizer, compile the heat map, hash the weights."""
    _say(f"model {work.clip.fingerprint}")
    work.heatmap(work.upload(_small_picture(), "first.png"), "a first phrase").picture()


def _small_picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8), (64, 1))).save(file, "PNG")
    return file.getvalue()


def _say(line: str) -> None:
    print(f"biomedclip serve: {line}", file=sys.stderr, flush=True)
