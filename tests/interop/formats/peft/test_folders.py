"""PEFT's adapters of a whole model, there and back."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers import tiny
from helpers.reference import write_vocabulary

from biomedclip_jax.config import UNADAPTED, Adaptation, CLIPConfig, LoRAConfig, PrefixConfig, PreprocessConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.fingerprint import fingerprint
from biomedclip_jax.interop.formats.adapter_folder import Adapter, with_adapter
from biomedclip_jax.interop.formats.peft.folders import is_peft, with_peft, write_peft_folders
from biomedclip_jax.interop.model import Model
from biomedclip_jax.models import init_params
from biomedclip_jax.models.adapters import is_adapter

LORA = LoRAConfig(rank=2, targets=("attention/query", "attention/value"))


def base(folder: Path, config: CLIPConfig = tiny.MODEL) -> Model:
    write_vocabulary(folder)
    return Model(config, PreprocessConfig(image_size=16), init_params(config, 0), folder)


def learned(model: Model, adaptation: Adaptation) -> Adapter:
    """Adapters with random weights, and a projection that has learned, too."""
    rng = np.random.default_rng(0)
    leaves, old = flatten_dict(init_params(model.config, 0, adaptation), sep="/"), flatten_dict(model.params, sep="/")
    own = {p: rng.normal(size=x.shape).astype(np.float32) for p, x in leaves.items() if is_adapter(p)}
    return Adapter(model.config, adaptation, model.preprocess, own, fingerprint(old))


def test_both_towers_there_and_back(tmp_path: Path) -> None:
    model = base(tmp_path)
    adapter = learned(model, Adaptation(LORA, LORA))
    assert write_peft_folders(adapter, tmp_path / "peft") == []
    assert sorted(path.name for path in (tmp_path / "peft").iterdir()) == ["image", "text"]
    again, expected = with_peft(model, tmp_path / "peft"), with_adapter(model, adapter, "base")
    assert is_peft(tmp_path / "peft") and again.config == expected.config == model.config
    ours, theirs = flatten_dict(again.params, sep="/"), flatten_dict(expected.params, sep="/")
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[path], theirs[path]) for path in ours)
    changed = [path for path in ours if not np.array_equal(ours[path], flatten_dict(model.params, sep="/")[path])]
    assert changed == ["image/blocks/attention/qkv/kernel", "text/blocks/attention/qkv/kernel"]


@pytest.mark.parametrize("tower", ["image", "text"])
def test_one_folder_finds_its_tower(tower: str, tmp_path: Path) -> None:
    model = base(tmp_path)
    adapter = learned(model, Adaptation(**{tower: LORA}))
    write_peft_folders(adapter, tmp_path / "peft")
    again, expected = with_peft(model, tmp_path / "peft" / tower), with_adapter(model, adapter, "base")
    path = f"{tower}/blocks/attention/qkv/kernel"
    assert np.array_equal(flatten_dict(again.params, sep="/")[path], flatten_dict(expected.params, sep="/")[path])


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    model = base(tmp_path)
    adapter = learned(model, Adaptation(LORA))
    write_peft_folders(adapter, tmp_path / "peft")
    other = dataclasses.replace(tiny.MODEL, image=dataclasses.replace(tiny.MODEL.image, width=64, heads=4))
    with pytest.raises(UserError, match=r"fits neither tower of this model \(image: .* 64 -> 64"):
        with_peft(base(tmp_path, other), tmp_path / "peft" / "image")
    with pytest.raises(UserError, match="no adapters; expected the adapter/ folder of a run"):
        write_peft_folders(learned(model, UNADAPTED), tmp_path / "none")
    with pytest.raises(UserError, match="takes no prefix"):
        write_peft_folders(learned(model, Adaptation(PrefixConfig(2))), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_learned_projections_are_named(tmp_path: Path) -> None:
    model = base(tmp_path)
    adapter = learned(model, Adaptation(text=LORA))
    more = adapter.parameters | {"logit_scale": np.float32(2)}
    assert write_peft_folders(dataclasses.replace(adapter, parameters=more), tmp_path / "peft") == ["logit_scale"]
