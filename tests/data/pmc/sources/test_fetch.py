"""A copy of articles on the disk: whole, repeated for nothing, killed at any moment, and told what it lacks."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.faulty_s3 import BUCKET, FaultyS3, small_article

from biomedclip_jax.data.pmc.sources._cloud import CloudSource
from biomedclip_jax.data.pmc.sources._s3 import Bucket
from biomedclip_jax.data.pmc.sources.fetch import FetchState, Known, fetch
from biomedclip_jax.data.pmc.sources.open import open_source
from biomedclip_jax.errors import UserError

OURS = {"fetch-state.sqlite", "fetch-state.sqlite-journal", "rejects.jsonl"}
KEYS_OF_FILES = r"^(PMC|metadata/)"


def source(ids: tuple[str, ...] | None = None, licenses: frozenset[str] | None = None) -> CloudSource:
    return CloudSource(Bucket(BUCKET, connections=4), ids, None, licenses)


def tree(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in files.items() if name not in OURS}


def rejects(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]


def test_a_copy_and_nothing_new(s3: FaultyS3, pmc_articles: Path, tmp_path: Path) -> None:
    wanted = tree(pmc_articles / "cloud")
    counts = fetch(source(), tmp_path)
    assert tree(tmp_path) == wanted
    size = sum(len(data) for name, data in wanted.items() if not name.endswith(".json"))
    files = sum(not name.endswith(".json") for name in wanted)
    assert counts == {"articles": 9, "unchanged": 0, "fetched": 9, "files": files, "bytes": size}
    assert rejects(tmp_path) == []
    s3.requests.clear()
    assert fetch(source(), tmp_path) == {"articles": 9, "unchanged": 9, "fetched": 0, "files": 0, "bytes": 0}
    assert len(s3.requests) == len(s3.asked("list-type")) == 2, "is the bucket there, what is in it, and nothing else"
    assert tree(tmp_path) == wanted


def test_only_what_changed_or_vanished(s3: FaultyS3, tmp_path: Path) -> None:
    s3.put(small_article(5, 1) | small_article(6, 1))
    ids = ("PMC5", "PMC6", "PMC99000001", "PMC99000002")
    fetch(source(ids), tmp_path)
    s3.put(small_article(5, 2) | small_article(6, 1, title="Corrected", media_urls=[]))
    (tmp_path / "PMC99000002.2" / "fig1.jpg").unlink()
    s3.requests.clear()
    counts = fetch(source(ids), tmp_path)
    assert (counts["unchanged"], counts["fetched"], counts["files"]) == (1, 3, 3)
    assert sorted(s3.asked(KEYS_OF_FILES)) == [
        "PMC5.2/PMC5.2.xml",
        "PMC5.2/f1.png",
        "PMC99000002.2/fig1.jpg",
        "metadata/PMC5.2.json",
        "metadata/PMC6.1.json",
        "metadata/PMC99000002.2.json",
    ]
    assert not (tmp_path / "PMC6.1" / "f1.png").exists(), "no longer among its media"
    copy = open_source(str(tmp_path))
    assert copy.open("PMC5").key == "PMC5.2" and copy.open("PMC6").media == ()
    assert json.loads((tmp_path / "PMC6.1" / "PMC6.1.json").read_text())["title"] == "Corrected"


def run(folder: Path, endpoint: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "biomedclip_jax.cli", "data", "fetch", f"s3://{BUCKET}", str(folder), *arguments]
    environment = {**os.environ, "AWS_ENDPOINT_URL_S3": endpoint}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_at_any_moment(s3: FaultyS3, pmc_articles: Path, tmp_path: Path) -> None:
    """kill -9 again and again, a little later each time; nothing that was whole is fetched again, and nothing is missing."""
    wanted = tree(pmc_articles / "cloud")
    s3.delay = 0.02
    whole: set[str] = set()
    for files in (1, 6, 11, 17):
        s3.requests.clear()
        process = run(tmp_path, s3.endpoint, "--workers", "3")
        while len(s3.asked(r"^PMC")) < files:
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not whole & set(s3.asked(r"^PMC")), "fetched twice"
        now = tree(tmp_path)
        there = {name: data for name, data in now.items() if not name.endswith(".partial")}
        assert all(wanted[name] == data for name, data in there.items())
        whole = {name for name in there if not name.endswith(".json")}
    assert 10 < len(whole) < sum(not name.endswith(".json") for name in wanted), "killed in the middle"
    s3.requests.clear()
    process = run(tmp_path, s3.endpoint)
    out, err = process.communicate()
    assert process.returncode == 0 and err == "", err
    assert not whole & set(s3.asked(r"^PMC"))
    assert tree(tmp_path) == wanted
    assert re.search(r"9 articles asked for\n  unchanged +\d\n  fetched +\d  \(\d+ files, \d+\.\d MB\)\n$", out), out


def test_a_lost_article_stops_nothing_and_is_fetched_next_time(s3: FaultyS3, pmc_articles: Path, tmp_path: Path) -> None:
    s3.fail("PMC99000001.1/fig2.jpg", "wrong", 100)
    s3.fail("PMC99000004.2/PMC99000004.2.xml", "truncated", 100)
    s3.put({"metadata/PMC5.1.json": b"<html>", "metadata/PMC6.1.json": b"[1]"})
    counts = fetch(source(), tmp_path)
    assert (counts["articles"], counts["fetched"], counts["could not be fetched"]) == (11, 7, 4)
    listed = {line["article"]: line for line in rejects(tmp_path)}
    assert list(listed) == ["PMC5", "PMC6", "PMC99000001", "PMC99000004"]
    assert "PMC99000001.1/fig2.jpg: its MD5 is" in listed["PMC99000001"]["detail"]
    assert "not JSON" in listed["PMC5"]["detail"] and "one JSON object" in listed["PMC6"]["detail"]
    with pytest.raises(UserError, match="if a fetch was interrupted, run it again"):
        open_source(str(tmp_path)).open("PMC99000004")
    s3.restore()
    assert fetch(source(), tmp_path)["fetched"] == 2
    assert tree(tmp_path) == tree(pmc_articles / "cloud")


def test_licences(s3: FaultyS3, tmp_path: Path) -> None:
    """Told from the metadata, remembered, and looked at anew when other licences are asked for."""
    s3.put(small_article(5, 1, "CC BY-NC") | small_article(6, 1, "TDM", media_urls=[]) | small_article(7, 1, "CC0"))
    ids = ("PMC5", "PMC6", "PMC7", "PMC8")
    wanted = source(ids, frozenset({"CC BY", "CC0"}))
    counts = fetch(wanted, tmp_path)
    assert counts == {
        "articles": 4,
        "unchanged": 0,
        "fetched": 1,
        "files": 2,
        "bytes": counts["bytes"],
        "licence not wanted": 2,
        "no such article": 1,
    }
    assert not s3.asked(r"^PMC[56]")
    before = rejects(tmp_path)
    assert [line["article"] for line in before] == ["PMC5", "PMC6", "PMC8"]
    assert before[1] == {
        "article": "PMC6",
        "reason": "licence not wanted",
        "detail": "PMC6.1: its licence is TDM; wanted CC BY, CC0",
    }
    s3.requests.clear()
    assert fetch(wanted, tmp_path)["unchanged"] == 1
    assert rejects(tmp_path) == before and not s3.asked(KEYS_OF_FILES)
    assert fetch(source(ids, frozenset({"CC BY-NC"})), tmp_path)["fetched"] == 1
    assert [line["article"] for line in rejects(tmp_path)] == ["PMC6", "PMC7", "PMC8"]


def test_nothing_outside_the_folder(s3: FaultyS3, tmp_path: Path) -> None:
    names = ["../evil.png", "../../PMC5.1/evil.png", "..", "a\\..\\evil.png", "x" * 250]
    s3.put(
        {
            key: data
            for number, name in enumerate(names)
            for key, data in small_article(50 + number, 1, media_urls=[f"s3://b/PMC{50 + number}.1/{name}"]).items()
        }
    )
    folder = tmp_path / "copy"
    counts = fetch(source(tuple(f"PMC{50 + number}" for number in range(len(names)))), folder)
    assert counts["could not be fetched"] == len(names)
    assert {path.name for path in tmp_path.rglob("*")} - OURS == {"copy", "metadata"}


def test_one_fetch_at_a_time(tmp_path: Path) -> None:
    state = FetchState(tmp_path)
    state.put("PMC5", Known("a", "PMC5.1"))
    with pytest.raises(UserError, match="another fetch into this folder is running"):
        FetchState(tmp_path)
    state.close()
    state = FetchState(tmp_path)
    assert state.get("PMC5") == Known("a", "PMC5.1") and state.get("PMC6") is None
    state.close()
    (tmp_path / "fetch-state.sqlite").write_bytes(b"no data base" * 1000)
    with pytest.raises(UserError, match=r"fetch-state\.sqlite: .*; remove this file"):
        FetchState(tmp_path)


def test_a_lost_state_costs_no_download(s3: FaultyS3, tmp_path: Path) -> None:
    fetch(source(("PMC99000001", "PMC99000002")), tmp_path)
    (tmp_path / "fetch-state.sqlite").unlink()
    s3.requests.clear()
    counts = fetch(source(("PMC99000001", "PMC99000002")), tmp_path)
    assert (counts["fetched"], counts["files"]) == (2, 0)
    assert not s3.asked("^PMC")


def test_a_folder_that_cannot_be_written(s3: FaultyS3, tmp_path: Path) -> None:
    (tmp_path / "PMC99000001.1").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"PMC99000001\.1: cannot be written \(File exists\)"):
        fetch(source(("PMC99000001",)), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written \((Not a directory|File exists)\)"):
        fetch(source(("PMC99000001",)), tmp_path / "file")
