"""Weights behind wrappers' names, beside other things, in other number types, and a temperature that is no logarithm."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import tiny
from helpers.reference import open_clip_model, write_vocabulary

from biomedclip_jax.config import BertConfig, PreprocessConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.initial import text_tower
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.write import write_model
from biomedclip_jax.models import init_params

torch = pytest.importorskip("torch")

VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 16}
SAFE, BIN = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
Tensors = dict[str, Any]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    open_clip_model(folder, VISION, TEXT, bert={"num_hidden_layers": 1})
    return folder


@pytest.fixture
def tensors(original: Path) -> Tensors:
    from safetensors.torch import load_file

    return load_file(original / SAFE)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """The model's folder without its weights."""
    for path in original.iterdir():
        if path.name != SAFE:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def with_prefix(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}{name}": tensor.clone() for name, tensor in tensors.items()}


def same(found: Model, expected: Model) -> bool:
    return bool(jax.tree.all(jax.tree.map(np.array_equal, found.params, expected.params)))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "clip.", "student.net.", "module._orig_mod.model."])
@pytest.mark.parametrize("file", [SAFE, BIN])
def test_a_beginning_of_all_names(
    prefix: str, file: str, folder: Path, original: Path, tensors: Tensors, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    wrapped = with_prefix(prefix, tensors)
    save_file(wrapped, folder / file) if file == SAFE else torch.save(wrapped, folder / file)
    assert same(read_model(folder), read_model(original))
    said = capsys.readouterr().err
    assert said == f"{folder / file}: the names of its {len(tensors)} tensors begin with {prefix!r}, which is taken away\n"


OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}
CONTENTS: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "state_dict": (lambda t: {"state_dict": t, "epoch": 3, "optimizer": OPTIMIZER}, ""),
    "model": (lambda t: {"model": t, "epoch": 3}, ""),
    "model_state_dict": (lambda t: {"model_state_dict": t, "optimizer_state_dict": OPTIMIZER, "loss": 0.5}, ""),
    "net": (lambda t: {"net": t, "acc": torch.tensor(0.9)}, ""),
    "another name": (lambda t: {"biomedclip": t}, ""),
    "two deep": (lambda t: {"model": {"state_dict": with_prefix("module.", t)}}, "begin with 'module.'"),
    "EMA beside": (
        lambda t: {"state_dict": t, "state_dict_ema": with_prefix("", {n: x + 1 for n, x in t.items()})},
        "the weights under 'state_dict' are read; beside them is state_dict_ema (an average of weights)",
    ),
    "model_ema beside": (
        lambda t: {"model_ema": {"module": {n: x + 1 for n, x in t.items()}, "decay": 0.9}, "model": t},
        "beside them is model_ema (an average of weights)",
    ),
    "EMA alone": (lambda t: {"ema_state_dict": t, "epoch": 1}, "'ema_state_dict', an average, are read"),
    "something beside": (lambda t: {"model": t, "teacher": t}, "beside them is teacher"),
    "EMA among the names": (
        lambda t: with_prefix("model.", t) | with_prefix("model_ema.", {n: x + 1 for n, x in t.items()}),
        "the average of weights under 'model_ema' is passed over",
    ),
    "AveragedModel": (lambda t: {"n_averaged": torch.tensor(3)} | with_prefix("module.", t), "begin with 'module.'"),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_what_stands_beside_the_weights(
    content: str, folder: Path, original: Path, tensors: Tensors, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights themselves are read, never an average or a second model without a word."""
    make, expected = CONTENTS[content]
    torch.save(make(tensors), folder / BIN)
    assert same(read_model(folder), read_model(original))
    said = capsys.readouterr().err
    assert expected in said and bool(said) == bool(expected)


class Unknown(torch.nn.Module):
    pass


REFUSED: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "several": (lambda t: {"student": t, "teacher": t}, r"several could be the weights: student \(\d+ entries\), teacher"),
    "two of the usual names": (lambda t: {"model": t, "state_dict": t}, "several could be the weights: model"),
    "nothing": (lambda _: {}, "no tensors by name in it, but nothing"),
    "an optimizer": (lambda _: {"optimizer": OPTIMIZER, "epoch": 3}, r"but optimizer \(dict\), epoch \(int\)"),
    "a whole module": (lambda _: Unknown(), r"holds Python objects \(.*Unknown\).*model.state_dict\(\)"),
    "another model": (lambda t: {"a.x": t["logit_scale"], "b.y": t["logit_scale"]}, r"the file holds 2: a\.x, b\.y"),
    "half a wrapper": (
        lambda t: with_prefix("model.", t) | {"loss.scale": torch.ones(1)},
        r"no tensor text\.transformer.*the file holds",
    ),
    "a renamed tensor": (
        lambda t: {n.replace("proj.0", "proj.zero"): x for n, x in t.items()},
        r"1 tensors are missing: text\.proj\.0\.weight.*1 in the file are not known: text\.proj\.zero\.weight",
    ),
    "whole numbers": (lambda t: t | {"visual.proj": t["visual.proj"].to(torch.int8)}, r"visual\.proj is of int8"),
    "quantised": (
        lambda t: t | {"visual.proj": torch.quantize_per_tensor(t["visual.proj"], 0.1, 0, torch.qint8)},
        r"visual\.proj has the number type torch\.qint8",
    ),
}


@pytest.mark.filterwarnings("ignore")  # torch says that quantised tensors are going to go
@pytest.mark.parametrize("content", REFUSED)
def test_what_could_be_several_things_or_none(content: str, folder: Path, tensors: Tensors) -> None:
    make, message = REFUSED[content]
    torch.save(make(tensors), folder / BIN)
    with pytest.raises(UserError, match=message) as caught:
        read_model(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "complex64"])
def test_a_number_type_that_is_not_read(kind: str, folder: Path, tensors: Tensors) -> None:
    from safetensors.torch import save_file

    save_file(tensors | {"visual.proj": tensors["visual.proj"].to(getattr(torch, kind))}, folder / SAFE)
    with pytest.raises(UserError, match=rf"{SAFE}: visual\.proj has the number type \w+, which is not supported"):
        read_model(folder)


def test_a_pointer_in_place_of_weights(folder: Path) -> None:
    (folder / SAFE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 783734\n")
    with pytest.raises(UserError, match="a pointer of Git LFS"):
        read_model(folder)


def test_weights_of_another_name_are_named(folder: Path, tensors: Tensors) -> None:
    torch.save(tensors, folder / "epoch_5.pt")
    with pytest.raises(UserError, match=re.escape("(epoch_5.pt here: rename what is meant)")):
        read_model(folder)


@pytest.mark.parametrize(
    ("stored", "scale", "said"),
    [
        (math.log(100), 100, ""),
        (math.log(14.28), 14.28, ""),
        (0.0, 1, ""),
        (14.28, 14.28, "taken for the scale itself; its logarithm is 2.6589"),
        (100.0, 100, "taken for the scale itself"),
        (4.77, math.exp(4.77), "read as a logarithm: the scale is 117.9, above CLIP's 100"),  # as of SigLIP
    ],
)
def test_a_temperature_and_its_logarithm(
    stored: float, scale: float, said: str, folder: Path, tensors: Tensors, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(tensors | {"logit_scale": torch.tensor(stored)}, folder / BIN)
    assert math.exp(float(read_model(folder).params["logit_scale"])) == pytest.approx(scale, rel=1e-6)
    found = capsys.readouterr().err
    assert said in found and bool(found) == bool(said)


def test_a_number_that_is_no_temperature(folder: Path, tensors: Tensors) -> None:
    torch.save(tensors | {"logit_scale": torch.tensor(4e6)}, folder / BIN)
    with pytest.raises(UserError, match=r"logit_scale = 4e\+06; expected the logarithm of a scale"):
        read_model(folder)


def test_a_text_tower(folder: Path, original: Path, tensors: Tensors, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrapper's prefix is said, the "bert." that such files have anyway is not."""
    config = read_model(original).config.text
    assert isinstance(config, BertConfig)
    start = "text.transformer."
    bert = {name.removeprefix(start): x for name, x in tensors.items() if name.startswith(start)}
    (folder / "tower").mkdir()
    expected = read_model(original).params["text"]
    for prefix, said in [("", ""), ("bert.", ""), ("module.bert.", "begin with 'module.bert.'")]:
        torch.save(with_prefix(prefix, bert), folder / "tower" / "pytorch_model.bin")
        found = text_tower(str(folder / "tower"), config)
        assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))
        assert (said in (err := capsys.readouterr().err)) and bool(err) == bool(said)


def test_a_pair_of_towers(tmp_path: Path) -> None:
    """Each of its files may have been wrapped."""
    from safetensors.numpy import load_file, save_file

    write_vocabulary(tmp_path)
    model = Model(tiny.MODEL, PreprocessConfig(image_size=16), init_params(tiny.MODEL, 0), tmp_path)
    write_model(model, tmp_path / "pair", "huggingface")
    for tower in ("vision", "text"):
        file = tmp_path / "pair" / tower / "model.safetensors"
        save_file({f"_orig_mod.module.{name}": x for name, x in load_file(file).items()}, file)
    assert same(read_model(tmp_path / "pair"), model)
