"""What stands in a model folder and what need not: configs, number types, wrappings of checkpoints, sizes without a name."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from helpers.reference import load_open_clip, open_clip_model

from biomedclip_jax.config import BertConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.tensor_files import SafetensorsFile
from biomedclip_jax.interop.write import write_model
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.vit import resize_positions

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
BIN = "open_clip_pytorch_model.bin"
VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 16}
BIOMEDBERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    open_clip_model(tmp_path / "model", VISION, TEXT, bert={"num_hidden_layers": 1})
    return tmp_path / "model"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / CONFIG).read_text())
    change(content)
    (folder / CONFIG).write_text(json.dumps(content))


def same_params(a: Model, b: Model) -> bool:
    return bool(jax.tree.all(jax.tree.map(np.array_equal, a.params, b.params)))


@pytest.mark.parametrize("part", [("model_cfg",), ("model_cfg", "vision_cfg"), ("model_cfg", "text_cfg"), ("preprocess_cfg",)])
def test_a_field_that_is_not_understood_is_refused(folder: Path, part: tuple[str, ...]) -> None:
    """It may change what the model computes: to pass over it would give wrong embeddings without a word."""

    def change(content: Any) -> None:
        for key in part:
            content = content[key]
        content["new_in_open_clip_9"] = 1

    edit(folder, change)
    with pytest.raises(UserError, match=f"{CONFIG}: {part[-1]}: .*'new_in_open_clip_9'"):
        read_model(folder)


def test_one_number_for_three_channels(folder: Path) -> None:
    """open_clip takes a single mean or std for all channels."""
    edit(folder, lambda c: c["preprocess_cfg"].update(mean=0.5, std=0.25))
    assert read_model(folder).preprocess.mean == (0.5, 0.5, 0.5)
    assert read_model(folder).preprocess.std == (0.25, 0.25, 0.25)
    edit(folder, lambda c: c["preprocess_cfg"].update(mean="grey"))
    with pytest.raises(UserError, match="mean = 'grey'"):
        read_model(folder)


def test_where_berts_config_is_found(folder: Path, tmp_path: Path) -> None:
    """In the folder itself, else in the folder that the config names, else nowhere: heads cannot be read off tensors."""
    expected = read_model(folder)
    assert isinstance(expected.config.text, BertConfig) and expected.config.text.heads == 4
    elsewhere = tmp_path / "bert"
    elsewhere.mkdir()
    shutil.move(folder / "config.json", elsewhere)
    with pytest.raises(UserError, match=r"config\.json"):
        read_model(folder)
    edit(folder, lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name=str(elsewhere)))
    assert read_model(folder).config == expected.config
    # a config.json of something else is passed over
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "num_attention_heads": 2}))
    assert read_model(folder).config == expected.config


def test_biomedbert_is_known_by_name(tmp_path: Path) -> None:
    """The release comes without BERT's config.json; its name stands for it, at its own width only."""
    open_clip_model(tmp_path, VISION, TEXT, bert={"num_hidden_layers": 1, "hidden_size": 768, "num_attention_heads": 12})
    expected = read_model(tmp_path)
    (tmp_path / "config.json").unlink()
    edit(tmp_path, lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name=BIOMEDBERT))
    assert read_model(tmp_path).config == expected.config
    edit(tmp_path, lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name="someone/OtherBERT"))
    with pytest.raises(UserError, match="someone/OtherBERT"):
        read_model(tmp_path)


def test_a_known_name_at_another_width_is_not_believed(folder: Path) -> None:
    (folder / "config.json").unlink()
    edit(folder, lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name=BIOMEDBERT))
    with pytest.raises(UserError, match=r"config\.json"):
        read_model(folder)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("file", [WEIGHTS, BIN])
def test_half_precision_is_read_as_float32(folder: Path, kind: str, file: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    half = {name: t.to(getattr(torch, kind)) for name, t in tensors.items()}
    (folder / WEIGHTS).unlink()
    save_file(half, folder / file) if file == WEIGHTS else torch.save(half, folder / file)
    found = read_model(folder)
    assert {leaf.dtype for leaf in jax.tree.leaves(found.params)} == {np.dtype(np.float32)}
    assert np.array_equal(found.params["image"]["position"], half["visual.positional_embedding"].float().numpy())
    assert np.array_equal(found.params["text"]["word"], half["text.transformer.embeddings.word_embeddings.weight"].float())
    assert not np.array_equal(found.params["image"]["position"], tensors["visual.positional_embedding"].numpy())


def test_wrapped_checkpoints(folder: Path) -> None:
    """What open_clip's training writes: names behind "module.", the state dict beside epoch and optimizer."""
    import torch
    from safetensors.torch import load_file

    expected = read_model(folder)
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    wrapped = {"epoch": 3, "name": "run", "state_dict": {f"module.{name}": t for name, t in tensors.items()}}
    for content in (tensors, wrapped, wrapped["state_dict"]):
        torch.save(content, folder / BIN)
        assert same_params(read_model(folder), expected)
    torch.save(tensors, folder / BIN, _use_new_zipfile_serialization=False)  # as torch before 1.6 wrote it
    assert same_params(read_model(folder), expected)
    torch.save([1, 2], folder / BIN)
    with pytest.raises(UserError, match="found list"):
        read_model(folder)


def test_safetensors_come_before_a_pickle(folder: Path) -> None:
    (folder / BIN).write_bytes(b"never opened")
    read_model(folder)


def test_a_vit_whose_image_size_timm_has_no_name_for(tmp_path: Path) -> None:
    """It is written as CLIP's own ViT, which has no patch bias: the bias moves into the positions, the function stays."""
    import torch

    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}
    open_clip_model(tmp_path / "model", vision, TEXT, bert={"num_hidden_layers": 1})
    model = read_model(tmp_path / "model")
    config = dataclasses.replace(
        model.config,
        image=dataclasses.replace(model.config.image, image_size=96),
    )
    position = resize_positions(model.params["image"]["position"], config.image.prefix_tokens, 6)
    params = model.params | {"image": model.params["image"] | {"position": position}}
    preprocess = dataclasses.replace(model.preprocess, image_size=96)
    model = dataclasses.replace(model, config=config, params=params, preprocess=preprocess)
    assert np.abs(model.params["image"]["patch"]["bias"]).max() > 0.1

    write_model(model, tmp_path / "out")
    again = read_model(tmp_path / "out")
    assert again.config.image.image_size == 96 and not again.config.image.patch_bias
    rng = np.random.default_rng(0)
    images = (rng.normal(size=(3, 96, 96, 3)) + 2 * rng.normal(size=(3, 1, 1, 3))).astype(np.float32)

    def embed(m: Model) -> np.ndarray:
        return np.asarray(nnx.merge(abstract_model(m.config)[0], m.params).encode_image(images))

    before = embed(model)
    assert np.abs(before[0] - before[1]).max() > 1e-3, "the tower tells images apart"
    assert np.abs(embed(again) - before).max() <= 1e-6
    loaded = load_open_clip().create_model(f"local-dir:{tmp_path / 'out'}", pretrained_text=False).eval()
    with torch.no_grad():
        theirs = loaded.encode_image(torch.from_numpy(images).permute(0, 3, 1, 2), normalize=True).numpy()
    assert np.abs(theirs - before).max() <= 1e-5


def test_a_folder_may_be_moved(folder: Path, tmp_path: Path) -> None:
    """The config holds the absolute name of BERT's folder, for open_clip; we find what we need beside it."""
    expected = read_model(folder)
    shutil.move(folder, tmp_path / "elsewhere")
    moved = read_model(tmp_path / "elsewhere")
    assert same_params(moved, expected) and moved.config == expected.config
    write_model(moved, tmp_path / "again")
    named = json.loads((tmp_path / "again" / CONFIG).read_text())["model_cfg"]["text_cfg"]
    assert named["hf_model_name"] == named["hf_tokenizer_name"] == str(tmp_path / "again"), "what is gone is not named again"


def test_a_folder_that_was_moved_says_how_open_clip_reads_it(folder: Path, tmp_path: Path) -> None:
    """The code in its README is run as it stands there, with the new place; the folder of before is gone."""
    import torch

    load_open_clip()
    model = read_model(folder)
    write_model(dataclasses.replace(model, text_model=""), tmp_path / "written")
    shutil.rmtree(folder)
    moved = tmp_path / "given" / "away"
    moved.parent.mkdir()
    shutil.move(tmp_path / "written", moved)
    code = (moved / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace('"FOLDER"', repr(str(moved))), names)
    assert same_params(read_model(moved), model)
    tokens = names["tokenizer"](["chest ray"])
    with torch.no_grad():
        theirs = names["model"].encode_text(tokens, normalize=True).numpy()
    ours = nnx.merge(abstract_model(model.config)[0], model.params).encode_text(tokens.numpy().astype(np.int32))
    assert np.abs(np.asarray(ours) - theirs).max() <= 1e-5


def test_format_that_does_not_exist(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'onnx'"):
        write_model(read_model(folder), tmp_path / "out", "onnx")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_replacing_a_folder_happens_only_when_the_new_one_is_complete(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read_model(folder)
    write_model(model, tmp_path / "out")
    (tmp_path / "out" / "old.txt").write_text("of the folder before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left"):
        patch.setattr("biomedclip_jax.interop.formats.open_clip.folder.write_safetensors", fail)
        write_model(model, tmp_path / "out", replace=True)
    assert (tmp_path / "out" / "old.txt").is_file() and not list(tmp_path.glob("*.partial"))
    write_model(model, tmp_path / "out", replace=True)
    assert not (tmp_path / "out" / "old.txt").exists() and same_params(read_model(tmp_path / "out"), model)


def test_every_tensor_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking whether a name is there must not read the tensor: it doubled the reading of a whole checkpoint."""
    read: list[str] = []
    get = SafetensorsFile.__getitem__
    monkeypatch.setattr(SafetensorsFile, "__getitem__", lambda self, name: read.append(name) or get(self, name))
    model = read_model(folder)
    assert sorted(read) == sorted(model.report.used)
