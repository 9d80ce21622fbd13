"""Runs that learn to answer questions: the answers that they know, and their questions as pairs and token ids."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from biomedclip_jax.config import AnsweringConfig, QCRConfig, QuestionTypes, TrainConfig
from biomedclip_jax.data.demo.sources import make_demo_of
from biomedclip_jax.data.images.normalise import normalised as normalised_pixels
from biomedclip_jax.data.loader import TrainLoader
from biomedclip_jax.data.pairs import Pairs
from biomedclip_jax.data.processor import question_tokenizer
from biomedclip_jax.data.questions.answers import normalised
from biomedclip_jax.data.questions.pairs import QuestionPairs, label_of, open_part, open_question_pairs, open_usable
from biomedclip_jax.data.questions.table import QuestionColumns
from biomedclip_jax.data.questions.types import PARTS, Question
from biomedclip_jax.data.questions.words import QuestionWords, question_words
from biomedclip_jax.data.text import Tokenizer, TokenMaker
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.answering import starting_answering
from biomedclip_jax.interop.answering_folder import holds_answering
from biomedclip_jax.interop.model_files import local_folder
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.answering.qcr.model import QCR
from biomedclip_jax.sharding import replicated
from biomedclip_jax.train.export import CONFIG, in_workdir, read_config
from biomedclip_jax.train.multihost import hosts
from biomedclip_jax.train.multihost.hosts import is_first, say
from biomedclip_jax.train.optimizer import matches
from biomedclip_jax.train.state import TrainState

_OF_TYPES = "answering/types/fc1/kernel"
_MEASURED = 64  # training images whose statistics MAML's normalisations start from


def with_answers(config: TrainConfig, workdir: Path) -> TrainConfig:
    """The config with the answers that its model is to know: those that it names, else those that the run folder keeps, else
    those of the training questions, the most frequent first. Of QCR, with the words of the training questions, too.
    """
    answering = config.model.answering
    if answering is None or answering.answers:
        return config
    if (workdir / CONFIG).is_file():
        stored = read_config(workdir).model.answering
        if stored is not None and stored.answers and _unresolved(stored) == answering:
            return _answering(config, stored)
    if config.data.train.startswith("demo:"):  # type: ignore[union-attr]  # one source: the config has checked it
        if is_first():
            make_demo_of(str(config.data.train), workdir)
        hosts.barrier("the questions", 60 * config.run.stall_minutes)
    learned = list(_usable(config, str(config.data.train), workdir))
    known = learned if answering.vocabulary == "train" else [*learned, *_of_other_parts(config, workdir)]
    return _answering(config, _resolved(answering, learned, known, str(config.data.train)))


def _of_other_parts(config: TrainConfig, workdir: Path) -> list[Question]:
    """The questions of all parts of the data that are not learned from."""
    data, own = open_part(in_workdir(str(config.data.train), workdir), _columns(config))
    found = [each for part in PARTS if part != own and data.part(part) != data.part(own) for each in data.part(part)]
    if config.data.held_out is not None:
        found += _usable(config, config.data.held_out, workdir)
    return found


def _usable(config: TrainConfig, source: str, workdir: Path) -> tuple[Question, ...]:
    """The questions of a source, without their pictures, which the run reads once, when it begins."""
    return open_usable(in_workdir(source, workdir), _columns(config))[1]


def _unresolved(answering: AnsweringConfig) -> AnsweringConfig:
    """As it stands in a config whose answers are to be those of the data."""
    if isinstance(answering, QCRConfig):
        return dataclasses.replace(answering, answers=(), closed_answers=0, words=())
    return dataclasses.replace(answering, answers=())


def _resolved(
    answering: AnsweringConfig, learned: Sequence[Question], known: Sequence[Question], source: str
) -> AnsweringConfig:
    """With the answers of `known` and the words of the `learned` questions."""
    if len({normalised(each.answer) for each in learned}) < 2:
        raise UserError(f"{source}: all {len(learned)} questions have one answer, {normalised(learned[0].answer)!r}")
    if not isinstance(answering, QCRConfig):
        return dataclasses.replace(answering, answers=_by_frequency([normalised(each.answer) for each in known]))
    closed, open_ = (
        _by_frequency([normalised(each.answer) for each in known if each.closed == kind]) for kind in (True, False)
    )
    words = answering.words or question_words([each.question for each in learned])
    return dataclasses.replace(answering, answers=closed + open_, closed_answers=len(closed), words=words)


def _by_frequency(answers: list[str]) -> tuple[str, ...]:
    return tuple(answer for answer, _ in Counter(answers).most_common())


def check_types_are_learned(config: TrainConfig) -> None:
    """UserError where QCR would have to tell closed questions from open ones by a classifier that nothing has trained."""
    answering = config.model.answering
    if not isinstance(answering, QCRConfig) or answering.closed_answers in (0, len(answering.answers)):
        return
    learned = any(
        isinstance(stage.loss, QuestionTypes) and any(matches(_OF_TYPES, pattern) for pattern in stage.trainable)
        for stage in config.stages
    )
    if not learned and not _knows_already(config.model_init):
        raise UserError(
            "stages: none trains answering/types by QuestionTypes(), so that QCR would guess which questions are closed; "
            "put such a stage before the others, as configs/vqa_quickstart_qcr.py does"
        )


def question_pairs(config: TrainConfig, source: str, workdir: Path) -> QuestionPairs:
    """The questions of a source of the config."""
    typed = isinstance(config.model.answering, QCRConfig)
    return dataclasses.replace(open_question_pairs(in_workdir(source, workdir), _columns(config)), typed=typed)


def _columns(config: TrainConfig) -> QuestionColumns:
    data = config.data
    assert data.label_column is not None
    return QuestionColumns(data.image_column, data.caption_column, data.label_column)


def tokenizer_of(config: TrainConfig, folder: Path) -> TokenMaker:
    """What makes token ids of captions or, where the model answers questions, of questions; folder: of the tokenizer."""
    text, answering = config.model.text, config.model.answering
    if answering is not None:
        return question_tokenizer(folder, text, answering)
    return Tokenizer(folder, text.context_length, text.pad_id, text.vocab_size)


def answer_names(answering: AnsweringConfig) -> tuple[str, ...]:
    """The answers in their order, by the labels that `QuestionPairs` give them."""
    if not isinstance(answering, QCRConfig):
        return answering.answers
    return tuple(label_of(answer, number < answering.closed_answers) for number, answer in enumerate(answering.answers))


def answer_labels(config: TrainConfig, pairs: Pairs) -> np.ndarray:
    """Which of the answers that the model knows is right, bool [n, C]; a row of an answer that it does not know is False.

    Where closed answers and open ones are apart, it is that of the question's type.
    """
    assert config.model.answering is not None
    numbers = {name: number for number, name in enumerate(answer_names(config.model.answering))}
    found = np.zeros((len(pairs), len(numbers)), bool)
    for index in range(len(pairs)):
        if (number := numbers.get(pairs.texts(index).label or "")) is not None:
            found[index, number] = True
    return found


def begun(state: TrainState, config: TrainConfig, loader: TrainLoader) -> TrainState:
    """The state that a run starts from, with the word vectors and weights that QCR starts from where it is made anew."""
    if not isinstance(config.model.answering, QCRConfig) or _knows_already(config.model_init):
        return state
    pairs, tokenizer = loader.pairs, loader.tokenizer
    assert isinstance(tokenizer, QuestionWords)
    asked = tokenizer.whole([pairs.texts(index).captions[0] for index in range(len(pairs))])
    before: dict[str, Any] = state.params["answering"]
    new, lines = starting_answering(config.model, {"answering": jax.tree.map(_whole, before)}, asked)
    for line in lines:
        say(line)
    if "maml" in config.model.answering.vision:
        _measure_maml(new["answering"], config, loader)
    # of the dtype that it had: parameters that no stage trains may be kept in another
    put = jax.tree.map(lambda x, old: jax.device_put(np.asarray(x, old.dtype), old.sharding), new["answering"], before)
    placed: dict[str, Any] = flatten_dict(put, sep="/")
    paths: dict[str, jax.Array] = {f"answering/{path}": x for path, x in placed.items()}
    # an array for each of the two, because they are donated apart
    ema = state.ema | {path: jnp.copy(x) for path, x in paths.items() if path in state.ema}
    return dataclasses.replace(state, params=state.params | {"answering": unflatten_dict(placed, sep="/")}, ema=ema)


def _whole(x: jax.Array) -> np.ndarray:
    """A parameter that may be split over hosts, as a whole."""
    mesh = x.sharding.mesh  # type: ignore[attr-defined]
    return np.asarray(jax.jit(lambda y: y, out_shardings=replicated(mesh))(x))


def _measure_maml(answering: dict[str, Any], config: TrainConfig, loader: TrainLoader) -> None:
    """Put the means and variances of its activations over some training images into MAML's normalisations."""
    preprocess = config.preprocess_in(config.stages[0])
    with contextlib.closing(loader.at(preprocess, labels=False).batches(0, _MEASURED, 1)) as batches:
        images = normalised_pixels(next(batches).images, preprocess)
    graph, shapes = abstract_model(config.model_in(config.stages[0]))
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    head = nnx.merge(graph, blank | {"answering": answering}).answering
    assert isinstance(head, QCR)
    for name, found in head.maml_statistics(images).items():
        answering["maml"][name] |= {statistic: np.asarray(values) for statistic, values in found.items()}


def _knows_already(source: str | None) -> bool:
    """Whether a model that a run starts from answers questions."""
    if source is None:
        return False
    folder = local_folder(source, weights=False)
    return holds_answering(folder) or holds_answering(folder / "model")


def _answering(config: TrainConfig, answering: AnsweringConfig) -> TrainConfig:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, answering=answering))
