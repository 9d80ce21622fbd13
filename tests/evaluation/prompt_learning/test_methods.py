"""The methods as the table of few labels calls them; learned prompts on disk and for other classes."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.few_shot_task import CLASSES, make_candidate, make_task
from helpers.tiny_labels import part_of

import biomedclip_jax as bc
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.probe.methods import FewShot, Tasks
from biomedclip_jax.evaluation.probe.sampling import Budget
from biomedclip_jax.evaluation.prompt_learning import (
    BiomedCoOp,
    CoCoOp,
    ContextConfig,
    CoOp,
    KgCoOp,
    LearnedPrompts,
    ProGrad,
    Recipe,
    base_to_novel,
    load_prompts,
)
from biomedclip_jax.evaluation.prompt_learning.base_to_novel import _means
from biomedclip_jax.evaluation.report.results import Result

FAST = Recipe(epochs=25, batch_size=8, learning_rate=0.1, warmup_epochs=0)
METHODS = {
    "coop": CoOp(ContextConfig(3), recipe=FAST),
    "cocoop": CoCoOp(ContextConfig("a photo of a"), recipe=FAST),
    "biomedcoop": BiomedCoOp(recipe=FAST),
    "kgcoop": KgCoOp(recipe=FAST),
    "prograd": ProGrad(recipe=FAST),
}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> FewShot:
    return make_task(make_candidate(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def learned(task: FewShot) -> dict[str, LearnedPrompts]:
    return {name: method.learn(task) for name, method in METHODS.items()}


@pytest.mark.parametrize("name", METHODS)
def test_it_learns_and_says_how(name: str, task: FewShot, learned: dict[str, LearnedPrompts]) -> None:
    prediction = METHODS[name](task)
    found = prediction.probabilities
    assert METHODS[name].name == name
    assert found.shape == (40, 4) and found.dtype == np.float64 and np.allclose(found.sum(axis=1), 1)
    zero_shot = ((task.test.unit @ task.text.T).argmax(axis=1) == task.test.labels).mean()
    assert (found.argmax(axis=1) == task.test.labels).mean() > zero_shot + 0.1
    again = learned[name].scores(task.candidate.clip, task.test.unit)
    assert np.array_equal(found.argmax(axis=1), again.argmax(axis=1)), "the same task gives the same prediction"
    assert {"context", "epochs", "learning_rate", "selection"} <= prediction.settings.keys()
    json.dumps(prediction.settings)


def test_towers_stay_as_they_were(task: FewShot, learned: dict[str, LearnedPrompts]) -> None:
    assert learned
    fresh = bc.from_pretrained(task.candidate.source)
    assert np.array_equal(fresh.encode_texts(["chest ray"]), task.candidate.clip.encode_texts(["chest ray"]))


@pytest.mark.parametrize("name", METHODS)
def test_saved_prompts_come_back_whole(name: str, task: FewShot, learned: dict[str, LearnedPrompts], tmp_path: Path) -> None:
    clip, prompts = task.candidate.clip, learned[name]
    prompts.save(tmp_path / "prompts.safetensors", clip)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.safetensors"]
    # a copy of the model in another folder is the same model
    back = load_prompts(tmp_path / "prompts.safetensors", bc.from_pretrained(task.candidate.source))
    assert (back.method, back.classes, back.context) == (name, CLASSES, prompts.context)
    assert np.array_equal(back.scores(clip, task.test.unit), prompts.scores(clip, task.test.unit))


def test_prompts_of_another_model_are_refused(task: FewShot, learned: dict[str, LearnedPrompts], tmp_path: Path) -> None:
    path = tmp_path / "prompts.safetensors"
    learned["coop"].save(path, task.candidate.clip)
    other = make_candidate(tmp_path / "other", seed=1).clip
    with pytest.raises(UserError, match="learned on a model with other weights") as error:
        load_prompts(path, other)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    for content in (b"", b"not safetensors at all", None):
        if content is None:
            from safetensors.numpy import save_file

            save_file({"context": np.zeros(3, np.float32)}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(UserError, match="not a file of learned prompts"):
            load_prompts(path, task.candidate.clip)
    with pytest.raises(UserError, match="not a file of learned prompts"):
        load_prompts(tmp_path / "nowhere", task.candidate.clip)


def test_text_embeddings_are_zero_shot_weights(task: FewShot, learned: dict[str, LearnedPrompts]) -> None:
    clip = task.candidate.clip
    weights = learned["coop"].text_embeddings(clip)
    assert np.allclose(np.linalg.norm(weights, axis=1), 1, atol=1e-6)
    scores = learned["coop"].scores(clip, task.test.unit)
    assert np.abs(clip.logit_scale * task.test.unit @ weights.T - scores).max() <= 1e-4
    with pytest.raises(UserError, match="another for each image"):
        learned["cocoop"].text_embeddings(clip)


def test_vectors_that_start_from_a_phrase_are_that_sentence(task: FewShot) -> None:
    """No training at all: the prompt is the text, and all of the way through the tower says so."""
    clip = task.candidate.clip
    table = np.asarray(clip.params["text"]["word"])
    ids = clip.processor.tokens(["a photo of a"])[0]
    untrained = LearnedPrompts("coop", CLASSES, ContextConfig("a photo of a"), {"context": table[ids[ids != 0][1:-1]]})
    expected = clip.encode_texts([f"a photo of a {name}." for name in CLASSES])
    assert np.abs(untrained.text_embeddings(clip) - expected).max() <= 1e-6


def test_published_epochs_follow_the_shots(task: FewShot) -> None:
    for shots, epochs in ((1, 50), (2, 100), (4, 100), (5, 200), (6, 200)):
        few = dataclasses.replace(task, given=task.given.subset(np.arange(4 * shots)))
        for method in (CoOp(), ProGrad()):
            assert method._recipe(few) == Recipe(epochs=epochs, batch_size=32, learning_rate=2e-3)
    assert CoCoOp().recipe == Recipe(epochs=10, batch_size=1, learning_rate=2e-3)
    assert BiomedCoOp().recipe == Recipe(epochs=100, batch_size=4, learning_rate=2.5e-3)
    assert CoOp().settings(task)["context"] == 16
    assert KgCoOp().recipe == Recipe(epochs=100, batch_size=128, learning_rate=2e-3)
    assert KgCoOp().settings(task).items() >= {"context": "a photo of a", "weight": 8.0}.items()
    assert ProGrad().settings(task).items() >= {"context": "a photo of a", "weight": 1.0, "temperature": 1.0}.items()
    for wrong in (lambda: KgCoOp(-1), lambda: ProGrad(weight=-1), lambda: ProGrad(temperature=0)):
        with pytest.raises(UserError, match="expected a number"):
            wrong()


def test_published_recipes_from_base_to_novel(task: FewShot) -> None:
    """Four words and 50 epochs, whatever the shots; what was given is kept."""
    coop, biomedcoop = (method.for_base_to_novel().settings(task) for method in (CoOp(), BiomedCoOp()))
    assert (coop["context"], coop["epochs"], coop["batch_size"], coop["learning_rate"]) == ("a photo of a", 50, 32, 2e-3)
    assert (biomedcoop["context"], biomedcoop["epochs"], biomedcoop["batch_size"]) == ("a photo of a", 50, 4)
    cocoop = CoCoOp().for_base_to_novel().settings(task)
    assert (cocoop["context"], cocoop["epochs"], cocoop["batch_size"]) == ("a photo of a", 10, 1)
    kgcoop, prograd = (method.for_base_to_novel().settings(task) for method in (KgCoOp(), ProGrad()))
    assert (kgcoop["context"], kgcoop["epochs"], kgcoop["batch_size"]) == ("a photo of a", 100, 128)
    assert (prograd["context"], prograd["epochs"], prograd["batch_size"]) == ("a photo of a", 100, 32)
    given = (
        CoOp(ContextConfig(3), FAST),
        ProGrad(recipe=FAST),
        BiomedCoOp(recipe=Recipe(epochs=100, batch_size=4, learning_rate=2.5e-3)),
    )
    assert [method.for_base_to_novel() for method in given] == list(given)


def test_the_harmonic_mean_is_that_of_the_means() -> None:
    """Seeds of 90 and 50 % and of 50 and 90 %: 70, and not 64.3, the mean of theirs."""
    reached = ((0.9, 0.5), (0.5, 0.9))
    runs = []
    for seed, (base, novel) in enumerate(reached):
        known = {"base_accuracy": base, "novel_accuracy": novel, "harmonic_mean": 2 * base * novel / (base + novel)}
        metrics = known | {f"zero_shot_{name}": value / 2 for name, value in known.items()}
        runs.append(Result("m", "coop base-to-novel", "x", 9, metrics, settings={"seed": seed, "epochs": 50}))
    part = part_of(np.ones((8, 2), np.float32), np.arange(8) % 3)
    tasks = Tasks(None, None, None, None, part, part, {}, {})
    found = _means("x", tasks, Budget(shots=2), runs)
    assert found.metrics["harmonic_mean"] == pytest.approx(0.7) == found.metrics["base_accuracy"]
    assert found.metrics["zero_shot_harmonic_mean"] == pytest.approx(0.35)
    assert found.settings == {"epochs": 50, "budget": "2 per class", "seeds": [0, 1]}
    assert found.details["spread"]["base_accuracy"] == pytest.approx(0.2828, abs=1e-4)


def test_sentences_of_ones_own(task: FewShot, tmp_path: Path) -> None:
    path = tmp_path / "sentences.yaml"
    path.write_text(json.dumps({"classes": {name: [f"{name} {i}" for i in "abc"] for name in CLASSES}}))
    method = dataclasses.replace(METHODS["biomedcoop"], sentences=path, kdsp=20.0)
    assert method(task).settings["sentences"] == str(path)
    own = method.learn(task).arrays["context"]
    assert np.abs(own - dataclasses.replace(method, sentences=None).learn(task).arrays["context"]).max() > 1e-3
    path.write_text(json.dumps({"classes": {name: [f"{name} one"] * (1 + len(name) % 2) for name in CLASSES}}))
    with pytest.raises(UserError, match="different numbers of prompts"):
        BiomedCoOp(sentences=path).learn(task)
    path.write_text(json.dumps({"classes": {name: [f"{name} one"] for name in CLASSES[1:]}}))
    with pytest.raises(UserError, match="chest ray"):
        BiomedCoOp(sentences=path).learn(task)


def test_base_to_novel(task: FewShot, tmp_path: Path) -> None:
    path = tmp_path / "sentences.yaml"
    path.write_text(json.dumps({"classes": {name: [f"{name} one", f"{name} two"] for name in CLASSES}}))
    result = base_to_novel(dataclasses.replace(METHODS["biomedcoop"], sentences=path), task)
    metrics = result.metrics
    base, novel = metrics["base_accuracy"], metrics["novel_accuracy"]
    assert metrics["harmonic_mean"] == pytest.approx(2 * base * novel / (base + novel))
    assert base > metrics["zero_shot_base_accuracy"] and result.n == 40
    assert result.settings["base_classes"] == 2 and result.settings["images"] == 12
    assert (result.settings["epochs"], result.settings["sentences"]) == (FAST.epochs, str(path))
    own = task.test.labels >= 2
    zero_shot = (task.test.unit[own] @ task.text[2:].T).argmax(axis=1) + 2 == task.test.labels[own]
    assert metrics["zero_shot_novel_accuracy"] == pytest.approx(zero_shot.mean())


@pytest.mark.parametrize("name", ["kgcoop", "prograd"])
def test_base_to_novel_is_held_to_the_base_classes(name: str, task: FewShot) -> None:
    result = base_to_novel(METHODS[name], task)
    assert result.task == f"{name} base-to-novel" and result.n == 40
    assert result.metrics["base_accuracy"] > result.metrics["zero_shot_base_accuracy"]
    assert result.settings["weight"] == METHODS[name].weight and result.settings["base_classes"] == 2


def test_class_specific_prompts_know_no_other_classes(task: FewShot) -> None:
    own = CoOp(ContextConfig(2, class_specific=True), recipe=dataclasses.replace(FAST, epochs=1))
    with pytest.raises(UserError, match="learned for their own classes"):
        base_to_novel(own, task)
    with pytest.raises(UserError, match="shared by all classes"):
        CoCoOp(ContextConfig(2, class_specific=True)).learn(task)


def test_class_specific_prompts_follow_their_classes(task: FewShot) -> None:
    vectors = np.random.default_rng(0).normal(0, 0.5, (4, 2, task.candidate.clip.config.text.width)).astype(np.float32)
    own = LearnedPrompts("coop", CLASSES, ContextConfig(2, class_specific=True), {"context": vectors})
    turned = own.with_classes(CLASSES[::-1]).text_embeddings(task.candidate.clip)
    assert np.abs(turned - own.text_embeddings(task.candidate.clip)[::-1]).max() <= 1e-5
