"""What a file or folder is said to be, from its names alone; that each kind is read rightly is tested with its format."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.reference import write_vocabulary
from safetensors.numpy import save_file

from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.detect import UNFINISHED_RUN, check_adapter, detect, read_adapter, read_model


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("open_clip", ["open_clip_config.json", "config.json"]),
        ("our pair of towers", ["biomedclip_config.json", "vision/config.json", "text/config.json"]),
        ("a pair of towers", ["open_clip_config.json", "vision/config.json", "text/config.json"]),
        ("an adapter of a run", ["biomedclip_adapter.json"]),
        ("BioViL", ["biovil_image_resnet50_proj_size_128.pt", "config.json", "pytorch_model.bin"]),
        ("PMC-CLIP (three files)", ["image_encoder(resnet50).pth", "text_encoder.pth", "text_projection_layer.pth"]),
    ],
)
def test_a_folder_is_known_by_its_files(kind: str, names: list[str], tmp_path: Path) -> None:
    found = detect(make(tmp_path, *names))
    assert (found.kind, found.path) == (kind, tmp_path)


@pytest.mark.parametrize(("model_type", "kind"), [("clip", "transformers' CLIP"), ("bert", "OpenAI's CLIP")])
def test_a_config_is_looked_into(model_type: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    names = ("visual.conv1.weight", "token_embedding.weight")
    save_file({name: np.zeros(2, np.float32) for name in names}, tmp_path / "model.safetensors")
    assert detect(tmp_path).kind == kind


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("OpenAI's CLIP", ("visual.conv1.weight", "token_embedding.weight")),
        ("UniMed-CLIP", ("visual.proj", "text_encoder.transformer.embeddings.word_embeddings.weight")),
        ("PMC-CLIP", ("text_encoder.embeddings.word_embeddings.weight", "text_projection")),
        ("MedCLIP", ("text_model.projection_head.weight",)),
    ],
)
def test_weights_are_known_by_their_tensors(kind: str, names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: np.zeros(2, np.float32) for name in names}, path)
    assert detect(tmp_path).kind == kind
    if kind != "MedCLIP":  # which is one only with what lies beside its weights
        assert (detect(path).kind, detect(path).path) == (kind, path)
        with pytest.raises(UserError, match="no tokenizer beside it; fetch "):
            read_model(path)


def test_a_run_is_its_model(tmp_path: Path) -> None:
    make(tmp_path, "metrics.jsonl", "adapter/biomedclip_adapter.json")
    assert (detect(tmp_path).kind, detect(tmp_path).path) == (UNFINISHED_RUN, tmp_path)
    with pytest.raises(UserError, match="this run is not finished"):
        read_model(tmp_path)
    make(tmp_path / "model", "open_clip_config.json")
    assert (detect(tmp_path).kind, detect(tmp_path).path) == ("open_clip", tmp_path / "model")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "not a model folder; expected open_clip_config.json"),
        (["a.pt", "b.pt"], r"2 weight files and no description of a model \(a\.pt, b\.pt\); name one of the files"),
        (["adapter_config.json"], "an adapter of PEFT; expected a model"),
    ],
)
def test_what_is_no_model_is_said(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        detect(make(tmp_path, *names))


def test_other_files_are_no_model(tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    with pytest.raises(UserError, match=r"vocab\.txt: not a model; expected a folder, or a weight file"):
        detect(tmp_path / "vocab.txt")
    with pytest.raises(UserError, match="no such folder"):
        detect(tmp_path / "none")
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="not a weight file that explains itself"):
        detect(tmp_path / "a.safetensors")


def test_adapters(tmp_path: Path) -> None:
    for name in ("biomedclip_adapter.json", "adapter_config.json", "text/adapter_config.json"):
        check_adapter(make(tmp_path / name.replace("/", "-"), name))
    with pytest.raises(UserError, match=r"no biomedclip_adapter\.json in it; expected the adapter/ folder of a run"):
        read_adapter(make(tmp_path / "model", "open_clip_config.json"))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("CLEFT", ("img_encoder_q.model.pos_embed", "text_encoder_q.model.transformer.wte.weight")),
        ("mmlearn", ("encoders.rgb.model.trunk.pos_embed", "postprocessors.norm_and_logit_scale.1.log_logit_scale")),
        ("OpenAI's CLIP", ("visual.conv1.weight", "token_embedding.weight")),
    ],
)
def test_a_lightning_checkpoint_is_known_by_its_tensors(kind: str, names: tuple[str, ...], tmp_path: Path) -> None:
    import torch

    torch.save({"state_dict": {name: torch.zeros(2) for name in names}}, tmp_path / "last.ckpt")
    assert detect(tmp_path).kind == detect(tmp_path / "last.ckpt").kind == kind


def test_a_lightning_checkpoint_of_another_kind_says_what_it_holds(tmp_path: Path) -> None:
    """It was taken for CLEFT's, with the advice to fetch a tokenizer for it."""
    import torch

    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"net.0.weight": torch.zeros(2), "head.bias": torch.zeros(2)}}, path)
    with pytest.raises(UserError, match=r"last\.ckpt: not a weight file .* the file holds 2: head\.bias, net\.0\.weight"):
        detect(path)
