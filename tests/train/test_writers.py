"""Where else a run's lines go: each once, in one run, and a writer that fails stops nothing. The real ones where installed."""

import contextlib
import dataclasses
import json
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_run import TOTAL, config, make_data

from biomedclip_jax.cli import main
from biomedclip_jax.config import RunConfig, TrainConfig, from_json, to_json
from biomedclip_jax.errors import UserError
from biomedclip_jax.train import _writers
from biomedclip_jax.train import main as loop
from biomedclip_jax.train._metrics import HeldOutLine, Line, MetricsFile, StepLine
from biomedclip_jax.train._writers import Writers, check_writers


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


class Kept:
    """A writer that remembers; `fails_at` a step it fails, in `close` it may hang."""

    def __init__(self, opened: list[str], run_id: str, fails_at: int | None = None):
        opened.append(run_id)
        self.lines: list[Line] = []
        self.closed = 0
        self._fails_at = fails_at

    def write(self, line: Line) -> None:
        if line.step == self._fails_at:
            raise ConnectionError("no route to host\nand more")
        self.lines.append(line)

    def close(self) -> None:
        self.closed += 1


Fakes = Callable[..., tuple[list[Kept], list[str]]]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """fakes("wandb", fails_at=...) puts one in the place of a real writer: those that were opened, and their run ids."""

    def put(name: str, fails_at: int | None = None) -> tuple[list[Kept], list[str]]:
        made: list[Kept] = []
        ids: list[str] = []

        def open_one(config: TrainConfig, workdir: Path, run_id: str) -> Kept:
            made.append(Kept(ids, run_id, fails_at))
            return made[-1]

        monkeypatch.setitem(_writers.OPENERS, name, open_one)
        monkeypatch.setitem(_writers._LIBRARIES, name, "json")
        return made, ids

    return put


def steps(lines: list[Line], kind: type) -> list[int]:
    return [line.step for line in lines if isinstance(line, kind)]


def test_each_line_once_in_one_run(data: Path, tmp_path: Path, fakes: Fakes) -> None:
    """Cut off after step 3 with step 2 saved, and gone on: step 3 is computed again and not sent again."""
    made, ids = fakes("wandb")
    run = config(data, writers=("wandb",), evaluate_every=2)
    assert loop.train(run, tmp_path, max_steps=3) is None
    shutil.rmtree(tmp_path / "checkpoints" / "3")
    assert loop.train(run, tmp_path) is not None
    assert len(made) == 2 and ids[0] == ids[1] and len(ids[0]) > 8
    sent = made[0].lines + made[1].lines
    assert steps(sent, StepLine) == list(range(1, TOTAL + 1))
    assert steps(made[0].lines, StepLine) == [1, 2, 3]
    assert steps(sent, HeldOutLine) == [0, 2, 4, 6, 8]
    assert [each.closed for each in made] == [1, 1]
    assert loop.train(run, tmp_path) is not None and len(made) == 2, "a finished run opens none"


def line_at(step: int) -> StepLine:
    measures = {name: 0.5 for name in ("grad_norm", "learning_rate", "logit_scale", "pairs_per_second", "seconds_left")}
    return StepLine(
        step=step,
        stage=0,
        samples_seen=16 * step,
        loss=1 / step,
        mfu=None,
        data_wait_fraction=0.0,
        seconds=1.0 * step,
        **measures,
    )


def part(run: TrainConfig, workdir: Path, restored: int, last: int) -> list[Line]:
    """The lines of a run from a checkpoint on, with an evaluation at every fourth step; all lines of the run."""
    with contextlib.closing(MetricsFile(workdir / "metrics.jsonl", restored)) as metrics:
        metrics.also_to(Writers(run, workdir))
        for step in range(restored, last + 1):
            if step > restored:
                metrics.write(line_at(step))
            if step % 4 == 0 and step >= restored + (restored > 0):
                scores = {"loss": 2.0 + step}
                metrics.write(HeldOutLine(step=step, stage=0, samples_seen=16 * step, scores=scores, seconds=1.0 * step))
        return metrics.lines


def test_a_writer_that_fails_is_dropped_and_catches_up(
    data: Path, tmp_path: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    made, _ = fakes("trackio", fails_at=2)
    others, _ = fakes("tensorboard")
    run = config(data, writers=("trackio", "tensorboard"))
    part(run, tmp_path, 0, 3)
    said = capsys.readouterr().out
    assert said.count("trackio fails (no route to host): the run goes on without it") == 1 and "and more" not in said
    assert steps(made[0].lines, StepLine) == [1] and steps(others[0].lines, StepLine) == [1, 2, 3]
    again, _ = fakes("trackio")
    part(run, tmp_path, 3, 5)
    assert steps(again[0].lines, StepLine) == [2, 3, 4, 5], "what it missed, and what is new"
    assert steps(others[1].lines, StepLine) == [4, 5] and made[0].closed == 1


def test_a_writer_that_cannot_be_opened(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any) -> Any:
        raise RuntimeError("not logged in")

    monkeypatch.setitem(_writers.OPENERS, "wandb", refused)
    part(config(data, writers=("wandb",)), tmp_path, 0, 2)
    assert "wandb fails (not logged in)" in capsys.readouterr().out
    assert not (tmp_path / "writers.json").exists()


def test_a_writer_that_never_ends_does_not_hold_the_run(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fakes: Fakes
) -> None:
    fakes("wandb")
    released = threading.Event()

    class Hangs(Kept):
        def close(self) -> None:
            released.wait(30)

    monkeypatch.setitem(_writers.OPENERS, "wandb", lambda *_: Hangs([], ""))
    monkeypatch.setattr(_writers, "_CLOSE_SECONDS", 0.1)
    writers = Writers(config(data, writers=("wandb",)), tmp_path)
    writers.close()
    released.set()
    assert "wandb fails (not finished after 0 s)" in capsys.readouterr().out


def test_what_is_known_of_a_run_may_be_broken(tmp_path: Path, data: Path, fakes: Fakes) -> None:
    _, ids = fakes("wandb")
    (tmp_path / "writers.json").write_text('{"run": "abc", "sent')
    Writers(config(data, writers=("wandb",)), tmp_path).close()
    known = json.loads((tmp_path / "writers.json").read_text())
    assert known["run"] == ids[0] != "abc" and known["sent"] == {}


def test_another_config_in_a_folder_without_an_update_is_another_run(tmp_path: Path, data: Path, fakes: Fakes) -> None:
    """What a start that failed had sent says nothing of it; what may change in a run, such as its writers, leaves its id."""
    made, ids = fakes("wandb")
    first = config(data, writers=("wandb",))
    part(first, tmp_path, 0, 3)
    for other in (dataclasses.replace(first, seed=1), dataclasses.replace(first, seed=1, run=RunConfig(writers=("wandb",)))):
        (tmp_path / "metrics.jsonl").unlink()
        part(other, tmp_path, 0, 4)
    assert ids[0] != ids[1] == ids[2]
    assert steps(made[1].lines, StepLine) == [1, 2, 3, 4] and made[2].lines == []


def test_a_library_that_is_missing_is_named_before_the_first_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    expected = r"run\.writers: wandb needs the library wandb .*: pip install 'biomedclip_jax\[wandb\]'"
    with pytest.raises(UserError, match=expected):
        loop.train(config(data, writers=("wandb",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "no_module_at_all").mkdir()  # as wandb's own folder of files is, where the command is called
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(_writers._LIBRARIES, "wandb", "no_module_at_all")
    with pytest.raises(UserError, match="no module in the folder"):
        check_writers(["wandb"])


def test_the_field(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = config(data, writers=("tensorboard", "wandb"))
    assert from_json(to_json(run)) == run
    with pytest.raises(
        UserError, match=r"RunConfig\.writers = \('mlflow',\): expected some of 'tensorboard', 'wandb', 'trackio'"
    ):
        RunConfig(writers=("mlflow",))  # type: ignore[arg-type]
    file = tmp_path / "config.py"
    file.write_text(f"from biomedclip_jax.config import from_json\nconfig = from_json({to_json(run)!r})\n")
    assert main(["train", str(file), "--run.writers", "mlflow"]) == 2
    assert "one of tensorboard, wandb, trackio" in capsys.readouterr().err


def parts(data: Path, workdir: Path, name: str) -> list[Line]:
    """A run that was cut off after step 5, with step 4 saved, and went on to step 8, with a real writer."""
    run = config(data, writers=(name,))
    part(run, workdir, 0, 5)
    return part(run, workdir, 4, 8)


def test_tensorboard(data: Path, tmp_path: Path) -> None:
    """Read back record by record: length, two checksums, and the event between them."""
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    lines = parts(data, tmp_path, "tensorboard")
    found: dict[str, list[tuple[int, float]]] = {}
    texts = []
    for file in sorted((tmp_path / "tensorboard").glob("*/*")):
        content = file.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
                else:
                    texts.append(value.tensor.string_val[0].decode())
    expected = [(line.step, pytest.approx(line.loss)) for line in lines if isinstance(line, StepLine)]
    assert found["loss"] == expected and [step for step, _ in expected] == list(range(1, 9))
    assert found["held_out_loss"] == [(0, 2.0), (4, 6.0), (8, 10.0)] and "mfu" not in found
    assert len(texts) == 1 and '"name": "tiny"' in texts[0]


def records(content: bytes) -> list[bytes]:
    """The records of a .wandb file: after 7 bytes, blocks of 32 KiB (LevelDB's log) of parts behind 7 bytes each."""
    found, partial, at = [], b"", 7
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        partial += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(partial)
            partial = b""
    return found


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parts are files of one run, with the config and each step once."""
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    parts(data, tmp_path, "wandb")
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    rows, ids, names = [], set(), set()
    for record in (Record.FromString(each) for file in files for each in records(file.read_bytes())):
        if record.HasField("run"):
            ids.add(record.run.run_id)
            names |= {item.key for item in record.run.config.update}
        if record.HasField("history"):
            items = record.history.item
            rows.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
    known = json.loads((tmp_path / "writers.json").read_text())
    assert ids == {known["run"]} and {"name", "model", "stages"} <= names
    assert sorted(row["_step"] for row in rows if "loss" in row) == list(range(1, 9))
    assert sorted(row["_step"] for row in rows if "held_out_loss" in row) == [0, 4, 8]


@pytest.mark.filterwarnings("ignore")
def test_trackio_local(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own folder is read when it is imported: nothing imports it before."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    parts(data, tmp_path, "trackio")
    known = json.loads((tmp_path / "writers.json").read_text())
    (run,) = trackio.Api().runs("biomedclip_jax")
    assert run.name == f"tiny-{known['run']}" and run.config["name"] == "tiny"
    rows = SQLiteStorage.get_logs("biomedclip_jax", run.name)
    assert sorted(row["step"] for row in rows if "loss" in row) == list(range(1, 9))
    assert sorted(row["step"] for row in rows if "held_out_loss" in row) == [0, 4, 8]
