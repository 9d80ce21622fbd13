"""The pages say what is so: commands and Python are run beside a tiny model, or marked and parsed; links lead somewhere.

A ```bash block whose first line is `# needs: ...` (network, a GPU, packages, data that is not here) or `# takes: ...` is
not run: each `biomedclip` command in it is read by the real parser, and the config of `train` and `plan` takes its
overrides. Every other block is run, in a folder that holds what the pages speak of: `runs/quickstart`, `photo.jpg`,
`scans/`, `captions.txt`, `xrays/`.
"""

import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.tiny_run import BROKEN, config, make_data
from PIL import Image

from biomedclip_jax.cli.main import _parser, main
from biomedclip_jax.config import Stage
from biomedclip_jax.config.files import load_config
from biomedclip_jax.config.overrides import override
from biomedclip_jax.train.main import train

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "BUILD_NOTES.md")]
PAGES += sorted((REPOSITORY / "docs").glob("*.md"))
MARK = re.compile(r"# (needs|takes): \S")


def blocks(language: str) -> list[tuple[str, str]]:
    """(page and line, text) of each fenced block in a language."""
    found = []
    for page in PAGES:
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S):
            line = page.read_text(encoding="utf-8")[: match.start()].count("\n") + 1
            found.append((f"{page.relative_to(REPOSITORY)}:{line}", match[1]))
    return found


def commands(block: str) -> list[list[str]]:
    """The words of each command of a block; `&&` parts two."""
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            found.append(words[:end])
            words = words[end + 1 :]
    return found


def is_ours(command: list[str]) -> bool:
    return Path(command[0]).name == "biomedclip"


BASH, PYTHON = blocks("bash"), blocks("python")
RUN = [(where, text) for where, text in BASH if not MARK.match(text)]
MARKED = [(where, text) for where, text in BASH if MARK.match(text)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user of the pages has it, around a tiny run in the place of the quickstart's."""
    folder = tmp_path_factory.mktemp("desk")
    workdir = folder / "runs" / "quickstart"
    (workdir / "data").mkdir(parents=True)
    data = make_data(workdir / "data")
    Image.new("RGB", (20, 18), "white").save(data / BROKEN)  # the pages speak of data that can be read
    assert train(config(data, stages=(Stage(16, steps=2),)), workdir) is not None
    shutil.copytree(data, folder / "xrays")
    shutil.copytree(workdir / "model", folder / "biomedclip")
    (folder / "scans").mkdir()
    Image.new("RGB", (40, 30), "grey").save(folder / "photo.jpg")
    Image.new("RGB", (30, 40), "white").save(folder / "scans" / "1.png")
    (folder / "captions.txt").write_text("chest image 1\nbrain image 2\n", encoding="utf-8")
    return folder


def test_the_blocks_are_found() -> None:
    assert len(RUN) >= 5 and len(MARKED) >= 8 and len(PYTHON) >= 3
    assert commands("# a\nx 'b c' \\\n  d && y # e\n") == [["x", "b c", "d"], ["y"]]


@pytest.mark.parametrize(("where", "block"), RUN, ids=[where for where, _ in RUN])
def test_commands_run(where: str, block: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    for command in commands(block):
        assert is_ours(command), f"{where}: {command[0]} is not run by this test; mark the block with `# needs:` or `# takes:`"
        assert main(command[1:]) == 0, f"{where}: {shlex.join(command)}"
        for word in command[command.index("--out") :][1:2] if "--out" in command else []:
            assert (desk / word).exists(), f"{where}: nothing was written to {word}"


@pytest.mark.parametrize(("where", "block"), MARKED, ids=[where for where, _ in MARKED])
def test_commands_that_are_not_run_are_understood(where: str, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs, options, configs and their fields, extras, scripts and tests exist."""
    monkeypatch.chdir(REPOSITORY)
    extras = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for command in commands(block):
        if is_ours(command):
            arguments, overrides = _parser(command[1:]).parse_known_args(command[1:])
            assert not overrides or arguments.verb in ("train", "plan", "bench"), f"{where}: {overrides}"
            if arguments.verb in ("train", "plan"):
                override(load_config(arguments.config), overrides)
        elif "install" in command:
            named = re.findall(r"\[([\w,]+)\]", " ".join(command))
            assert {name for names in named for name in names.split(",")} <= extras.keys(), where
        elif Path(command[0]).name == "pytest":
            assert all(Path(word).exists() for word in command[1:] if word.startswith("tests/")), where
        else:
            scripts = [word for word in command if "/" in word and not word.startswith((".venv", "-"))]
            known = command[0] in ("python3", "python", "sbatch") or command[0].startswith((".ci/", "launch/"))
            assert known and all(Path(word).exists() for word in scripts), f"{where}: {shlex.join(command)}"


@pytest.mark.parametrize(("where", "block"), PYTHON, ids=[where for where, _ in PYTHON])
def test_python_runs(where: str, block: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "configs"), *sys.path])
    if not MARK.match(block):
        exec(compile(block, where, "exec"), {})


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if not link.startswith(("http://", "https://")):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_files_that_the_architecture_names_exist() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    roots = (REPOSITORY, REPOSITORY / "biomedclip_jax")
    named = re.findall(r"`((?:[\w.]+/)+[\w.]*)(?::[^`]*)?`", text)
    folders_of_runs = {"checkpoints/", "model/", "adapter/", "data/", "vision/", "text/", "unimed_clip/"}
    folders_of_runs |= {"tensorboard/", "wandb/", "profile/", "questions/", "answering/"}
    missing = [name for name in named if name not in folders_of_runs and not any((root / name).exists() for root in roots)]
    assert len(named) > 30 and missing == []


def test_the_front_page_is_short() -> None:
    lines = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 200
    assert [line for line in lines if len(line) >= 120 and not line.startswith(("|", "![", "python3 -m venv"))] == []


def test_pages_speak_of_nothing_that_their_reader_cannot_have() -> None:
    unknown = re.compile(r"shared[ ](facts|files|articles)|[.]{2}/shared|DESIGN[ ]section|house[ ]plan", re.I)
    assert [page.name for page in PAGES if unknown.search(page.read_text(encoding="utf-8"))] == []
