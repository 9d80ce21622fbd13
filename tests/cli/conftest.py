"""A small model folder for the verbs that use a model."""

from pathlib import Path

import pytest
from helpers.few_shot_task import make_candidate


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    make_candidate(folder)
    return folder
