"""What a run says before its first update: a line for each unwise setting, none for a healthy run, and what is refused."""

import dataclasses
import re
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.tiny_run import config, make_data
from PIL import Image

from biomedclip_jax.config import DataConfig, OptimizerConfig, Sigmoid, Softmax, Stage, TrainConfig
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError
from biomedclip_jax.train import _same_pairs, _start
from biomedclip_jax.train._start import Asked, announce, unwise

PAIRS = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pairs whose captions all differ, and 8 other ones that are held out."""
    folder = make_data(tmp_path_factory.mktemp("data"))
    rng = np.random.default_rng(1)
    for name, count in (("many", PAIRS), ("apart", 8)):
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (20, 18, 3), np.uint8)).save(folder / f"{name}{i}.png")
        write(folder / f"{name}.csv", [(f"{name}{i}.png", f"{i // 6} image {i % 6}") for i in range(count)])
    return folder


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("image,caption\n" + "".join(f"{image},{caption}\n" for image, caption in rows))
    return str(path)


def asked(data: Path, train: str = "many.csv", held_out: str = "apart.csv", **changes: Any) -> Asked:
    source = DataConfig(train=str(data / train), held_out=str(data / held_out), tokenizer=str(data))
    run = dataclasses.replace(config(data, **({"stages": (Stage(8, steps=20),)} | changes)), data=source)
    text = run.model.text
    pairs, apart = (open_pairs(str(data / name), "image", "caption") for name in (train, held_out))
    return Asked(run, pairs, apart, Tokenizer(data, text.context_length, text.pad_id, text.vocab_size))


def test_a_healthy_run_has_two_lines(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    announce(asked(data))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"tiny: {PAIRS} pairs (0 rejected), ")
    assert second == "steps: 20 of 8 pairs; 160 pairs seen, 4 epochs; learning rate 0.001 at its peak, warm-up 2 steps"


def test_the_stages_of_a_run(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    announce(asked(data, stages=(Stage(8, epochs=2), Stage(16, steps=5, learning_rate_scale=0.5))))
    assert "steps: 15 in 2 stages (10 of 8 pairs, 5 of 16 pairs); 160 pairs seen, 4 epochs" in capsys.readouterr().out


def rate(warmup: int, **changes: Any) -> OptimizerConfig:
    return OptimizerConfig(learning_rate=1e-3, warmup_steps=warmup, **changes)


POSITIVES = Softmax(equal_captions="positives")
UNWISE = {
    "warm-up": (
        {"optimizer": rate(2_000)},
        r"2,000 steps, but there are only 20: .* above 1e-05 of 0\.001; --optimizer\.warmup",
    ),
    "half": ({"optimizer": rate(15)}, r"warm-up: 15 of 20 steps, more than half"),
    "own": ({"stages": (Stage(8, steps=20, optimizer=rate(50)),)}, r"--stages\.0\.optimizer\.warmup-steps 2"),
    "constant": ({"optimizer": rate(200, schedule="constant")}, r"200 steps, but there are only 20"),
    "average": ({"optimizer": rate(2, ema=0.9999)}, r"optimizer\.ema = 0\.9999: after 20 steps the average is 100% the start"),
    "twice": (
        {"stages": (Stage(64, steps=3),)},
        r"every batch of 64 pairs, out of 40, .* average 2\d.*equal-captions positives",
    ),
    "twice, sigmoid": (
        {"stages": (Stage(64, steps=3, loss=Sigmoid()),)},
        r"every batch of 64 .* is wiser, or --stages\.0\.loss\.equal-captions",
    ),
    "evaluations": ({"evaluate_every": 50}, r"run\.evaluate_every = 50: of 20 steps"),
    "patience": ({"evaluate_every": 5, "patience": 7}, r"patience = 7: there are only 4 evaluations"),
}


@pytest.mark.parametrize(("changes", "line"), UNWISE.values(), ids=UNWISE)
def test_what_is_unwise_has_one_line(data: Path, changes: dict[str, Any], line: str) -> None:
    if changes.get("stages", [Stage(8, steps=1)])[0].loss == Sigmoid():
        changes = changes | {"model": dataclasses.replace(config(data).model, init_logit_bias=-10.0)}
    (found,) = unwise(asked(data, **changes))
    assert_matches(found, line)


def assert_matches(found: str, line: str) -> None:
    assert re.search(line, found), found
    assert "\n" not in found and len(found) < 300


def test_pairs_are_not_twice_in_groups_that_are_smaller(data: Path) -> None:
    assert unwise(asked(data, stages=(Stage(64, steps=3, loss=Softmax(negatives=4)),))) == []
    assert unwise(asked(data, stages=(Stage(64, steps=3, loss=POSITIVES),))) == [], "they are positives of themselves"


# --- equal captions ---------------------------------------------------------------------------------------------------


def with_captions(data: Path, captions: list[str]) -> str:
    write(data / "equal.csv", [(f"many{i}.png", caption) for i, caption in enumerate(captions)])
    return "equal.csv"


def test_all_captions_are_the_same(data: Path) -> None:
    (line,) = unwise(asked(data, with_captions(data, ["a chest image"] * PAIRS)))
    assert_matches(line, r"all 40 captions are the same .* cannot fall below 2\.08, and nothing")


def test_half_the_captions_are_the_same(data: Path) -> None:
    table = with_captions(data, ["a chest image"] * 20 + [f"{i} image" for i in range(20)])
    (line,) = unwise(asked(data, table))
    assert_matches(
        line, r"50% of the pairs share theirs \(21 different ones of 40\).* below about 0\.\d+.*equal-captions positives"
    )
    (line,) = unwise(asked(data, table, stages=(Stage(8, steps=20, loss=POSITIVES),)))
    assert_matches(line, r"about 0\.\d+, as they are positives$")
    siglip = dataclasses.replace(config(data).model, init_logit_bias=-10.0)
    found = [
        unwise(asked(data, table, model=siglip, stages=(Stage(8, steps=20, loss=Sigmoid(kind)),)))
        for kind in ("negatives", "positives")
    ]
    assert_matches(found[0][0], r"below about 1\.\d+, and pairs with one caption push each other apart")
    assert found[1] == [], "each score is decided alone: nothing is against a loss of 0"


def test_the_least_loss_is_what_batches_have(data: Path) -> None:
    """Against the mean of ln(pairs with the same caption) in batches that are drawn."""
    captions = [f"{i % 4} image" for i in range(PAIRS)]
    (line,) = unwise(asked(data, with_captions(data, captions), stages=(Stage(16, steps=20),)))
    said = float(line.split("below about ")[1].split(",")[0])
    rng = np.random.default_rng(0)
    drawn = [np.array(captions)[rng.permutation(PAIRS)[:16]] for _ in range(500)]
    least = np.mean([np.log((batch[:, None] == batch).sum(axis=1)).mean() for batch in drawn])
    assert said == pytest.approx(least, abs=0.06)


# --- held-out pairs that are training pairs ---------------------------------------------------------------------------


def test_held_out_images_that_are_training_images_by_path_or_content(data: Path) -> None:
    (data / "copy.png").write_bytes((data / "many7.png").read_bytes())
    write(data / "leak.csv", [("many3.png", "3 image"), ("copy.png", "7 image"), ("apart1.png", "1 image")])
    (line,) = unwise(asked(data, held_out="leak.csv"))
    assert_matches(line, r"2 of 3 held-out images are training images, such as .*many3\.png \(.*many3\.png\)")


def test_of_many_pairs_a_sample_is_looked_at(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_same_pairs, "_MOST", 10)
    (line,) = unwise(asked(data, held_out="many.csv"))
    assert_matches(line, r"\d of 10 held-out images are training images \(of 10 training pairs that were looked at\)")


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "field"), [(Stage(1, steps=2), "batch_size"), (Stage(8, steps=2, loss=Softmax(negatives=1)), "neg")]
)
def test_a_pair_that_is_compared_with_no_other_is_refused(data: Path, stage: Stage, field: str) -> None:
    with pytest.raises(UserError, match=rf"stages\.0\..*{field}.* = 1: expected 2 or more"):
        announce(asked(data, stages=(stage,)))


def test_a_state_larger_than_the_device_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run: TrainConfig = asked(data).config
    small = [types.SimpleNamespace(memory_stats=lambda: {"bytes_limit": 1 << 19})]
    monkeypatch.setattr(jax, "local_devices", lambda: small)
    with pytest.raises(
        UserError, match=r"tiny: weights, moments and gradients alone take 0\.00 GiB of each device's 0\.00 GiB"
    ):
        announce(asked(data))
    monkeypatch.setattr(_start, "_WORTH_A_WORD", 0)
    small[0].memory_stats = lambda: {"bytes_limit": 1 << 30}
    line = _start._memory(run)
    assert line is not None and line.startswith("memory of each device: 0.00 GiB of 1.00 GiB")
