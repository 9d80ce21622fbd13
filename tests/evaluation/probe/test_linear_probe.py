"""The probe against PyTorch's own BatchNorm1d, Linear and SGD, and the search on scores with a known best."""

import numpy as np
import pytest
from helpers.tiny_labels import TinyCandidate, overlapping, part_of, task, unit

from biomedclip_jax.evaluation._metrics import softmax
from biomedclip_jax.evaluation.probe._head import batches, final_training, predict
from biomedclip_jax.evaluation.probe._search import LEARNING_RATES, STRENGTHS, Found, full_search, small_search
from biomedclip_jax.evaluation.probe.linear_probe import LinearProbe, train_heads
from biomedclip_jax.evaluation.probe.sampling import Budget

TEXT = unit(np.random.default_rng(3).normal(size=(3, 16)))


def in_torch(train, text, pair, epochs, seed):
    """ELEVATER's `Classifier` and `train_one` on features, with the batches of ours: head, losses, accuracy an epoch."""
    import torch

    norm, linear = torch.nn.BatchNorm1d(text.shape[1], affine=False), torch.nn.Linear(*text.shape[::-1])
    linear.weight.data, linear.bias.data = torch.tensor(text), torch.zeros(len(text))
    optimizer = torch.optim.SGD(linear.parameters(), lr=pair[0], momentum=0.9, weight_decay=pair[1])
    features, labels = torch.tensor(train.features), torch.tensor(train.labels)
    plan = batches(len(train), epochs, seed)
    for batch in plan.reshape(-1, plan.shape[-1]):
        rows = torch.tensor(batch[batch >= 0].astype(np.int64))
        norm.train()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(linear(norm(features[rows])), labels[rows]).backward()
        optimizer.step()
    norm.eval()
    return norm, linear


@pytest.mark.parametrize("images, pair", [(150, (0.1, 1e-3)), (150, (1e-2, 1.0)), (9, (0.1, 1e-6)), (65, (0.05, 0.1))])
def test_heads_are_torchs(images: int, pair: tuple[float, float]) -> None:
    """Several epochs of whole and partial batches; of 65 images one is left over, which neither trains on."""
    import torch

    train, test = overlapping(images, 0), overlapping(60, 1)
    norm, linear = in_torch(train, TEXT, pair, epochs=6, seed=5)
    trained = train_heads(train, test, TEXT, [(1e-6, 1e-6), pair], epochs=6, seed=5)
    head = {outer: {name: leaf[1] for name, leaf in inner.items()} for outer, inner in trained.last.items()}
    expected = {"mean": norm.running_mean, "var": norm.running_var, "kernel": linear.weight.T, "bias": linear.bias}
    for name, leaf in (head["linear"] | head["seen"]).items():
        np.testing.assert_allclose(leaf, expected[name].detach().numpy(), atol=1e-5, err_msg=name)
    with torch.no_grad():
        theirs = linear(norm(torch.tensor(test.features)))
    np.testing.assert_allclose(softmax(predict(head, test.features)), theirs.softmax(-1).numpy(), atol=1e-5)
    assert trained.accuracies[1, -1] == pytest.approx((theirs.numpy().argmax(1) == test.labels).mean())
    assert np.abs(head["linear"]["kernel"] - TEXT.T).max() > 0.01, "something was learned"


def test_every_image_once_an_epoch_in_another_order() -> None:
    plan = batches(150, epochs=2, seed=0)
    assert plan.shape == (2, 3, 64) and (plan >= 0).sum(axis=(1, 2)).tolist() == [150, 150]
    first, second = (each[each >= 0] for each in plan)
    assert sorted(first) == sorted(second) == list(range(150)) and first.tolist() != second.tolist()
    assert plan.tolist() != batches(150, 2, seed=1).tolist()
    assert batches(65, 1, 0).shape == (1, 1, 64) and batches(64, 1, 0).shape == (1, 1, 64)
    assert batches(1, 3, 0).shape == (3, 0, 1)


def test_the_best_epoch_is_kept_beside_the_last() -> None:
    train, test = overlapping(90, 0), overlapping(60, 1)
    pairs = [(0.5, 1e-6), (1e-3, 1e-6)]
    trained = train_heads(train, test, TEXT, pairs, epochs=20, seed=0)
    for k in range(2):
        best = {outer: {name: leaf[k] for name, leaf in inner.items()} for outer, inner in trained.best.items()}
        reached = (predict(best, test.features).argmax(1) == test.labels).mean()
        assert reached == pytest.approx(trained.accuracies[k].max())
    assert trained.accuracies[0].max() > trained.accuracies[0, -1], "they differ, or this shows nothing"


def test_a_run_that_diverges_scores_nothing() -> None:
    """Weight decay 1e6 at learning rate 0.1: not a number, whose largest is not class 0."""
    trained = train_heads(overlapping(90, 0), overlapping(30, 1), TEXT, [(0.1, 1e6), (0.1, 1e-6)], epochs=5, seed=0)
    assert trained.accuracies[0, -1] == 0 and trained.accuracies[1, -1] > 0.5


def bump(best: tuple[float, float]):
    """Scores with one peak, over the logarithms; how many pairs were asked for is `asked`."""
    asked: list[tuple[float, float]] = []

    def score(pairs):
        asked.extend(pairs)
        return np.array([1 / (1 + sum(np.log10(np.array(pair) / best) ** 2)) for pair in pairs])

    return score, asked


@pytest.mark.parametrize("best", [(LEARNING_RATES[2], STRENGTHS[37]), (LEARNING_RATES[5], STRENGTHS[0]), (1e-6, STRENGTHS[96])])
def test_the_search_finds_the_peak(best: tuple[float, float]) -> None:
    score, asked = bump(best)
    found = full_search(score)
    assert (found.learning_rate, found.weight_decay, found.score) == (*best, pytest.approx(1.0))
    assert found.tried == len(asked) == len(set(asked)) <= 6 * 15


def one_by_one(score, rates=LEARNING_RATES) -> tuple[float, float]:
    """ELEVATER's order of business: one learning rate, one training after the other, only a better score moves the peak."""
    best_rate = best_strength = best_score = 0.0
    for rate in rates:
        peak, peak_score = -1, 0.0
        for place in range(0, 97, 16):
            got = score([(rate, STRENGTHS[place])])[0]
            if got > peak_score:
                peak, peak_score = place, got
        peak %= 97
        span = 8
        while span > 0:
            left, right = max(peak - span, 0), min(peak + span, 96)
            for place in [p for p in (left, right) if p != peak]:
                got = score([(rate, STRENGTHS[place])])[0]
                if got > peak_score:
                    peak, peak_score = place, got
            span //= 2
        if peak_score > best_score:
            best_rate, best_strength, best_score = rate, STRENGTHS[peak], peak_score
    return best_rate, best_strength


@pytest.mark.parametrize("seed", range(20))
def test_side_by_side_is_one_by_one(seed: int) -> None:
    """Scores of few values, as accuracies on few images are: ties everywhere, and some runs fail."""
    table = np.random.default_rng(seed).integers(0, 6, (6, 97)) / 5

    def score(pairs):
        found = np.array([table[LEARNING_RATES.index(rate), STRENGTHS.index(decay)] for rate, decay in pairs])
        return np.where(found == 0.2, np.nan, found)

    found = full_search(score)
    assert (found.learning_rate, found.weight_decay) == one_by_one(lambda pairs: np.nan_to_num(score(pairs)))


def test_the_small_search() -> None:
    score, asked = bump((1e-3, 1e-2))
    found = small_search(score)
    assert (found.learning_rate, found.weight_decay) == (LEARNING_RATES[3], STRENGTHS[32]) and found.tried == len(asked) == 8


def test_the_method_learns_and_looks_at_the_test_set_only_when_told() -> None:
    known, test = overlapping(120, 0), overlapping(300, 1)
    wrong = part_of(test.features, (test.labels + 1) % 3)
    candidate = TinyCandidate()
    predicted = LinearProbe()(task(known, test, Budget(shots=20), TEXT, candidate))
    accuracy = (predicted.probabilities.argmax(1) == test.labels).mean()
    zero_shot = ((test.unit @ TEXT.T).argmax(1) == test.labels).mean()
    assert accuracy > 0.75 > zero_shot + 0.2
    assert predicted.probabilities.sum(axis=1) == pytest.approx(1) and predicted.probabilities.dtype == np.float64
    blind = LinearProbe()(task(known, wrong, Budget(shots=20), TEXT, candidate))
    np.testing.assert_array_equal(blind.probabilities, predicted.probabilities)
    seeing = LinearProbe("best_test_epoch")
    by_labels = [seeing(task(known, each, Budget(shots=20), TEXT, candidate)) for each in (test, wrong)]
    assert np.abs(by_labels[0].probabilities - by_labels[1].probabilities).max() > 1e-3
    assert by_labels[0].settings["selection"] == "best_test_epoch"


def rights(**shares: float):
    """Trainings whose logits say how many epochs they had, and which epochs were asked for."""
    asked: list[int] = []

    def train(epochs: int) -> tuple[np.ndarray, float]:
        asked.append(epochs)
        return np.full((1, 2), float(epochs)), shares[f"after_{epochs}"]

    return train, asked


def test_a_training_that_keeps_what_the_search_found_is_the_published_one() -> None:
    train, asked = rights(after_50=0.895)
    logits, epochs, said = final_training(train, 0.9, 50, 10)
    assert (logits[0, 0], epochs, said, asked) == (50, 50, (), [50])


def test_a_training_that_loses_what_the_search_found_is_not_the_one_that_counts() -> None:
    train, asked = rights(after_50=0.4, after_10=0.9)
    logits, epochs, said = final_training(train, 1.0, 50, 10)
    assert (logits[0, 0], epochs, asked) == (10, 10, [50, 10])
    assert said == (
        "trained for 10 epochs, as in the search: after 50 epochs 40.0% of the validation images are right, after 10 90.0%, "
        "in the search 100.0%",
    )
    train, asked = rights(after_50=0.8, after_10=0.7)
    logits, epochs, said = final_training(train, 1.0, 50, 10)
    assert (logits[0, 0], epochs, asked) == (50, 50, [50, 10]) and said[0].startswith("after 50 epochs 80.0% of the validation")


def test_settings_that_were_the_best_for_ten_epochs_and_decay_in_fifty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly all images of one class, and a weight decay that lets the zero-shot head, which is right, fade away."""
    labels = np.repeat([0, 1, 2], (95, 5, 1))
    rng = np.random.default_rng(4)

    def made(classes: np.ndarray):
        return part_of(3 * TEXT[classes] + 0.3 * rng.normal(size=(len(classes), 16)), classes)

    known, test = made(labels), made(np.repeat([0, 1, 2], 40))
    chosen = Found(1e-6, 1e4, 0.75, 84)
    monkeypatch.setattr("biomedclip_jax.evaluation.probe.linear_probe.full_search", lambda score: chosen)
    given = task(known, test, Budget(fraction=1.0), TEXT, TinyCandidate())
    predicted = LinearProbe()(given)
    right = (predicted.logits.argmax(1) == test.labels).mean()
    head = train_heads(given.given, None, TEXT, [(1e-6, 1e4)], 50, 0).last
    decayed = {outer: {name: leaf[0] for name, leaf in inner.items()} for outer, inner in head.items()}
    before = (predict(decayed, test.features).argmax(1) == test.labels).mean()
    assert predicted.settings["epochs"] == 10 and right > 0.8 > before + 0.5
    assert predicted.caveats[0].startswith("trained for 10 epochs, as in the search: after 50 epochs")
    assert LinearProbe("best_test_epoch")(given).caveats == (), "the published rule is left as it is"
