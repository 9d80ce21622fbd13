"""Rows that wait together run together, and each gets its own answer."""

import threading
from concurrent.futures import Future

import numpy as np
import pytest

from biomedclip_jax.serve._batches import Batches, Program


class Device:
    """A device that waits until it is let go on; doubles numbers. ran: the sizes of its batches."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.go_on = threading.Event()
        self.began = threading.Event()

    def run(self, rows: np.ndarray) -> np.ndarray:
        self.ran.append(len(rows))
        self.began.set()
        assert self.go_on.wait(20)
        if (rows < 0).any():
            raise ValueError("below 0")
        return 2 * rows


def results(answers: list["Future[np.ndarray]"]) -> list[float]:
    return [float(answer.result(20)[0]) for answer in answers]


def test_what_waits_while_the_device_works_runs_as_one_batch() -> None:
    device, seen = Device(), []
    batches = Batches({"a": Program(device.run, [1, 2, 4])}, lambda *batch: seen.append(batch[:2]))
    answers = [batches.put("a", np.array([0.0]))]
    assert device.began.wait(20)
    answers += [batches.put("a", np.array([float(n)])) for n in range(1, 8)]
    assert batches.waiting == 7
    device.go_on.set()
    assert results(answers) == [0, 2, 4, 6, 8, 10, 12, 14]
    batches.close()
    assert device.ran == [1, 4, 2, 1]
    assert seen == [("a", 1), ("a", 4), ("a", 2), ("a", 1)]


def test_fewer_than_the_smallest_size_are_filled_up() -> None:
    device = Device()
    device.go_on.set()
    batches = Batches({"a": Program(device.run, [4, 8])}, lambda *batch: None)
    assert results([batches.put("a", np.array([3.0]))]) == [6]
    batches.close()
    assert device.ran == [4]


def test_the_program_whose_row_waits_longest_is_next() -> None:
    device, seen = Device(), []
    programs = {key: Program(device.run, [1, 2]) for key in ("a", "b")}
    batches = Batches(programs, lambda key, *_: seen.append(key))
    answers = [batches.put("a", np.array([1.0]))]
    assert device.began.wait(20)
    answers += [batches.put(key, np.array([1.0])) for key in ("b", "a", "b")]
    device.go_on.set()
    assert results(answers) == [2, 2, 2, 2]
    batches.close()
    assert seen == ["a", "b", "a"]


def test_an_error_is_that_of_its_own_batch_only() -> None:
    device = Device()
    batches = Batches({"a": Program(device.run, [1])}, lambda *batch: None)
    answers = [batches.put("a", np.array([n])) for n in (1.0, -1.0, 2.0)]
    device.go_on.set()
    assert results([answers[0], answers[2]]) == [2, 4]
    with pytest.raises(ValueError, match="below 0"):
        answers[1].result(20)
    batches.close()


def test_a_row_that_nobody_waits_for_is_not_computed_and_the_end_comes_after_the_last_answer() -> None:
    device = Device()
    batches = Batches({"a": Program(device.run, [1])}, lambda *batch: None)
    answers = [batches.put("a", np.array([n])) for n in (1.0, 2.0, 3.0)]
    assert device.began.wait(20)
    assert answers[1].cancel()
    device.go_on.set()
    batches.close()
    assert device.ran == [1, 1]
    assert answers[2].done() and results([answers[0], answers[2]]) == [2, 6]
    with pytest.raises(RuntimeError, match="closed"):
        batches.put("a", np.array([1.0]))
