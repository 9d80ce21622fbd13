"""A demo as a source: its data are made in the folder that is given, once."""

from pathlib import Path

import pytest

from biomedclip_jax.data.demo import sources
from biomedclip_jax.data.demo.sources import demo_path, make_demo_of
from biomedclip_jax.errors import UserError


def test_names_stand_for_files_in_the_folder(tmp_path: Path) -> None:
    for source, path in (
        ("demo:quickstart:train", "data/train.csv"),
        ("demo:quickstart:held_out", "data/held_out.csv"),
        ("demo:quickstart", "data/tokenizer"),
        ("demo:causal:train", "data/train.csv"),
        ("demo:causal", "words"),
        ("demo:vqa:train", "questions/train.csv"),
        ("demo:vqa:held_out", "questions/held_out.csv"),
        ("demo:vqa", "questions/tokenizer"),
    ):
        assert demo_path(source, tmp_path) == str(tmp_path / path)
    assert demo_path("pairs.csv:train", tmp_path) == "pairs.csv:train"


def test_only_a_demo_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.setitem(sources._DEMOS, "causal", sources._Demo(made.append, "words"))
    make_demo_of("hf-hub:org/name", tmp_path)
    make_demo_of("pairs.csv", tmp_path)
    assert made == []
    make_demo_of("demo:causal", tmp_path)
    assert made == [tmp_path]


@pytest.mark.parametrize(
    "source", ["demo:", "demo:nothing", "demo:quickstart:test", "demo:quickstart:train:x", "demo:vqa:nonsense"]
)
def test_what_is_no_demo(source: str, tmp_path: Path) -> None:
    for use in (make_demo_of, demo_path):
        with pytest.raises(UserError, match=f"^{source}: no such demo; expected demo:quickstart or demo:causal or demo:vqa "):
            use(source, tmp_path)
