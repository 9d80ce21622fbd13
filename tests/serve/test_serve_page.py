"""docs/serve.md is run: its servers start, its curl lines are answered, its addresses are those that there are."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.processes import ROOT
from helpers.served import image_file, write_model

from biomedclip_jax.cli import main

PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
BLOCKS = {language: re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S) for language in ("bash", "sh")}
SERVERS = [line for block in BLOCKS["bash"] for line in block.splitlines() if line.startswith("biomedclip serve")]
LINES = [line for block in BLOCKS["sh"] for line in block.splitlines()]
CURLS = [line for line in LINES if line.startswith("curl ")]
ADDRESS = "http://127.0.0.1:8000"  # as the page has it

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine: apt install curl")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader of the page has it: a run, a photo, scans and an index of them."""
    folder = tmp_path_factory.mktemp("desk")
    write_model(folder / "runs" / "quickstart")
    (folder / "photo.jpg").write_bytes(image_file(0, "JPEG"))
    (folder / "scans").mkdir()
    rows = ["image,caption,license"]
    for n in range(12):
        (folder / "scans" / f"{n}.jpg").write_bytes(image_file(n, "JPEG"))
        rows.append(f"scans/{n}.jpg,picture {n},{'CC BY' if n < 4 else 'CC0'}")
    (folder / "scans.csv").write_text("\n".join(rows))
    made = ["index", str(folder / "runs" / "quickstart"), "--data", str(folder / "scans.csv")]
    assert main([*made, "--out", str(folder / "scans.index")]) == 0
    (folder / "bin").mkdir()
    (folder / "bin" / "biomedclip").write_text(f'#!/bin/sh\nexec {sys.executable} -m biomedclip_jax.cli "$@"\n')
    (folder / "bin" / "biomedclip").chmod(0o755)
    return folder


def run(line: str, desk: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], cwd=desk, capture_output=True, text=True, timeout=120)


@contextmanager
def serving(line: str, desk: Path) -> Iterator[str]:
    """The address of a server that a line of the page starts, at a free port; ended by SIGTERM."""
    path = f"{desk / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PATH": path}
    environment.pop("BIOMEDCLIP_TOKEN", None)
    command = ["bash", "-c", f"exec {line} --port 0 --batch-size 2"]
    process = subprocess.Popen(command, cwd=desk, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = []
        for text in process.stderr:
            said.append(text)
            if found := re.search(r"ready at http://[\d.]+:(\d+)", text):
                yield f"http://127.0.0.1:{found[1]}"
                break
        else:
            pytest.fail(f"{line}: {''.join(said)}")
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def address(desk: Path) -> Iterator[str]:
    with serving(SERVERS[0], desk) as found:
        yield found


def status(line: str, desk: Path) -> str:
    """The status that a curl line is answered with. The answer itself is in the file `answer`, or where the line says."""
    out = "" if " -o " in line else "-o answer "
    done = run(line.replace("curl ", f"curl -sS {out}-w '%{{http_code}}' ", 1), desk)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_of_it_is_found() -> None:
    assert [line.split()[2:4] for line in SERVERS] == [["runs/quickstart", "--index"], ["runs/quickstart", "--host"]]
    assert len(CURLS) == 4 and {line.split()[0] for line in LINES} == {"curl", "openssl", "launch/load_serve.py"}


@pytest.mark.parametrize("line", CURLS)
def test_curl_is_answered(line: str, desk: Path, address: str) -> None:
    assert ADDRESS in line
    assert status(line.replace(ADDRESS, address), desk) == "200", (desk / "answer").read_text()
    if "-o map.png" in line:
        assert (desk / "map.png").read_bytes().startswith(b"\x89PNG")
        return
    answer = json.loads((desk / "answer").read_text())
    if "filters=license=CC BY" in line:
        assert answer["searched"] == 4 and len(answer["hits"]) == 3
    else:
        assert answer["images"][0]["image"] == "photo.jpg"


def test_the_table_has_the_addresses_that_there_are(desk: Path, address: str) -> None:
    table = {line.split("|")[1] for line in PAGE.splitlines() if re.match(r"\| `(GET|POST) /", line)}
    named = {method: set() for method in ("GET", "POST")}
    for cell in table:
        named[cell.split()[0].strip("`")] |= set(re.findall(r"(/[\w/.]+)`", cell))
    for path in named["GET"]:
        assert status(f"curl {address}{path}", desk) == "200", path
    assert status(f"curl {address}/openapi.json", desk) == "200"
    paths = json.loads((desk / "answer").read_text())["paths"]
    assert named["POST"] == {path for path, methods in paths.items() if "post" in methods}
    assert named["GET"] == {path for path, methods in paths.items() if "get" in methods} | {"/openapi.json"}


def test_the_load_script_runs(desk: Path, address: str) -> None:
    (line,) = (line for line in LINES if line.startswith("launch/load_serve.py"))
    line = line.replace(ADDRESS, address).replace("--minutes 60", "--minutes 0").replace("launch/", f"{ROOT}/launch/")
    done = run(line, desk)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((desk / "load.json").read_text())
    assert report["answers"] > 20 and report["server_errors"] == 0


def test_with_a_token_nobody_else_is_answered(desk: Path) -> None:
    (line,) = (line for line in LINES if line.startswith("openssl"))
    if shutil.which("openssl") is None:
        line = "echo 0123456789abcdef0123456789abcdef > token && chmod 600 token"
    assert run(line, desk).returncode == 0 and (desk / "token").stat().st_mode & 0o777 == 0o600
    with serving(SERVERS[1], desk) as address:
        asked = CURLS[0].replace(ADDRESS, address)
        assert status(asked, desk) == "401"
        token = '-H "Authorization: Bearer $(cat token)"'
        assert status(f"{asked} {token}", desk) == "200"
        assert status(f"curl {address}/health", desk) == "200"
        searched = next(line for line in CURLS if "/search" in line).replace(ADDRESS, address)
        assert status(f"{searched} {token}", desk) == "404", "no index"
