"""What a run may start from: what other commands take for a model, too, and its towers one by one."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from helpers import tiny
from helpers.reference import write_vocabulary

from biomedclip_jax.config import GPTConfig, PreprocessConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.initial import holds_model, starting_image_tower, starting_text_tower
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.write import write_model
from biomedclip_jax.models import init_params
from biomedclip_jax.pretrained import load
from biomedclip_jax.train.export import tokenizer_folder


@pytest.fixture
def model(tmp_path: Path) -> Model:
    write_vocabulary(tmp_path)
    return Model(tiny.MODEL, PreprocessConfig(image_size=16), init_params(tiny.MODEL, 0), tmp_path)


@pytest.fixture
def run(model: Model, tmp_path: Path) -> Path:
    """A finished run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    write_model(model, tmp_path / "run" / "model", "huggingface")
    return tmp_path / "run"


def same(found: Any, expected: Any) -> bool:
    return bool(jax.tree.all(jax.tree.map(np.array_equal, found, expected)))


def test_a_tower_of_a_run_or_a_model_folder(model: Model, run: Path) -> None:
    for source in map(str, (run, run / "model")):
        assert holds_model(source)
        assert same(starting_image_tower(source, tiny.MODEL.vit, load), model.params["image"])
        assert same(starting_text_tower(source, tiny.MODEL.text, load, {}), model.params["text"])
    # the folder of one tower is still what it was
    assert not holds_model(str(run / "model" / "text"))
    assert same(starting_text_tower(str(run / "model" / "text"), tiny.MODEL.text, load, {}), model.params["text"])
    larger = starting_image_tower(str(run), dataclasses.replace(tiny.MODEL.vit, image_size=32), load)
    assert larger["position"].shape[0] > model.params["image"]["position"].shape[0]


def test_what_is_not_there_or_another_tower_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: no such folder"):
        starting_image_tower(str(tmp_path / "none"), tiny.MODEL.vit, load)
    with pytest.raises(UserError, match="none: no such folder"):
        load(tmp_path / "none")
    wider = dataclasses.replace(tiny.MODEL.vit, heads=1)
    with pytest.raises(UserError, match=r"run: another model than the config asks for: heads = \d \(config: 1\)"):
        starting_image_tower(str(run), wider, load)
    gpt = GPTConfig(vocab_size=60, context_length=12, positions=24, pad_id=59, width=32, depth=2, heads=4, mlp_width=64)
    with pytest.raises(UserError, match="its text tower is a Bert; expected a GPT"):
        starting_text_tower(str(run), gpt, load, {})


def test_a_tokenizer_of_a_run_or_a_model_folder(run: Path, tmp_path: Path) -> None:
    def found(source: Path | str) -> Path:
        config: Any = SimpleNamespace(data=SimpleNamespace(tokenizer=str(source)))
        return tokenizer_folder(config, tmp_path)

    text = run / "model" / "text"
    assert found(run) == found(run / "model") == found(text) == text
    assert found(tmp_path) == tmp_path
    assert found("{workdir}/run") == text
    with pytest.raises(UserError, match=r"data\.tokenizer .*none: no such folder; expected .* a run folder"):
        found(tmp_path / "none")
