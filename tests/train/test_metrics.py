"""The file of metrics, and the clock."""

import json
from pathlib import Path

import pytest

from biomedclip_jax.train.flops import peak_flops
from biomedclip_jax.train.metrics import Clock, MetricsFile


def test_lines_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    """A killed run has written lines past its last checkpoint, and perhaps half a line; resuming must not double them."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (1, 2, 3, 4)) + '{"step": 5, "lo')
    metrics = MetricsFile(path, step=3)
    metrics.write({"step": 4, "loss": 0.5})
    assert json.loads(path.read_text().splitlines()[-1]) == {"step": 4, "loss": 0.5}, "a line is on disk at once"
    metrics.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines == metrics.lines


def test_a_new_run_starts_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
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
    assert clock.read() == {"pairs_per_second": 4.0, "mfu": None, "data_wait_fraction": 0.75, "seconds_per_step": 2.0}
    assert peak_flops() is None, "no MFU is guessed for a device that is not in the table"
    monkeypatch.setattr("biomedclip_jax.train.metrics.peak_flops", lambda: 1e12)
    now[0] += 4.0
    clock.step_done()
    # read afresh: one step in 4 s, at a quarter of the peak, without waiting
    assert clock.read() == {"pairs_per_second": 2.0, "mfu": 0.25, "data_wait_fraction": 0.0, "seconds_per_step": 4.0}
