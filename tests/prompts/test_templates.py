"""Prompts from a YAML file: what a user may write, and what is said when it does not fit the data."""

import sys
from pathlib import Path

import pytest

from biomedclip_jax.errors import UserError
from biomedclip_jax.prompts.templates import Prompts, label_sentences, read_prompts, write_prompts

CLASSES = ("lung_aca", "lung_n")


def written(folder: Path, text: str) -> Path:
    path = folder / "prompts.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_phrases_and_sentences(tmp_path: Path) -> None:
    text = """
templates: ["a photo of {}", "{} in µ"]
classes:
  lung_n: [healthy, "a lung {} in"]   # the order is the data's, not the file's
  lung_aca: lung adenocarcinoma
"""
    assert read_prompts(written(tmp_path, text), CLASSES).sentences == (
        ("a photo of lung adenocarcinoma", "lung adenocarcinoma in µ"),
        ("healthy", "a lung {} in"),
    )


def test_defaults(tmp_path: Path) -> None:
    """Words of the name, in the paper's templates."""
    expected = (("a photo of lung aca", "lung aca presented in image"), ("a photo of lung n", "lung n presented in image"))
    assert Prompts.default(CLASSES).sentences == expected
    only = read_prompts(written(tmp_path, "templates: ['x-ray: {}']"), CLASSES)
    assert only.sentences == (("x-ray: lung aca",), ("x-ray: lung n",))
    words = read_prompts(written(tmp_path, "classes: {lung_aca: a, lung_n: b}"), CLASSES)
    assert words.sentences[1] == ("a photo of b", "b presented in image")
    assert read_prompts(written(tmp_path, "classes: {0: a, 1: b}"), ("0", "1")).sentences[0][0] == "a photo of a"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "p.yaml"
    names = ("no", "a: b", "c_d", "\u2265 3", "7")
    write_prompts(path, names)
    assert read_prompts(path, names) == Prompts.default(names)
    assert path.read_text().startswith("# templates: sentences with {}")
    whole = Prompts(tuple((f"sentence {n}", "and: {} # more") for n in names))
    write_prompts(path, names, prompts=whole)
    assert read_prompts(path, names) == whole
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_prompts(tmp_path / "file" / "p.yaml", names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: {lung_aca: a}", "class 'lung_n': missing; expected words for each class"),
        (
            "classes: {lung_aca: a, lung_n: b, lung_m: c}",
            "unknown class 'lung_m'; did you mean 'lung_n'?; expected 'lung_aca', 'lung_n'",
        ),
        ("classes: {lung_aca: a, lung_n: }", "class 'lung_n': None is neither a phrase nor a list of sentences"),
        ("classes: {lung_aca: a, lung_n: []}", "class 'lung_n': [] is neither"),
        ("classes: {lung_aca: a, lung_n: [b, 3]}", "class 'lung_n': ['b', 3] is neither"),
        ("classes: {lung_aca: a, no: b}", "reads as true, false or nothing (False); put it in quotes"),
        ("classes: [a, b]", "classes: expected a line 'name: phrase' for each, found list"),
        ("templates: ['a photo']", "template 'a photo': expected {} where the class goes"),
        ("templates: a photo of {}", "templates: expected a list of sentences"),
        ("templates: []", "templates: expected a list of sentences"),
        ("template: ['{}']", "expected the keys 'templates' and 'classes', found 'template'"),
        ("", "expected the keys 'templates' and 'classes', found NoneType"),
        ("templates: [{} is this]", "line 1: not YAML"),
        ("classes:\n  a: b: c", "line 2: not YAML"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_prompts(path, CLASSES)
    assert str(caught.value).startswith(str(path)) and message in str(caught.value) and "\n" not in str(caught.value)


def test_no_file_and_no_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read \(No such file or directory\)"):
        read_prompts(tmp_path / "none.yaml", CLASSES)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UserError, match=r"needs pyyaml: pip install 'biomedclip_jax\[evaluate\]'"):
        read_prompts(written(tmp_path, "templates: ['{}']"), CLASSES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes:\n  lung_n: a\n  lung_aca: b\n  lung_n: c\n", "line 4: the key 'lung_n' is there twice; leave one"),
        ("templates: ['a {}']\ntemplates: ['b {}']\n", "line 2: the key 'templates' is there twice"),
    ],
)
def test_keys_that_are_there_twice(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_prompts(written(tmp_path, text), CLASSES)


def test_truth_values_are_no_words() -> None:
    """As pandas and JSON write a column of yes and no."""
    with pytest.raises(UserError, match="labels: 'True' is no name of a class in words; expected words"):
        label_sentences(["True", "False"])
