"""A build from articles to shards, by the command and its parts."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.faulty_s3 import BUCKET, FaultyS3
from helpers.pmc_corpus import jpeg, picture, write_article, write_corpus

from biomedclip_jax.cli import main

pytest.importorskip("apache_beam", reason="needs: pip install 'biomedclip_jax[beam]'")
tfds = pytest.importorskip("tensorflow_datasets", reason="needs: pip install 'biomedclip_jax[beam]'")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root)
    return root


@pytest.fixture(scope="module")
def built(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By one process, undisturbed."""
    destination = tmp_path_factory.mktemp("built") / "pmc"
    assert build(corpus, destination) == 0
    return destination


SPLITS = ["--splits", "train=8", "validation=1", "test=3"]


def build(corpus: Path, destination: Path | str, *flags: str) -> int:
    return main(["data", "build", str(corpus), str(destination), "--shards", "3", *SPLITS, "--workers", "1", *flags])


def contents(folder: Path) -> dict[str, str]:
    """Digests of all files, hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """pair_id -> record, of all splits; images encoded."""
    builder = tfds.builder_from_directory(folder)
    found = {}
    for split in builder.info.splits:
        for record in builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()}):
            found[record["pair_id"].decode()] = record | {"split": split}
    return found


def test_what_is_kept_and_what_is_not(built: Path) -> None:
    summary = json.loads((built / "summary.json").read_text())
    assert summary["articles"] == {
        "seen": 22,
        "with pictures": 17,
        "without figures": 1,
        "rejected": {"cannot be read": 1, "historical OCR": 1, "licence not wanted": 1, "retracted": 1},
    }
    assert summary["pictures"] == {
        "seen": 32,
        "kept": 24,
        "rejected": {
            "caption too short": 1,
            "duplicate": 1,
            "image too small": 1,
            "image unreadable": 2,
            "no caption": 1,
            "no image file": 1,
            "similar picture": 1,
        },
    }
    assert sum(summary["pairs"].values()) == 24
    rejects = [json.loads(line) for line in (built / "rejects.jsonl").read_text().splitlines()]
    assert len(rejects) == 4 + 8
    by_id = {line.get("pair_id"): line for line in rejects}
    assert by_id["1000004_F1"]["detail"] == "of 1_F1"
    assert by_id["1000005_F1"]["detail"] == "of 2_F2"
    assert "a web page" in by_id["1000006_F2"]["detail"]


def test_records_hold_what_they_should(built: Path, corpus: Path) -> None:
    found = records(built)
    assert set(found) == {f"{i}_F{j}" for i in range(12) for j in (1, 2)}
    record = found["3_F1"]
    assert record["image"] == (corpus / "PMC7000003.1" / "a3-g1.jpg").read_bytes()
    assert record["caption"] == b"Chest X-ray of patient 3, frontal view."
    assert list(record["references"]) == [b"The scan (Fig. 1) shows it."]
    assert list(found["3_F2"]["references"]) == []
    expected = {"pmcid": b"PMC7000003", "pmid": b"3", "version": 1, "year": 2003, "figure_id": b"F1", "label": b"Figure 1."}
    expected |= {"license": b"CC BY", "citation": b"Journal. 7000003", "width": 180, "height": 120, "in_sub_article": False}
    assert {name: record[name] for name in expected} == expected


def test_no_article_straddles_splits(built: Path) -> None:
    splits: dict[bytes, set[str]] = {}
    for record in records(built).values():
        splits.setdefault(record["pmcid"], set()).add(record["split"])
    assert len(set.union(*splits.values())) > 1
    assert all(len(found) == 1 for found in splits.values())


def test_checksums_are_those_of_the_shards(built: Path) -> None:
    lines = dict(reversed(line.split("  ")) for line in (built / "SHA256SUMS").read_text().splitlines())
    assert {path.name for path in built.glob("*.array_record-*")} == set(lines)
    assert all(hashlib.sha256((built / name).read_bytes()).hexdigest() == digest for name, digest in lines.items())


def test_processes_and_order_change_no_byte(built: Path, corpus: Path, tmp_path: Path) -> None:
    again = [sys.executable, "-m", "biomedclip_jax.cli", "data", "build", str(corpus), str(tmp_path / "pmc")]
    done = subprocess.run([*again, "--shards", "3", *SPLITS, "--workers", "2"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), "Beam's workers have much to say"
    assert contents(tmp_path / "pmc") == contents(built)


def test_killed_at_any_moment_it_goes_on(built: Path, corpus: Path, tmp_path: Path) -> None:
    """kill -9 of all its processes, later each time, until one run comes to its end."""
    command = [sys.executable, "-m", "biomedclip_jax.cli", "data", "build", str(corpus), str(tmp_path / "pmc")]
    command += ["--shards", "3", *SPLITS, "--workers", "2"]
    killed_midway = 0
    for attempt in range(40):
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        before = len(list((tmp_path / "pmc" / ".build").glob("*"))) if (tmp_path / "pmc").exists() else 0
        try:
            limit = time.monotonic() + 120
            while time.monotonic() < limit and running.poll() is None:
                folder = tmp_path / "pmc" / ".build"
                if folder.exists() and len(list(folder.glob("*"))) >= before + 3 + attempt % 3:
                    break
                time.sleep(0.002)
            finished = running.poll() is not None
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
            _, errors = running.communicate()
        if finished:
            assert running.returncode == 0, errors
            break
        killed_midway += 1
    assert killed_midway >= 3
    assert contents(tmp_path / "pmc") == contents(built)


def test_run_again_it_changes_nothing(built: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.glob("*.array_record-*")}
    assert build(corpus, built) == 0
    assert {path: path.stat().st_mtime_ns for path in built.glob("*.array_record-*")} == before
    assert "24 pairs" in capsys.readouterr().out


def test_only_shards_with_changed_articles_are_built_again(corpus: Path, tmp_path: Path) -> None:
    """A new version of an article, whose picture was the original of a duplicate elsewhere, which now comes back."""
    articles = tmp_path / "articles"
    shutil.copytree(corpus, articles)
    assert build(articles, tmp_path / "pmc") == 0
    before = contents(tmp_path / "pmc")
    files = {"new-g1.jpg": jpeg(picture(9_999)), "a1-g2.jpg": jpeg(picture(102))}
    write_article(articles, 7_000_001, files, ["Another chest X-ray in version 2.", "A bar chart of dose 1."], version=2)
    assert build(articles, tmp_path / "pmc") == 0
    after = contents(tmp_path / "pmc")
    shards = [name for name in before if ".array_record-" in name]
    changed = [name for name in shards if before[name] != after[name]]
    assert 1 <= len(changed) <= 2
    found = records(tmp_path / "pmc")
    assert found["1_F1"]["caption"] == b"Another chest X-ray in version 2."
    assert found["1000004_F1"]["image"] == (articles / "PMC8000004.1" / "copy.jpg").read_bytes()
    fresh = tmp_path / "fresh"
    assert build(articles, fresh) == 0
    assert contents(fresh) == after


def test_the_same_articles_as_packages_give_the_same_pairs(built: Path, corpus: Path, tmp_path: Path) -> None:
    """Without metadata there is no citation, and a package has no version; all else is the same, the splits, too."""
    import tarfile

    (tmp_path / "packages").mkdir()
    for folder in sorted(corpus.glob("PMC7*")):
        name = folder.name.partition(".")[0]
        with tarfile.open(tmp_path / "packages" / f"{name}.tar.gz", "w:gz") as tar:
            for path in folder.iterdir():
                if path.suffix != ".json":
                    tar.add(path, f"{name}/{path.name}")
    assert build(tmp_path / "packages", tmp_path / "pmc", "--licenses", "any") == 0
    here, there = records(tmp_path / "pmc"), records(built)
    assert set(here) == set(there)
    for pair_id, record in here.items():
        for name in ("image", "caption", "split", "pmcid", "width", "figure_type"):
            assert record[name] == there[pair_id][name], (pair_id, name)


def test_filters(corpus: Path, tmp_path: Path) -> None:
    flags = ["--licenses", "any", "--retracted", "--historical-ocr", "--duplicates", "none", "--leave-out", "chart"]
    assert build(corpus, tmp_path / "pmc", *flags, "--max-side", "100", "--min-words", "1") == 0
    summary = json.loads((tmp_path / "pmc" / "summary.json").read_text())
    assert summary["pictures"]["rejected"]["type: chart"] == 12
    found = records(tmp_path / "pmc")
    assert {f"{number}_F1" for number in range(1_000_001, 1_000_006)} <= set(found)
    import io

    from PIL import Image

    assert {max(Image.open(io.BytesIO(record["image"])).size) for record in found.values()} == {100}
    assert found["3_F1"]["width"] == 180


def test_bad_input_is_one_line(built: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*flags: str, source: Path = corpus, destination: Path | str = tmp_path / "x") -> str:
        assert main(["data", "build", str(source), str(destination), "--workers", "1", *flags]) == 2
        error = capsys.readouterr().err.strip()
        assert "\n" not in error
        return error

    older = tmp_path / "older"  # whose texts follow the first rule, which no build wrote down
    shutil.copytree(built, older)
    options = json.loads((older / ".build/options.json").read_text())
    (older / ".build/options.json").write_text(json.dumps({k: v for k, v in options.items() if k != "text_rule"}))
    assert "was built with text_rule = 1, not 2" in said("--shards", "3", *SPLITS, destination=older)
    assert "was built with max_side = 512, not 256" in said("--shards", "3", *SPLITS, "--max-side", "256", destination=built)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    assert "holds something else than a build" in said(destination=tmp_path / "full")
    assert "expected a name and a number" in said("--splits", "train")
    assert "chart" in said("--leave-out", "charts and so on")
    assert "CC BY" in said("--licenses", "mine")
    assert "no such" in said(source=tmp_path / "absent")
    assert not (tmp_path / "x").exists()
    only_bad = tmp_path / "bad"
    write_article(only_bad, 9, {"x.jpg": b"<html>"}, ["A caption of this picture."])
    assert "no pair is left; rejects.jsonl says why" in said(source=only_bad)
    assert "a web page" in (tmp_path / "x" / "rejects.jsonl").read_text()


def test_from_a_bucket_to_a_bucket(
    s3: FaultyS3, pmc_articles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over a network that fails now and then; the same bytes as from a folder to a folder."""
    import fsspec
    import s3fs
    from moto.server import ThreadedMotoServer

    destination = ThreadedMotoServer(port=0, verbose=False)
    destination.start()
    host, port = destination.get_host_and_port()
    options = {"endpoint_url": f"http://{host}:{port}", "key": "test", "secret": "test"}
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = s3fs.S3FileSystem(**options)
    bucket.mkdir("ours")
    s3.fail(r"\.jpg", "503", 3)
    s3.fail(r"\.xml", "truncated", 2)
    assert main(["data", "build", f"s3://{BUCKET}", "s3://ours/pmc", "--workers", "1", "--shards", "2"]) == 0
    assert "46 pairs" in capsys.readouterr().out
    assert main(["data", "build", str(pmc_articles / "cloud"), str(tmp_path / "pmc"), "--workers", "1", "--shards", "2"]) == 0
    bucket.get("ours/pmc", str(tmp_path / "fetched"), recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
    destination.stop()

    def without_fingerprints(folder: Path) -> dict[str, str]:
        return {name: digest for name, digest in contents(folder).items() if not name.endswith(".json") or "/" not in name}

    assert without_fingerprints(tmp_path / "fetched") == without_fingerprints(tmp_path / "pmc")


def test_memory_does_not_grow_with_the_articles(tmp_path: Path) -> None:
    """Ten times as many articles in a shard, and large pictures: the peak of the process is nearly the same."""
    program = (
        "import resource, sys\nfrom biomedclip_jax.cli import main\n"
        "assert main(['data', 'build', sys.argv[1], sys.argv[2], '--workers', '1', '--shards', '1']) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    peaks = []
    for count in (6, 60):
        root = tmp_path / f"articles{count}"
        large = [jpeg(picture(i, 1_800, 1_200), 95) for i in range(6)]  # 6.5 MB of pixels each
        for i in range(count):
            write_article(root, 7_000_000 + i, {"x.jpg": large[i % 6]}, [f"A caption of picture {i}."])
        done = subprocess.run(
            [sys.executable, "-c", program, str(root), str(tmp_path / f"pmc{count}")],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(float(done.stdout.splitlines()[-1]))
    assert peaks[1] < peaks[0] + 40, peaks


def test_a_portable_runner(built: Path, corpus: Path, tmp_path: Path) -> None:
    """The way to Flink and Spark: a job server, here one inside the process, and workers that talk to it over gRPC."""
    flags = ["--shards", "3", *SPLITS, "--runner", "portable", "--beam", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    command = [sys.executable, "-m", "biomedclip_jax.cli", "data", "build", str(corpus), str(tmp_path / "pmc"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "pmc") == contents(built)
