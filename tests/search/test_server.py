"""An index on a Qdrant server is searched as one in a folder is: beside one, over HTTP, against Qdrant's own engine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from helpers.few_shot_task import make_candidate
from helpers.qdrant_server import QdrantServer, Refused, running
from helpers.tiny_index import Indexing, change_pictures, write_picture

import biomedclip_jax as bc
from biomedclip_jax.cli import main
from biomedclip_jax.errors import UserError
from biomedclip_jax.search import Hit, Index, _server, open_index
from biomedclip_jax.search._server import from_text, payload_key, to_text
from biomedclip_jax.search.update import Wanted, update_index
from biomedclip_jax.support import owner

ROWS = [  # image, caption, licence, patient, age, and a column that no payload can name
    ("0.png", "a chest", "CC BY", "P1", "30", "x"),
    ("1.png", "", "CC BY", "P1", "41", ""),
    ("2.png", "ein Röntgenbild", "CC0", "P2", "9", "y"),
    ("3.png", "a, b", "CC0", "P3", "", ""),
    ("4.png", "x", "", "", "100", "x"),
    ("4.png", "another caption of it", "", "", "100", "x"),
    ("5.png", "cc by", "cc by", "P3", "1e3", "X"),
    ("gone.png", "no file", "CC BY", "P9", "1", ""),
]
ODD = 'a.b[0] "q" ünï'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[QdrantServer]:
    with running(tmp_path / "qdrant") as made:
        yield made


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for number in range(6):
        write_picture(tmp_path / f"{number}.png", number)
    names = ("image", "caption", "licence", "patient", "age", ODD)
    path = tmp_path / "pairs.jsonl"
    lines = [dict(zip(names, row, strict=True)) for row in ROWS]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def both(index: Indexing, table: Path, server: QdrantServer, tmp_path: Path) -> tuple[Index, Index]:
    """The same data in a folder and on a server."""
    index(tmp_path / "index", table)
    index(f"{server.url}/scans", table)
    return open_index(tmp_path / "index"), open_index(f"{server.url}/scans")


def same(one: list[Hit], other: list[Hit]) -> bool:
    return one == other  # scores too, to the last bit


@pytest.mark.parametrize(
    "filters",
    [
        [],
        ["license=CC BY"],
        ["license!=CC BY"],
        ["license=cc by"],
        ["license="],
        ["license!="],
        ["age>30"],
        ["age>=30", "age<=41"],
        ["age<41"],
        ["age!=1e3"],
        ["age="],
        ["caption=ein Röntgenbild"],
        ["patient!=P1", "license!="],
        [f"{ODD}=x"],
        [f"{ODD}!=x"],
        [f"{ODD}="],
        ["license=nobody's"],
        ["id=4.png#2"],
    ],
)
def test_hits_are_those_of_a_folder(both: tuple[Index, Index], filters: list[str]) -> None:
    folder, server = both
    assert server.columns == folder.columns and len(server) == len(folder) == 7
    assert server.matching(filters) == folder.matching(filters)
    queries = np.concatenate([folder.vectors([0, 4]), np.ones((1, 32), np.float32)])
    for top in (1, 3, 50):
        for one, other in zip(folder.search(queries, top, filters), server.search(queries, top, filters), strict=True):
            assert same(one, other)
    for pool in ("best", "mean"):
        for own in ([], folder.positions("patient", "P1")):
            given = {"filters": filters, "leave_out": own, "pool": pool}
            one, other = (each.search_groups(queries[:2], "patient", 3, **given) for each in both)
            assert [(hit.group, hit.id, hit.images, hit.columns) for hit in one] == [
                (hit.group, hit.id, hit.images, hit.columns) for hit in other
            ]
            assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], abs=1e-6)


def test_what_is_known_of_rows(both: tuple[Index, Index]) -> None:
    folder, server = both
    for column in folder.columns:
        assert server.values(column) == folder.values(column)
    assert server.positions("patient", "P1") == folder.positions("patient", "P1") == [0, 1]
    assert server.positions("patient", "") == server.positions("patient", "p1") == []
    np.testing.assert_array_equal(server.vectors([3, 0, 3]), folder.vectors([3, 0, 3]))
    assert server.vectors([]).shape == (0, 32)
    assert server.hit(2) == folder.hit(2)
    np.testing.assert_array_equal(np.asarray(server.image(server.hit(2))), np.asarray(folder.image(folder.hit(2))))
    for call in (lambda each: each.matching(["doctor=x"]), lambda each: each.search_groups(np.ones(32), "doctor")):
        said = []
        for each in both:
            with pytest.raises(UserError) as error:
                call(each)
            said.append(str(error.value))
        assert said[0] == said[1]


def test_equal_vectors_come_in_the_order_of_the_data(
    index: Indexing, server: QdrantServer, tmp_path: Path, clip: bc.Pretrained
) -> None:
    """More of them than the server is asked for at first."""
    from biomedclip_jax.data.embeddings_file import write_embeddings

    random = np.random.default_rng(0)
    rows = random.normal(size=(900, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[random.permutation(900)[:500]] = rows[0]
    write_embeddings(tmp_path / "made.npz", rows, [f"{number}.png" for number in range(900)])
    index(tmp_path / "index", tmp_path / "made.npz")
    index(f"{server.url}/made", tmp_path / "made.npz")
    folder, there = open_index(tmp_path / "index"), open_index(f"{server.url}/made")
    asked = rows[:1] + 0.01 * random.normal(size=(1, 32)).astype(np.float32)
    for top in (1, 10, 520):
        assert same(folder.search(asked, top)[0], there.search(asked, top)[0])
        one, other = (each.search_groups(asked, "folder", top) for each in (folder, there))
        assert [hit.id for hit in one] == [hit.id for hit in other]


def test_new_changed_and_deleted_images(index: Indexing, scans: Path, server: QdrantServer, tmp_path: Path) -> None:
    out = f"{server.url}/scans"
    first = index(out, scans)
    assert (first.count, first.embedded, len(first.rejects)) == (12, 12, 1)
    again = index(out, scans)
    assert (again.count, again.embedded, again.kept, again.gone) == (12, 0, 12, 0)
    change_pictures(scans)
    old = open_index(out)
    index.embedded = 0
    changes = index(out, scans)
    assert (changes.count, changes.embedded, changes.kept, changes.gone) == (12, 2, 10, 2)
    assert index.embedded == 2 + 1, "the changed, the new, and once more the broken one"
    index(tmp_path / "fresh", scans)
    new, fresh = open_index(out), open_index(tmp_path / "fresh")
    asked = np.random.default_rng(0).normal(size=(1, 32))
    told = [[(hit.score, hit.id, hit.columns) for hit in each.search(asked, 50)[0]] for each in (new, fresh)]
    assert [row[1:] for row in told[0]] == [row[1:] for row in told[1]]
    np.testing.assert_allclose([row[0] for row in told[0]], [row[0] for row in told[1]], atol=1e-6)
    with pytest.raises(UserError, match="was brought up to date"):
        old.search(asked)
    assert points(server, "scans") == 12 + 1, "what has gone is gone from the server, and one point says what counts"


def points(server: QdrantServer, name: str) -> int:
    answer = httpx.post(f"{server.url}/collections/{name}/points/count", json={"exact": True})
    return answer.json()["result"]["count"]


@pytest.mark.parametrize("state", ["first", "next"])
@pytest.mark.parametrize("dies_at", ["PUT points", "POST points/payload", "PUT index", "manifest", "POST points/delete"])
def test_a_server_that_goes_away_leaves_what_was_there(
    index: Indexing, scans: Path, server: QdrantServer, monkeypatch: pytest.MonkeyPatch, state: str, dies_at: str
) -> None:
    """Each request of an update fails for good once; the index of before is searched, and the next call completes it."""
    monkeypatch.setattr("biomedclip_jax.search._pass._CHUNK", 4)
    out, asked = f"{server.url}/scans", np.ones((1, 32))
    before: list[Hit] = []
    if state == "next":
        index(out, scans / "b")
        before = open_index(out).search(asked, 50)[0]
        (scans / "b" / "07.png").unlink()
        for number in range(20, 28):
            write_picture(scans / "b" / f"{number}.png", number)
    calls: list[str] = []

    def fail(method: str, path: str) -> None:
        request = f"{method} {path.partition('/scans/')[2]}"
        calls.append(request)
        late = "PUT points" if dies_at == "manifest" else dies_at
        at_the_end = calls.count("PUT index") > 0
        seen = at_the_end if dies_at in ("manifest", "POST points/delete") else late != "PUT points" or calls.count(late) > 2
        if "/scans/" in path and request == late and seen:
            raise Refused(500, "Service internal error: no space left on device")

    server.fail = fail
    failed = True
    try:
        index(out, scans / "b")
        failed = False
    except UserError as error:
        assert "the server answers 500" in str(error) and "no space left" in str(error) and "\n" not in str(error)
    server.fail = lambda method, path: None
    if not failed:
        assert state == "first", "there is nothing to mark or to remove"
        return
    if dies_at == "POST points/delete":
        assert len(open_index(out)) == (12 if state == "next" else 5), "it counts already"
    elif state == "next":
        assert same(open_index(out).search(asked, 50)[0], before)
    else:
        with pytest.raises(UserError, match="is not finished"):
            open_index(out)
    done, index.embedded = index.embedded, 0
    changes = index(out, scans / "b")
    assert changes.count == (12 if state == "next" else 5) and index.embedded <= 8
    assert done + index.embedded <= 5 + 8 + 4, "at most one chunk is embedded twice"
    found = {hit.id for hit in open_index(out).search(asked, 50)[0]}
    assert found == {path.name for path in (scans / "b").iterdir()} and points(server, "scans") == changes.count + 1


def test_what_is_refused(
    index: Indexing, scans: Path, server: QdrantServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = f"{server.url}/scans"

    def refused(said: str, call: Callable[[], object]) -> None:
        with pytest.raises(UserError) as error:
            call()
        assert said in str(error.value) and "\n" not in str(error.value), str(error.value)

    refused("no such collection", lambda: open_index(out))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"no picture")
    refused("no image that can be read; the first: ", lambda: index(out, tmp_path / "bad"))
    assert not server.engine._shards, "nothing is left"
    index(out, scans)
    refused("which --data does not name", lambda: index(out, scans / "a"))
    refused("was made with --caption-column caption", lambda: index(out, scans, caption_column="text"))
    refused("its vectors were computed in float32", lambda: index(out, scans, dtype="bfloat16"))
    make_candidate(tmp_path / "other", seed=1)
    other = Wanted(str(tmp_path / "other"), (str(scans),))
    refused("another model than that of", lambda: update_index(out, other, lambda: bc.from_pretrained(tmp_path / "other")))
    refused("another model than that of", lambda: open_index(out).load_model(str(tmp_path / "other")))
    lock = _server.Server(out).lock
    with owner.owned(lock, lock.name, writer="test", instead="nothing"):
        refused("another `biomedclip index`", lambda: index(out, scans))
    assert "scans-writer" not in server.engine._shards
    made = {"vectors": {"size": 32, "distance": "Dot"}}
    assert httpx.put(f"{server.url}/collections/theirs", json=made).status_code == 200
    assert index(f"{server.url}/theirs", scans).count == 12, "one that was made beforehand, and is empty"
    httpx.put(f"{server.url}/collections/wide", json={"vectors": {"size": 31, "distance": "Dot"}})
    refused("for vectors of another kind", lambda: index(f"{server.url}/wide", scans))
    httpx.put(f"{server.url}/collections/wide/points", json={"points": [{"id": 1, "vector": [0.1] * 31, "payload": {}}]})
    refused("has not made", lambda: index(f"{server.url}/wide", scans))
    refused("has not made", lambda: open_index(f"{server.url}/wide"))
    server.key = "secret"
    refused("QDRANT_API_KEY", lambda: open_index(out))
    monkeypatch.setenv("QDRANT_API_KEY", "secret")
    assert len(open_index(out)) == 12
    server.fail = lambda method, path: time.sleep(3)
    monkeypatch.setattr(_server, "_SECONDS", 1)
    refused("no answer within 1 s", lambda: open_index(out))
    refused("cannot be reached", lambda: open_index("http://127.0.0.1:9/scans"))
    refused("no answer that can be used", lambda: open_index(f"{server.url}/.."))
    for address in ("http://", "http://host:6333", "http://host:x/scans", "http://host/scans?x=1", "http://me:key@host/scans"):
        refused("expected http://HOST:6333/COLLECTION", lambda address=address: open_index(address))


def test_names_and_texts_of_every_kind_come_back() -> None:
    names = ["a", "a.b", "a[0]", "", " ", " a", "é", "x" * 300, "\0", "c_a", "a b", "\udcff"]
    assert len({payload_key(name) for name in names}) == len(names)
    assert all(key.replace("_", "").isalnum() and key.isascii() for key in map(payload_key, names))
    texts = ["", "a", "\0", "\0a", "köln \udcff.png", '\0"\\udcff"', "x" * 10_000, "\ud83d", "😀"]
    assert [from_text(to_text(text)) for text in texts] == texts
    assert len({to_text(text).encode() for text in texts}) == len(texts)


def test_the_commands(
    server: QdrantServer, scans: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: object) -> int:
        return main(list(map(str, words)))

    write_picture(scans / "köln \udcff.png", 50)
    out = f"{server.url}/scans"
    assert run("index", model, "--data", scans, "--out", out) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}: 13 images, 13 of them embedded now, 0 known already\n"
    assert "left out: " in said.err and "broken.png" in said.err and "rejects.jsonl" not in said.err
    assert run("index", model, "--data", scans, "--out", tmp_path / "index") == 0
    told: list[dict[str, Any]] = []
    words = ["chest", scans / "a" / "03.png", "--like", "b/09.png", "--filter", "folder!=x", "--format", "json"]
    for where in (out, tmp_path / "index"):
        capsys.readouterr()
        assert run("search", where, *words, "--sheet", tmp_path / "hits.png") == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0].pop("index") == out and told[1].pop("index") == str(tmp_path / "index")
    assert told[0] == told[1]
    assert "köln \\udcff.png" in {hit["id"] for hit in told[0]["queries"][0]["hits"]} | {"köln \\udcff.png"}
    assert run("search", "http://127.0.0.1:9/scans", "x") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_graph_is_used_where_it_was_asked_for(index: Indexing, scans: Path, server: QdrantServer) -> None:
    out = f"{server.url}/scans"
    index(out, scans, approximate=True)
    found = open_index(out)
    assert not found.is_exact() and found.is_exact(["id=x"]) and found.is_exact(exact=True)
    asked = found.vectors([0])
    assert same(found.search(asked, 5)[0], found.search(asked, 5, exact=True)[0]), "12 images are all looked at"
    index(out, scans)
    assert not open_index(out).is_exact(), "what an index had it keeps"
    index(out, scans, approximate=False)
    assert open_index(out).is_exact()


def test_after_a_kill_the_work_goes_on(server: QdrantServer, scans: Path, model: Path, tmp_path: Path) -> None:
    """A process that is killed with no word, between two requests."""
    out = f"{server.url}/scans"
    words = ["index", str(model), "--data", str(scans), "--out", out, "--batch-size", "2"]
    program = f"import biomedclip_jax.search._pass as p; p._CHUNK = 2; from biomedclip_jax.cli import main; main({words!r})"
    written = []

    def fail(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/scans/points"):
            written.append(path)
            if len(written) == 4:
                os.kill(child.pid, signal.SIGKILL)
                raise Refused(500, "the client is dead")

    server.fail = fail
    child = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert child.wait(timeout=300) == -signal.SIGKILL
    assert "scans-writer" in server.engine._shards
    server.fail = lambda method, path: None
    with pytest.raises(UserError, match="is not finished"):
        open_index(out)
    assert main(words) == 0, "the dead process holds nothing"
    found = open_index(out)
    assert len(found) == 12 and points(server, "scans") == 13 and "scans-writer" not in server.engine._shards
