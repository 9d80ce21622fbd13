"""The held-out pairs during a run: loss and recall of the weights as they are, on all devices together."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from biomedclip_jax.config import Classification, MultiLabel, Stage, TrainConfig
from biomedclip_jax.data.labelled.classes import multi_hot
from biomedclip_jax.data.pairs import ImageOf, Pairs, with_readable_texts
from biomedclip_jax.data.processor import Processor
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.retrieval.task import recall
from biomedclip_jax.losses import class_loss, pair_loss
from biomedclip_jax.models import abstract_model
from biomedclip_jax.prompts.layout import prompt_embeddings
from biomedclip_jax.sharding import put_batch, replicated
from biomedclip_jax.train.export import in_workdir
from biomedclip_jax.train.prompt_stage import class_prompts
from biomedclip_jax.train.state import TrainState

_ROWS = 16  # pairs a device encodes at once


def held_out_pairs(config: TrainConfig, workdir: Path) -> Pairs | None:
    """The held-out pairs; None if the config has none. UserError if they cannot be used."""
    data = config.data
    if data.held_out is None:
        return None
    source = in_workdir(data.held_out, workdir)
    return with_readable_texts(open_pairs(source, data.image_column, data.caption_column, data.label_column))


class HeldOut:
    """Evaluates a state within a stage. Images that cannot be read are left out from the first evaluation on.

    classes: of the training data, for stages that learn of labels.
    """

    def __init__(self, config: TrainConfig, pairs: Pairs, tokenizer: Path, mesh: Mesh, classes: tuple[str, ...] = ()):
        self._config = config
        self._pairs = pairs
        self._tokenizer = tokenizer
        self._mesh = mesh
        self._bad: set[int] = set()
        self._classes = classes
        labels = [pairs.texts(i).label for i in range(len(pairs))] if classes else []
        self._labels = multi_hot(labels, classes, config.data.label_separator) if classes else None

    def evaluate(self, state: TrainState, number: int) -> dict[str, float]:
        """held_out_loss and held_out_{image_to_text,text_to_image}_recall_at_{1,5,10} of the weights in `state`.

        The moving average is evaluated where there is one. The loss is the stage's objective over all held-out pairs. In a
        stage that learns of labels: the loss of classes and, of images with one label, held_out_accuracy.
        """
        stage = self._config.stages[number]
        processor = Processor(self._config.preprocess_in(stage), self._config.model.text, self._tokenizer)
        params = state.averaged_params
        if stage.prompted:
            return self._of_labels(params, stage, processor)
        kept, (image, text) = self._encoded(params, stage, processor, "encode_image", "encode_text")
        numbers = {name: np.asarray(params[name]) for name in ("logit_scale", "logit_bias") if name in params}
        loss = jax.jit(pair_loss, static_argnums=0)(stage.loss, jnp.asarray(image), jnp.asarray(text), numbers)
        results = recall(image, text, [self._caption(i) for i in kept])
        return {"held_out_loss": float(loss)} | {f"held_out_{name}": value for name, value in results.items()}

    def _of_labels(self, params: dict[str, Any], stage: Stage, processor: Processor) -> dict[str, float]:
        assert self._labels is not None
        kept, (image,) = self._encoded(params, stage, processor, "encode_image")
        layout = class_prompts(self._config, self._classes, processor.tokenizer)
        graph, _ = abstract_model(self._config.model_in(stage), self._config.compute)
        encode = jax.jit(lambda p: prompt_embeddings(nnx.merge(graph, p), *layout), out_shardings=replicated(self._mesh))
        classes = np.asarray(encode(params))
        labels = self._labels[kept]
        loss_kind = stage.loss if isinstance(stage.loss, MultiLabel) else Classification()
        scale = jnp.asarray(np.asarray(params["logit_scale"]))  # off the mesh, as the others
        loss = class_loss(loss_kind, jnp.asarray(image), jnp.asarray(classes), jnp.asarray(labels), scale)
        results = {"held_out_loss": float(loss)}
        if self._config.data.label_separator is None:
            results["held_out_accuracy"] = float(((image @ classes.T).argmax(axis=1) == labels.argmax(axis=1)).mean())
        return results

    def _encoded(
        self, params: dict[str, Any], stage: Stage, processor: Processor, *what: str
    ) -> tuple[list[int], list[np.ndarray]]:
        """The pairs that can be read, and their unit embeddings by "encode_image", perhaps "encode_text", of the model."""
        graph, _ = abstract_model(self._config.model_in(stage), self._config.compute)
        inputs = {"encode_image": "images", "encode_text": "tokens"}

        def encode(params: dict[str, Any], batch: dict[str, jax.Array]) -> tuple[jax.Array, ...]:
            clip = nnx.merge(graph, params)
            return tuple(getattr(clip, name)(batch[inputs[name]]) for name in what)

        run = jax.jit(encode, out_shardings=replicated(self._mesh))
        rows = _ROWS * self._mesh.size
        parts = []
        for start in range(0, len(self._pairs), rows):
            batch = self._load(processor, start, rows)
            parts.append([np.asarray(part) for part in run(params, put_batch(batch, self._mesh))])
        bad = self._all_bad()
        kept = [i for i in range(len(self._pairs)) if i not in bad]
        return kept, [np.concatenate(each)[kept] for each in zip(*parts, strict=True)]

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
