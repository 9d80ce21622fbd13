"""Experiment files: what is wrong with one is said in a line, and every one in configs/ describes a model that can be built."""

from pathlib import Path

import pytest

from biomedclip_jax.config.files import load_config
from biomedclip_jax.errors import UserError
from biomedclip_jax.models import abstract_model
from biomedclip_jax.planning.lower import with_assumed_answers
from biomedclip_jax.train.state import parameter_count

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

GOOD = """
from biomedclip_jax.config import DataConfig, Stage, TrainConfig
config = TrainConfig(name="mine", data=DataConfig(train="train.csv"), stages=(Stage(batch_size=8, steps=1),))
"""


def test_a_good_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    assert load_config(tmp_path / "mine.py").name == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        (GOOD + "x = = 1\n", "SyntaxError"),
        (GOOD.replace("config = ", "setup = "), "expected it to define `config`"),
        (GOOD + "config = {}\n", "expected it to define `config`"),
        (GOOD.replace("steps=1", "step=1"), "unexpected keyword argument 'step'"),
        (GOOD.replace("Stage,", "Stages,"), "cannot import name 'Stages'"),
        (GOOD.replace("data=DataConfig", "data=Dataconfig"), "name 'Dataconfig' is not defined"),
        (GOOD + "seeds = {}['first']\n", "KeyError: 'first'"),
    ],
    ids=["missing", "syntax", "no config", "another type", "wrong field", "wrong import", "unknown name", "its own mistake"],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_wrong_value_names_its_field(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD.replace("batch_size=8", "batch_size=0"))
    with pytest.raises(UserError, match=r"Stage\.batch_size = 0"):
        load_config(tmp_path / "mine.py")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_config_describes_a_model(path: Path) -> None:
    config = with_assumed_answers(load_config(path))  # which a run takes from its questions
    assert config.name == path.stem, "the default run folder is named after it"
    assert f"biomedclip train configs/{path.name}" in path.read_text(encoding="utf-8"), "its header has the command"
    for size in {stage.image_size or config.model.image.image_size for stage in config.stages}:
        model = config.model_at(size)
        _, shapes = abstract_model(model, config.compute, adaptation=config.adaptation)
        rows = (size // model.image.patch_size) ** 2 + model.vit.prefix_positions
        assert shapes["image"]["position"].shape == (rows, model.image.width)


def test_the_released_model_has_its_size() -> None:
    assert parameter_count(load_config(CONFIGS / "biomedclip_vit_b16_224.py").model) == 195_902_721
