"""A trained model in the hands of its user: images and sentences in, unit embeddings and probabilities out."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from biomedclip_jax.compilation import enable_compilation_cache
from biomedclip_jax.config import DEFAULT_TEMPLATE, CLIPConfig, ComputeConfig
from biomedclip_jax.data.processor import ImageSource, Processor
from biomedclip_jax.data.text import used_length
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.folders import Model, read_model
from biomedclip_jax.interop.hub import local_folder
from biomedclip_jax.models import CLIP, abstract_model


class Pretrained:
    """A model ready for use. Make one with `from_pretrained`.

    model: the Flax module (`biomedclip_jax.models.CLIP`) with its parameters
    processor: images to pixels, texts to token ids
    config: sizes of the towers
    """

    def __init__(self, loaded: Model, compute: ComputeConfig):
        self.config: CLIPConfig = loaded.config
        self.processor = Processor(loaded.preprocess, loaded.config.text, loaded.tokenizer)
        self.params = loaded.params
        self._graph, _ = abstract_model(loaded.config, compute)

        def encode_image(params: dict[str, Any], images: jax.Array) -> jax.Array:
            return nnx.merge(self._graph, params).encode_image(images)

        def encode_text(params: dict[str, Any], tokens: jax.Array) -> jax.Array:
            return nnx.merge(self._graph, params).encode_text(tokens)

        # parameters cross `jit` as an argument: closed over they would be baked into the program
        self._encode_image = jax.jit(encode_image)
        self._encode_text = jax.jit(encode_text)

    @cached_property
    def model(self) -> CLIP:
        """The Flax NNX module."""
        return nnx.merge(self._graph, self.params)

    @property
    def logit_scale(self) -> float:
        """exp of the learned temperature: 85.2323 for the public BiomedCLIP weights."""
        return float(np.exp(np.float64(self.params["logit_scale"])))

    def encode_images(
        self,
        images: Sequence[ImageSource],
        batch_size: int = 32,
        progress: Callable[[int], object] | None = None,
        on_error: Callable[[int, UserError], object] | None = None,
    ) -> np.ndarray:
        """Unit embeddings, float32 [n, E]. Images are decoded on threads while the device works on those before.

        images: paths (JPEG, PNG, TIFF, WebP, GIF, BMP, DICOM), PIL images, or arrays (uint8 or float in [0, 1]).
        progress: called with a number of images that are done.
        on_error: called with position and error of an image that cannot be read, which then has no row in the result.
        Raises UserError that names the first file that cannot be read, unless `on_error` is given.
        """
        _check_batch_size(batch_size)
        images = _as_list(images, "images")
        rows: list[np.ndarray] = []
        batch: list[np.ndarray] = []

        def encode() -> None:
            # one shape, one program: a short last batch is filled up
            whole = batch_size if len(images) > batch_size else len(batch)
            rows.append(np.asarray(self._encode_image(self.params, _fill(np.stack(batch), whole)))[: len(batch)])

        for position, pixels in enumerate(_in_order(self.processor.image, images, ahead=2 * batch_size)):
            if isinstance(pixels, UserError):
                if on_error is None:
                    raise pixels
                on_error(position, pixels)
            else:
                batch.append(pixels)
            if len(batch) == batch_size:
                encode()
                batch.clear()
            if progress is not None:
                progress(1)
        if batch:
            encode()
        return np.concatenate(rows) if rows else np.zeros((0, self.config.embed_width), np.float32)

    def encode_texts(
        self, texts: Sequence[str], batch_size: int = 64, progress: Callable[[int], object] | None = None
    ) -> np.ndarray:
        """Unit embeddings, float32 [n, E].

        Captions are cut at the tower's context length (256 tokens for BiomedCLIP). Padding is not computed: captions are
        sorted by length, and each batch is as wide as its longest caption, rounded up to 16, 32, 64, ... tokens.
        """
        _check_batch_size(batch_size)
        texts = _as_list(texts, "texts")
        for text in texts:
            if not isinstance(text, str):
                raise UserError(f"texts: expected sentences, found {type(text).__name__} ({text!r})")
        if not texts:
            return np.zeros((0, self.config.embed_width), np.float32)
        tokens = self.processor.tokens(texts)
        pad = self.config.text.pad_id
        order = np.argsort((tokens != pad).sum(axis=1), kind="stable")
        embeddings = np.empty((len(texts), self.config.embed_width), np.float32)
        for start in range(0, len(texts), batch_size):
            chosen = order[start : start + batch_size]
            batch = tokens[chosen]
            width = max(16, 1 << (used_length(batch, pad) - 1).bit_length())
            whole = batch_size if len(texts) > batch_size else len(batch)
            batch = _fill(batch[:, : min(width, tokens.shape[1])], whole)
            embeddings[chosen] = np.asarray(self._encode_text(self.params, batch))[: len(chosen)]
            if progress is not None:
                progress(len(chosen))
        return embeddings

    def classify(self, images: Sequence[ImageSource], labels: Sequence[str], template: str = DEFAULT_TEMPLATE) -> np.ndarray:
        """Zero-shot probabilities, float32 [n, labels]; each row sums to 1.

        labels: at least two. template: a sentence with {} where the label goes. Wrong ones raise UserError.
        """
        text = self.encode_texts(prompts(labels, template))
        image = self.encode_images(images)
        scores = self.logit_scale * (image @ text.T).astype(np.float64)
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def prompts(labels: Sequence[str], template: str) -> list[str]:
    """The template filled in for each label. UserError for labels or a template that cannot work."""
    labels = _as_list(labels, "labels")
    if len(labels) < 2:
        raise UserError(f"labels: {len(labels)} given; expected at least two to choose between")
    for label in labels:
        if not isinstance(label, str) or not label.strip():
            raise UserError(f"labels: {label!r} is not a name; expected words, such as 'chest X-ray'")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UserError(f"labels: {twice!r} is given twice; expected different ones")
    if "{}" not in template:
        raise UserError(f"template {template!r}: expected {{}} where the label goes, as in {DEFAULT_TEMPLATE!r}")
    return [template.replace("{}", label) for label in labels]


def from_pretrained(source: str | Path, *, dtype: str = "float32") -> Pretrained:
    """Load a model.

    source: a model folder (open_clip's layout, transformers' CLIP, or our ViT + BERT pair), a run folder, or
        "hf-hub:org/name" (the only form that uses the network).
    dtype: "float32", or "bfloat16" on accelerators.
    Raises UserError, one line, naming the file or key that is wrong.
    """
    enable_compilation_cache()
    return Pretrained(load(source), ComputeConfig(dtype=dtype))  # type: ignore[arg-type]


def load(source: str | Path) -> Model:
    """The model behind a name: hub address, run folder or model folder."""
    folder = local_folder(source)
    if (folder / "metrics.jsonl").is_file() or (folder / "checkpoints").is_dir():
        if (folder / "model").is_dir():
            return read_model(folder / "model")
        from biomedclip_jax.train.export import read_run  # a run that is not finished: its newest checkpoint

        return read_run(folder)
    return read_model(folder)


def _as_list(values: Sequence[Any], name: str) -> list[Any]:
    # an array [H,W,3] is one image, though it could be iterated over
    one_array = isinstance(values, np.ndarray) and values.ndim == 3 and values.shape[2] <= 4
    if one_array or isinstance(values, str | bytes | Path | Image.Image):
        shown = f" ({str(values)!r})" if isinstance(values, str | Path) else ""
        raise UserError(f"{name}: expected a list, found one {type(values).__name__}{shown}; put it in [ ]")
    return list(values)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise UserError(f"batch_size = {batch_size}: expected a whole number above 0")


def _fill(array: np.ndarray, rows: int) -> jax.Array:
    missing = rows - len(array)
    return jnp.asarray(np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array)


def _in_order(function: Callable[[Any], Any], items: Sequence[Any], ahead: int) -> Iterator[Any]:
    """function(item) for each item, in order, worked out on threads at most `ahead` items early; a UserError is a value."""

    def attempt(item: Any) -> Any:
        try:
            return function(item)
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(pool.submit(attempt, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
