"""Lightning's checkpoints: what they hold besides tensors is passed over, and never run."""

from pathlib import Path

import numpy as np
import pytest

from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._lightning import LightningFile, write_lightning


class Settings:
    """Of a module that no reader imports: what a training script leaves in its checkpoint."""

    def __init__(self) -> None:
        self.depth = 3


class AttributeDict(dict):
    """What Lightning keeps hyper-parameters in."""


def unpickled(*_: object) -> None:
    raise AssertionError("code of the file was run")


class Hostile:
    def __reduce__(self) -> tuple:
        return unpickled, ("anything",)


def test_foreign_objects_are_passed_over(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "a.ckpt"
    state = {"weight": torch.arange(3, dtype=torch.bfloat16), "count": torch.tensor(2)}
    callbacks = {"settings": Settings(), "folder": Path("/somewhere"), "kind": Settings, "hostile": Hostile()}
    chosen = AttributeDict(peft="lora", transform=Settings())
    torch.save({"state_dict": state, "callbacks": callbacks, "hyper_parameters": chosen}, path)
    file = LightningFile(path)
    assert set(file) == set(state) and file["weight"].tolist() == [0.0, 1.0, 2.0]
    assert file.tensor("weight").dtype == torch.bfloat16
    assert file.hyper_parameters["peft"] == "lora" and not isinstance(file.hyper_parameters["transform"], Settings)
    assert torch.equal(file.cast("weight", np.array([[2.0, 1.0, 0.5]])), torch.tensor([2.0, 1.0, 0.5], dtype=torch.bfloat16))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.ckpt"
    write_lightning(path, {"a": np.arange(6.0).reshape(2, 3).T}, {"peft": None})
    file = LightningFile(path)
    assert file.hyper_parameters == {"peft": None} and np.array_equal(file["a"], np.arange(6.0).reshape(2, 3).T)


def test_a_bare_state_dict_has_no_hyper_parameters(tmp_path: Path) -> None:
    import torch

    torch.save({"a": torch.ones(2)}, tmp_path / "a.ckpt")
    assert LightningFile(tmp_path / "a.ckpt").hyper_parameters == {}


def test_another_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"nothing")
    for name in ("a.ckpt", "b.ckpt"):
        with pytest.raises(UserError, match=f"{name}: not a readable PyTorch weights file"):
            LightningFile(tmp_path / name)
