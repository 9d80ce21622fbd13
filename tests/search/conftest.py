"""A tiny model, and pictures that its embeddings tell apart."""

from pathlib import Path

import pytest
from helpers.few_shot_task import make_candidate
from helpers.tiny_index import Indexing, write_picture

import biomedclip_jax as bc


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    make_candidate(folder)
    return folder


@pytest.fixture(scope="session")
def clip(model: Path) -> bc.Pretrained:
    return bc.from_pretrained(model)


@pytest.fixture
def index(model: Path, clip: bc.Pretrained, monkeypatch: pytest.MonkeyPatch) -> Indexing:
    return Indexing(model, clip, monkeypatch)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """12 pictures in two folders, and one file that is no picture."""
    folder = tmp_path / "scans"
    for number in range(12):
        write_picture(folder / ("a" if number < 7 else "b") / f"{number:02d}.png", number)
    (folder / "a" / "broken.png").write_bytes(b"not a picture")
    return folder
