"""The held-out pairs during a run: loss and recall of the weights as they are, on all devices together."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from biomedclip_jax.config import AnswerLoss, Classification, MultiLabel, PairLoss, Stage, TrainConfig
from biomedclip_jax.data.loader import TrainLoader
from biomedclip_jax.data.names import multi_hot
from biomedclip_jax.data.pairs import ImageOf, Pairs, with_readable_texts
from biomedclip_jax.data.processor import Processor
from biomedclip_jax.data.questions.pairs import QuestionPairs
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.equal_captions import caption_ids
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.retrieval.task import recall
from biomedclip_jax.losses import class_loss, pair_loss
from biomedclip_jax.models import abstract_model
from biomedclip_jax.prompts.layout import prompt_embeddings
from biomedclip_jax.sharding import put_batch, replicated
from biomedclip_jax.train._answer_loss import answer_counted, answer_terms
from biomedclip_jax.train._frozen import sources
from biomedclip_jax.train._prompt_stage import class_prompts
from biomedclip_jax.train._questions import answer_labels, question_pairs
from biomedclip_jax.train._same_data import DataIdentity
from biomedclip_jax.train.export import in_workdir
from biomedclip_jax.train.state import TrainState

_ROWS = 16  # pairs a device encodes at once

Encode = Callable[..., Any]
Busy = Callable[[str], object]  # told what is being done, before each part of it that takes long

_pair_loss = jax.jit(pair_loss, static_argnums=0)


def _nobody(_: str) -> None:
    """Nobody wants to know."""


def held_out_pairs(config: TrainConfig, workdir: Path) -> Pairs | None:
    """The held-out pairs; None if the config has none. UserError if they cannot be used."""
    data = config.data
    if data.held_out is None:
        return None
    if config.model.answering is not None:
        return question_pairs(config, data.held_out, workdir)
    source = in_workdir(data.held_out, workdir)
    return with_readable_texts(open_pairs(source, data.image_column, data.caption_column, data.label_column))


def check_held_out(config: TrainConfig, pairs: Pairs) -> None:
    """UserError where no held-out image can be read, or too few for a loss that says something; reads the first ones."""
    of_pairs = isinstance(config.stages[-1].loss, PairLoss) and config.run.evaluate_every is not None
    needed, readable, bad = 2 if of_pairs else 1, 0, list[UserError]()
    for index in range(len(pairs)):
        try:
            ImageOf(pairs, index).load()
        except UserError as error:
            bad.append(error)
            continue
        readable += 1
        if readable == needed:
            return
    if readable == 0:
        raise UserError(
            f"{config.data.held_out}: none of the {len(pairs)} held-out images can be read; mend these files "
            f"(the first: {bad[0]})"
        )
    raise UserError(
        f"{config.data.held_out}: only one held-out pair can be used, whose loss is the same with all weights; expected two or "
        "more, of different images, or run.evaluate_every = None"
    )


@dataclass(frozen=True)
class _StageEncoder:
    """What evaluating in one stage needs: kept, because jit compiles anew for every new function that it is given.

    encode: (params, batch) -> unit embeddings of the images and, where the stage does not learn of labels, of the texts;
    then the ids of the captions, where equal ones are positives.
    prompts: params -> unit embeddings of the classes [C, E], where it does.
    """

    number: int
    stage: Stage
    processor: Processor
    encode: Encode
    prompts: Encode | None


class HeldOut:
    """Evaluates a state within a stage. Images that cannot be read are left out from the first evaluation on.

    classes: of the training data, for stages that learn of labels. The program that encodes is compiled once a stage.
    """

    def __init__(self, config: TrainConfig, pairs: Pairs, tokenizer: Path, mesh: Mesh, classes: tuple[str, ...] = ()):
        self._config = config
        self._pairs = pairs
        self._tokenizer = tokenizer
        self._mesh = mesh
        self._bad: set[int] = set()
        self._classes = classes
        self._ready: _StageEncoder | None = None
        self._labels: np.ndarray | None = None
        if isinstance(pairs, QuestionPairs):
            self._labels = answer_labels(config, pairs)
        elif classes:
            labels = [pairs.texts(i).label for i in range(len(pairs))]
            self._labels = multi_hot(labels, classes, config.data.label_separator)

    @property
    def compares(self) -> bool:
        """Whether start and end are evaluated: with `run.evaluate_every`, and where the start is pretrained.

        A pretrained start may be better than the end. A single pair cannot tell: its loss is 0.
        """
        return self._config.run.evaluate_every is not None or (bool(sources(self._config)) and len(self._pairs) > 1)

    def evaluate(self, state: TrainState, number: int, busy: Busy = _nobody) -> dict[str, float]:
        """Scores of the weights in `state` in stage `number`: "loss" and {image_to_text,text_to_image}_recall_at_{1,5,10}.

        The moving average is evaluated where there is one. The loss is the stage's over all held-out pairs. In a stage that
        learns of labels: the loss of classes and, of images with one label, "accuracy"; in one that answers questions the
        loss of answers, "accuracy", "accuracy_open" and "accuracy_closed". busy: called before each batch.
        """
        if self._ready is None or self._ready.number != number:
            busy("compiling the evaluation")
            self._ready = self._prepare(number)
        params = state.averaged_params
        if self._ready.stage.answers:
            return self._of_answers(params, self._ready, busy)
        if self._ready.prompts is not None:
            return self._of_labels(params, self._ready, self._ready.prompts, busy)
        kept, (image, text, *ids) = self._encoded(params, self._ready, busy)
        numbers = {name: np.asarray(params[name]) for name in ("logit_scale", "logit_bias") if name in params}
        loss = _pair_loss(self._ready.stage.loss, jnp.asarray(image), jnp.asarray(text), numbers, *map(jnp.asarray, ids))
        return {"loss": float(loss)} | recall(image, text, [self._caption(i) for i in kept])

    def _prepare(self, number: int) -> _StageEncoder:
        config, stage = self._config, self._config.stages[number]
        processor = Processor(config.preprocess_in(stage), config.model.text, self._tokenizer, config.model.answering)
        compute = replace(config.compute, attention="plain")  # a kernel's input would be gathered by each device
        graph, _ = abstract_model(config.model_in(stage), compute, adaptation=config.adaptation)
        layout = class_prompts(config, self._classes, processor.tokenizer) if stage.prompted else None
        whole = replicated(self._mesh)

        def images_and_texts(params: dict[str, Any], batch: dict[str, jax.Array]) -> tuple[jax.Array, ...]:
            clip = nnx.merge(graph, params)
            if isinstance(stage.loss, AnswerLoss):
                scores = clip.answering.scores(clip, batch["images"], batch["tokens"])
                return (scores, answer_terms(stage.loss, clip, batch), answer_counted(stage.loss, clip, batch["labels"]))
            image = clip.encode_image(batch["images"])
            if layout is not None:
                return (image,)
            ids = (caption_ids(batch["tokens"]),) if stage.loss.equal_captions == "positives" else ()
            return (image, clip.encode_text(batch["tokens"]), *ids)

        prompts = None
        if layout is not None:
            prompts = jax.jit(lambda params: prompt_embeddings(nnx.merge(graph, params), *layout), out_shardings=whole)
        return _StageEncoder(number, stage, processor, jax.jit(images_and_texts, out_shardings=whole), prompts)

    def _of_labels(self, params: dict[str, Any], ready: _StageEncoder, prompts: Encode, busy: Busy) -> dict[str, float]:
        assert self._labels is not None
        kept, (image,) = self._encoded(params, ready, busy)
        classes, labels = np.asarray(prompts(params)), self._labels[kept]
        loss_kind = ready.stage.loss if isinstance(ready.stage.loss, MultiLabel) else Classification()
        scale = jnp.asarray(np.asarray(params["logit_scale"]))  # off the mesh, as the others
        loss = class_loss(loss_kind, jnp.asarray(image), jnp.asarray(classes), jnp.asarray(labels), scale)
        scores = {"loss": float(loss)}
        if self._config.data.label_separator is None:
            scores["accuracy"] = float(((image @ classes.T).argmax(axis=1) == labels.argmax(axis=1)).mean())
        return scores

    def _of_answers(self, params: dict[str, Any], ready: _StageEncoder, busy: Busy) -> dict[str, float]:
        """Of questions whose answer the model does not know each answer is wrong, and each part of the loss is one, too."""
        assert isinstance(self._pairs, QuestionPairs) and self._labels is not None
        kept, (scores, terms, counted) = self._encoded(params, ready, busy)
        loss = (np.where(counted, terms, 0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)).sum()
        right = self._labels[kept][np.arange(len(kept)), scores.argmax(axis=1)]
        closed = np.array([self._pairs.questions[index].closed for index in kept])
        parts = {"accuracy": right, "accuracy_open": right[~closed], "accuracy_closed": right[closed]}
        return {"loss": float(loss)} | {name: float(own.mean()) for name, own in parts.items() if len(own)}

    def _encoded(self, params: dict[str, Any], ready: _StageEncoder, busy: Busy) -> tuple[list[int], list[np.ndarray]]:
        """(pairs that can be read, what `encode` gives of them): each array is [n, ...]."""
        rows = _ROWS * self._mesh.size
        parts = []
        for start in range(0, len(self._pairs), rows):
            busy(f"evaluating, at held-out pair {start + 1:,} of {len(self._pairs):,}")
            batch = put_batch(self._load(ready.processor, start, rows), self._mesh)
            parts.append([np.asarray(part) for part in ready.encode(params, batch)])
        bad = self._all_bad()
        kept = [i for i in range(len(self._pairs)) if i not in bad]
        if not kept:
            raise UserError(
                f"{self._config.data.held_out}: none of the {len(bad)} held-out images can be read; mend these files"
            )
        return kept, [np.concatenate(each)[kept] for each in zip(*parts, strict=True)]

    def _load(self, processor: Processor, start: int, rows: int) -> dict[str, np.ndarray]:
        """This host's rows of a batch of `rows` pairs; the last batch is filled up with copies."""
        here = rows // jax.process_count()
        first = start + here * jax.process_index()
        positions = [min(position, len(self._pairs) - 1) for position in range(first, first + here)]
        size = processor.config.image_size
        pixels = np.zeros((here, size, size, 3), np.float32)
        for row, image in enumerate(processor.images_or_errors([ImageOf(self._pairs, i) for i in positions])):
            if isinstance(image, UserError):
                self._bad.add(positions[row])
            else:
                pixels[row] = image
        tokens = processor.tokens if self._config.model.answering is None else processor.questions
        batch = {"images": pixels, "tokens": tokens([self._caption(i) for i in positions])}
        return batch if self._labels is None else batch | {"labels": self._labels[positions]}

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


@dataclass(frozen=True)
class Inputs:
    """What feeds a run, what evaluates it (None where the config has no held-out pairs), and what these data are."""

    loader: TrainLoader
    held_out: HeldOut | None
    identity: DataIdentity
