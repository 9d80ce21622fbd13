"""Zero-shot classification: cases small enough to see, all of it on one model, and clip_benchmark as a real peer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.clip_benchmark_peer import clip_benchmark, png, write_classification
from helpers.colour_clip import ColourClip, Damaged
from helpers.reference import open_clip_model
from PIL import Image

from biomedclip_jax import from_pretrained
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.pairs import fingerprint
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._evaluation import Evaluation
from biomedclip_jax.evaluation._metrics import classification_metrics, softmax
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.report.differences import paired
from biomedclip_jax.evaluation.report.results import read_results, write_results
from biomedclip_jax.evaluation.zero_shot.task import accuracy, cosines, zero_shot
from biomedclip_jax.prompts.templates import Prompts

LABELS = ["brain", "lung", "skin"]
PROMPTS = np.eye(3, dtype=np.float32)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


# --- the quick look after training ------------------------------------------------------------------------------------


def test_accuracy_and_chance() -> None:
    image = PROMPTS[[0, 0, 1, 2, 1]] + 0.1
    found = accuracy(image, PROMPTS, LABELS, ["brain", "lung", "lung", "skin", "lung"])
    assert found == {"zero_shot_accuracy": pytest.approx(4 / 5), "chance": pytest.approx(3 / 5)}


def test_labels_are_matched_by_name_not_by_order() -> None:
    truth = ["skin", "brain", "lung"]
    assert accuracy(PROMPTS[[2, 0, 1]], PROMPTS, LABELS, truth)["zero_shot_accuracy"] == 1
    assert accuracy(PROMPTS, PROMPTS, LABELS, truth)["zero_shot_accuracy"] == 0


def test_chance_is_the_best_constant_answer() -> None:
    """On unbalanced data a model that always says the same thing scores high; `chance` shows that it is nothing."""
    constant = np.tile(PROMPTS[1], (10, 1))
    found = accuracy(constant, PROMPTS, LABELS, ["lung"] * 9 + ["skin"])
    assert found["zero_shot_accuracy"] == found["chance"] == pytest.approx(0.9)


# --- several sentences for a class ------------------------------------------------------------------------------------

TWO = Prompts((("a", "b"), ("c",)))
SENTENCES = unit(np.array([[1.0, 0, 0], [0, 1, 0], [0.6, 0, 0.8]]))


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        ("mean", [[np.sqrt(0.5), 0.6], [np.sqrt(0.5), 0], [0, 0.8]]),  # (1, 1, 0) made unit length
        ("max", [[1, 0.6], [1, 0], [0, 0.8]]),
        ("single", [[1, 0.6], [0, 0], [0, 0.8]]),
    ],
)
def test_aggregation(aggregate: Any, expected: list[list[float]]) -> None:
    found = cosines(np.eye(3, dtype=np.float32), SENTENCES, TWO, aggregate)
    assert found == pytest.approx(np.array(expected), abs=1e-6)


def test_gloria_measures_each_class_against_itself() -> None:
    """A class whose sentences are near to every image would win every time; less its own mean it does not."""
    image = unit(np.random.default_rng(0).normal(size=(200, 8)) + 9 * np.eye(8)[0])
    text = unit(np.stack([np.eye(8)[0], np.eye(8)[1], np.eye(8)[2]]))
    prompts = Prompts((("a",), ("b",), ("c",)))
    assert set(cosines(image, text, prompts, "max").argmax(axis=1)) == {0}
    found = cosines(image, text, prompts, "gloria")
    assert found.mean(axis=0) == pytest.approx(0, abs=1e-5) and found.std(axis=0) == pytest.approx(1, abs=1e-5)
    assert set(found.argmax(axis=1)) == {0, 1, 2}
    assert np.isfinite(cosines(image[:1], text, prompts, "gloria")).all()
    assert np.isfinite(cosines(image[[0, 0]], text, prompts, "gloria")).all()


def test_softmax_of_large_scores() -> None:
    assert softmax(np.array([[1000.0, 999.0]])) == pytest.approx(np.array([[0.7310586, 0.2689414]]))


# --- the whole task, of models whose embeddings are known -------------------------------------------------------------


class KnownClip(ColourClip):
    """Words are the colours that they name."""

    def unread_texts(self, texts: Sequence[str]) -> list[str]:
        return [f"1 of {len(texts)} is cut"]

    def encode_texts(self, texts: Sequence[str], progress: Any) -> np.ndarray:
        return np.stack([unit(np.array(["red" in text, "green" in text, "blue" in text], np.float32)) for text in texts])


class Known(Candidate):
    def __init__(self, name: str, clip: Any):
        self.name, self.fingerprint, self.clip = name, name, clip  # type: ignore[misc]
        self.source, self.adapter = f"models/{name}", ""


def measured(out: Path, *candidates: Candidate, resamples: int = 1_000, embeddings: Embeddings | None = None) -> Evaluation:
    embeddings = embeddings or Embeddings(None)
    return Evaluation(candidates=candidates, dataset="set", embeddings=embeddings, out=out, resamples=resamples)


COLOURS = ("red", "green", "blue")
SAYS = Prompts.from_templates(COLOURS, ["{}", "a {} thing"])


def coloured(count: int = 60, *, without: Sequence[int] = ()) -> Labelled:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    pixels = np.clip(150 * np.eye(3)[labels] + rng.normal(60, 70, (count, 3)), 0, 255).astype(np.uint8)
    images: list[Any] = [Image.new("RGB", (8, 8), tuple(map(int, pixel))) for pixel in pixels]
    for position in without:
        images[position] = Damaged()
    return Labelled("colours", COLOURS, images, [f"{i}.png" for i in range(count)], labels, fingerprint([str(count)]))


def test_one_model(tmp_path: Path) -> None:
    data = coloured()
    (result,) = zero_shot(measured(tmp_path, Known("eye", KnownClip()), resamples=50), data, SAYS)
    pixels = np.stack([np.asarray(image)[0, 0] for image in data.images]).astype(np.float32)
    expected = classification_metrics(data.labels, 10 * unit(pixels).astype(np.float64))
    assert {name: result.metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert 0.5 < result.metrics["accuracy"] < 1
    assert result.metrics["majority_accuracy"] == np.bincount(data.labels).max() / 60
    assert (result.model, result.task, result.dataset, result.n) == ("eye", "zero-shot", "set", 60)
    assert result.intervals.keys() == expected.keys()
    assert result.outcomes["labels"].tolist() == data.labels.tolist()
    assert result.outcomes["logits"] == pytest.approx(10 * unit(pixels), abs=1e-5)
    assert result.measured is not None and (result.measured.model, result.measured.total) == ("models/eye", 60)
    for name, (low, high) in result.intervals.items():
        assert low <= expected[name] <= high or name == "expected_calibration_error"  # whose resamples are biased upwards
    assert np.sum(result.details["confusion"]) == 60 and result.details["per_class"]["red"]["n"] == (data.labels == 0).sum()
    assert result.settings["prompts"][0] == ["red", "a red thing"] and result.settings["logit_scale"] == 10
    assert "left_out" not in result.details
    assert len(result.pictures) == 3 and all((tmp_path / file).is_file() for file in result.pictures)
    write_results(tmp_path, [result])
    assert json.loads(json.dumps(read_results(tmp_path)[0].row())) == json.loads(
        json.dumps(result.row()), parse_constant=pytest.fail
    )


def test_models_side_by_side(tmp_path: Path) -> None:
    """One that sees no red is worse, by a difference that is read from the later to the earlier."""
    candidates = [Known("eye", KnownClip()), Known("colour/blind", KnownClip(red=0.2))]
    eye, blind = zero_shot(measured(tmp_path, *candidates, resamples=100), coloured(), SAYS)
    (pair,) = paired(tmp_path, [eye, blind], [eye, blind], 100, 0)
    assert (pair.after, pair.before) == (blind.id, eye.id)
    difference, low, high, better = pair.metrics["accuracy"]
    assert difference == blind.metrics["accuracy"] - eye.metrics["accuracy"] < 0
    assert low < difference < high < 0 and better < 0.05
    assert pair.metrics.keys() == {name for name in eye.metrics if not name.startswith("majority")}
    assert blind.details["per_class"]["red"]["recall"] < eye.details["per_class"]["red"]["recall"]
    assert eye.pictures.keys().isdisjoint(blind.pictures) and len(list(tmp_path.iterdir())) == 6


def test_other_data_and_prompts_overwrite_no_pictures(tmp_path: Path) -> None:
    first, second, third = coloured(), coloured(40), SAYS
    rows = zero_shot(measured(tmp_path, Known("eye", KnownClip()), resamples=10), first, SAYS)
    rows += zero_shot(measured(tmp_path, Known("eye", KnownClip()), resamples=10), second, third)
    rows += zero_shot(measured(tmp_path, Known("eye", KnownClip()), resamples=10), first, third, aggregate="max")
    assert len({row.id for row in rows}) == 3 and len(list(tmp_path.iterdir())) == 9


def test_a_class_of_few_images_has_no_interval_of_its_ranking(tmp_path: Path) -> None:
    data = coloured(100)
    some = data.subset(np.concatenate([np.flatnonzero(data.labels != 2), np.flatnonzero(data.labels == 2)[:1]]))
    (row,) = zero_shot(measured(tmp_path, Known("eye", KnownClip()), resamples=50), some, SAYS)
    assert row.details["no_interval"] == dict.fromkeys(["macro_f1", "auroc", "average_precision"], "too few to say")
    low, high = row.intervals["balanced_accuracy"]
    assert high - low > 0.25, "the one image may be right or wrong by chance"
    assert "accuracy" in row.intervals and "auroc" not in row.intervals


class Squeamish(KnownClip):
    """Cannot read the first image, which others can."""

    def encode_images(self, images: Sequence[Any], *rest: Any, normalize: bool) -> np.ndarray:
        return super().encode_images([Damaged(), *images[1:]], *rest, normalize=normalize)


def test_an_image_that_one_model_cannot_read_counts_for_none(tmp_path: Path) -> None:
    data = coloured(without=[7])
    candidates = [Known("eye", KnownClip()), Known("other", Squeamish())]
    results = zero_shot(measured(tmp_path, *candidates, resamples=20), data, SAYS)
    for result in results:
        assert result.n == 58
        assert [each["image"] for each in result.details["left_out"]] == ["0.png", "7.png"]
        assert result.details["left_out"][0]["reason"] == "a damaged image"
    assert results[0].metrics == results[1].metrics
    rest = data.subset(np.delete(np.arange(60), [0, 7]))
    (alone,) = zero_shot(measured(tmp_path, candidates[0], resamples=20), rest, SAYS)
    assert alone.metrics == results[0].metrics, "each image kept its own label"


def test_the_second_time_no_model_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not for its temperature either; which prompts it does not read as they are is said again."""
    runs = []
    for clip in (KnownClip(), None):
        cache = Embeddings(tmp_path / "cache")
        runs.append(zero_shot(measured(tmp_path, Known("eye", clip), resamples=20, embeddings=cache), coloured(), SAYS))
        assert capsys.readouterr().err == "set: prompts (eye): 1 of 6 is cut\n"
    assert runs[0][0] == runs[1][0]


class Broken(KnownClip):
    def encode_texts(self, texts: Sequence[str], progress: Any) -> np.ndarray:
        return super().encode_texts(texts, progress) * np.array([[np.nan], [1]]).repeat(3, axis=0)[: len(texts)]


@pytest.mark.parametrize(
    ("candidates", "classes", "prompts", "message"),
    [
        ([Known("a", KnownClip()), Known("a", KnownClip())], COLOURS, SAYS, "two models are called 'a'"),
        ([Known("a", KnownClip())], COLOURS, Prompts((("x",), ("y",))), "3 classes, but prompts for 2"),
        ([Known("a", KnownClip())], COLOURS, Prompts((("x",), ("y",), ())), "'blue' has no prompt"),
        ([Known("a", KnownClip())], ("red",), Prompts((("x",),)), "at least two classes"),
        ([Known("a", Broken())], COLOURS, SAYS, "a: the embedding of 'red' is not finite"),
    ],
)
def test_what_cannot_be_evaluated(candidates: Any, classes: Any, prompts: Prompts, message: str, tmp_path: Path) -> None:
    data = coloured(6)
    data = Labelled(data.name, classes, data.images, data.names, data.labels, data.fingerprint)
    with pytest.raises(UserError, match=message):
        zero_shot(measured(tmp_path, *candidates), data, prompts)
    assert list(tmp_path.iterdir()) == []


# --- the real peer ----------------------------------------------------------------------------------------------------


def spread_weights(folder: Path) -> None:
    """Larger matrices: as they are initialised, every image would be given the same answer."""
    from safetensors.torch import load_file, save_file

    path = folder / "open_clip_model.safetensors"
    save_file({name: 6 * value if value.ndim > 1 else value for name, value in load_file(path).items()}, path)


def test_clip_benchmark_gives_the_same_numbers(tmp_path: Path) -> None:
    """One random open_clip model on one WebDataset of PNG files: accuracy, top-5 and mean recall are equal."""
    vision = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
    text = {"context_length": 16, "hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler"}
    model = tmp_path / "model"
    open_clip_model(model, vision, text, bert={"num_hidden_layers": 2})
    spread_weights(model)
    rng = np.random.default_rng(0)
    blobs = np.clip(rng.integers(0, 256, (120, 1, 1, 3)) + rng.integers(-90, 90, (120, 6, 6, 3)), 0, 255).astype(np.uint8)
    images = [png(Image.fromarray(blob).resize((40, 36))) for blob in blobs]
    classes = ["lung", "brain", "tumor cells", "chest ray", "photo", "the image", "x - 1"]
    templates = ["this is a photo of {}", "{} with the image"]
    prompts = Prompts.from_templates(classes, templates)

    clip = from_pretrained(model)
    scores = cosines(clip.encode_images(images), clip.encode_texts(prompts.flat), prompts)
    ordered = np.sort(scores, axis=1)
    # images for which no rounding of two frameworks can change the answer, or what is among the best five
    clear = np.minimum(ordered[:, -1] - ordered[:, -2], ordered[:, -5] - ordered[:, -6]) > 1e-4
    assert clear.sum() > 100
    images, scores = [images[i] for i in np.flatnonzero(clear)], scores[clear]
    n = len(images)
    # the model's own answers, half of them replaced: then it is right now and then
    labels = np.where(rng.uniform(size=n) < 0.5, scores.argmax(axis=1), rng.integers(0, 7, n))
    assert len(set(scores.argmax(axis=1))) > 3

    data = Labelled("peer", tuple(classes), images, [f"{i}.png" for i in range(n)], labels, fingerprint(["peer"]))
    (ours,) = zero_shot(measured(tmp_path / "out", Candidate(str(model)), resamples=10), data, prompts)
    write_classification(tmp_path / "peer", images, labels.tolist(), classes, templates)
    theirs = clip_benchmark(model, tmp_path / "peer", "zeroshot_classification")
    assert theirs == {
        "acc1": ours.metrics["accuracy"],
        "acc5": ours.metrics["top_5_accuracy"],
        "mean_per_class_recall": ours.metrics["balanced_accuracy"],
    }
    assert 0.3 < theirs["acc1"] < theirs["acc5"] < 1 and theirs["mean_per_class_recall"] != theirs["acc1"]
