"""Who writes a folder: one at a time, whoever was killed, on whichever host."""

import contextlib
import json
import threading
import time
from pathlib import Path

import pytest

from biomedclip_jax.errors import UserError
from biomedclip_jax.support import owner
from biomedclip_jax.support.owner import owned
from biomedclip_jax.support.storage import Storage


def elsewhere() -> str:
    """What a process of another host wrote a moment ago."""
    return json.dumps({"host": "elsewhere", "pid": 1, "started": "1", "seen": time.time()})


def held(folder: Path, watch: float = 0) -> contextlib.AbstractContextManager[object]:
    return owned(Storage(str(folder)), "lock.json", writer="run", instead="another folder", watch=watch)


def test_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "_SEEN_EVERY", 0.05)
    with held(tmp_path / "new"):
        first = json.loads((tmp_path / "new" / "lock.json").read_text())
        time.sleep(1)
        assert json.loads((tmp_path / "new" / "lock.json").read_text())["seen"] > first["seen"]
    assert not any((tmp_path / "new").iterdir())


def test_a_process_of_another_host_is_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that gives no sign of life is no more, whatever its clock says; one that does is left alone."""
    path = tmp_path / "lock.json"
    path.write_text(elsewhere())
    with held(tmp_path, watch=1):
        assert json.loads(path.read_text())["host"] != "elsewhere"
    assert "held by process 1 on elsewhere; looking for 1 s whether it lives" in capsys.readouterr().err
    path.write_text(elsewhere())
    over = threading.Event()

    def live() -> None:
        while not over.wait(0.1):
            (tmp_path / "partial").write_text(elsewhere())
            (tmp_path / "partial").replace(path)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(UserError, match=r"another run writes it \(process 1 on elsewhere\)"), held(tmp_path, watch=30):
            pass
    finally:
        over.set()
        thread.join()
    assert json.loads(path.read_text())["host"] == "elsewhere"


def test_one_that_was_taken_over_is_left_to_its_new_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "_SEEN_EVERY", 0.05)
    with held(tmp_path):
        other = elsewhere()
        (tmp_path / "lock.json").write_text(other)
        time.sleep(0.5)
        assert (tmp_path / "lock.json").read_text() == other
    assert (tmp_path / "lock.json").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/lock\.json: cannot be written|a file where a folder"), held(tmp_path / "file"):
        pass
