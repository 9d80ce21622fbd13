"""Tables whose images may have several findings: names in one column, a column for each, and what is said of the rest."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from biomedclip_jax.data.labelled.multi_label import Policy, answers_fingerprint
from biomedclip_jax.data.labelled.multi_label_table import Declared, open_multi_label_table
from biomedclip_jax.data.sources import open_labelled
from biomedclip_jax.errors import UserError

NAMES = Declared()
COLUMNS = Declared(columns=("Edema", "Mass", "No Finding"))


def table(folder: Path, rows: list[str], header: str = "image,label", files: int = 12) -> Path:
    for number in range(files):
        (folder / f"{number}.png").touch()
    path = folder / "t.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def read(path: Path, declared: Declared = NAMES, split: str = "test", **options: Any) -> Any:
    return open_multi_label_table(str(path), split, "image", declared, **options)


def reasons(data: Any) -> list[tuple[str, str]]:
    return [(reject.row, reject.reason) for reject in data.rejects]


# --- names in one column ----------------------------------------------------------------------------------------------


def test_names_joined_by_a_sign(tmp_path: Path) -> None:
    path = table(tmp_path, ["0.png,Edema|Mass", "1.png,No Finding", "2.png,Mass | Nodule|", "3.png,", "4.png,Mass|No Finding"])
    data = read(path)
    assert data.findings == ("Edema", "Mass", "Nodule")
    assert data.labels.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 1]] and data.answers.tolist() == data.labels.tolist()
    assert reasons(data) == [("4", "label is empty"), ("5", "says both 'No Finding' and 'Mass'")]
    assert data.policy_said == [] and data.names == [str(tmp_path / f"{n}.png") for n in range(3)]
    none = read(path, Declared(policy=Policy(empty="negative")))
    assert none.labels[3].tolist() == [0, 0, 0] and len(none.rejects) == 1


@pytest.mark.parametrize("separator", [";", ",", "/", " and "])
def test_another_sign(tmp_path: Path, separator: str) -> None:
    path = table(tmp_path, [f'0.png,"Edema{separator}Mass"', "1.png,Edema", "2.png,Mass", "3.png,no_finding"])
    assert read(path, Declared(separator=separator)).labels.tolist() == [[1, 1], [1, 0], [0, 1], [0, 0]]
    if separator != " and ":
        with pytest.raises(UserError, match="seems to be several names, joined by another sign than"):
            read(path)


def test_names_with_signs_that_join_nothing(tmp_path: Path) -> None:
    """Beside |, a comma or a stroke in a name of its own is part of the name."""
    path = table(tmp_path, ['0.png,"Mass, calcified|COPD/emphysema"', "1.png,Mass"])
    assert read(path).findings == ("COPD/emphysema", "Mass", "Mass, calcified")


def test_lists(tmp_path: Path) -> None:
    """As JSON has them, and as texts of Python's lists in a CSV; an empty list says that there is no finding."""
    rows = [["Edema", "Mass"], [], ["Mass", "Mass", ""], "Edema|Mass", [["Edema"]], None, "['Edema', 'Mass']"]
    path = tmp_path / "t.jsonl"
    table(tmp_path, [])
    path.write_text("".join(json.dumps({"image": f"{i}.png", "label": own}) + "\n" for i, own in enumerate(rows)))
    data = read(path)
    assert data.labels.tolist() == [[1, 1], [0, 0], [0, 1], [1, 1], [1, 1]]
    assert [row for row, _ in reasons(data)] == ["5", "6"]
    texts = ["['Edema', 'Mass']", "[]", "['Mass']", "['Edema' 'Mass']", "['Mass", "['Edema', nan]"]
    data = read(table(tmp_path, [f'{i}.png,"{text}"' for i, text in enumerate(texts)]))
    assert data.labels.tolist() == [[1, 1], [0, 0], [0, 1]]
    # the fourth is as NumPy prints lists: Python would read one name, 'EdemaMass'
    assert [(row, reason[:28]) for row, reason in reasons(data)] == [(n, 'label is no list of names ("') for n in "456"]


def test_rows_of_one_image(tmp_path: Path) -> None:
    """A row for each finding, as tables with boxes are written: their names are taken together, and that is said."""
    path = table(
        tmp_path, ["0.png,Mass", "0.png,Edema", "1.png,Mass", "1.png,Mass", "2.png,Mass", "2.png,No Finding", "9x.png,Mass"]
    )
    data = read(path)
    assert data.labels.tolist() == [[1, 1], [0, 1]]
    assert data.caveats == ("2 images have several rows, whose findings were taken together",)
    other = "the image has other labels in another row"
    assert reasons(data) == [("5", other), ("6", other), ("7", "image file is not there")]
    codes = table(tmp_path, ["0.png,1,0", "0.png,1,0", "1.png,1,0", "1.png,1,1"], "image,Edema,Mass")
    data = read(codes, Declared(columns=("Edema", "Mass")))
    assert data.labels.tolist() == [[1, 0]]
    assert reasons(data) == [("2", "the same row once more"), ("3", other), ("4", other)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0.png,Mass|mass"], "'Mass' and 'mass' differ in case or _ alone"),
        (["0.png,Pleural_Thickening", "1.png,Pleural Thickening"], "differ in case or _ alone"),
        (["0.png,1|01"], "are the same number"),
        (["0.png,No Finding"], "no finding in 1 rows"),
        (["0.png,"], "no finding in 0 rows, 1 left out; the first: .*label is empty"),
        (["9x.png,Mass"], "no usable image, 1 left out; the first: .*image file is not there"),
    ],
)
def test_names_that_cannot_be_used(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(table(tmp_path, rows))


# --- a column for each ------------------------------------------------------------------------------------------------


def test_columns_of_codes(tmp_path: Path) -> None:
    rows = [
        "0.png,1.0,0.0,",
        "1.png,-1,1,0",
        "2.png,,,1.0",
        "3.png,,1,",
        "4.png,,,",
        "5.png,yes,0,",
        "6.png,1,,1",
        "7.png,0.5,1,",
    ]
    path = table(tmp_path, rows, "image,Edema,Mass,No Finding")
    data = read(path, COLUMNS)
    assert data.findings == ("Edema", "Mass")
    assert data.labels.tolist() == [[1, 0], [-1, 1], [0, 0], [-2, 1]]
    assert data.answers.tolist() == [[1, 0], [-1, 1], [0, 0], [-1, 1]]
    assert reasons(data) == [
        ("6", "Edema holds 'yes'; expected 1, 0, -1 or nothing"),
        ("7", "says both 'No Finding' and 'Edema'"),
        ("8", "Edema holds '0.5'; expected 1, 0, -1 or nothing"),
        ("5", "says nothing of any finding"),
    ]
    assert data.policy_said == ["1 of 8 are uncertain labels, left out", "1 of 8 are empty labels, left out"]


@pytest.mark.parametrize(
    ("policy", "answers"),
    [
        (Policy("positive"), [[1, 0], [1, 1], [0, 0], [-1, 1]]),
        (Policy("negative", "negative"), [[1, 0], [0, 1], [0, 0], [0, 1], [0, 0]]),
    ],
)
def test_policies(tmp_path: Path, policy: Policy, answers: list[list[int]]) -> None:
    rows = ["0.png,1.0,0.0,", "1.png,-1.0,1.0,", "2.png,,,1.0", "3.png,,1.0,", "4.png,,,"]
    path = table(tmp_path, rows, "image,Edema,Mass,No Finding")
    data = read(path, Declared(columns=COLUMNS.columns, policy=policy))
    assert data.answers.tolist() == answers
    assert f"1 of {data.labels.size} are uncertain labels, counted as {policy.uncertain}" in data.policy_said
    plain = read(path, COLUMNS)
    assert answers_fingerprint(data) != answers_fingerprint(plain)


def test_typed_columns(tmp_path: Path) -> None:
    table(tmp_path, [])
    cells = [(True, 0), (False, 1.0), (None, -1), (float("nan"), 1)]
    lines = [{"image": f"{n}.png", "Edema": edema, "Mass": mass} for n, (edema, mass) in enumerate(cells)]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    data = read(path, Declared(columns=("Edema", "Mass")))
    assert data.labels.tolist() == [[1, 0], [0, 1], [-2, 1]] and data.rejects[0].reason == "says nothing of any finding"


def test_a_tube_is_no_disease(tmp_path: Path) -> None:
    """CheXpert's labeller says "No Finding" of images with devices."""
    path = table(tmp_path, ["0.png,1,,1", "1.png,,1,"], "image,Support Devices,Mass,No Finding")
    assert read(path, Declared(columns=("Support Devices", "Mass", "No Finding"))).labels.tolist() == [[1, 0], [-2, 1]]


# --- splits, sources, subsets -----------------------------------------------------------------------------------------


def test_splits(tmp_path: Path) -> None:
    rows = ["0.png,Edema|Mass,train", "1.png,Mass,test", "2.png,Mass,val", "3.png,Mass,fold", "4.png,Nodule,training"]
    path = table(tmp_path, rows, "image,label,split")
    test = read(path)
    assert test.findings == ("Edema", "Mass", "Nodule") and test.labels.tolist() == [[0, 1, 0]]
    assert reasons(test) == [("4", "split 'fold' is none of train, validation and test")]
    assert len(read(path, split="train")) == 2 == len(open_multi_label_table(f"{path}:train", "test", "image", NAMES))
    with pytest.raises(UserError, match="unknown finding 'Edema'; expected some of Mass, Nodule"):
        read(path, findings=("Mass", "Nodule"))
    whole = table(tmp_path, ["0.png,Edema"])
    with pytest.raises(UserError, match="has no splits"):
        read(whole, split="train")
    with pytest.raises(UserError, match="several labels an image are read from tables"):
        open_multi_label_table(str(tmp_path), "test", "image", NAMES)


def test_a_subset(tmp_path: Path) -> None:
    data = read(table(tmp_path, ["0.png,Edema", "1.png,Mass", "9x.png,Mass"]))
    part = data.subset(np.array([1]))
    assert part.labels.tolist() == [[0, 1]] and part.names == data.names[1:] and part.rejects == ()
    assert part.fingerprint != data.fingerprint and answers_fingerprint(part) != answers_fingerprint(data)


# --- several labels that nobody declared ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "wrong"),
    [
        (["Effusion|Mass", "Mass"], "Effusion|Mass"),
        (["edema", "mass", "Edema; Mass"], "Edema; Mass"),
        (["edema", "mass", "edema, mass"], "edema, mass"),
        (["edema", "mass", "edema/mass"], "edema/mass"),
        (["edema", "mass", "edema and mass"], "edema and mass"),
        (["a;b", "b;a", "c"], "a;b"),
        (["a", "a;b", "c;b"], "a;b"),
        (["No Finding", "a;b", "c;b", "a"], "a;b"),
        (["['a', 'b']", "['a']"], "['a', 'b']"),
        (["A/B", "C/D", "normal"], None),
        (["lung, left", "lung, right", "kidney, left", "kidney, right"], None),
        (["COVID-19, severe", "COVID-19", "normal"], None),
        (["tumor", "tumor [unclear]", "normal"], None),
        (["lung_aca", "lung_n", "lung_scc"], None),
    ],
)
def test_labels_that_name_several_are_an_error(tmp_path: Path, labels: list[str], wrong: str | None) -> None:
    path = table(tmp_path, [f'{number}.png,"{label}"' for number, label in enumerate(labels)])
    if wrong is None:
        assert open_labelled(str(path)).classes == tuple(sorted(labels))
        return
    with pytest.raises(UserError, match=r"names several classes.*--multi-label.*--separator") as caught:
        open_labelled(str(path))
    assert wrong in str(caught.value) and "\n" not in str(caught.value)


def test_a_thousand_combinations_are_still_combinations(tmp_path: Path) -> None:
    rows = [f"0.png,f{a}|f{b}|f{c}" for a in range(12) for b in range(12) for c in range(12)]
    with pytest.raises(UserError, match="names several classes"):
        open_labelled(str(table(tmp_path, rows)))


def test_many_images_with_rows_of_several_labels_are_an_error(tmp_path: Path) -> None:
    """A row for each finding; one or two such images are mistakes, and left out."""
    rows = [f"{number}.png,{name}" for number in range(12) for name in ("Edema", "Mass")]
    with pytest.raises(
        UserError, match=r"'Edema and Mass' \(of 12 images, in rows of their own\) names several.*--multi-label"
    ):
        open_labelled(str(table(tmp_path, rows)))
    assert len(open_labelled(str(table(tmp_path, [*rows[:2], *rows[2::2]])))) == 11


def test_several_labels_to_learn_from_are_an_error(tmp_path: Path) -> None:
    """Also where the classes are those of the test data."""
    path = table(tmp_path, ["0.png,Edema;Mass", "1.png,Mass"])
    with pytest.raises(UserError, match="'Edema;Mass' names several classes"):
        open_labelled(str(path), classes=("Edema", "Mass"))


def test_a_list_of_labels_is_an_error(tmp_path: Path) -> None:
    table(tmp_path, [])
    path = tmp_path / "t.jsonl"
    path.write_text('{"image": "0.png", "label": ["a"]}\n{"image": "1.png", "label": ["a", "b"]}\n')
    with pytest.raises(UserError, match=r"row 2: label \['a', 'b'\] names several classes.*--multi-label"):
        open_labelled(str(path))
