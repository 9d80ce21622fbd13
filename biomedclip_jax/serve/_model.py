"""A model whose callers, on many threads, share batches and never compile: every shape was compiled at the start."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from biomedclip_jax.config import ComputeConfig
from biomedclip_jax.data.processor import ImageSource, as_list
from biomedclip_jax.data.text import used_length
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.model import Model
from biomedclip_jax.models import CLIP, abstract_model
from biomedclip_jax.pretrained import Pretrained
from biomedclip_jax.serve._batches import Batches, Program, Seen
from biomedclip_jax.support.xla_cpu import cpu_options

_TEXTS = (4, 32)  # sizes of a batch of texts: labels come by the handful, and padding with short texts is cheap
_SHORTEST = 16  # tokens, as in `Pretrained.encode_texts`
_KEPT = 4_096  # texts whose embeddings are kept: most requests have the labels of others


class ServedModel(Pretrained):
    """A `Pretrained` for many threads at once: what they encode meanwhile runs as one batch, of a size compiled before.

    batch_size: images at once, at most; smaller batches have half of it, a quarter, ... 1.
    seen: as of `Batches`; its keys are "image" and "text 16", "text 32" ... by tokens.
    """

    def __init__(self, loaded: Model, compute: ComputeConfig, batch_size: int, seen: Seen):
        super().__init__(loaded, compute)
        graph, _ = abstract_model(loaded.config, compute, adaptation=loaded.adaptation, inference=True)
        side, context = loaded.preprocess.image_size, loaded.config.text.context_length
        self._texts: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

        def compiled(key: str, encode: Callable[[CLIP, jax.Array], jax.Array], shape: Sequence[int], dtype: Any) -> Program:
            def run(params: dict[str, Any], rows: jax.Array) -> jax.Array:
                return encode(nnx.merge(graph, params), rows)

            sizes = _image_sizes(batch_size) if key == "image" else list(_TEXTS)
            jitted = jax.jit(run, compiler_options=cpu_options(jax.default_backend()))
            programs = {}
            for size in sizes:
                programs[size] = jitted.lower(self.params, jax.ShapeDtypeStruct((size, *shape), dtype)).compile()
                programs[size](self.params, jnp.zeros((size, *shape), dtype)).block_until_ready()  # the first call is slow
            return Program(lambda rows: np.asarray(programs[len(rows)](self.params, jnp.asarray(rows))), sizes)

        programs: dict[Hashable, Program] = {
            "image": compiled("image", lambda clip, rows: clip.encode_image(rows), (side, side, 3), jnp.float32)
        }
        for width in _widths(context):
            key = f"text {width}"
            programs[key] = compiled(key, lambda clip, rows: clip.encode_text(rows), (width,), jnp.int32)
        self._widths = _widths(context)
        self.batches = Batches(programs, seen)

    @cached_property
    def graph(self) -> nnx.GraphDef[CLIP]:  # type: ignore[override]
        """As of `Pretrained`; made once, as each map asks for it."""
        return super().graph

    def encode_images(
        self,
        images: Sequence[ImageSource],
        batch_size: int = 32,
        progress: Callable[[int], object] | None = None,
        on_error: Callable[[int, UserError], object] | None = None,
        normalize: bool = True,
    ) -> Float[np.ndarray, "n E"]:
        """As of `Pretrained`, in batches with what other threads ask for; `batch_size` says nothing here."""
        if not normalize:
            return super().encode_images(images, batch_size, progress, on_error, normalize)
        answers = []
        for position, image in enumerate(as_list(images, "images")):
            try:
                answers.append(self.batches.put("image", self.processor.image(image)))
            except UserError as error:
                if on_error is None:
                    raise
                on_error(position, error)
            if progress is not None:
                progress(1)
        return self._stacked([answer.result() for answer in answers])

    def encode_texts(
        self, texts: Sequence[str], batch_size: int = 64, progress: Callable[[int], object] | None = None
    ) -> Float[np.ndarray, "n E"]:
        """As of `Pretrained`, in batches with what other threads ask for; the embeddings of recent texts are kept."""
        texts = as_list(texts, "texts")
        with self._lock:
            known = {text: self._texts[text] for text in set(texts) & self._texts.keys()}
            for text in known:
                self._texts.move_to_end(text)
            new = [text for text in dict.fromkeys(texts) if text not in known]
            tokens = self.processor.tokens(new) if new else []  # the tokenizer is read here when the first text comes
        answers = [self.batches.put(*self._row(row)) for row in tokens]
        known |= {text: answer.result() for text, answer in zip(new, answers, strict=True)}
        with self._lock:
            self._texts.update({text: known[text] for text in new})
            while len(self._texts) > _KEPT:
                self._texts.popitem(last=False)
        if progress is not None:
            progress(len(texts))
        return self._stacked([known[text] for text in texts])

    def _row(self, tokens: np.ndarray) -> tuple[str, np.ndarray]:
        used = used_length(tokens[None], self.config.text.pad_id)
        width = next(width for width in self._widths if width >= used)
        return f"text {width}", tokens[:width]

    def _stacked(self, rows: list[np.ndarray]) -> np.ndarray:
        return np.stack(rows) if rows else np.empty((0, self.config.embed_width), np.float32)


def _image_sizes(most: int) -> list[int]:
    """Powers of two, and the most at last: a batch is the largest that fills up, so nothing is padded."""
    sizes = [1]
    while sizes[-1] * 2 < most:
        sizes.append(sizes[-1] * 2)
    return sizes if most == 1 else [*sizes, most]


def _widths(context: int) -> list[int]:
    """16, 32, 64 ... tokens, and the context at last."""
    widths = [min(_SHORTEST, context)]
    while widths[-1] < context:
        widths.append(min(widths[-1] * 2, context))
    return widths
