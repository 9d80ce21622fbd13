"""The file of metrics, and the clock."""

import dataclasses
import json
from pathlib import Path

import pytest

from biomedclip_jax.train._metrics import Clock, HeldOutLine, MetricsFile, Speed, StepLine
from biomedclip_jax.train.flops import peak_flops

LINE = StepLine(
    step=1,
    stage=0,
    samples_seen=16,
    grad_norm=1.5,
    learning_rate=1e-3,
    logit_scale=14.3,
    loss=1.0,
    pairs_per_second=10.0,
    mfu=None,
    data_wait_fraction=0.0,
    seconds=2.0,
    seconds_left=8.0,
)


def test_lines_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    """A killed run has written lines past its last checkpoint, and perhaps half a line; resuming must not double them."""
    path = tmp_path / "metrics.jsonl"
    lines = [dataclasses.replace(LINE, step=step) for step in (1, 2, 3, 4)]
    path.write_text("".join(json.dumps(line.record()) + "\n" for line in lines) + '{"step": 5, "lo')
    metrics = MetricsFile(path, step=3)
    metrics.write(dataclasses.replace(LINE, step=4, loss=0.5))
    last = json.loads(path.read_text().splitlines()[-1])
    assert last == LINE.record() | {"step": 4, "loss": 0.5}, "a line is on disk at once"
    metrics.close()
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in written] == [1, 2, 3, 4]
    assert written == [line.record() for line in metrics.lines]


def test_a_line_is_written_and_read_back(tmp_path: Path) -> None:
    """Keys in the order that tools and people are used to; what the model or the chip does not have is left out or null."""
    path = tmp_path / "metrics.jsonl"
    scores = {"loss": 2.0, "image_to_text_recall_at_1": 0.5}
    evaluated = HeldOutLine(step=1, stage=0, samples_seen=16, scores=scores, seconds=3.0)
    metrics = MetricsFile(path, step=0)
    for line in (LINE, dataclasses.replace(LINE, logit_bias=-10.0), evaluated):
        metrics.write(line)
    metrics.close()
    assert path.read_text().splitlines() == [
        '{"step": 1, "stage": 0, "samples_seen": 16, "grad_norm": 1.5, "learning_rate": 0.001, "logit_scale": 14.3, '
        '"loss": 1.0, "pairs_per_second": 10.0, "mfu": null, "data_wait_fraction": 0.0, "seconds": 2.0, "seconds_left": 8.0}',
        '{"step": 1, "stage": 0, "samples_seen": 16, "grad_norm": 1.5, "learning_rate": 0.001, "logit_bias": -10.0, '
        '"logit_scale": 14.3, "loss": 1.0, "pairs_per_second": 10.0, "mfu": null, "data_wait_fraction": 0.0, '
        '"seconds": 2.0, "seconds_left": 8.0}',
        '{"step": 1, "stage": 0, "samples_seen": 16, "held_out_loss": 2.0, "held_out_image_to_text_recall_at_1": 0.5, '
        '"seconds": 3.0}',
    ]
    assert MetricsFile(path, step=1, write=False).lines == metrics.lines


def test_a_new_run_starts_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps(LINE.record()) + "\n")
    MetricsFile(tmp_path / "metrics.jsonl", step=0).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that we wind: 3 s wait of 4 s in all for 2 steps of 8 pairs."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = Clock(flops_per_step=1e12, pairs_per_step=8)

    def slow_batches():
        for wait in (1.0, 2.0):
            now[0] += wait
            yield {}

    for _ in clock.timed(slow_batches()):
        now[0] += 0.5
        clock.step_done()
    assert clock.read() == Speed(pairs_per_second=4.0, mfu=None, data_wait_fraction=0.75, seconds_per_step=2.0)
    assert peak_flops() is None, "no MFU is guessed for a device that is not in the table"
    monkeypatch.setattr("biomedclip_jax.train._metrics.peak_flops", lambda: 1e12)
    now[0] += 4.0
    clock.step_done()
    # read afresh: one step in 4 s, at a quarter of the peak, without waiting
    assert clock.read() == Speed(pairs_per_second=2.0, mfu=0.25, data_wait_fraction=0.0, seconds_per_step=4.0)
