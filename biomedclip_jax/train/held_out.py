"""The held-out pairs during a run: loss and recall of the weights as they are, on all devices together."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.data.open_pairs import open_pairs
from biomedclip_jax.data.pairs import ImageOf, Pairs, with_readable_texts
from biomedclip_jax.data.processor import Processor
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.retrieval import recall
from biomedclip_jax.interop.layout import flatten, nest
from biomedclip_jax.models import abstract_model
from biomedclip_jax.objective import blockwise_loss
from biomedclip_jax.sharding import put_batch, replicated
from biomedclip_jax.train.export import in_workdir
from biomedclip_jax.train.step import State

_ROWS = 16  # pairs a device encodes at once


def held_out_pairs(config: TrainConfig, workdir: Path) -> Pairs | None:
    """The held-out pairs; None if the config has none. UserError if they cannot be used."""
    data = config.data
    if data.held_out is None:
        return None
    source = in_workdir(data.held_out, workdir)
    return with_readable_texts(open_pairs(source, data.image_column, data.caption_column, data.label_column))


class HeldOut:
    """Evaluates a state within a stage. Images that cannot be read are left out from the first evaluation on."""

    def __init__(self, config: TrainConfig, pairs: Pairs, tokenizer: Path, mesh: Mesh):
        self._config = config
        self._pairs = pairs
        self._tokenizer = tokenizer
        self._mesh = mesh
        self._bad: set[int] = set()

    def evaluate(self, state: State, number: int) -> dict[str, float]:
        """held_out_loss, and held_out_{image_to_text,text_to_image}_recall_at_{1,5,10}, of the weights in `state`.

        The moving average is evaluated where there is one. The loss is the stage's objective over all held-out pairs.
        """
        config, stage = self._config, self._config.stages[number]
        model = config.model_in(stage)
        graph, _ = abstract_model(model, config.compute)
        processor = Processor(config.preprocess_in(stage), model.text, self._tokenizer)

        def encode(params: dict[str, Any], batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
            clip = nnx.merge(graph, params)
            return clip.encode_image(batch["images"]), clip.encode_text(batch["tokens"])

        run = jax.jit(encode, out_shardings=replicated(self._mesh))
        params = nest(flatten(state["params"]) | state.get("ema", {}))
        rows = _ROWS * self._mesh.size
        images, texts = [], []
        for start in range(0, len(self._pairs), rows):
            batch = self._load(processor, start, rows)
            image, text = run(params, put_batch(batch, self._mesh))
            images.append(np.asarray(image))
            texts.append(np.asarray(text))
        kept = [i for i in range(len(self._pairs)) if i not in self._all_bad()]
        image, text = np.concatenate(images)[kept], np.concatenate(texts)[kept]
        numbers = {name: np.asarray(params[name]) for name in ("logit_scale", "logit_bias") if name in params}
        loss = jax.jit(blockwise_loss, static_argnums=0)(stage.objective, jnp.asarray(image), jnp.asarray(text), numbers)
        results = recall(image, text, [self._caption(i) for i in kept])
        return {"held_out_loss": float(loss)} | {f"held_out_{name}": value for name, value in results.items()}

    def _load(self, processor: Processor, start: int, rows: int) -> dict[str, np.ndarray]:
        """This host's rows of a batch of `rows` pairs; the last batch is filled up with copies."""
        here = rows // jax.process_count()
        first = start + here * jax.process_index()
        places = [min(place, len(self._pairs) - 1) for place in range(first, first + here)]
        size = processor.config.image_size
        pixels = np.zeros((here, size, size, 3), np.float32)
        for row, image in enumerate(processor.images_or_errors([ImageOf(self._pairs, place) for place in places])):
            if isinstance(image, UserError):
                self._bad.add(places[row])
            else:
                pixels[row] = image
        return {"images": pixels, "tokens": processor.tokens([self._caption(place) for place in places])}

    def _caption(self, index: int) -> str:
        return self._pairs.texts(index).captions[0]

    def _all_bad(self) -> set[int]:
        """The unreadable pairs that any host has met."""
        if jax.process_count() == 1:
            return self._bad
        from jax.experimental.multihost_utils import process_allgather

        mine = np.zeros(len(self._pairs), bool)
        mine[list(self._bad)] = True
        return set(np.flatnonzero(np.asarray(process_allgather(mine)).any(axis=0)).tolist())
