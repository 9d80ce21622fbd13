"""The command line in the hands of somebody who makes mistakes: one line, exit code 2, nothing half-written."""

import argparse
import contextlib
import csv
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.reference import open_clip_model, write_vocabulary
from PIL import Image
from safetensors.numpy import load_file, save_file

import biomedclip_jax as bc
from biomedclip_jax.cli import main
from biomedclip_jax.cli.main import _parser
from biomedclip_jax.data.embeddings_file import write_embeddings
from biomedclip_jax.errors import UserError

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 16}
LABELS = ("--labels", "chest ray", "brain, image")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model folder; only read."""
    folder = tmp_path_factory.mktemp("cli") / "model"
    open_clip_model(folder, VISION, TEXT, bert={"num_hidden_layers": 1})
    return folder


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "model"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A timm ViT and a BERT, which all formats can hold; 23 MB, only read."""
    folder = tmp_path_factory.mktemp("cli") / "large"
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}
    open_clip_model(folder, vision, TEXT, bert={"num_hidden_layers": 1})
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "scan.png"
    Image.linear_gradient("L").resize((70, 50)).save(path)
    return path


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def failure(capsys: pytest.CaptureFixture[str], *arguments: object, watch: Path) -> str:
    """The one line on stderr. `watch` is a folder in which nothing may appear or vanish."""
    before = files(watch)
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert files(watch) == before
    assert out == "" and err.startswith(f"biomedclip {arguments[0]}: ") and err.count("\n") == 1, err
    return err


# --- what works ----------------------------------------------------------------------------------------------------


def test_classify(original: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three forms of the same probabilities; a comma in a label survives."""
    arguments = ["classify", str(original), str(image), str(image.parent), *LABELS]
    expected = bc.from_pretrained(original).classify([image], LABELS[1:])[0]
    best, other = np.array(LABELS[1:])[np.argsort(-expected)]
    assert main(arguments) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in table[::3]] == [str(image)] * 2
    assert table[1].strip().startswith(best) and table[2].strip().startswith(other)
    assert f"{expected.max():.2%}" in table[1]
    assert main([*arguments, "--format", "csv"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["image", "label", "probability"] and len(rows) == 5
    assert rows[1][:2] == [str(image), best] and abs(float(rows[1][2]) - expected.max()) <= 1e-6
    assert main([*arguments, "--format", "json", "--template", "the {}"]) == 0
    parsed = json.loads(capsys.readouterr().out)
    assert [entry["image"] for entry in parsed] == [str(image)] * 2
    wanted = bc.from_pretrained(original).classify([image], LABELS[1:], "the {}")[0]
    assert parsed[0]["probabilities"] == pytest.approx(dict(zip(LABELS[1:], wanted, strict=True)), abs=1e-6)
    assert np.abs(wanted - expected).max() > 1e-5, "the template matters"


def test_classify_leaves_out_what_cannot_be_read(
    original: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A truncated file among others, and files of a folder that are no images: both are said on stderr."""
    (tmp_path / "broken.jpg").write_bytes(b"not a JPEG")
    (tmp_path / "notes.txt").write_text("text")
    assert main(["classify", str(original), str(tmp_path), *LABELS, "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert [entry["image"] for entry in json.loads(out)] == [str(image)]
    assert "1 file left out: 1 .txt" in err and re.search(r"skipped: \S*broken\.jpg: ", err)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8:strict"])
def test_letters_that_the_output_does_not_know(encoding: str, original: Path, tmp_path: Path) -> None:
    """The bar of the table, and a file name that is no UTF-8, in a pipe of any encoding: no traceback."""
    name = os.fsdecode(b"scan \xe9\xff.png")
    Image.linear_gradient("L").save(tmp_path / name, "PNG")
    words = [sys.executable, "-m", "biomedclip_jax.cli", "classify", str(original), str(tmp_path / name), *LABELS]
    done = subprocess.run(words, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}, check=False)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert b"scan" in done.stdout and b"%" in done.stdout


def test_embed_images(original: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with a broken file in it: that one is named and left out, the rest is written."""
    (tmp_path / "a broken one.jpg").write_bytes(b"not a JPEG")
    out = tmp_path / "new" / "out.npz"
    assert main(["embed", str(original), "--images", str(tmp_path), "--out", str(out), "--batch-size", "2"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("skipped: ") and "a broken one.jpg" in err and err.count("\n") == 1
    written = np.load(out)
    assert bc.load_embeddings(out)[1] == [str(image)]
    assert np.abs(written["embeddings"] - bc.from_pretrained(original).encode_images([image])).max() <= 1e-6
    assert [path.name for path in out.parent.iterdir()] == ["out.npz"]


def test_embed_texts(original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["the lung of the chest", "tumor cells, 3 \u00b5m", "brain"]
    (tmp_path / "texts.txt").write_text("\ufeff" + "\r\n\n".join(texts) + "\n", encoding="utf-8")
    out = tmp_path / "out.npz"
    assert main(["embed", str(original), "--texts", str(tmp_path / "texts.txt"), "--out", str(out)]) == 0
    written = np.load(out)
    assert bc.load_embeddings(out)[1] == texts and written["embeddings"].dtype == np.float32
    assert np.abs(written["embeddings"] - bc.from_pretrained(original).encode_texts(texts)).max() <= 1e-6


def test_embedded_texts_that_are_cut_or_unknown(original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are named by their lines; only \\n ends one; a name of 100 kB costs the file no more than that."""
    texts = ["brain", "the \u2028lung\x0cof\x85", "レントゲン", "the lung " * 11_000, *["chest"] * 400]
    (tmp_path / "texts.txt").write_bytes("\n".join([*texts, "", " ", ""]).encode())
    out = tmp_path / "out.npz"
    assert main(["embed", str(original), "--texts", str(tmp_path / "texts.txt"), "--out", str(out)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines.pop(0).endswith("texts.txt: 2 empty lines left out")
    assert [line.partition(" of 404 is ")[2].partition(" ")[0] for line in lines] == ["longer", "mostly"]
    assert lines[0].endswith("line 4") and lines[1].endswith("line 3")
    embeddings, names = bc.load_embeddings(out)
    assert names == texts and embeddings.shape == (404, 32)
    assert out.stat().st_size < 300_000


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    names = [os.fsdecode(b"scan \xe9\xff.png"), "胸", "a\nb", ""]
    write_embeddings(tmp_path / "x.npz", np.zeros((4, 2), np.float32), names)
    assert bc.load_embeddings(tmp_path / "x.npz")[1] == names
    with (tmp_path / "old.npz").open("wb") as file:
        np.savez(file, embeddings=np.zeros((1, 2), np.float32), names=np.array(["a"]))
    assert bc.load_embeddings(tmp_path / "old.npz")[1] == ["a"]
    for content in (b"", b"text"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.npz: not a \.npz that"):
            bc.load_embeddings(tmp_path / "bad.npz")


def test_labels_that_are_cut(original: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["lung", "the lung of the chest " * 10]
    assert main(["classify", str(original), str(image), "--template", "{}", "--labels", *labels]) == 0
    assert "labels: 1 of 2 is longer than the 16 tokens" in capsys.readouterr().err


def test_convert_through_all_formats(large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """open_clip -> .bin -> transformers' pair -> open_clip: the same bits under the same names."""
    source = large
    for format in ("open_clip-bin", "huggingface", "open_clip"):
        assert main(["convert", str(source), str(tmp_path / format), "--format", format]) == 0
        out = capsys.readouterr().out
        read, written = (re.search(rf"^{word} +(\d+) tensors", out, re.M) for word in ("read", "written"))
        assert read and written and int(read[1]) > 150, out
        source = tmp_path / format
    before, after = load_file(large / WEIGHTS), load_file(source / WEIGHTS)
    assert before.keys() == after.keys() and len(before) == int(written[1])
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert (source / "vocab.txt").read_bytes() == (large / "vocab.txt").read_bytes()


def test_help() -> None:
    """In a process of its own: help is there at once, before JAX is."""
    code = "import sys\nfrom biomedclip_jax.cli import main\ntry:\n    main(['--help'])\n"
    code += "except SystemExit as stop:\n    assert stop.code == 0 and 'jax' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert all(re.search(rf"^ +{verb} ", done.stdout, re.M) for verb in ("train", "classify", "embed", "convert"))


def test_every_verb_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    verbs = re.findall(r"^    (\w+)  ", capsys.readouterr().out, re.M)
    assert len(verbs) >= 4
    for verb in verbs:
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0 and f"example:\n  biomedclip {verb} " in capsys.readouterr().out


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "out"), "--debug"])


# --- arguments that are wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--labels"], "0 given"),
        (["--labels", "brain"], "1 given"),
        (["--labels", "brain", ""], "''"),
        (["--labels", "brain", "brain"], "'brain'"),
        (["--labels", "brain", "lung", "--template", "a photo"], "'a photo'"),
    ],
)
def test_labels(
    options: list[str], named: str, original: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in failure(capsys, "classify", original, image, *options, watch=tmp_path)


@pytest.mark.parametrize("verb", ["classify", "embed", "convert"])
def test_missing_model(verb: str, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest = {
        "classify": [image, *LABELS],
        "embed": ["--images", image, "--out", tmp_path / "out.npz"],
        "convert": [tmp_path / "out"],
    }[verb]
    nowhere = tmp_path / "nowhere"
    assert str(nowhere) in failure(capsys, verb, nowhere, *rest, watch=tmp_path)
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in failure(capsys, verb, tmp_path / "empty", *rest, watch=tmp_path)


def missing(path: Path) -> None:
    path.unlink()


def no_image(path: Path) -> None:
    path.write_text("just some words")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize("damage", [missing, no_image, truncated])
def test_bad_image(
    damage: Callable[[Path], None], original: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(image)
    assert str(image) in failure(capsys, "classify", original, image, *LABELS, watch=tmp_path)
    if damage is not missing:
        assert main(["embed", str(original), "--images", str(image), "--out", str(tmp_path / "out.npz")]) == 2
        err = capsys.readouterr().err.splitlines()
        assert len(err) == 2 and str(image) in err[0] and "nothing is written" in err[1]
        assert files(tmp_path) == [image]


@pytest.mark.parametrize(
    ("content", "named"), [(None, "no such file"), (b"", "no sentence"), (b"caf\xe9\n", "UTF-8"), (b"\n \n", "no sentence")]
)
def test_bad_text_file(
    content: bytes | None, named: str, original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    err = failure(capsys, "embed", original, "--texts", path, "--out", tmp_path / "out.npz", watch=tmp_path)
    assert named in err and str(path) in err


def test_bad_options_of_embed(original: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["embed", str(original), "--images", str(image), "--out"]
    assert "out.txt" in failure(capsys, *arguments, tmp_path / "out.txt", watch=tmp_path)
    for size in ("0", "-1", "many"):
        with pytest.raises(SystemExit) as stop:  # argparse itself, which shows the usage too
            main([*arguments, str(tmp_path / "out.npz"), "--batch-size", size])
        assert stop.value.code == 2 and "--batch-size" in capsys.readouterr().err
    assert files(tmp_path) == [image]


# --- fields of a config on the command line (what they take: tests/config/test_overrides.py) -------------------------

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
QUICKSTART = CONFIGS / "quickstart.py"


def test_train_gets_the_fields_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Values with one dash, with = and several at once arrive, among the command's own flags."""
    from biomedclip_jax.train import main as loop

    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(loop, "train", lambda *arguments: calls.append(arguments))
    given = ["--seed", "-3", "--workdir", str(tmp_path), "--stages.0.trainable", "text", "*_head", "--max-steps", "4"]
    given += ["--profile", "3"]
    given += ["--model.init-logit-bias", "-1e1", "--data.template=a CT, {}", "--optimizer.clip_norm", "None"]
    assert main(["train", str(QUICKSTART), *given]) == 0
    [(config, workdir, steps, profile)] = calls
    assert (workdir, steps, profile) == (tmp_path, 4, 3)
    assert (config.seed, config.stages[0].trainable, config.model.init_logit_bias) == (-3, ("text", "*_head"), -10.0)
    assert (config.data.template, config.optimizer.clip_norm) == ("a CT, {}", None)
    assert main(["train", str(QUICKSTART), "--name", "mine"]) == 0
    assert calls[1][1:] == (Path("runs/mine"), None, None), "the run folder is named after it"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--optimizer.learnig-rate", "1"], "no such field of the config; did you mean --optimizer.learning-rate?"),
        (["--max-step", "1"], "no such field of the config; did you mean --max-steps?"),
        (["--stages.0.batch-size", "abc"], "--stages.0.batch-size abc: expected a whole number"),
        (["--stages.0.batch-size", "0"], "Stage.batch_size = 0: expected"),
        (["3"], "3: expected a flag"),
    ],
)
def test_wrong_fields(given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = failure(capsys, "train", QUICKSTART, "--workdir", tmp_path / "run", *given, watch=tmp_path)
    assert message in err


def test_help_after_a_config_lists_its_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(QUICKSTART), "--help"]) == 0
    out = capsys.readouterr().out
    assert "example:\n  biomedclip train" in out and "--workdir" in out
    assert re.search(r"^  --stages\.2\.batch-size 128 +\(a whole number\)\n      Pairs in an update", out, re.M)
    assert str(tmp_path / "none.py") in failure(capsys, "train", tmp_path / "none.py", "--help", watch=tmp_path)


def test_no_field_hides_a_flag_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    from biomedclip_jax.config.files import load_config
    from biomedclip_jax.config.overrides import fields

    with pytest.raises(SystemExit):
        main(["train", "--help"])
    own = set(re.findall(r"^ +(?:-\w, )?(--[\w-]+)", capsys.readouterr().out.partition("fields of the config")[0], re.M))
    assert own == {"--help", "--debug", "--workdir", "--max-steps", "--profile"}
    assert not own & {field.flag for field in fields(load_config(QUICKSTART))}


def test_every_option_of_every_verb_has_a_help() -> None:
    def without(parser: argparse.ArgumentParser, name: str) -> list[str]:
        found = []
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found += [each for verb, below in action.choices.items() for each in without(below, f"{name} {verb}")]
            elif not action.help:
                found.append(f"{name} {action.option_strings or action.dest}")
        return found

    assert without(_parser([]), "biomedclip") == []


def test_other_verbs_have_no_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["convert", "model", "out", "--seed", "3"])
    assert stop.value.code == 2 and "unrecognized arguments: --seed 3" in capsys.readouterr().err


# --- model folders that are wrong ----------------------------------------------------------------------------------


def config(change: Callable[[dict[str, Any]], object], file: str = CONFIG) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return damage


def tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = load_file(folder / WEIGHTS)
        change(content)
        save_file(content, folder / WEIGHTS)

    return damage


def without(name: str) -> Callable[[Path], None]:
    return tensors(lambda t: t.pop(name))


def nan(t: dict[str, np.ndarray]) -> None:
    t["text.proj.0.weight"][1, 2] = np.nan


def cut(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def at(*keys: str, value: Any) -> Callable[[Path], None]:
    """Set content[a][b] = value in the config."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return config(change)


EMBEDDINGS = "text.transformer.embeddings."
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {  # what is done to the folder, and what the message names
    "unknown field": (at("model_cfg", "vision_cfg", "rotary", value=True), "'rotary'"),
    "unknown field, top": (at("model_cfg", "logit_bias", value=0.0), "'logit_bias'"),
    "unknown field, preprocess": (at("preprocess_cfg", "crop_pct", value=0.9), "'crop_pct'"),
    "wrong kind of value": (at("model_cfg", "embed_dim", value="wide"), "embed_dim = 'wide'"),
    "a part that is no object": (at("model_cfg", "vision_cfg", value="ViT-B-16"), "vision_cfg"),
    "size that does not divide": (at("model_cfg", "vision_cfg", "image_size", value=40), "image_size = 40"),
    "unknown timm model": (at("model_cfg", "vision_cfg", value={"timm_model_name": "resnet50"}), "'resnet50'"),
    "unknown pooler": (at("model_cfg", "text_cfg", "hf_pooler_type", value="last"), "'last'"),
    "two colours": (at("preprocess_cfg", "mean", value=[0.5, 0.5]), "mean"),
    "no list of colours": (at("preprocess_cfg", "std", value="grey"), "std"),
    "no model_cfg": (config(lambda c: c.pop("model_cfg")), "model_cfg"),
    "no JSON": (lambda folder: (folder / CONFIG).write_text('{"model_cfg": '), CONFIG),
    "JSON of another kind": (lambda folder: (folder / CONFIG).write_text("[1, 2]"), CONFIG),
    "BERT's heads": (config(lambda c: c.pop("num_attention_heads"), "config.json"), "num_attention_heads"),
    "BERT's activation": (config(lambda c: c.update(hidden_act="relu"), "config.json"), "'relu'"),
    "wrong shape": (tensors(lambda t: t.update({"visual.proj": t["visual.proj"][:, :-1].copy()})), "visual.proj"),
    "flat embedding table": (
        tensors(lambda t: t.update({f"{EMBEDDINGS}word_embeddings.weight": np.zeros(8, np.float32)})),
        "word_embeddings",
    ),
    "missing tensor": (without("visual.class_embedding"), "visual.class_embedding"),
    "missing word embeddings": (without(f"{EMBEDDINGS}word_embeddings.weight"), "word_embeddings"),
    "missing positions": (without(f"{EMBEDDINGS}position_embeddings.weight"), "position_embeddings"),
    "missing token types": (without(f"{EMBEDDINGS}token_type_embeddings.weight"), "token_type_embeddings"),
    "missing MLP": (without("text.transformer.encoder.layer.0.intermediate.dense.weight"), "intermediate.dense.weight"),
    "unknown tensor": (tensors(lambda t: t.update(logit_bias=np.zeros(1, np.float32))), "logit_bias"),
    "unknown layer": (
        tensors(lambda t: t.update({"text.transformer.encoder.layer.x.weight": np.zeros(1, np.float32)})),
        "encoder.layer.x",
    ),
    "NaN": (tensors(nan), "text.proj.0.weight"),
    "cut in half": (cut, WEIGHTS),
    "no weights at all": (lambda folder: (folder / WEIGHTS).write_bytes(b""), WEIGHTS),
    "no weight file": (lambda folder: (folder / WEIGHTS).unlink(), WEIGHTS),
}


@pytest.mark.parametrize(("damage", "named"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_model(
    damage: Callable[[Path], None], named: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(model)
    err = failure(capsys, "convert", model, tmp_path / "out", watch=tmp_path)
    assert named in err and len(err) < 2_000


def no_tokenizer(folder: Path) -> None:
    (folder / "vocab.txt").unlink()


def other_tokenizer(folder: Path) -> None:
    write_vocabulary(folder, 300)


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (no_tokenizer, "tokenizer"),
        (other_tokenizer, "ids up to 299, the text tower has 200"),
        (broken_tokenizer, "tokenizer.json"),
    ],
)
def test_wrong_tokenizer(
    damage: Callable[[Path], None],
    named: str,
    model: Path,
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(model)
    err = failure(capsys, "classify", model, image, *LABELS, watch=tmp_path)
    assert named in err and str(model) in err


def test_bin_without_torch(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published weights are a .bin: who lacks torch is told how to get it, not shown an ImportError."""
    assert main(["convert", str(model), str(tmp_path / "bin"), "--format", "open_clip-bin"]) == 0
    monkeypatch.setitem(sys.modules, "torch", None)
    err = failure(capsys, "convert", tmp_path / "bin", tmp_path / "out", watch=tmp_path)
    assert "pip install" in err and "open_clip_pytorch_model.bin" in err
    err = failure(capsys, "convert", model, tmp_path / "out", "--format", "open_clip-bin", watch=tmp_path)
    assert "pip install" in err


def test_damaged_bin(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Among them a pickle that would run code: it is refused, not run."""
    (model / WEIGHTS).unlink()
    path, trace = model / "open_clip_pytorch_model.bin", tmp_path / "trace"
    hostile = f"cposix\nsystem\n(S'touch {trace}'\ntR.".encode()
    for content in (b"", b"no pickle", hostile):
        path.write_bytes(content)
        assert str(path) in failure(capsys, "convert", model, tmp_path / "out", watch=tmp_path)
    assert not trace.exists()


# --- places that cannot be written ---------------------------------------------------------------------------------


def test_destination_is_there_already(original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious")
    file.write_text("precious")
    for destination in (folder, file):
        assert str(destination) in failure(capsys, "convert", original, destination, watch=tmp_path)
    assert (folder / "thesis.txt").read_text() == file.read_text() == "precious"


def test_destination_below_a_file(original: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(image) in failure(capsys, "convert", original, image / "out", watch=tmp_path)
    err = failure(capsys, "embed", original, "--images", image, "--out", image / "out.npz", watch=tmp_path)
    assert str(image) in err
    (tmp_path / "taken.npz").mkdir()
    err = failure(capsys, "embed", original, "--images", image, "--out", tmp_path / "taken.npz", watch=tmp_path)
    assert "taken.npz" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_destination_without_permission(
    original: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    for format in ("open_clip", "open_clip-bin"):
        out = tmp_path / "locked" / "out"
        assert str(out) in failure(capsys, "convert", original, out, "--format", format, watch=tmp_path)
    failure(capsys, "embed", original, "--images", image, "--out", tmp_path / "locked" / "out.npz", watch=tmp_path)


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 1 MB; where it may not be mounted, the system's error at the last step of writing."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    mounted = os.geteuid() == 0 and shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0
    if not mounted:

        def replace(source: Path, destination: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("biomedclip_jax.files.os.replace", replace)
    try:
        yield disk
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("format", ["open_clip", "open_clip-bin", "huggingface"])
def test_disk_full_while_converting(format: str, large: Path, full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = failure(capsys, "convert", large, full / "out", "--format", format, watch=full)
    assert str(full / "out") in err and "free space" in err


def test_disk_full_while_embedding(original: Path, image: Path, full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = b"x" * 4096
    with contextlib.suppress(OSError), (full / "filler").open("wb", buffering=0) as filler:  # no byte is left
        for _ in range(256):
            filler.write(block)
    err = failure(capsys, "embed", original, "--images", image, "--out", full / "out.npz", watch=full)
    assert str(full / "out.npz") in err and "free space" in err
