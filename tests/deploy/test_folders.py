"""Folders that are taken away: their README's code, run, gives the model's scores; what is wrong is never written."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.reference import open_clip_model
from helpers.tiny_siglip import siglip
from PIL import Image

import biomedclip_jax as bc
from biomedclip_jax.cli import main
from biomedclip_jax.deploy import onnx_folder, stablehlo_folder

VISION = {"layers": 2, "width": 64, "head_width": 16, "patch_size": 8, "image_size": 32}
TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 32}
LABELS = ["this is a photo of chest X-ray", "this is a photo of brain MRI"]


@pytest.fixture(scope="module", params=["bert", "siglip"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "siglip":
        siglip(folder)
    else:
        open_clip_model(folder, VISION, TEXT, bert={})
    return folder


def shown(folder: Path, image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What the README's code prints, when it is run in a folder with a photo, as [1, 2]."""
    image.save(folder / "photo.jpg")
    code = (folder / "README.md").read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(folder)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code.replace("print(scores)", "print(json.dumps(scores.tolist()))"), "README.md", "exec"), {})
    return np.array(json.loads(said.getvalue()))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the README's code is short
@pytest.mark.parametrize("form", ["onnx", "stablehlo"])
def test_the_readmes_code_gives_the_models_scores(
    source: Path, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["convert", str(source), str(out), "--format", form]) == 0
    said = capsys.readouterr().out
    assert said.count("written") == 2 and said.count("cosine") == 2
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)).resize(
        (90, 70), Image.Resampling.BICUBIC
    )
    found = shown(out, picture, monkeypatch)
    clip = bc.from_pretrained(source)
    image, text = clip.encode_images([out / "photo.jpg"]), clip.encode_texts(LABELS)
    bias = float(clip.params["logit_bias"]) if "logit_bias" in clip.params else 0
    assert np.abs(found - (clip.logit_scale * image @ text.T + bias)).max() <= 1e-3
    about = json.loads((out / "model.json").read_text())
    assert about["text"]["context_length"] == clip.config.text.context_length
    assert about["image"]["image_size"] == 32 and about["embed_width"] == clip.config.embed_width


def test_eight_bits_are_smaller_and_near(tmp_path: Path) -> None:
    source = tmp_path / "model"
    open_clip_model(source, VISION, TEXT, bert={})
    assert main(["convert", str(source), str(tmp_path / "whole"), "--format", "onnx"]) == 0
    assert main(["convert", str(source), str(tmp_path / "small"), "--format", "onnx", "--quantize", "int8"]) == 0
    for file in ("image.onnx", "text.onnx"):
        sizes = [(tmp_path / folder / file).stat().st_size for folder in ("whole", "small")]
        assert sizes[1] < 0.6 * sizes[0]
    assert {path.name for path in (tmp_path / "small").iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


@pytest.mark.parametrize("form", ["onnx", "stablehlo"])
def test_a_file_that_gives_other_embeddings_is_not_written(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "model", tmp_path / "out"
    open_clip_model(source, VISION, TEXT, bert={})

    def spoiled(make: Any) -> Any:
        def runner(*arguments: Any) -> Any:
            run = make(*arguments)
            return lambda batch: run(batch)[..., ::-1]

        return runner

    module, name = (onnx_folder, "runner") if form == "onnx" else (stablehlo_folder, "_runner")
    monkeypatch.setattr(module, name, spoiled(getattr(module, name)))
    assert main(["convert", str(source), str(out), "--format", form]) == 2
    said = capsys.readouterr()
    assert "its embeddings differ from the model's" in said.err and said.err.count("\n") == 1 and said.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_large_towers_keep_their_weights_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "model", tmp_path / "out"
    open_clip_model(source, VISION, TEXT, bert={})
    monkeypatch.setattr(onnx_folder, "_ONE_FILE", 0)
    for extra in ([], ["--quantize", "int8"]):
        assert main(["convert", str(source), str(out / str(len(extra))), "--format", "onnx", *extra]) == 0
        names = {path.name for path in (out / str(len(extra))).iterdir()}
        assert {"image.onnx", "image.onnx.data", "text.onnx", "text.onnx.data"} <= names
        assert not any(name.startswith("whole") for name in names)


def test_what_cannot_be_quantised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tmp_path), str(tmp_path / "out"), "--quantize", "int8"]) == 2
    assert "only --format onnx" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the README's code is short
def test_the_readmes_code_does_not_take_an_image_of_16_bits_for_a_white_one(tmp_path, monkeypatch):
    from biomedclip_jax.config import PreprocessConfig
    from biomedclip_jax.deploy._about import image_code

    Image.fromarray(np.full((8, 8), 3000, np.uint16)).save(tmp_path / "photo.jpg", format="png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="more than 8 bits"):
        exec("\n".join(image_code(PreprocessConfig()) or []), {"Image": Image, "np": np})
