"""The table of few-label results: means over seeds, budgets, what is left out, and the picture."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_labels import CLASSES, PROMPTS, TinyCandidate, coloured, labelled, unit
from PIL import Image

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._evaluation import Evaluation
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings, ImageEmbeddings
from biomedclip_jax.evaluation.probe.methods import FewLabels, FewShot, Method, Prediction
from biomedclip_jax.evaluation.probe.sampling import Budget
from biomedclip_jax.evaluation.probe.task import few_labels
from biomedclip_jax.evaluation.report.drawing import Curve, draw_learning_curves
from biomedclip_jax.evaluation.report.results import Result, write_results
from biomedclip_jax.prompts.templates import Prompts, class_embeddings

TEXT = unit(np.random.default_rng(3).normal(size=(3, 16)))
BUDGETS = (Budget(shots=4), Budget(fraction=0.5), Budget(fraction=1.0))


class Known(Embeddings):
    """Sentences have embeddings that were made up; the tower's own tokenizer has no vocabulary here."""

    def texts(self, candidate, texts, source):
        return TEXT[[PROMPTS.flat.index(text) for text in texts]]


@dataclass(frozen=True)
class Centres:
    """The nearest mean: quick, and different for each choice of images. It writes down the tasks that it gets."""

    tasks: list[FewShot]
    name: str = "centres"

    def __call__(self, task: FewShot) -> Prediction:
        self.tasks.append(task)
        means = np.stack([task.given.unit[task.given.labels == c].mean(axis=0) for c in range(3)])
        return Prediction((10 * task.test.unit @ means.T).astype(np.float64), {"scale": 10, "drawn": task.seed})


def learned(
    candidates: Sequence[Candidate],
    out: Path,
    embeddings: Embeddings,
    data: FewLabels,
    methods: Sequence[Method],
    dataset: str = "x",
) -> list[Result]:
    evaluation = Evaluation(candidates=candidates, dataset=dataset, embeddings=embeddings, out=out)
    return few_labels(evaluation, data, methods)


@pytest.fixture(scope="module")
def data():
    (images, labels), (others, truth) = coloured(60, 0), coloured(30, 5)
    return labelled(images, labels, "train"), labelled(others, truth, "test")


def test_rows(data, tmp_path: Path) -> None:
    train, test = data
    tasks: list[FewShot] = []
    candidates = [TinyCandidate("one"), TinyCandidate("two", seed=1)]
    methods = [Centres(tasks), Centres([], "other")]
    few = FewLabels(train, test, PROMPTS, BUDGETS)
    rows = learned(candidates, tmp_path, Known(None), few, methods, "colours/3")
    assert [(r.model, r.task, r.settings["budget"]) for r in rows] == [
        (model, method, str(budget)) for model in ("one", "two") for method in ("centres", "other") for budget in BUDGETS
    ]
    first = rows[0]
    runs = first.details["runs"]
    assert (first.n, first.dataset, first.settings["labels"]) == (30, "colours/3", 12)
    assert first.settings["seeds"] == [0, 1, 2] == [run["seed"] for run in runs]
    assert first.settings["scale"] == 10 and "drawn" not in first.settings and runs[1]["chosen"]["drawn"] == 1
    values = [run["metrics"]["accuracy"] for run in runs]
    assert first.metrics["accuracy"] == pytest.approx(np.mean(values))
    assert (
        first.details["spread"]["accuracy"] == pytest.approx(np.std(values, ddof=1)) and first.details["spread"]["accuracy"] > 0
    )
    assert first.metrics["majority_accuracy"] == pytest.approx(1 / 3)
    whole = rows[2]
    assert whole.settings["seeds"] == [0] and "spread" not in whole.details and whole.settings["labels"] == 60

    tower = candidates[0].clip.encode_images(test.images)
    right = ((tower @ TEXT.T).argmax(1) == test.labels).mean()
    assert first.details["zero_shot"]["accuracy"] == pytest.approx(right)
    np.testing.assert_allclose(tasks[0].test.unit, tower, atol=1e-6)
    np.testing.assert_allclose(tasks[0].text, TEXT, atol=1e-6)

    with Image.open(tmp_path / next(iter(first.pictures))) as picture:
        assert picture.width > 500 and len(picture.convert("RGB").getcolors(1 << 20) or []) > 10
    write_results(tmp_path, rows)
    assert json.loads((tmp_path / "results.json").read_text())[0]["settings"]["budget"] == "4 per class"


def test_the_tower_sees_each_image_once(data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = data
    candidate = TinyCandidate()
    seen: list[int] = []
    encode = candidate.clip.encode_images
    monkeypatch.setattr(
        candidate.clip, "encode_images", lambda images, *a, **k: seen.append(len(images)) or encode(images, *a, **k)
    )
    for _ in range(2):  # the second time everything is known
        learned([candidate], tmp_path, Known(tmp_path), FewLabels(train, test, PROMPTS, BUDGETS), [Centres([])])
    assert seen == [60, 30]


def test_images_that_cannot_be_read_are_left_out_and_named(data, tmp_path: Path) -> None:
    train, test = data
    images = [*train.images[:10], "gone.png", *train.images[10:]]
    broken = labelled(images, np.insert(train.labels, 10, 1), "broken")
    tasks: list[FewShot] = []
    few = FewLabels(broken, test, PROMPTS, BUDGETS[2:])
    rows = learned([TinyCandidate()], tmp_path, Known(None), few, [Centres(tasks)])
    assert rows[0].details["left_out"] == [{"image": "image 10", "reason": "gone.png: no such file, of training images"}]
    assert rows[0].settings["labels"] == 60 and tasks[0].given.labels.tolist() == train.labels.tolist()


def test_what_does_not_fit_is_said_before_any_training(data, tmp_path: Path) -> None:
    train, test = data
    tasks: list[FewShot] = []

    def run(train=train, test=test, prompts=PROMPTS):
        few = FewLabels(train, test, prompts, BUDGETS)
        learned([TinyCandidate()], tmp_path, Known(None), few, [Centres(tasks)])

    other = labelled(list(test.images), test.labels, "other")
    object.__setattr__(other, "classes", ("red", "blue", "green"))
    with pytest.raises(UserError, match=r"train has the classes red, green, blue, other has red, blue, green"):
        run(test=other)
    with pytest.raises(UserError, match="prompts of 2 classes for 3"):
        run(prompts=Prompts.from_templates(CLASSES[:2], ["{}"]))
    with pytest.raises(UserError, match="train: the training set has no image of class 2"):
        run(train=train.subset(np.flatnonzero(train.labels < 2)))
    assert tasks == []


def test_an_embedding_that_is_not_finite(data, tmp_path: Path) -> None:
    train, test = data

    class Broken(Known):
        def images(self, candidate, images, data_fingerprint):
            rows = np.full((len(images), 16), np.nan, np.float32)
            return ImageEmbeddings(rows, rows, np.arange(len(images)), {})

    with pytest.raises(UserError, match="tiny: the embedding of image 0 is not finite"):
        learned([TinyCandidate()], tmp_path, Broken(None), FewLabels(train, test, PROMPTS), [Centres([])])


def test_class_embeddings_are_means_of_unit_length() -> None:
    text = np.array([[1.0, 0], [0, 1], [0.6, 0.8]], np.float32)
    found = class_embeddings(text, Prompts((("a", "b"), ("c",))))
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5], [0.6, 0.8]], atol=1e-6)


def test_a_picture_of_names_that_matplotlib_would_read_as_formulas(tmp_path: Path) -> None:
    curve = Curve("_model_$x^$", "probe", ((5, 0.5, 0.1), (20, 0.6, 0.0)), 0.4)
    draw_learning_curves(tmp_path / "curves.png", "$\\frac 肺", "accuracy", [curve])
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@dataclass(frozen=True)
class Guess:
    """Always class 0, or on the seeds of `right` the truth."""

    right: tuple[int, ...]
    name: str = "guess"

    def __call__(self, task: FewShot) -> Prediction:
        answers = task.test.labels if task.seed in self.right else np.zeros(len(task.test), np.int64)
        return Prediction(np.eye(3)[answers], caveats=("odd",) if task.seed == 1 else ())


def test_labels_that_were_of_no_use_are_said(data, tmp_path: Path) -> None:
    train, test = data
    tower = TinyCandidate().clip.encode_images(test.images)
    zero_shot = ((tower @ TEXT.T).argmax(1) == test.labels).mean()
    majority = "accuracy no better than always the most frequent class (33.3%)"
    few = FewLabels(train, test, PROMPTS, BUDGETS[:1])

    def said(right: tuple[int, ...]) -> list[str]:
        (row,) = learned([TinyCandidate()], tmp_path, Known(None), few, [Guess(right)])
        assert all(each in row.left_out for each in row.details["caveats"])
        return row.details["caveats"]

    assert said((0, 1, 2)) == ["odd, seed 1"]
    below = [f"accuracy below zero-shot ({zero_shot:.1%})"] if zero_shot > 1 / 3 else []
    assert said(()) == ["odd, seed 1", *below, majority]
    assert said((1,)) == ["odd, seed 1", *(f"{each}, seeds 0, 2" for each in below), f"{majority}, seeds 0, 2"]
    (whole,) = learned(
        [TinyCandidate()], tmp_path, Known(None), FewLabels(train, test, PROMPTS, BUDGETS[2:]), [Guess(right=(0,))]
    )
    assert "caveats" not in whole.details
