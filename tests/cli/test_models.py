"""`classify`, `embed` and `convert` with what was learned besides: prompts and adapters."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.few_shot_task import CLASSES
from helpers.tiny_adapter import make_adapter
from PIL import Image

import biomedclip_jax as bc
from biomedclip_jax.cli import main
from biomedclip_jax.evaluation.prompt_learning import ContextConfig, LearnedPrompts

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def clip(model: Path) -> bc.Pretrained:
    return bc.from_pretrained(model)


@pytest.fixture(scope="module")
def adapter(model: Path) -> Path:
    return make_adapter(model, model.parent / "run" / "adapter")


@pytest.fixture(scope="module")
def image(model: Path) -> Path:
    path = model.parent / "scan.png"
    Image.linear_gradient("L").resize((70, 50)).save(path)
    return path


def save(clip: bc.Pretrained, path: Path, *, class_specific: bool = False) -> LearnedPrompts:
    shape = (len(CLASSES), 3) if class_specific else (3,)
    vectors = np.random.default_rng(0).normal(0, 0.5, (*shape, clip.config.text.width)).astype(np.float32)
    learned = LearnedPrompts("coop", CLASSES, ContextConfig(3, class_specific=class_specific), {"context": vectors})
    learned.save(path, clip)
    return learned


def run(capsys: Captured, *words: object) -> dict[str, float]:
    """Label -> probability, in the order printed."""
    assert main(["classify", *map(str, words), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)[0]["probabilities"]


def failure(capsys: Captured, *words: object) -> str:
    assert main(list(map(str, words))) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"biomedclip {words[0]}: ") and said.err.count("\n") == 1, said.err
    return said.err


def expected(learned: LearnedPrompts, clip: bc.Pretrained, image: Path) -> dict[str, float]:
    scores = learned.scores(clip, clip.encode_images([image]))[0].astype(np.float64)
    shares = np.exp(scores - scores.max())
    return dict(zip(learned.classes, shares / shares.sum(), strict=True))


def test_learned_prompts_in_place_of_labels(
    model: Path, clip: bc.Pretrained, image: Path, tmp_path: Path, capsys: Captured
) -> None:
    file = tmp_path / "prompts.safetensors"
    learned = save(clip, file)
    found = run(capsys, model, image, "--prompts", file)
    wanted = expected(learned, clip, image)
    assert found == pytest.approx(wanted, abs=1e-5) and list(found.values()) == sorted(found.values(), reverse=True)
    sentences = dict(zip(CLASSES, clip.classify([image], CLASSES)[0], strict=True))
    assert max(abs(found[name] - sentences[name]) for name in CLASSES) > 1e-3, "they are not the sentences"
    # in Python
    again = clip.classify([image], prompts=bc.load_prompts(file, clip))[0]
    assert dict(zip(CLASSES, again, strict=True)) == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(bc.UserError, match="learned prompts stand in its place"):
        clip.classify([image], template="a {}", prompts=learned)
    with pytest.raises(bc.UserError, match="labels: none given"):
        clip.classify([image])


def test_learned_prompts_before_other_labels(
    model: Path, clip: bc.Pretrained, image: Path, tmp_path: Path, capsys: Captured
) -> None:
    labels = ["lung", "brain"]
    shared, own = tmp_path / "shared.safetensors", tmp_path / "own.safetensors"
    learned = save(clip, shared)
    found = run(capsys, model, image, "--prompts", shared, "--labels", *labels)
    assert found == pytest.approx(expected(learned.with_classes(labels), clip, image), abs=1e-5)
    specific = save(clip, own, class_specific=True)
    said = failure(capsys, "classify", model, image, "--prompts", own, "--labels", *labels)
    assert "class-specific prompts are learned for their own classes" in said and "'lung'" in said
    # of their own classes, some in another order are the same prompts
    turned = [CLASSES[2], CLASSES[0]]
    found = run(capsys, model, image, "--prompts", own, "--labels", *turned)
    whole = expected(specific, clip, image)
    assert found == pytest.approx({name: whole[name] / sum(whole[each] for each in turned) for name in turned}, abs=1e-5)


def test_words_that_do_not_go_together(
    model: Path, clip: bc.Pretrained, image: Path, tmp_path: Path, capsys: Captured, adapter: Path
) -> None:
    file = tmp_path / "prompts.safetensors"
    save(clip, file)
    assert "--labels: expected two or more names" in failure(capsys, "classify", model, image)
    said = failure(capsys, "classify", model, image, "--prompts", file, "--template", "a {}")
    assert "--template 'a {}' and --prompts" in said and "give one of the two" in said
    assert "1 given" in failure(capsys, "classify", model, image, "--prompts", file, "--labels", "brain")
    assert "'brain' is given twice" in failure(
        capsys, "classify", model, image, "--prompts", file, "--labels", "brain", "brain"
    )
    assert "no such file" in failure(capsys, "classify", model, image, "--prompts", tmp_path / "none.safetensors")
    assert "not a file of learned prompts" in failure(capsys, "classify", model, image, "--prompts", image)
    said = failure(capsys, "classify", model, image, "--prompts", file, "--adapter", adapter)
    assert "learned on a model with other weights" in said


def test_an_adapter_is_merged_by_every_verb(
    model: Path, clip: bc.Pretrained, adapter: Path, image: Path, tmp_path: Path, capsys: Captured
) -> None:
    adapted = bc.from_pretrained(model, adapter=adapter)
    unit = adapted.encode_images([image])
    assert np.abs(unit - clip.encode_images([image])).max() > 1e-3

    assert main(["convert", str(model), str(tmp_path / "merged"), "--adapter", str(adapter)]) == 0
    assert capsys.readouterr().out.split()[:2] == ["read", str(len(tensors(model)))]
    merged = bc.from_pretrained(tmp_path / "merged")
    assert np.abs(merged.encode_images([image]) - unit).max() <= 1e-6

    assert main(["embed", str(model), "--images", str(image), "--out", str(tmp_path / "x.npz"), "--adapter", str(adapter)]) == 0
    assert np.abs(np.load(tmp_path / "x.npz")["embeddings"] - unit).max() <= 1e-6
    capsys.readouterr()

    labels = ["brain", "chest ray"]
    found = run(capsys, model, image, "--labels", *labels, "--adapter", adapter)
    wanted = adapted.classify([image], labels)[0]
    assert found == pytest.approx(dict(zip(labels, wanted, strict=True)), abs=1e-5)
    assert "biomedclip_adapter.json" in failure(capsys, "classify", model, image, "--labels", *labels, "--adapter", tmp_path)


def tensors(model: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(model / "open_clip_model.safetensors", framework="numpy") as file:
        return list(file.keys())


def test_an_adapter_as_peft_has_it(model: Path, adapter: Path, image: Path, tmp_path: Path, capsys: Captured) -> None:
    """`convert` writes it, of the run or of its folder; every verb takes it in the place of ours."""
    assert main(["convert", str(adapter.parent), str(tmp_path / "peft"), "--format", "peft"]) == 0
    assert "written  image to " in capsys.readouterr().out
    words = (image, "--labels", *CLASSES)
    ours, plain = run(capsys, model, *words, "--adapter", adapter), run(capsys, model, *words)
    for place in (tmp_path / "peft", tmp_path / "peft" / "image"):
        assert run(capsys, model, *words, "--adapter", place) == ours != plain
    said = failure(capsys, "convert", model, tmp_path / "other", "--format", "peft")
    assert "biomedclip_adapter.json" in said and not (tmp_path / "other").exists()


# --- many images ----------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    for name, value in (("a", 30), ("c", 200)):
        Image.linear_gradient("L").point([min(255, i + value) for i in range(256)]).save(folder / f"{name}.png")
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    return folder


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_broken_image_costs_its_own_rows_and_the_file_has_all_others(
    ending: str, model: Path, clip: bc.Pretrained, archive: Path, tmp_path: Path, capsys: Captured
) -> None:
    out, labels = tmp_path / f"found.{ending}", ["brain", "lung", "cells"]
    (tmp_path / "labels.txt").write_text("brain\n\nlung\ncells\n")
    words = [
        "classify",
        str(model),
        str(archive),
        "--labels-file",
        str(tmp_path / "labels.txt"),
        "--out",
        str(out),
        "--top",
        "2",
    ]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "skipped" in said.err and "b.png" in said.err and "2 images, 1 left out" in said.out
    if ending == "csv":
        rows = list(csv.DictReader(out.read_text().splitlines()))
    elif ending == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
    shares = clip.classify([archive / "a.png", archive / "c.png"], labels)
    expected = [
        (str(archive / f"{name}.png"), labels[j], row[j])
        for name, row in zip("ac", shares, strict=True)
        for j in np.argsort(-row)[:2]
    ]
    assert [(row["image"], row["label"]) for row in rows] == [each[:2] for each in expected]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], [each[2] for each in expected], atol=1e-6)


def test_strict_ends_with_2_and_writes_nothing(model: Path, archive: Path, tmp_path: Path, capsys: Captured) -> None:
    words = ("classify", model, archive, "--labels", "brain", "lung", "--strict")
    said = failure(capsys, *words, "--out", tmp_path / "found.csv")
    assert "1 of 3 images cannot be read" in said and "b.png" in said and not (tmp_path / "found.csv").exists()
    failure(capsys, *words)


def test_files_and_labels_that_cannot_be_are_refused_before_the_model_is_read(
    archive: Path, tmp_path: Path, capsys: Captured
) -> None:
    words = ("classify", "no-model", archive)
    labels = ("--labels", "brain", "lung")
    assert "ends in .csv, .jsonl, .parquet" in failure(capsys, *words, *labels, "--out", tmp_path / "found.txt")
    assert "not readable as UTF-8" in failure(capsys, *words, "--labels-file", tmp_path / "none.txt")
    (tmp_path / "labels.txt").write_text("brain\n")
    assert "give one of the two" in failure(capsys, *words, *labels, "--labels-file", tmp_path / "labels.txt")
    assert "1 given" in failure(capsys, *words, "--labels-file", tmp_path / "labels.txt")


# --- several labels an image ------------------------------------------------------------------------------------------


def test_each_label_for_itself(capsys: Captured, model: Path, clip: bc.Pretrained, image: Path, tmp_path: Path) -> None:
    """The softmax over "a chest" and "no a chest" of each label alone: other labels change nothing."""
    labels = ["chest ray", "brain", "lung"]
    words = [model, image, "--multi-label", "--labels"]
    found = run(capsys, *words, *labels)
    text = clip.encode_texts([*labels, *(f"no {label}" for label in labels)])
    scores = np.exp(clip.logit_scale * (clip.encode_images([image]) @ text.T).astype(np.float64))[0].reshape(2, 3)
    expected = scores[0] / scores.sum(axis=0)
    assert [found[label] for label in labels] == pytest.approx(expected, abs=1e-5)
    assert abs(sum(found.values()) - 1) > 1e-3
    assert clip.classify([image], labels, multi_label=True)[0] == pytest.approx(expected, abs=1e-5)
    assert run(capsys, *words, "brain") == {"brain": pytest.approx(found["brain"], abs=1e-6)}
    template = run(capsys, *words, "brain", "--template", "an image of {}")["brain"]
    both = clip.encode_texts(["an image of brain", "an image of no brain"])
    odds = float(clip.logit_scale * (clip.encode_images([image]) @ (both[0] - both[1]))[0])
    assert template == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-5)
    assert main(["classify", *map(str, words), *labels, "--out", str(tmp_path / "x.csv")]) == 0
    with (tmp_path / "x.csv").open() as file:
        assert {row["label"]: float(row["probability"]) for row in csv.DictReader(file)} == pytest.approx(found, abs=1e-6)
    capsys.readouterr()
    assert main(["classify", *map(str, words), *labels]) == 0
    said = capsys.readouterr()
    assert "do not sum to 1" in said.err and "chest ray" in said.out


def test_what_several_labels_are_not(capsys: Captured, model: Path, image: Path, tmp_path: Path) -> None:
    words = ["classify", model, image, "--multi-label"]
    assert "labels: none given; expected at least one" in failure(capsys, *words)
    assert "'brain' is given twice" in failure(capsys, *words, "--labels", "brain", "brain")
    assert "learned prompts choose one of their classes" in failure(capsys, *words, "--prompts", tmp_path / "p.safetensors")
    assert "expected {} where" in failure(capsys, *words, "--labels", "brain", "--template", "a photo")
