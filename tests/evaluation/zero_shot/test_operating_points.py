"""Sensitivity and specificity of two classes: at stated thresholds, and at one that was chosen on other images."""

from pathlib import Path
from typing import Any

import numpy as np
from evaluation.multi_label.test_zero_shot import Known, evaluation
from PIL import Image

from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.pairs import fingerprint
from biomedclip_jax.evaluation._intervals import wilson
from biomedclip_jax.evaluation.report.results import Result
from biomedclip_jax.evaluation.report.tables import markdown, tables
from biomedclip_jax.evaluation.zero_shot.task import zero_shot
from biomedclip_jax.prompts.templates import Prompts

CLASSES = ("red", "green")


def coloured(name: str, count: int, seed: int, **more: Any) -> Labelled:
    """Reddish and greenish images, all of them rather red."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    pixels = np.clip(np.stack([150 - 20 * labels, 90 + 40 * labels, 0 * labels], 1) + rng.normal(0, 25, (count, 3)), 0, 255)
    images: list[Any] = [Image.new("RGB", (4, 4), tuple(map(int, pixel))) for pixel in pixels]
    names = [f"{name} {number}" for number in range(count)]
    return Labelled(name, CLASSES, images, names, labels, fingerprint([name, str(seed)]), **more)


def test_stated_and_chosen(tmp_path: Path) -> None:
    data, other = coloured("test", 120, 0), coloured("training", 200, 1)
    prompts = Prompts.from_templates(CLASSES, ["{}"])
    (row,) = zero_shot(evaluation(tmp_path, Known()), data, prompts, thresholds=(0.5, 0.2), chooses=other)
    points = row.details["operating_points"]
    logits = row.outcomes["logits"]
    answered = logits[:, 1] >= logits[:, 0]
    there = data.labels == 1
    assert points["positive"] == "green" and points["at"].keys() == {"0.5", "0.2", "chosen"}
    assert points["at"]["0.5"]["sensitivity"] == answered[there].mean()
    assert points["at"]["0.5"]["specificity_interval"] == wilson(int((~answered & ~there).sum()), int((~there).sum()))
    chosen = points["at"]["chosen"]
    assert points["chosen_on"] == "200 images of training" and chosen["threshold"] < 0.45
    both = [each["sensitivity"] + each["specificity"] for each in (chosen, points["at"]["0.5"])]
    assert both[0] > both[1] + 0.1
    text = markdown(tables([row], lambda *_: []))
    assert "## Sensitivity and specificity: set, 120 images" in text and "chosen on 200 images of training |" in text
    (plain,) = zero_shot(evaluation(tmp_path, Known()), data, prompts)
    assert plain.details["operating_points"]["at"].keys() == {"0.5"} and not plain.details["operating_points"]["chosen_on"]


def test_over_groups(tmp_path: Path) -> None:
    data = coloured("test", 120, 0, groups=tuple(f"p{i // 4}" for i in range(120)), grouped_by="patient")
    (row,) = zero_shot(evaluation(tmp_path, Known()), data, Prompts.from_templates(CLASSES, ["{}"]))
    at = row.details["operating_points"]["at"]["0.5"]
    low, high = at.get("specificity_interval", (at["specificity"],) * 2)
    assert low < at["specificity"] < high or low == high == at["specificity"]


def test_each_run_of_a_probe_has_a_line() -> None:
    at = {
        "0.5": {"sensitivity": 0.8, "sensitivity_interval": (0.7, 0.9)},
        "chosen": {"threshold": 0.3, "sensitivity": 1.0, "sensitivity_no_interval": "too few to say"},
    }
    points = {"positive": "ill", "at": at, "chosen_on": "the 12 images that validate"}
    runs = [{"seed": seed, "operating_points": points} for seed in (0, 1)]
    row = Result(
        model="m",
        task="probe",
        dataset="set",
        n=9,
        metrics={"accuracy": 0.5},
        settings={"budget": "5 per class", "labels": 10, "seeds": [0, 1]},
        details={"runs": runs, "zero_shot": {"accuracy": 0.4}},
    )
    text = markdown(tables([row], lambda *_: []))
    assert "| m, probe, 5 per class, seed 0 | 0.5 | 80.00 (70.0\u00a0to\u00a090.0) | - |" in text
    assert (
        "| m, probe, 5 per class, seed 1 | 0.3, chosen on the 12 images that validate | 100.00 (too few to say) | - |" in text
    )
    del at["chosen"]
    assert "| none on the 12 images that validate does better than one answer for all | - | - |" in markdown(
        tables([row], lambda *_: [])
    )
