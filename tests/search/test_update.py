"""An index is brought up to date: nothing is embedded twice, and what was there stays until the new is whole."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_index import Indexing, change_pictures, write_picture

import biomedclip_jax as bc
from biomedclip_jax.cli import main
from biomedclip_jax.errors import UserError
from biomedclip_jax.search import _pass, open_index, update
from biomedclip_jax.search._vectors import KnownVectors
from biomedclip_jax.support import owner


def contents(folder: Path) -> dict[str, bytes]:
    """Vectors and columns of an index, but for the marks of files."""
    index = open_index(folder)
    rows = [json.dumps(index.hit(row).record(1)).encode() for row in range(len(index))]
    return {"vectors": index.vectors(range(len(index))).tobytes(), "rows": b"".join(rows)}


def test_new_changed_and_deleted_images(index: Indexing, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    first = index(out, scans)
    assert (first.count, first.embedded, [Path(each.image).name for each in first.rejects]) == (12, 12, ["broken.png"])
    assert json.loads((out / "rejects.jsonl").read_text())["image"].endswith("broken.png")
    again = index(out, scans)
    assert (again.count, again.embedded, again.kept, again.gone) == (12, 0, 12, 0)

    change_pictures(scans)
    shutil.copy(scans / "b" / "09.png", scans / "b" / "copy.png")
    index.embedded = 0
    changes = index(out, scans)
    assert (changes.count, changes.embedded, changes.kept, changes.gone) == (13, 2, 11, 2)
    assert index.embedded == 2 + 1, "the changed, the new, and once more the broken one"

    fresh = tmp_path / "fresh"
    index(fresh, scans)
    assert contents(out)["rows"] == contents(fresh)["rows"], "the order is that of the data, as if it were new"
    new, old = open_index(out), open_index(fresh)
    np.testing.assert_allclose(new.vectors(range(13)), old.vectors(range(13)), atol=1e-6)
    assert sorted(path.name for path in out.iterdir()) == ["index.json", "rejects.jsonl", "rows-000003"]


@pytest.mark.parametrize("where", ["second chunk", "columns", "manifest"])
def test_after_a_kill_the_old_index_is_whole_and_the_work_goes_on(
    index: Indexing, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """What a kill leaves is what is on disk at that moment; an exception that nobody expects leaves the same."""
    out = tmp_path / "index"
    monkeypatch.setattr(_pass, "_CHUNK", 5)
    index(out, scans / "b")
    before = contents(out)
    for number in range(20, 32):
        write_picture(scans / "b" / f"{number}.png", number)

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    target: dict[str, tuple[object, str]] = {
        "columns": (update.ColumnsWriter, "write"),
        "manifest": (update, "write_manifest"),
        "second chunk": (_pass.Pass, "_embed_new"),
    }
    owned, name = target[where]
    real = getattr(owned, name)
    calls: list[int] = []

    def second(*given: object) -> object:
        calls.append(1)
        return real(*given) if where == "second chunk" and len(calls) < 3 else killed()

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owned, name, second)
        index(out, scans / "b")
    with (out / next(out.glob("*.journal")).name).open("ab") as journal:
        journal.write(b"half a record")
    assert contents(out) == before, "the index of before is still there"
    done, index.embedded = index.embedded, 0
    changes = index(out, scans / "b")
    assert changes.count == 17 and done + index.embedded == 5 + 12
    assert not list(out.glob("*.journal")) and len(list(out.glob("rows-*"))) == 1
    index(tmp_path / "fresh", scans / "b")
    assert contents(out)["rows"] == contents(tmp_path / "fresh")["rows"]


def test_a_kill_costs_half_a_minute_of_a_slow_model(
    index: Indexing, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors are saved after so many images as take that long, from one batch to a few hundred."""
    clock, saved = [0.0], []
    encode, add = bc.Pretrained.encode_images, KnownVectors.add

    def slow(own: bc.Pretrained, images: Sequence[object], *rest: object, **more: object) -> np.ndarray:
        clock[0] += 5.0 * len(images)
        return encode(own, images, *rest, **more)  # type: ignore[arg-type]

    def noted(own: KnownVectors, contents: Sequence[str], vectors: np.ndarray) -> None:
        saved.append(len(contents))
        add(own, contents, vectors)

    monkeypatch.setattr(bc.Pretrained, "encode_images", slow)
    monkeypatch.setattr(KnownVectors, "add", noted)
    monkeypatch.setattr(_pass.time, "monotonic", lambda: clock[0])
    for number in range(20, 36):
        write_picture(scans / "c" / f"{number}.png", number)
    index(tmp_path / "index", scans)
    assert saved[0] == 4 and set(saved[1:-1]) <= {5, 6} and sum(saved) == 28, "a batch of 4, then six of 5 s each"
    monkeypatch.setattr(bc.Pretrained, "encode_images", encode)
    saved.clear()
    index(tmp_path / "fast", scans)
    assert saved == [4, 24], "all that are left, of a fast one"


def test_two_writers_at_once_are_refused(index: Indexing, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    index(out, scans)
    with (
        owner.owned_folder(out, writer="test", instead="nothing"),
        pytest.raises(UserError, match="another `biomedclip index`"),
    ):
        index(out, scans)
    assert len(open_index(out)) == 12


def test_what_is_refused(index: Indexing, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"

    def refused(said: str, call: Callable[[], object]) -> None:
        with pytest.raises(UserError) as error:
            call()
        assert said in str(error.value) and "\n" not in str(error.value)

    (tmp_path / "empty").mkdir()
    refused("no image in this folder", lambda: index(out, tmp_path / "empty"))
    refused("no such file or folder", lambda: index(out, tmp_path / "nowhere"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"no picture")
    refused("no image that can be read; the first: ", lambda: index(out, tmp_path / "bad"))
    assert not out.exists(), "nothing is left"
    refused("is there already, and holds a", lambda: index(scans, scans))
    index(out, scans)
    refused("which --data does not name", lambda: index(out, scans / "a"))
    refused("was made with --caption-column caption", lambda: index(out, scans, caption_column="text"))
    refused("its vectors were computed in float32", lambda: index(out, scans, dtype="bfloat16"))
    assert index(out, scans, scans / "a" / "00.png").repeated == 0


def test_an_archive_of_embed_is_not_embedded_again(
    index: Indexing, model: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("archive", "file.npz"):
        assert main(list(map(str, ["embed", model, "--images", scans, "--out", tmp_path / name]))) == 0
        index.embedded = 0
        changes = index(tmp_path / f"{name}.index", tmp_path / name)
        assert (changes.count, index.embedded) == (12, 0)
        assert len(changes.rejects) == (1 if name == "archive" else 0), "the .npz does not know the broken one"
        found = open_index(tmp_path / f"{name}.index")
        embeddings, names = bc.load_embeddings(tmp_path / name)
        assert np.array_equal(found.vectors(range(12)), embeddings)
        assert [found.hit(row).image for row in range(12)] == names
        assert found.image(found.hit(3)).size == (30, 20)
    assert "does not say which model" in capsys.readouterr().err
