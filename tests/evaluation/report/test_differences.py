"""Pairs of rows: which there are, in which direction, and when they are made anew."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from biomedclip_jax.evaluation._metrics import classification_metrics
from biomedclip_jax.evaluation.report import differences as tested
from biomedclip_jax.evaluation.report.differences import Difference, paired, write_differences
from biomedclip_jax.evaluation.report.results import Measured, Result, outcomes_file, write_results


def known(model: str, data: str = "d", adapter: str = "", weights: str | None = None) -> Measured:
    weights = weights or model + adapter
    return Measured(model=model, adapter=adapter, model_fingerprint=weights, data="x", data_fingerprint=data, total=60)


def zero_shot(model: str, seed: int, words: str = "a", **about: str) -> Result:
    """A row on sixty images of two classes."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], 30)
    logits = np.eye(2)[labels] + rng.normal(size=(60, 2))
    return Result(
        model,
        "zero-shot",
        "x",
        60,
        classification_metrics(labels, logits),
        settings={"classes": ["p", "q"], "prompts": [[words], ["b"]], "aggregate": "mean"},
        measured=known(model, **about),
        outcomes={"labels": labels, "logits": logits},
    )


def pairs(found: list[Difference], rows: list[Result]) -> set[tuple[str, str]]:
    names = {row.id: row.model for row in rows}
    return {(names[each.after], names[each.before]) for each in found}


def test_only_rows_on_the_same_images_and_words_are_paired(tmp_path: Path) -> None:
    rows = [zero_shot("one", 0), zero_shot("two", 1), zero_shot("three", 2, data="other"), zero_shot("four", 3, words="c")]
    rows += [dataclasses.replace(zero_shot("old", 4), measured=None), dataclasses.replace(zero_shot("few", 5), n=59)]
    assert pairs(paired(tmp_path, rows, rows, 20, 0), rows) == {("two", "one")}


def test_the_adapted_less_its_base(tmp_path: Path) -> None:
    base, tuned = zero_shot("one", 0), zero_shot("one", 1, adapter="run/adapter")
    tuned = dataclasses.replace(tuned, model="one+run")
    for rows in ([base, tuned], [tuned, base]):
        assert pairs(paired(tmp_path, rows, rows, 20, 0), rows) == {("one+run", "one")}
    words = {"prompts": "learned", "prompts_method": "coop", "prompts_file": "p", "prompts_fingerprint": "f"}
    learned = dataclasses.replace(zero_shot("one", 2), model="learned", settings=base.settings | words)
    assert pairs(paired(tmp_path, [learned, base], [base], 20, 0), [learned, base]) == {("learned", "one")}


def test_what_did_not_change_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [zero_shot("one", 0), zero_shot("two", 1), zero_shot("three", 2)]
    write_results(tmp_path, rows)
    first = paired(tmp_path, rows, rows, 20, 0)
    write_differences(tmp_path, first, rows)
    made: list[int] = []
    make = tested.bootstrap
    monkeypatch.setattr(tested, "bootstrap", lambda *each: made.append(1) or make(*each))
    bare = [dataclasses.replace(row, outcomes={}) for row in rows]  # as they are read from results.json
    assert paired(tmp_path, bare, [], 20, 0) == first and not made

    # the second model, measured again: two of the three pairs
    again = zero_shot("two", 7)
    now = [bare[0], again, bare[2]]
    write_results(tmp_path, now)
    second = paired(tmp_path, now, [again], 20, 0)
    assert len(made) == 3 and second[1] == first[1] and second[0] != first[0] and second[2] != first[2]
    for each, (after, before) in zip(second, ((1, 0), (2, 0), (2, 1)), strict=True):
        assert each.metrics["auroc"][0] == now[after].metrics["auroc"] - now[before].metrics["auroc"]

    # an evaluation that ended after results.json and before differences.json: what is there is of other numbers
    bare = [dataclasses.replace(row, outcomes={}) for row in now]
    assert paired(tmp_path, bare, [], 20, 0) == second


def test_outcomes_that_are_gone(tmp_path: Path) -> None:
    rows = [zero_shot("one", 0), zero_shot("two", 1)]
    write_results(tmp_path, rows)
    bare = [dataclasses.replace(row, outcomes={}) for row in rows]
    assert len(paired(tmp_path, bare, bare, 20, 0)) == 1
    whole = outcomes_file(tmp_path, rows[0]).read_bytes()
    for broken in (b"broken", whole[: len(whole) // 2], b"", whole[:200] + b"x" * 40 + whole[240:]):
        outcomes_file(tmp_path, rows[0]).write_bytes(broken)
        assert paired(tmp_path, bare, bare, 20, 0) == []
    (tmp_path / "differences.json").write_text("{")
    assert paired(tmp_path, [rows[0], bare[1]], [], 20, 0) != []


def test_retrieval_has_all_its_metrics(tmp_path: Path) -> None:
    rows = []
    for name, seed in (("one", 0), ("two", 1)):
        rng = np.random.default_rng(seed)
        ranks = {"image_to_text": rng.integers(0, 15, 40), "text_to_image": rng.integers(0, 15, 80)}
        metrics = {}
        for way, rank in ranks.items():
            metrics |= {f"{way}_recall_at_{k}": float((rank < k).mean()) for k in (1, 5, 10)}
            metrics |= {f"{way}_median_rank": float(np.median(rank)) + 1}
        rows.append(Result(name, "retrieval", "x", 40, metrics, measured=known(name), outcomes=ranks))
    (pair,) = paired(tmp_path, rows, rows, 200, 0)
    assert pair.metrics.keys() == rows[0].metrics.keys()
    for name, (difference, low, high, _) in pair.metrics.items():
        assert difference == rows[1].metrics[name] - rows[0].metrics[name] and low < high and low <= difference <= high
