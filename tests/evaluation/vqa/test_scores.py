"""Numbers of answers, their intervals over images, and token F1."""

from pathlib import Path

import numpy as np
import pytest

from biomedclip_jax.evaluation._bootstrap import bootstrap_means
from biomedclip_jax.evaluation._intervals import ALIKE, TOO_FEW
from biomedclip_jax.evaluation.vqa import _tokens
from biomedclip_jax.evaluation.vqa._tokens import answer_tokens, token_f1, words
from biomedclip_jax.evaluation.vqa.answering import by_predicted_type
from biomedclip_jax.evaluation.vqa.scores import Outcome, intervals, metrics, samples


def outcome(n: int = 60, per_image: int = 3, leaked: bool = False, seed: int = 0) -> Outcome:
    rng = np.random.default_rng(seed)
    return Outcome(
        right=rng.random(n) < 0.5,
        f1=rng.random(n),
        closed=rng.random(n) < 0.5,
        images=np.arange(n) // per_image,
        reachable=rng.random(n) < 0.9,
        leaked=rng.random(n) < 0.6 if leaked else None,
    )


@pytest.mark.parametrize("leaked", [False, True])
def test_metrics_are_means_of_parts(leaked: bool) -> None:
    own = outcome(leaked=leaked)
    found = metrics(own)
    assert found["accuracy"] == own.right.mean() and found["token_f1"] == pytest.approx(own.f1.mean())
    assert found["accuracy_closed"] == own.right[own.closed].mean() and found["accuracy_open"] == own.right[~own.closed].mean()
    assert found["vocabulary_reach_open"] == own.reachable[~own.closed].mean()
    assert ("accuracy_leaked" in found) == leaked
    if own.leaked is not None:
        assert found["accuracy_closed_not_leaked"] == own.right[own.closed & ~own.leaked].mean()
        assert found["token_f1_leaked"] == pytest.approx(own.f1[own.leaked].mean())
    assert {name: array.tolist() for name, array in Outcome.of_arrays(own.arrays()).arrays().items()} == {
        name: array.tolist() for name, array in own.arrays().items()
    }


def test_a_kind_of_which_there_is_none_has_no_number() -> None:
    own = Outcome(**(outcome().arrays() | {"closed": np.zeros(60, bool)}))
    assert "accuracy_closed" not in metrics(own) and "accuracy_closed" not in samples(own, 5, 0)


def test_whole_images_are_drawn() -> None:
    """Each resample is the mean of the questions of images drawn with replacement."""
    own = outcome(30, 3)
    columns = {"right": (own.right, np.ones(30, bool)), "closed": (own.right, own.closed)}
    found = bootstrap_means(columns, own.images, 200, seed=4)
    generator = np.random.default_rng(4)
    for r in range(200):
        drawn = generator.integers(0, 10, 10)
        items = np.concatenate([np.flatnonzero(own.images == image) for image in drawn])
        assert found["right"][r] == pytest.approx(own.right[items].mean())
        assert found["closed"][r] == pytest.approx(own.right[items][own.closed[items]].mean())
    alone = bootstrap_means(columns, np.arange(30), 2_000, seed=4)["right"].std()
    assert alone == pytest.approx(np.sqrt(own.right.mean() * (1 - own.right.mean()) / 30), rel=0.1)


def test_images_widen_an_interval_that_questions_alone_would_have_too_narrow() -> None:
    right = np.repeat(np.arange(20) % 2 == 0, 10)
    column = {"right": (right, np.ones(200, bool))}
    widths = [
        np.ptp(np.percentile(bootstrap_means(column, groups, 500)["right"], [2.5, 97.5]))
        for groups in (np.arange(200) // 10, np.arange(200))
    ]
    assert widths[0] > 2.5 * widths[1]


def test_of_few_images_no_interval_is_given() -> None:
    own = outcome(60, 3)
    few = own.images < 9
    columns = {"all": (own.right, few | True), "few": (own.right, few), "same": (np.ones(60, bool), few | True)}
    known, reasons = intervals(columns, own.images, bootstrap_means(columns, own.images, 100))
    assert list(known) == ["all"] and reasons == {"few": TOO_FEW, "same": ALIKE}


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("left lung", "left lung", 1.0),
        ("lung", "left lung", 2 / 3),
        ("lung lung", "left lung", 1 / 2),
        ("right", "left lung", 0.0),
        ("left, lung", "Left lung!", 1.0),
        ("", "left", 0.0),
        ("肝脏", "肝", 2 / 3),
    ],
)
def test_token_f1(answer: str, gold: str, expected: float) -> None:
    assert token_f1(answer, gold, words) == pytest.approx(expected)


def test_gpt2_where_its_tokenizer_is_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    places = {"gpt2": str(tmp_path / "tokenizer.json")}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, _: places.get(name))
    answer_tokens.cache_clear()
    try:
        name, tokenise = answer_tokens()
        assert name == "GPT-2 tokens" and len(tokenise("abb")) == 3
        places.clear()
        answer_tokens.cache_clear()
        assert answer_tokens() == ("words", _tokens.words)
    finally:
        answer_tokens.cache_clear()


def test_by_predicted_type_a_misrouted_question_counts_where_it_went() -> None:
    closed = np.array([True, True, True, False])
    taken = np.array([True, True, False, False])
    right = np.array([True, False, False, True])
    found = by_predicted_type(right, closed, taken)
    assert found == {"type_accuracy": 0.75, "accuracy_closed_as_taken": 0.5, "accuracy_open_as_taken": 0.5}
    assert "accuracy_open_as_taken" not in by_predicted_type(right, closed, np.ones(4, bool))
