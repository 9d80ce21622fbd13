"""Runs that learn to answer questions: the answers that they know, and their questions as pairs and token ids."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.data.demo.sources import make_demo_of
from biomedclip_jax.data.pairs import Pairs
from biomedclip_jax.data.processor import question_tokenizer
from biomedclip_jax.data.questions.pairs import QuestionPairs, open_question_pairs
from biomedclip_jax.data.questions.table import QuestionColumns
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError
from biomedclip_jax.train.export import CONFIG, in_workdir, read_config
from biomedclip_jax.train.multihost import hosts
from biomedclip_jax.train.multihost.hosts import is_first


def with_answers(config: TrainConfig, workdir: Path) -> TrainConfig:
    """The config with the answers that its model is to know: those that it names, else those that the run folder keeps, else
    those of the training questions, the most frequent first.
    """
    answering = config.model.answering
    if answering is None or answering.answers:
        return config
    if (workdir / CONFIG).is_file():
        stored = read_config(workdir).model.answering
        answers = () if stored is None else stored.answers
        if answers and stored == dataclasses.replace(answering, answers=answers):
            return _answering(config, stored)
    if config.data.train.startswith("demo:"):
        if is_first():
            make_demo_of(config.data.train, workdir)
        hosts.barrier("the questions", 60 * config.run.stall_minutes)
    pairs = question_pairs(config, config.data.train, workdir)
    counts = Counter(pairs.texts(index).label or "" for index in range(len(pairs)))
    if len(counts) < 2:
        raise UserError(f"{config.data.train}: all {len(pairs)} questions have one answer, {next(iter(counts))!r}")
    return _answering(config, dataclasses.replace(answering, answers=tuple(answer for answer, _ in counts.most_common())))


def question_pairs(config: TrainConfig, source: str, workdir: Path) -> QuestionPairs:
    """The questions of a source of the config."""
    data = config.data
    assert data.label_column is not None
    columns = QuestionColumns(data.image_column, data.caption_column, data.label_column)
    return open_question_pairs(in_workdir(source, workdir), columns)


def tokenizer_of(config: TrainConfig, folder: Path) -> Tokenizer:
    """What makes token ids of captions or, where the model answers questions, of questions; folder: of the tokenizer."""
    text, answering = config.model.text, config.model.answering
    if answering is not None:
        return question_tokenizer(folder, text, answering)
    return Tokenizer(folder, text.context_length, text.pad_id, text.vocab_size)


def answer_labels(config: TrainConfig, pairs: Pairs) -> np.ndarray:
    """Which of the answers that the model knows is right, bool [n, C]; a row of an answer that it does not know is False."""
    assert config.model.answering is not None
    numbers = {answer: number for number, answer in enumerate(config.model.answering.answers)}
    found = np.zeros((len(pairs), len(numbers)), bool)
    for index in range(len(pairs)):
        if (number := numbers.get(pairs.texts(index).label or "")) is not None:
            found[index, number] = True
    return found


def _answering(config: TrainConfig, answering: object) -> TrainConfig:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, answering=answering))
