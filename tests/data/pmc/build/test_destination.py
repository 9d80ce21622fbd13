"""What a destination holds is not lost: to another source, to a second build, to a full disk, to an article that kills."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.pmc_corpus import jpeg, picture, write_article

from biomedclip_jax.cli import main
from biomedclip_jax.data.pmc.build._reading import LOCK, STAGING
from biomedclip_jax.data.pmc.jats.article import ArticleFiles
from biomedclip_jax.data.pmc.sources.folders import CloudFolder
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.owner import owned
from biomedclip_jax.support.storage import Storage

pytest.importorskip("apache_beam", reason="needs: pip install 'biomedclip_jax[beam]'")
pytest.importorskip("tensorflow_datasets", reason="needs: pip install 'biomedclip_jax[beam]'")


def articles(root: Path, numbers: range) -> Path:
    for number in numbers:
        write_article(root, number, {"x.jpg": jpeg(picture(number))}, [f"A caption of picture {number}."])
    return root


def build(source: Path, destination: Path, *flags: str) -> int:
    return main(["data", "build", str(source), str(destination), "--workers", "1", "--shards", "2", *flags])


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_another_source_does_not_replace_a_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    destination = tmp_path / "pmc"
    first, second = articles(tmp_path / "first", range(10, 18)), articles(tmp_path / "second", range(16, 20))
    assert build(first, destination) == 0
    before = contents(destination)
    capsys.readouterr()
    assert build(second, destination) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert "6 of the 8 articles that its pairs are of are not in this source (PMC10, PMC11, PMC12 ...)" in error
    assert "--replace" in error
    assert build(first, destination, "--ids", "PMC10") == 2, "nor does a part of the same"
    assert contents(destination) == before
    assert build(second, destination, "--replace") == 0
    assert build(second, tmp_path / "fresh") == 0
    assert contents(destination) == contents(tmp_path / "fresh")
    articles(second, range(20, 21))
    assert build(second, destination) == 0, "more articles are no loss"


def test_articles_without_an_id_are_told_apart_by_where_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name / "a"
        folder.mkdir(parents=True)
        (folder / "f.jpg").write_bytes(jpeg(picture(len(name) + ord(name[0]))))
        (folder / "article.xml").write_text(
            "<article><body><fig id='f'><caption><p>A caption of three words</p></caption><graphic href='f.jpg'/></fig></body>"
            "</article>"
        )
    flags = ("--licenses", "any")
    assert build(tmp_path / "one", tmp_path / "pmc", *flags) == 0
    assert build(tmp_path / "one", tmp_path / "pmc", *flags) == 0
    assert build(tmp_path / "two", tmp_path / "pmc", *flags) == 2
    assert "1 of the 1 articles" in capsys.readouterr().err


def test_no_pair_id_occurs_twice(tmp_path: Path) -> None:
    """Two articles with the same PubMed id, whatever is kept of duplicates."""
    articles(tmp_path / "articles", range(10, 12))
    write_article(tmp_path / "articles", 7_000_010, {"y.jpg": jpeg(picture(99))}, ["Another caption of another picture."])
    for duplicates in ("none", "similar"):
        destination = tmp_path / duplicates
        assert build(tmp_path / "articles", destination, "--duplicates", duplicates) == 0
        assert json.loads((destination / "summary.json").read_text())["pictures"] == {
            "seen": 3,
            "kept": 2,
            "rejected": {"pair_id is there twice": 1},
        }
        (reject,) = [json.loads(line) for line in (destination / "rejects.jsonl").read_text().splitlines()]
        assert reject["pair_id"] == "10_F1"


def held(storage: Storage) -> contextlib.AbstractContextManager[object]:
    return owned(storage, LOCK, writer="build", instead="another destination")


@pytest.mark.parametrize("remote", [False, True])
def test_a_second_build_is_refused(tmp_path: Path, remote: bool) -> None:
    storage = Storage(f"file://{tmp_path}/pmc" if remote else str(tmp_path / "pmc"))
    if remote:
        (tmp_path / "pmc" / ".build").mkdir(parents=True)
    with held(storage):
        with (
            pytest.raises(UserError, match=rf"another build writes it \(process {os.getpid()} on ") as error,
            held(storage),
        ):
            pass
        assert "\n" not in str(error.value)
        assert storage.exists(LOCK)
    assert not storage.exists(LOCK)


def _ended() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("holder", "is_refused"),
    [
        ({"host": socket.gethostname(), "pid": _ended(), "started": "1", "seen": time.time()}, False),
        ({"host": socket.gethostname(), "pid": os.getpid(), "started": "of another life", "seen": time.time()}, False),
        ({"host": "elsewhere", "pid": 1, "started": "1", "seen": time.time() - 3_600}, False),
        ({"host": "elsewhere", "pid": 1, "started": "1", "seen": time.time() - 60}, True),
        ({}, False),
        ([], False),
    ],
)
def test_the_lock_of_a_build_that_is_no_more(tmp_path: Path, holder: object, is_refused: bool) -> None:
    storage = Storage(str(tmp_path / "pmc"))
    storage.write_json(LOCK, holder)
    with pytest.raises(UserError, match="on elsewhere") if is_refused else contextlib.nullcontext(), held(storage):
        pass
    assert storage.exists(LOCK) == is_refused


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    from biomedclip_jax.data._tfds_write import write_records

    with pytest.raises(UserError, match=r"/dev/full: cannot be written \(No space left on device\)"):
        write_records(Path("/dev/full"), [b"x" * 100_000] * 10)
    with (
        pytest.raises(UserError, match=r"/dev/full: cannot be written \(No space left on device\)"),
        Storage(str(tmp_path)).writing(),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        try:
            file.write(b"x")
        except OSError as error:
            error.filename = "/dev/full"
            raise


def test_what_is_not_finished_lies_beside_the_destination(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "pmc"))
    with storage.staging(STAGING) as folder:
        assert folder.is_relative_to(tmp_path / "pmc")
    with Storage("memory://pmc").staging(STAGING) as folder:
        assert not folder.is_relative_to(tmp_path)


@dataclass(frozen=True)
class Killing:
    """Articles of which one ends the process that reads it."""

    root: Path
    killer: str

    def keys(self) -> Iterator[str]:
        return CloudFolder(self.root).keys()

    def version(self, key: str) -> str:
        return CloudFolder(self.root).version(key)

    def open(self, key: str) -> ArticleFiles:
        if key == self.killer:
            time.sleep(0.2)  # so that others are open, too
            os.kill(os.getpid(), signal.SIGKILL)
        return CloudFolder(self.root).open(key)


PROGRAM = """
import sys
from pathlib import Path
from biomedclip_jax.data.pmc.build.build import BuildOptions, build
from biomedclip_jax.data.pmc.build.runner import Runner
from biomedclip_jax.support.owner import owned
from test_destination import Killing
if __name__ == "__main__":
    build(Killing(Path(sys.argv[1]), "PMC15"), sys.argv[2], BuildOptions(shards=2), Runner("direct", int(sys.argv[3])))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_an_article_that_kills_its_reader_is_left_out(tmp_path: Path, workers: int) -> None:
    """With one process the next run goes on, with several the same; the innocent that were open beside it are kept."""
    articles(tmp_path / "articles", range(10, 22))
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "articles"), str(tmp_path / "pmc"), str(workers)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    codes = [subprocess.run(command, env=environment, check=False, timeout=120).returncode for _ in range(3 - workers)]
    assert codes == ([-signal.SIGKILL, 0] if workers == 1 else [0])
    summary = json.loads((tmp_path / "pmc" / "summary.json").read_text())
    assert summary["articles"]["rejected"] == {"ends the process that reads it": 1}
    assert summary["pictures"]["kept"] == 11
    (reject,) = [json.loads(line) for line in (tmp_path / "pmc" / "rejects.jsonl").read_text().splitlines()]
    assert reject["article"] == "PMC15"
    assert not list((tmp_path / "pmc" / ".build" / "reading").iterdir())
    if workers == 1:
        articles(tmp_path / "articles", range(22, 23))
        assert subprocess.run(command, env=environment, check=False, timeout=120).returncode == 0, "known from the last time"


def test_a_build_whose_files_are_damaged_or_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, destination = articles(tmp_path / "a", range(4)), tmp_path / "d"
    assert build(source, destination, "--duplicates", "none") == 0
    before = {name: digest for name, digest in contents(destination).items() if not name.startswith(".build")}
    next(path for path in destination.iterdir() if "-train." in path.name).unlink()
    assert build(source, destination, "--duplicates", "none") == 0
    after = contents(destination)
    assert {name: after[name] for name in before} == before, "a shard that is missing is written again"
    hashes = next((destination / ".build").glob("*.npz"))
    hashes.write_bytes(b"")
    capsys.readouterr()
    assert build(source, destination, "--duplicates", "none") == 2
    assert f"{hashes}: missing or damaged" in capsys.readouterr().err
    hashes.with_suffix(".json").unlink()
    assert build(source, destination, "--duplicates", "none") == 0
    (destination / ".build" / "options.json").write_text("{")
    assert build(source, destination, "--duplicates", "none") == 2
    assert "options.json: damaged" in capsys.readouterr().err
