"""A run folder behind an address: what is written back and in which order, what a killed process leaves, and who reads it."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import free_port

from biomedclip_jax.errors import UserError
from biomedclip_jax.support import remote_run
from biomedclip_jax.support.remote_run import COMMITTED, fetched, working_copy
from biomedclip_jax.support.storage import Storage

pytest.importorskip("moto.server", reason="needs: pip install 'biomedclip_jax[dev]'")
pytest.importorskip("s3fs", reason="needs: pip install 'biomedclip_jax[pmc]'")


@pytest.fixture(scope="module")
def gcs_server() -> Iterator[str]:
    """The address of a server that takes itself for Google Cloud Storage."""
    pytest.importorskip("gcsfs", reason="needs: pip install 'biomedclip_jax[gcs]' gcp-storage-emulator")
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs: pip install gcp-storage-emulator")
    port = free_port()
    server = emulator.create_server("localhost", port, in_memory=True, default_bucket="bucket")
    server.start()
    yield f"http://localhost:{port}"
    server.stop()


@pytest.fixture(params=["s3", "memory", "gs"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/runs/a run"
    if request.param == "gs":
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("gcs_server"))
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # kinds of bucket that the emulator does not know
        return f"gs://bucket/{tmp_path.name}"
    return f"memory://{tmp_path.name}/run"


def silent(text: str) -> None:
    """For the line that says where the copy is."""


def checkpoint(folder: Path, step: int, content: str = "weights") -> None:
    """As Orbax makes one: under another name until it is complete."""
    making = folder / "checkpoints" / f"{step}.orbax-checkpoint-tmp"
    (making / "state").mkdir(parents=True)
    (making / "state" / "array").write_text(f"{content} {step}")
    (making / "_CHECKPOINT_METADATA").write_text("{}")
    making.rename(folder / "checkpoints" / str(step))


def names_at(address: str) -> set[str]:
    return set(Storage(address).files())


def test_all_that_is_whole_is_there_afterwards_and_comes_back(address: str) -> None:
    with working_copy(address, silent) as folder:
        assert not list(folder.iterdir())
        assert "lock.json" in names_at(address)
        checkpoint(folder, 5)
        (folder / "checkpoints" / "7.orbax-checkpoint-tmp").mkdir()
        (folder / "checkpoints" / "7.orbax-checkpoint-tmp" / "array").write_text("half")
        (folder / "config.json").write_text("{}")
        (folder / "data").mkdir()
        (folder / "data" / "train.csv").write_text("of a demo")
        (folder / "model.partial").mkdir()
        (folder / "model.partial" / "weights").write_text("half")
        (folder / "tensorboard" / "é").mkdir(parents=True)
        (folder / "tensorboard" / "é" / "events").write_bytes(b"\x00")
    of_step = {f"checkpoints/5/{name}" for name in ("state/array", "_CHECKPOINT_METADATA", COMMITTED)}
    assert names_at(address) == of_step | {"config.json", "tensorboard/é/events"}
    assert not folder.exists()
    with working_copy(address, silent) as folder:
        assert (folder / "checkpoints" / "5" / "state" / "array").read_text() == "weights 5"
        assert (folder / "tensorboard" / "é" / "events").read_bytes() == b"\x00"
        assert not (folder / "checkpoints" / "5" / COMMITTED).exists(), "a mark of the address"
        shutil.rmtree(folder / "checkpoints" / "5")
        checkpoint(folder, 9)
        (folder / "config.json").unlink()
    assert {name for name in names_at(address) if "5" in name or name == "config.json"} == set()
    assert f"checkpoints/9/{COMMITTED}" in names_at(address)


def test_it_is_written_while_the_run_goes_on(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_run, "_EVERY", 0.05)
    with working_copy(address, silent) as folder:
        (folder / "metrics.jsonl").write_text("1\n")
        checkpoint(folder, 1)
        until = time.monotonic() + 30
        while f"checkpoints/1/{COMMITTED}" not in names_at(address):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert Storage(address).read("metrics.jsonl") == b"1\n", "before the checkpoint of its step"
        with (folder / "metrics.jsonl").open("a") as file:
            file.write("2\n")
        while Storage(address).read("metrics.jsonl") != b"1\n2\n":
            assert time.monotonic() < until
            time.sleep(0.05)


def test_half_an_upload_counts_for_nothing(address: str) -> None:
    """As a kill leaves it: files of a checkpoint without its mark, and a copy that nobody will ever write back."""
    storage = Storage(address)
    storage.write("config.json", b"{}")
    storage.write("checkpoints/3/state/array", b"weights 3")
    storage.write(f"checkpoints/3/{COMMITTED}", b"")
    storage.write("checkpoints/6/state/array", b"wei")
    with working_copy(address, silent) as folder:
        assert [path.name for path in (folder / "checkpoints").iterdir()] == ["3"]
        left = folder.with_name("copy")
        shutil.copytree(folder, left)
        checkpoint(folder, 6, "other")
    left.rename(folder)
    (folder / "checkpoints" / "100").mkdir()
    with working_copy(address, silent) as folder:
        assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["3", "6"]
        assert (folder / "checkpoints" / "6" / "state" / "array").read_text() == "other 6"


def test_one_process_at_a_time(address: str) -> None:
    with (
        working_copy(address, silent),
        pytest.raises(UserError, match=r"another run writes it \(process \d+ on .*\); wait for its end"),
        working_copy(address, silent),
    ):
        raise AssertionError("both")
    with working_copy(address, silent):
        pass


def test_errors_name_the_address_and_the_copy(address: str) -> None:
    with pytest.raises(UserError) as told, working_copy(address, silent) as folder:
        (folder / "kept.txt").write_text("kept")
        raise UserError(f"{folder / 'config.json'}: no")
    assert str(told.value) == f"{address}/config.json: no (its copy here is {folder}, in TMPDIR)"
    assert "kept.txt" in names_at(address)


def test_what_cannot_be_written_stays_here(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise UserError("the network is gone")

    monkeypatch.setattr(remote_run, "_EVERY", 0.05)
    lost = r"the network is gone; all that the run has written is in /.*: the same command, on this machine, writes it to"
    with pytest.raises(UserError, match=lost), working_copy(address, silent) as folder:
        monkeypatch.setattr(Storage, "upload", refuse)
        (folder / "results.json").write_text("{}")
        time.sleep(0.5)
    assert (folder / "results.json").read_text() == "{}"
    assert capsys.readouterr().err.count("the network is gone; the run goes on, and it is tried again") == 1
    assert "lock.json" not in names_at(address)


def test_results_come_last_and_without_checkpoints(address: str) -> None:
    with working_copy(address, silent) as folder:
        checkpoint(folder, 5)
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text("w")
        (folder / "results.json").write_text("{}")
    with working_copy(address, silent) as folder:
        assert (folder / "model" / "weights").exists() and not (folder / "checkpoints").exists()
    assert f"checkpoints/5/{COMMITTED}" in names_at(address), "what was not fetched is not removed"


def test_readers_fetch_what_they_need_and_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with working_copy(address, silent) as folder:
        for step in (5, 20, 100):
            checkpoint(folder, step)
        (folder / "config.json").write_text("{}")
        (folder / "metrics.jsonl").write_text("")
        (folder / "metrics.jsonl.partial").write_text("")
        (folder / "notes.txt").write_text("a")
        with pytest.raises(UserError, match="nothing is there"):
            fetched(address)
    downloads: list[str] = []
    download = Storage.download

    def count(storage: Storage, name: str, target: Path) -> None:
        downloads.append(name)
        download(storage, name, target)

    monkeypatch.setattr(Storage, "download", count)
    copy = fetched(address)
    assert [path.name for path in (copy / "checkpoints").iterdir()] == ["100"]
    assert (copy / "checkpoints" / "100" / "state" / "array").read_text() == "weights 100"
    assert downloads
    downloads.clear()
    assert fetched(address) == copy and not downloads
    Storage(address).write("notes.txt", b"b")
    assert fetched(address) == copy and downloads == ["notes.txt"]
    Storage(address).write("results.json", b"{}")
    Storage(address).remove("notes.txt")
    assert {path.name for path in fetched(address).iterdir()} >= {"results.json", "config.json"}
    assert not [*(copy / "checkpoints").iterdir()] and not (copy / "notes.txt").exists()


def test_nothing_there_is_said(address: str) -> None:
    with pytest.raises(UserError, match="nothing is there; expected a model folder or a run folder"):
        fetched(address)


@pytest.mark.parametrize("address", ["nosuch://bucket/run", "s3://no-such-bucket/run"])
def test_an_address_that_cannot_be_reached(bucket: str, address: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]*(cannot be opened|cannot be written)[^\n]*$"), working_copy(address, silent):
        raise AssertionError("opened")


def test_what_is_no_run_s_own_stays_there(address: str) -> None:
    """Also names that a run gives to what is not finished, or to its checkpoints."""
    others = {
        "archive.partial",
        "half.partial/x",
        "checkpoints/note.txt",
        "checkpoints/best/a",
        "notes/lock.json",
        "data/a.csv",
    }
    for name in others:
        Storage(address).write(name, b"theirs")
    for _ in range(2):
        with working_copy(address, silent) as folder:
            (folder / "config.json").write_text("{}")
            (folder / "metrics.jsonl").write_text("")
        assert names_at(address) == others | {"config.json", "metrics.jsonl"}
    assert all(Storage(address).read(name) == b"theirs" for name in others)


def test_folders_of_runs_and_files_are_refused(address: str) -> None:
    """All that lies there would be fetched."""
    for run in ("a", "b"):
        Storage(address).write(f"{run}/metrics.jsonl", b"")
        Storage(address).write(f"{run}/config.json", b"{}")
    refused = r"holds folders \(a, b\), and is no run or model itself; give one of them, or a new one$"
    with pytest.raises(UserError, match=refused), working_copy(address, silent):
        raise AssertionError("opened")
    with pytest.raises(UserError, match=refused):
        fetched(address)
    with pytest.raises(UserError, match=r"config.json: a file; expected a folder"):
        fetched(f"{address}/a/config.json")


def test_marks_of_folders_are_no_files(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the web page of a store makes them for "new folder"."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    import s3fs

    for mark in ("bucket/run/", "bucket/run/model/"):
        s3fs.S3FileSystem().call_s3("put_object", Bucket="bucket", Key=mark.removeprefix("bucket/"), Body=b"")
    with working_copy(f"{bucket}/run/", silent) as folder:
        (folder / "config.json").write_text("{}")
    assert (fetched(f"{bucket}/run/") / "config.json").read_text() == "{}"


def unwritten(address: str, monkeypatch: pytest.MonkeyPatch, metrics: str) -> Path:
    """A run that could not write its last checkpoint and its last metrics; its copy."""

    def refuse(*_: Any) -> None:
        raise UserError("the network is gone")

    with monkeypatch.context() as broken:
        broken.setattr(remote_run, "_TRIES", 1)
        with pytest.raises(UserError, match="the network is gone"), working_copy(address, silent) as folder:
            checkpoint(folder, 5)
            (folder / "metrics.jsonl").write_text(metrics)
            broken.setattr(Storage, "upload", refuse)
    return folder


def test_what_could_not_be_written_is_written_by_the_next_run(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with working_copy(address, silent) as folder:
        checkpoint(folder, 3)
        (folder / "metrics.jsonl").write_text("1\n")
    unwritten(address, monkeypatch, "1\n2\n")
    said: list[str] = []
    with working_copy(address, said.append) as folder:
        assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["3", "5"]
        assert f"checkpoints/5/{COMMITTED}" in names_at(address) and Storage(address).read("metrics.jsonl") == b"1\n2\n"
    assert "what the run before could not write is written now" in said[0]
    with working_copy(address, said.append):
        pass
    assert len(said) == 3, "once"


def test_what_could_not_be_written_does_not_replace_another_run(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unwritten(address, monkeypatch, "1\n2\n")
    Storage(address).write("metrics.jsonl", b"1\nother\n")
    said: list[str] = []
    with working_copy(address, said.append) as folder:
        assert (folder / "metrics.jsonl").read_text() == "1\nother\n" and not (folder / "checkpoints").exists()
    kept = Path(said[0].rsplit(" ", 1)[1])
    assert (kept / "metrics.jsonl").read_text() == "1\n2\n" and (kept / "checkpoints" / "5").is_dir()
    assert "has gone on without what the run before could not write" in said[0]


def test_a_run_that_was_taken_over_writes_no_more(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Out of reach for long, it counted as dead on another host."""
    monkeypatch.setattr(remote_run, "_EVERY", 0.05)
    with (
        pytest.raises(UserError, match="has taken it over; this run is now in") as told,
        working_copy(address, silent) as folder,
    ):
        Storage(address).write_json("lock.json", {"host": "elsewhere", "pid": 1, "started": "1", "seen": time.time()})
        time.sleep(0.5)
        (folder / "results.json").write_text("{}")
        time.sleep(0.5)
    assert names_at(address) == {"lock.json"}
    assert (Path(str(told.value).rsplit(" ", 1)[1]) / "results.json").read_text() == "{}"
    assert capsys.readouterr().err.count("another process has taken it over, because") == 1


def test_a_model_without_results_is_half_of_one(address: str) -> None:
    """Of a run the model is written before the results: what is there meanwhile may be half of it, or of two."""
    with working_copy(address, silent) as folder:
        checkpoint(folder, 5)
        (folder / "metrics.jsonl").write_text("1\n")
        (folder / "model").mkdir()
        (folder / "model" / "open_clip_config.json").write_text("{}")
    assert not (fetched(address) / "model").exists() and (fetched(address) / "checkpoints" / "5").is_dir()
    Storage(address).write("results.json", b"{}")
    assert (fetched(address) / "model" / "open_clip_config.json").is_file()


def test_checkpoints_without_their_mark_are_said(address: str) -> None:
    """As copying a local run there leaves them."""
    Storage(address).write("checkpoints/40/state/array", b"weights")
    said: list[str] = []
    with working_copy(address, said.append) as folder:
        assert not (folder / "checkpoints").exists()
    assert said[0] == f"{address}: checkpoints without {COMMITTED} are not used, as half an upload leaves them: 40"


def test_several_readers_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        Storage(address).write(f"{number}.bin", bytes([number]) * 10)
    download = Storage.download

    def slowly(storage: Storage, name: str, target: Path) -> None:
        time.sleep(0.01)
        download(storage, name, target)

    monkeypatch.setattr(Storage, "download", slowly)
    with ThreadPoolExecutor(4) as pool:
        for folder in pool.map(fetched, [address] * 8):
            assert sorted(path.name for path in folder.glob("*.bin")) == [f"{number}.bin" for number in range(6)]


def test_a_reader_s_note_that_was_cut_short_is_no_matter(address: str) -> None:
    Storage(address).write("a.bin", b"a")
    (fetched(address) / ".fetched.json").write_text('{"a.bi')
    assert (fetched(address) / "a.bin").read_bytes() == b"a"


def test_too_little_room_names_tmpdir(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Storage(address).write("a.bin", b"a" * 2_000_000)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    expected = r"^[^\n]*: 2 MB, and 1 MB are free for its copy in /.*; make room, or name a folder on another disk with TMPDIR$"
    with pytest.raises(UserError, match=expected):
        fetched(address)
    with pytest.raises(UserError, match=expected), working_copy(address, silent):
        raise AssertionError("opened")
