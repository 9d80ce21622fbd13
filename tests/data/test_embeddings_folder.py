"""`embed --out DIR`: shards that appear whole, a run that was killed goes on, and parts are together the same files."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.few_shot_task import make_candidate
from PIL import Image
from pyarrow.parquet import read_table

import biomedclip_jax as bc
from biomedclip_jax.cli import main
from biomedclip_jax.cli.embed import slurm_part
from biomedclip_jax.data.file_list import FileList
from biomedclip_jax.data.images.search import find_images, stream_images
from biomedclip_jax.errors import UserError

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    make_candidate(folder)
    return folder


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 pictures in two folders, number 3 broken and number 4 empty."""
    folder = tmp_path_factory.mktemp("scans")
    random = np.random.default_rng(0)
    for number in range(23):
        path = folder / ("a" if number < 12 else "b") / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 30, 3), np.uint8)).save(path)
    (folder / "a" / "03.png").write_bytes(b"not a picture")
    (folder / "a" / "04.png").write_bytes(b"")
    return folder


def embed(model: Path, scans: object, out: Path, *options: object) -> int:
    words = ["embed", model, "--images", scans, "--out", out, "--shard-size", 5, "--batch-size", 2, *options]
    return main(list(map(str, words)))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(model: Path, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "embeddings"
    assert embed(model, scans, out) == 0
    return out


def test_each_file_has_its_row(model: Path, scans: Path, whole: Path) -> None:
    files = sorted(path.name for path in whole.iterdir())
    assert files == ["embeddings.json", *(f"embeddings-{shard:05d}-of-00005.parquet" for shard in range(5))][1:] + files[-1:]
    tables = [read_table(whole / name) for name in files[:-1]]
    assert [table.num_rows for table in tables] == [5, 5, 5, 5, 3]
    rows = [row for table in tables for row in table.to_pylist()]
    paths = find_images(scans)
    assert [row["name"] for row in rows] == list(map(str, paths))
    bad = [position for position, row in enumerate(rows) if row["reject"] is not None]
    assert bad == [3, 4] and "not an image" in rows[3]["reject"] and "is empty" in rows[4]["reject"]
    assert np.isnan([rows[position]["embedding"] for position in bad]).all() and len(rows[3]["sha256"]) == 64
    kept = [path for position, path in enumerate(paths) if position not in bad]
    embeddings, names = bc.load_embeddings(whole)
    assert names == list(map(str, kept)) and embeddings.dtype == np.float32
    assert np.abs(embeddings - bc.from_pretrained(model).encode_images(kept)).max() <= 1e-6


def test_strict_ends_with_2_when_all_is_done(model: Path, scans: Path, whole: Path, tmp_path: Path, capsys: Captured) -> None:
    for _ in range(2):  # the second time the shards are there
        assert embed(model, scans, tmp_path / "out", "--strict") == 2
        assert "2 of 23 images cannot be read" in capsys.readouterr().err
        assert contents(tmp_path / "out") == contents(whole)
    assert embed(model, scans, tmp_path / "x.npz", "--strict") == 2
    assert not (tmp_path / "x.npz").exists() and "nothing is written" in capsys.readouterr().err


def test_parts_are_together_what_one_run_writes(
    model: Path, scans: Path, whole: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert embed(model, scans, out, "--part", "2/3") == 0
    assert "10 of 23 images" not in capsys.readouterr().err and len(contents(out)) == 3
    with pytest.raises(UserError, match=r"2 of 5 shards are there; run the `embed`"):
        bc.load_embeddings(out)
    assert embed(model, scans, out, "--part", "1/3") == 0
    for name, value in {"STEP_NODELIST": "n1", "STEP_NUM_TASKS": "3", "PROCID": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert embed(model, scans, out) == 0
    assert "part 3 of 3, as this task of Slurm" in capsys.readouterr().err
    assert contents(out) == contents(whole)


def test_killed_at_any_moment_it_goes_on(model: Path, scans: Path, whole: Path, tmp_path: Path) -> None:
    """A real SIGKILL, once in the middle of writing a shard and once between two."""
    out = tmp_path / "out"
    program = (
        "import sys, time, pathlib\n"
        "from biomedclip_jax.cli import main\n"
        "from pyarrow import parquet\n"
        "write = parquet.write_table\n"
        "def half(table, path, **options):\n"
        "    name = pathlib.Path(path).name\n"
        "    write(table, path, **options)\n"
        "    if f'embeddings-0000{sys.argv[1]}' in name:\n"
        "        data = pathlib.Path(path).read_bytes()\n"
        "        pathlib.Path(path).write_bytes(data[: len(data) // 2])\n"
        "        print('now', flush=True)\n"
        "        time.sleep(60)\n"
        "parquet.write_table = half\n"
        "main(sys.argv[2:])\n"
    )
    words = ["embed", model, "--images", scans, "--out", out, "--shard-size", "5", "--batch-size", "2"]
    for shard in (1, 3):
        run = subprocess.Popen(
            [sys.executable, "-c", program, str(shard), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert run.stdout is not None and run.stdout.readline() == b"now\n"
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        run.stdout.close()
        assert sum(not name.startswith(".") and name.endswith("parquet") for name in contents(out)) == shard
        assert any(name.startswith(".") for name in contents(out)), "what it has left"
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("embeddings-*")}
    time.sleep(0.01)
    assert embed(model, scans, out) == 0
    assert contents(out) == contents(whole)
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in out.glob("embeddings-*")}.items()


def test_a_damaged_shard_is_made_again(model: Path, scans: Path, whole: Path, tmp_path: Path, capsys: Captured) -> None:
    assert embed(model, scans, tmp_path / "out") == 0
    shard = tmp_path / "out" / "embeddings-00002-of-00005.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UserError, match=r"embeddings-00002.*remove it, and run `embed` again"):
        bc.load_embeddings(tmp_path / "out")
    assert embed(model, scans, tmp_path / "out") == 0
    assert "not a whole shard" in capsys.readouterr().err and contents(tmp_path / "out") == contents(whole)


def test_what_does_not_fit_the_folder_is_refused(
    model: Path, scans: Path, whole: Path, tmp_path: Path, capsys: Captured
) -> None:
    before = contents(whole)

    def refused(*words: object) -> str:
        assert embed(*words) == 2  # type: ignore[arg-type]
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and contents(whole) == before
        return said

    make_candidate(tmp_path / "other", seed=1)
    assert "another model, other preprocessing or another --dtype" in refused(tmp_path / "other", scans, whole)
    assert "another --dtype" in refused(model, scans, whole, "--dtype", "bfloat16")
    assert "another --shard-size (5 there, now 6)" in refused(model, scans, whole, "--shard-size", 6)
    assert "another list of files (23 there, now 12)" in refused(model, scans / "a", whole)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert "is there already and not empty" in refused(model, scans, tmp_path / "full")
    assert "expected a name that ends in .npz, or a folder" in refused(model, scans, tmp_path / "x.parquet")
    assert "give --out a folder" in refused(model, scans, tmp_path / "x.npz", "--part", "1/2")
    for part in ("0/3", "4/3", "3", "1/0", "a/b"):
        with pytest.raises(SystemExit):
            embed(model, scans, tmp_path / "out", "--part", part)
        assert "from 1/16 to 16/16" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no embeddings\.json in it"):
        bc.load_embeddings(tmp_path / "full")


def test_only_broken_images(model: Path, scans: Path, tmp_path: Path, capsys: Captured) -> None:
    assert embed(model, scans / "a" / "03.png", tmp_path / "out") == 2
    assert "none of the 1 images can be read" in capsys.readouterr().err
    embeddings, names = bc.load_embeddings(tmp_path / "out")
    assert embeddings.shape == (0, 32) and names == []


def test_parts_under_slurm() -> None:
    step = {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "8", "SLURM_PROCID": "3"}
    array = {f"SLURM_ARRAY_TASK_{name}": value for name, value in zip(("ID", "MIN", "MAX"), ("7", "3", "9"), strict=True)}
    array |= {"SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "4"}
    assert slurm_part({}) == (0, 1)
    assert slurm_part(step) == (3, 4)
    assert slurm_part({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) == (0, 1), "a batch script without srun"
    assert slurm_part(array) == (2, 4)
    assert slurm_part(step | array) == (2 * 4 + 3, 16)
    with pytest.raises(UserError, match="give --part I/N"):
        slurm_part(array | {"SLURM_ARRAY_TASK_COUNT": "3"})


def test_a_list_of_files_is_read_a_part_at_a_time(tmp_path: Path) -> None:
    names = ["a", os.fsdecode(b"scan \xe9\xff.png"), "a\nb", "胸.png", "b.png"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    paths = [tmp_path / name for name in names]

    def listed(paths: list[Path], part_size: int) -> str:
        with FileList(paths, part_size) as files:
            return files.listed

    with FileList(paths, 2) as files:
        assert files.count == 5 and [files.part(2), files.part(0), files.part(1)] == [paths[4:], paths[:2], paths[2:4]]
    assert listed(paths, 5) == files.listed != listed(paths[::-1], 2)
    (tmp_path / "a").write_bytes(b"xx")
    assert listed(paths, 2) != files.listed
    with pytest.raises(UserError, match="went while the files were listed"):
        FileList([tmp_path / "none"], 2)


def test_files_are_found_in_the_order_of_a_sorted_list(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.png", "a.png", "a-b/1.png", "a/b/2.png", "Z.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"text")
    left_out: Counter[str] = Counter()
    assert list(stream_images([tmp_path, tmp_path / "b.png"], left_out)) == [*find_images(tmp_path), tmp_path / "b.png"]
    assert left_out == {".txt": 1}
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no image in this folder"):
        list(stream_images([tmp_path / "none"], left_out))
