"""Several findings an image, asked with words: the numbers are scikit-learn's, and what cannot be a number is none."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.colour_clip import ColourClip, Damaged
from PIL import Image
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from biomedclip_jax.data.labelled.multi_label import MultiLabelled, Policy
from biomedclip_jax.data.pairs import Reject, fingerprint
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._bootstrap import bootstrap_findings
from biomedclip_jax.evaluation._evaluation import Evaluation
from biomedclip_jax.evaluation._intervals import wilson
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.multi_label.zero_shot import BOTH, zero_shot_findings
from biomedclip_jax.evaluation.report.differences import paired
from biomedclip_jax.evaluation.report.results import COSINE, read_results, write_results
from biomedclip_jax.evaluation.report.tables import markdown, tables
from biomedclip_jax.prompts.findings import FindingPrompts, probabilities_of

FINDINGS = ("red", "green", "blue")
SAYS = FindingPrompts.default(FINDINGS)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


class KnownClip(ColourClip):
    """Words are the colours that they name; "no red" is the other two."""

    def unread_texts(self, texts: Sequence[str]) -> list[str]:
        return []

    def encode_texts(self, texts: Sequence[str], progress: Any) -> np.ndarray:
        has = np.array([[name in text for name in FINDINGS] for text in texts], np.float32)
        negative = np.array([[text.startswith("no ")] for text in texts])
        return unit(np.where(negative, 1 - has, has))


class Known(Candidate):
    def __init__(self, name: str = "eye", clip: Any = None):
        self.name, self.fingerprint, self.clip = name, name, clip or KnownClip()  # type: ignore[misc]
        self.source, self.adapter = f"models/{name}", ""


def evaluation(out: Path, *candidates: Candidate, resamples: int = 200) -> Evaluation:
    return Evaluation(
        candidates=candidates or [Known()], dataset="set", embeddings=Embeddings(None), out=out, resamples=resamples
    )


def coloured(count: int = 120, seed: int = 0) -> MultiLabelled:
    """Images in which each of three colours may be strong; the labels say so, with mistakes."""
    rng = np.random.default_rng(seed)
    labels = (rng.uniform(size=(count, 3)) < (0.5, 0.4, 0.3)).astype(np.int8)
    pixels = np.clip(labels * 90 + rng.normal(80, 60, (count, 3)), 0, 255).astype(np.uint8)
    images: list[Any] = [Image.new("RGB", (4, 4), tuple(map(int, pixel))) for pixel in pixels]
    names = [f"{number}.png" for number in range(count)]
    return MultiLabelled("colours", FINDINGS, images, names, labels, fingerprint([f"{count} {seed}"]))


def test_the_numbers_are_those_of_sklearn(tmp_path: Path) -> None:
    data = coloured()
    both, cosine = zero_shot_findings(evaluation(tmp_path), data, SAYS, thresholds=(0.3, 0.5))
    assert (both.settings["score"], cosine.settings["score"]) == (BOTH, COSINE)
    pixels = unit(np.stack([np.asarray(image)[0, 0] for image in data.images]).astype(np.float32))
    text = KnownClip().encode_texts(SAYS.flat, None)
    odds = 10 * (pixels @ text[:3].T - pixels @ text[3:].T).astype(np.float64)
    assert both.outcomes["scores"] == pytest.approx(odds, abs=1e-5)
    for row, scores in ((both, odds), (cosine, pixels @ text[:3].T)):
        for f, name in enumerate(FINDINGS):
            own = row.details["per_finding"][name]
            assert own["auroc"] == pytest.approx(roc_auc_score(data.labels[:, f], scores[:, f]), abs=1e-9)
            assert own["average_precision"] == pytest.approx(average_precision_score(data.labels[:, f], scores[:, f]), abs=1e-9)
            assert (own["n"], own["positive"]) == (120, data.labels[:, f].sum())
            for metric, (low, high) in own["intervals"].items():
                assert low < own[metric] < high
        assert row.metrics["mean_auroc"] == pytest.approx(roc_auc_score(data.labels, scores, average="macro"), abs=1e-9)
        assert row.metrics["mean_average_precision"] == pytest.approx(average_precision_score(data.labels, scores), abs=1e-9)
        assert row.intervals.keys() == row.metrics.keys() and row.n == 120
    assert "at" not in cosine.details["per_finding"]["red"], "a cosine has no threshold"
    for threshold in (0.3, 0.5):
        answered = probabilities_of(odds) >= threshold
        for f, name in enumerate(FINDINGS):
            at = both.details["per_finding"][name]["at"][f"{threshold:g}"]
            assert at["sensitivity"] == pytest.approx(recall_score(data.labels[:, f], answered[:, f]))
            assert at["specificity"] == pytest.approx(recall_score(data.labels[:, f], answered[:, f], pos_label=0))
            positive = int(data.labels[:, f].sum())
            assert at["sensitivity_interval"] == wilson(round(at["sensitivity"] * positive), positive)


def test_intervals_are_of_the_images(tmp_path: Path) -> None:
    """The mean's interval is that of resampled images, whose findings are drawn together."""
    answers = coloured().labels
    scores = np.random.default_rng(1).normal(size=answers.shape) + answers
    (found,) = bootstrap_findings(answers, [scores], 300)
    generator = np.random.default_rng(0)
    drawn = [generator.integers(0, 120, 120) for _ in range(3)]
    for r, rows in enumerate(drawn):
        expected = [roc_auc_score(answers[rows, f], scores[rows, f]) for f in range(3)]
        assert found.means["mean_auroc"][r] == pytest.approx(np.mean(expected))
        assert found.auroc[:, r] == pytest.approx(expected)
    assert bootstrap_findings(answers, [scores, scores], 300)[1].auroc == pytest.approx(found.auroc)


def test_labels_that_do_not_count_are_in_no_number_of_their_finding(tmp_path: Path) -> None:
    data = coloured()
    labels = data.labels.copy()
    labels[:10, 0], labels[10:25, 0], labels[3, 1] = -1, -2, -1
    some = dataclasses.replace(data, labels=labels)
    plain, _ = zero_shot_findings(evaluation(tmp_path), data, SAYS)
    row, _ = zero_shot_findings(evaluation(tmp_path), some, SAYS)
    own = row.details["per_finding"]
    assert [own[name]["n"] for name in FINDINGS] == [95, 119, 120] and row.n == 120
    assert own["blue"] == plain.details["per_finding"]["blue"]
    odds = plain.outcomes["scores"]
    assert own["red"]["auroc"] == pytest.approx(roc_auc_score(data.labels[25:, 0], odds[25:, 0]))
    assert row.details["caveats"] == ["11 of 360 are uncertain labels, left out", "15 of 360 are empty labels, left out"]
    assert (row.settings["uncertain"], row.settings["empty"]) == ("ignore", "ignore")
    positive, _ = zero_shot_findings(evaluation(tmp_path), dataclasses.replace(some, policy=Policy("positive")), SAYS)
    assert positive.details["per_finding"]["red"]["n"] == 105 and positive.id != row.id
    assert positive.details["caveats"][0] == "11 of 360 are uncertain labels, counted as positive"


def test_a_finding_without_a_number_says_why_and_is_in_no_mean(tmp_path: Path) -> None:
    data = coloured()
    labels = data.labels.copy()
    labels[:, 1], labels[:, 2] = 0, 1
    row, cosine = zero_shot_findings(evaluation(tmp_path), dataclasses.replace(data, labels=labels), SAYS)
    own = row.details["per_finding"]
    assert own["green"]["missing"] == "in no image" and own["blue"]["missing"] == "in all images"
    assert "auroc" not in own["green"] and own["green"]["at"]["0.5"].keys() == {"specificity", "specificity_interval"}
    assert row.metrics["mean_auroc"] == own["red"]["auroc"]
    assert row.details["caveats"] == ["means over 1 of 3 findings, without green: in no image; blue: in all images"]
    text = markdown(tables([row, cosine], lambda *_: []))
    assert "| eye | 1 of 3 |" in text and "| green | 120 | 0 | - (in no image) | - (in no image) | - |" in text
    json.dumps(row.row(), allow_nan=False)
    labels[:, 0] = 1
    with pytest.raises(UserError, match="none of 3 findings has both images with it and images without it, of 120"):
        zero_shot_findings(evaluation(tmp_path), dataclasses.replace(data, labels=labels), SAYS)
    labels[:60] = -2
    with pytest.raises(UserError, match="180 of 360 are empty labels, left out: see --empty"):
        zero_shot_findings(evaluation(tmp_path), dataclasses.replace(data, labels=labels), SAYS)


def test_a_rare_finding_has_no_interval_and_neither_has_the_mean(tmp_path: Path) -> None:
    data = coloured()
    labels = data.labels.copy()
    labels[np.flatnonzero(labels[:, 2])[6:], 2] = 0
    row, _ = zero_shot_findings(evaluation(tmp_path), dataclasses.replace(data, labels=labels), SAYS)
    own = row.details["per_finding"]
    assert own["blue"]["no_interval"] == "too few to say" and "intervals" not in own["blue"] and own["red"]["intervals"]
    assert row.intervals == {} and set(row.details["no_interval"].values()) == {"too few to say"}
    assert own["blue"]["at"]["0.5"]["sensitivity_interval"][1] > 0


def test_what_is_left_out_and_what_one_model_cannot_read(tmp_path: Path) -> None:
    data = coloured()
    images = list(data.images)
    images[5] = Damaged()
    data = dataclasses.replace(data, images=images, rejects=(Reject("7", "x.png", "label is empty"),), whole=200)
    rows = zero_shot_findings(evaluation(tmp_path, Known(), Known("blind", KnownClip(0.2))), data, SAYS)
    assert [(row.model, row.n) for row in rows] == [("eye", 119)] * 2 + [("blind", 119)] * 2
    assert (
        rows[0].left_out
        == "left out: 2 (label is empty 1, a damaged image 1); 119 of the benchmark's 200 images: not its number"
    )
    assert rows[0].measured is not None and rows[0].measured.total == 200


def test_rows_are_kept_compared_and_shown(tmp_path: Path) -> None:
    rows = zero_shot_findings(evaluation(tmp_path, Known(), Known("blind", KnownClip(0.2))), coloured(), SAYS)
    assert len({row.id for row in rows}) == 4
    write_results(tmp_path, rows)
    assert [row.id for row in read_results(tmp_path)] == [row.id for row in rows]
    differences = paired(tmp_path, rows, rows, 200, 0)
    assert len(differences) == 6
    first = next(each for each in differences if each.after == rows[2].id and each.before == rows[0].id)
    difference, low, high, _ = first.metrics["mean_auroc"]
    assert difference == rows[2].metrics["mean_auroc"] - rows[0].metrics["mean_auroc"] and low <= difference <= high
    text = markdown(tables(rows, lambda *_: [("paper: X (y)", {"mean_auroc": 0.5})], differences))
    assert "## Several findings: set, 120 images" in text and "| paper: X (y) |  | 50.00 | - |" in text
    for name in ("eye", "eye, cosine alone", "blind", "blind, cosine alone"):
        assert f"## Findings: set, 120 images: {name}\n" in text and f"| {name} | 3 of 3 |" in text
    assert 'Asked with "red" against "no red" (1 sentence a class, mean)' in text
    assert "| blind minus eye |" in text
    pictures = {file for row in rows for file in row.pictures}
    assert len(pictures) == 4 and all((tmp_path / file).stat().st_size > 1_000 for file in pictures)


def test_other_words_are_another_table(tmp_path: Path) -> None:
    other = FindingPrompts(SAYS.positive, FindingPrompts.from_templates(FINDINGS, ["{} there"]).negative)
    rows = [*zero_shot_findings(evaluation(tmp_path), coloured(), SAYS)[:1]]
    rows += zero_shot_findings(evaluation(tmp_path), coloured(), other)[:1]
    assert rows[0].id != rows[1].id
    assert markdown(tables(rows, lambda *_: [])).count("## Several findings: set, 120 images") == 2


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    data = coloured()
    with pytest.raises(UserError, match="chooses among classes"):
        zero_shot_findings(evaluation(tmp_path), data, SAYS, aggregate="gloria")
    with pytest.raises(UserError, match="3 findings, but prompts for 2"):
        zero_shot_findings(evaluation(tmp_path), data, FindingPrompts.default(FINDINGS[:2]))
    with pytest.raises(UserError, match="'red' and 'green' are one text to eye"):
        zero_shot_findings(evaluation(tmp_path), data, FindingPrompts.from_templates(["red", "red", "blue"]))


def test_intervals_over_groups(tmp_path: Path) -> None:
    """Every patient has four equal images: sensitivity's interval is twice as wide, and three groups are too few to say."""
    data = coloured(60)
    four = data.subset(np.repeat(np.arange(60), 4))
    grouped = dataclasses.replace(four, groups=tuple(f"p{i // 4}" for i in range(240)), grouped_by="patient")
    rows = [zero_shot_findings(evaluation(tmp_path), each, SAYS)[0] for each in (data, four, grouped)]
    widths = [np.ptp(row.details["per_finding"]["red"]["intervals"]["auroc"]) for row in rows]
    assert widths[2] == pytest.approx(widths[0], rel=0.3) and widths[1] < 0.7 * widths[2]
    at = [row.details["per_finding"]["red"]["at"]["0.5"] for row in rows]
    assert at[2]["sensitivity"] == at[1]["sensitivity"] and np.ptp(at[2]["sensitivity_interval"]) > 1.4 * np.ptp(
        at[1]["sensitivity_interval"]
    )
    assert "intervals over 60 groups (patient) of 240 images" in rows[2].left_out
    few = dataclasses.replace(four, groups=tuple(f"p{i % 3}" for i in range(240)), grouped_by="patient")
    row = zero_shot_findings(evaluation(tmp_path), few, SAYS)[0]
    assert row.details["per_finding"]["red"]["no_interval"] == "too few to say" and not row.intervals
    assert "(too few to say)" in markdown(tables([row], lambda *_: []))
