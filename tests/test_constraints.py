"""The tested versions: what `.ci/constraints` writes and says, and that constraints.txt can be installed elsewhere."""

import re
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LINE = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """.ci/constraints as a module that works on a file of its own."""
    loader = SourceFileLoader("constraints", str(REPOSITORY / ".ci" / "constraints"))
    spec = spec_from_loader("constraints", loader)
    assert spec is not None
    module = module_from_spec(spec)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setattr(module, "FILE", tmp_path / "constraints.txt")
    return module


def lines_of(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def test_made_from_an_environment_it_fits_it(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["constraints", "--update"])
    assert script.main() == 0
    names = [line.partition("==")[0] for line in lines_of(script.FILE)]
    assert {"jax", "flax", "numpy", "pytest"} <= set(names) and names == sorted(set(names))
    assert not {"biomedclip-jax", "pip", "setuptools"} & set(names)
    monkeypatch.setattr("sys.argv", ["constraints"])
    assert script.main() == 0
    assert f"all {len(names)} versions fit" in capsys.readouterr().out


def test_what_differs_is_one_line(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "installed", lambda: {"jax": "1.2", "new": "3", "torch": "2.13.0"})
    monkeypatch.setattr("sys.argv", ["constraints"])
    script.FILE.write_text("# made by hand\nJAX==1.1\ntorch==2.13.0\ngone==1\n")
    said = script.main()
    assert said.startswith("constraints.txt does not fit this environment: jax is 1.2, not 1.1; new 3 is not in it.")
    assert "\n" not in said and "--update" in said
    script.FILE.unlink()
    assert "torch 2.13.0 is not in it" in script.main()


def test_local_builds_and_accelerators_are_left_out(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        def __init__(self, name: str, version: str) -> None:
            self.metadata, self.version = {"Name": name}, version

    names = {"torch": "2.13.0+cpu", "nvidia-cublas-cu12": "12.1", "libtpu": "0.1", "Open_Clip.torch": "3"}
    names["biomedclip_jax"] = "1"
    monkeypatch.setattr(script, "distributions", lambda: [Package(*item) for item in names.items()])
    assert script.installed() == {"open-clip-torch": "3", "torch": "2.13.0"}


def test_the_file_can_be_installed_elsewhere() -> None:
    lines = lines_of(REPOSITORY / "constraints.txt")
    assert len(lines) > 100
    assert [line for line in lines if not LINE.fullmatch(line)] == [], "a local version, a path or a marker"
