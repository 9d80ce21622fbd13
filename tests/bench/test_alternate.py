"""Sides alternate: a process each, which stays on CPU and is a new one each time on an accelerator."""

import textwrap
from pathlib import Path

import pytest

from biomedclip_jax.bench._alternate import Side, alternate
from biomedclip_jax.bench.task import Task, exact_biomedclip
from biomedclip_jax.errors import UserError

TASK = Task(exact_biomedclip(8), ("step",), repeats=4)


def side(folder: Path, name: str, platform: str, body: str = "") -> Side:
    """A side whose call appends to `order`; `body` runs while it builds."""
    order = folder / "order"
    source = f"""
    import os, sys
    from biomedclip_jax.bench._alternate import Facts, Work, serve
    from biomedclip_jax.errors import UserError

    def build(task):
        print("noise of a library")
        {body or "pass"}
        def call():
            with open({str(order)!r}, "a") as file:
                file.write("{name}")
        facts = Facts("{platform}", str(os.getpid()), dict(), task.repeats, dict(), dict(side="{name}"))
        return Work(facts, dict(step=call), lambda: 7)

    serve(build)
    """
    (folder / f"side_{name}.py").write_text(textwrap.dedent(source))
    return Side(name, f"side_{name}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_on_cpu_both_stay_and_alternate(folder: Path) -> None:
    sides = side(folder, "a", "cpu"), side(folder, "b", "cpu")
    replies = list(alternate(sides, TASK, None, {}))
    assert [one.name for one, _, _ in replies] == list("ababab")
    assert len({facts.devices for _, facts, _ in replies}) == 2
    assert all(len(times.seconds["step"]) == len(times.cpu_seconds["step"]) == 4 for _, _, times in replies)
    assert all(times.peak_bytes == 7 for _, _, times in replies)
    # two warm-up calls each, then four in a turn
    assert (folder / "order").read_text() == "aa" + "aaaa" + "bb" + "bbbb" + 2 * "aaaabbbb"


def test_on_an_accelerator_every_turn_is_a_process_of_its_own(folder: Path) -> None:
    sides = side(folder, "a", "gpu"), side(folder, "b", "cuda")
    replies = list(alternate(sides, TASK, None, {}))
    assert [one.name for one, _, _ in replies] == list("abab")
    assert len({facts.devices for _, facts, _ in replies}) == 4


def test_what_a_side_says_is_the_users_error(folder: Path) -> None:
    wrong = side(folder, "a", "cpu", 'raise UserError("Stage.batch_size = 3: expected")')
    with pytest.raises(UserError, match=r"^a: Stage.batch_size = 3: expected$"):
        next(alternate((wrong,), TASK, None, {}))


def test_a_side_that_ends_says_how(folder: Path) -> None:
    with pytest.raises(UserError, match="a: its process ended with code 5"):
        next(alternate((side(folder, "a", "cpu", "sys.exit(5)"),), TASK, None, {}))


def test_the_environment_is_handed_on(folder: Path) -> None:
    wants = side(folder, "a", "cpu", 'assert os.environ["KEPT"] == "yes"')
    assert next(alternate((wants,), TASK, 1, {"KEPT": "yes"}))[1].parameters == 4
