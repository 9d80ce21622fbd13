"""Runs of QCR: what a config of it must say, and that a run with parts that nothing trains goes on."""

import dataclasses
from pathlib import Path

import jax
import pytest
from helpers.tiny_questions import make_questions, question_config

from biomedclip_jax.config import Answers, QCRConfig, QuestionTypes, Stage, TrainConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.models import abstract_model
from biomedclip_jax.train._frozen import made_again
from biomedclip_jax.train.main import train
from biomedclip_jax.train.state import optimizer_for

QCR = QCRConfig(answers=("yes", "no", "red"), closed_answers=2, words=("is", "it"), vision=("maml",), word_width=8, width=16)
TYPES = Stage(16, steps=2, loss=QuestionTypes(), trainable=("answering/types",))
# without MAML, whose weights are those that a run starts from
OTHERS = Stage(16, steps=2, loss=Answers(), trainable=("answering/question", "answering/closed", "answering/open"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_questions(tmp_path_factory.mktemp("data"))


def qcr_config(data: Path, **changes: object) -> TrainConfig:
    base = question_config(data)
    model = dataclasses.replace(base.model, answering=QCR)
    return dataclasses.replace(base, **({"model": model, "stages": (TYPES, OTHERS)} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("stages", [(OTHERS,), (dataclasses.replace(TYPES, trainable=("answering/question",)), OTHERS)])
def test_a_classifier_of_questions_that_nothing_trains(data: Path, tmp_path: Path, stages: tuple[Stage, ...]) -> None:
    with pytest.raises(UserError, match="guess which questions are closed"):
        train(qcr_config(data, stages=stages), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_what_is_measured_at_the_start_is_in_checkpoints(data: Path) -> None:
    """MAML's statistics and the smoothed word vectors are not made again when a run goes on from a model's towers."""
    config = qcr_config(data, model_init="a model without answers")
    paths: list[str] = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(abstract_model(config.model)[1])
    ]
    assert "answering/maml/norm1/mean" in paths
    again = made_again(paths, config, optimizer_for(config))
    assert again and not [path for path in again if path.startswith("answering/")]
