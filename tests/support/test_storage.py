"""A build's destination, as a folder and as an S3 bucket of a local server."""

import json
from pathlib import Path

import pytest

from biomedclip_jax.errors import UserError
from biomedclip_jax.support.storage import Storage, sha256_of

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
