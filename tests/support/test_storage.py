"""A build's destination, as a folder and as an S3 bucket of a local server."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.processes import free_port

from biomedclip_jax.errors import UserError
from biomedclip_jax.support.storage import Storage, is_address, sha256_of

pytest.importorskip("moto.server", reason="needs: pip install 'biomedclip_jax[dev]'")
pytest.importorskip("s3fs", reason="needs: pip install 'biomedclip_jax[pmc]'")


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return Storage(str(tmp_path / "destination"))
    return Storage(f"{request.getfixturevalue('bucket')}/a build")


def test_what_is_put_is_there(storage: Storage, tmp_path: Path) -> None:
    file = tmp_path / "made"
    file.write_bytes(b"x" * 100_000)
    before = sha256_of(file)
    assert not storage.exists("folder/shard")
    assert list(storage.names("folder")) == []
    storage.put(file, "folder/shard")
    assert not file.exists()
    assert storage.exists("folder/shard")
    (tmp_path / "back").mkdir()
    assert sha256_of(storage.get("folder/shard", tmp_path / "back")) == before
    storage.write("folder/b", b"1")
    storage.write("folder/b", b"2")
    assert storage.read("folder/b") == b"2"
    assert list(storage.names("folder")) == ["b", "shard"]
    storage.remove("folder/b")
    storage.remove("folder/b")
    assert list(storage.names("folder")) == ["shard"]


def test_json_and_a_copy_in_another_process(storage: Storage) -> None:
    import pickle

    storage.write_json("state.json", {"é": [1, 2]})
    there = pickle.loads(pickle.dumps(storage))
    assert there.read_json("state.json") == {"é": [1, 2]}
    assert json.loads(there.read("state.json")) == {"é": [1, 2]}


def test_no_such_protocol_is_one_line() -> None:
    with pytest.raises(UserError, match=r"nowhere://x: cannot be opened"):
        Storage("nowhere://x").exists("a")


@pytest.mark.parametrize(
    "operation",
    [
        lambda storage, path: storage.exists("x"),
        lambda storage, path: storage.create("x", b""),
        lambda storage, path: storage.read("x"),
        lambda storage, path: storage.write("x", b""),
        lambda storage, path: storage.remove("x"),
        lambda storage, path: storage.upload(path, "x"),
        lambda storage, path: storage.download("x", path),
        lambda storage, path: storage.get("x", path.parent),
        lambda storage, path: storage.files(),
        lambda storage, path: list(storage.names("folder")),
    ],
)
def test_a_store_out_of_reach_is_one_line(
    operation: Callable[[Storage, Path], object], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is done there: a run goes on meanwhile, and its writer must not end by an error that it does not know."""
    import s3fs

    (tmp_path / "file").write_bytes(b"x")
    with monkeypatch.context() as gone:
        gone.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        gone.setenv("AWS_MAX_ATTEMPTS", "1")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(UserError, match=r"^s3://bucket/run[^\n]* cannot be [^\n]*$"):
            operation(Storage(f"{bucket}/run"), tmp_path / "file")
    s3fs.S3FileSystem.clear_instance_cache()


def test_an_address_as_a_path_is_refused() -> None:
    """Path takes one of the slashes away, and a run would go into a folder "s3:" here."""
    assert is_address("s3://bucket/run") and not is_address("runs/x") and not is_address(Path("/tmp/a:b/c"))
    with pytest.raises(UserError, match=r"^s3:/bucket/run: an address has two slashes after its kind"):
        is_address(Path("s3://bucket/run"))
