"""CheXpert's tables: GLoRIA's rule, the published list, policies for uncertain labels, and splits without shared patients."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from biomedclip_jax.data.benchmarks import NotOnDisk
from biomedclip_jax.data.benchmarks.chexpert import FIVE, chexpert_rows, read_chexpert
from biomedclip_jax.errors import UserError

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,"
    "Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
FINDINGS = HEADER.split(",")[5:]


def line(patient: int, split: str = "train", view: str = "Frontal", study: int = 1, **values: str) -> str:
    """A row, its findings by name with _ for a space; "" where nothing is said."""
    path = f"CheXpert-v1.0-small/{split}/patient{patient:05d}/study{study}/view1_{view.lower()}.jpg"
    found = ",".join(values.get(finding.replace(" ", "_"), "") for finding in FINDINGS)
    return f"{path},Female,68,{view},{'AP' if view == 'Frontal' else ''},{found}"


def only(label: int, **more: str) -> dict[str, str]:
    return {FIVE[label].replace(" ", "_"): "1.0"} | more


ROWS = [line(number, **only(number % 5)) for number in range(20)] + [
    line(3, study=2, **only(1, No_Finding="0.0")),  # of a patient above
    line(100, **only(0, Support_Devices="1.0")),
    line(101, view="Lateral", **only(0)),
    line(102, **only(0, Fracture="-1.0")),  # uncertain: of the five, one, if that counts as absent
    line(103, Edema="-1.0"),  # present, if that counts as present
    line(104, No_Finding="1.0"),
    line(105, **only(2, No_Finding="1.0")),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_table(tmp_path, "train.csv", ROWS)
    valid = [line(200 + number, "valid", **only(number)) for number in range(5)]
    write_table(tmp_path, "valid.csv", [text.replace(",,", ",0.0,").replace(",,", ",0.0,") for text in valid])
    return tmp_path


def write_table(folder: Path, name: str, rows: list[str]) -> Path:
    (folder / name).write_text("\n".join([HEADER, *rows]) + "\n")
    for text in rows:
        image = folder / text.partition(",")[0].partition("/")[2]
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(image)
    return folder


def read(folder: Path, split: str = "test", uncertain: str = "ignore", per_class: int = 2) -> Any:
    return read_chexpert("chexpert-5x200", folder, split, FIVE, uncertain=uncertain, per_class=per_class)


def patients(found: Any) -> list[str]:
    return [Path(name).parts[-3] for name in found.names]


def test_drawn_by_the_rule(folder: Path) -> None:
    """Two of each, always the same ones; what is left of other patients is for training."""
    test, train = read(folder), read(folder, "train")
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and test.names == read(folder).names
    expected = {path.split("/")[-3]: number % 5 for number, path in enumerate(ROWS[:20])}
    drawn = [(patient, label) for patient, label in zip(patients(test), test.labels, strict=True) if patient in expected]
    assert all(expected[patient] == label or (patient, label) == ("patient00003", 1) for patient, label in drawn)
    assert not {"patient00100", "patient00101", "patient00102", "patient00103", "patient00104"} & {
        *patients(test),
        *patients(train),
    }
    assert not {*patients(test)} & {*patients(train)} and len(train) > 5
    assert read(folder, "validation").labels.tolist() == [0, 1, 2, 3, 4]


def test_the_findings_in_another_order(folder: Path) -> None:
    order = ("Atelectasis", "Edema", "Cardiomegaly", "Pleural Effusion", "Consolidation")
    own, other = read(folder), read_chexpert("x", folder, "test", order, uncertain="ignore", per_class=2, findings=order)
    assert own.names == other.names and [FIVE[i] for i in own.labels] == [order[i] for i in other.labels]


def test_the_published_list_is_preferred(folder: Path) -> None:
    lines = [f",{HEADER},Report Impression"]
    lines += [f'{n},{line(n, **only(n % 5))},"\n1. no pneumothorax, {n}.\n"' for n in (19, 7)]
    (folder / "chexpert_5x200.csv").write_text("\n".join(lines) + "\n")
    found = read(folder, per_class=200)
    assert patients(found) == ["patient00019", "patient00007"] and found.labels.tolist() == [4, 2]
    assert len(read(folder, "train", per_class=200)) == 22 - 2
    (folder / "chexpert_5x200.csv").write_text("\n".join([HEADER, line(1)]))
    with pytest.raises(UserError, match="row 1: 0 of the five findings; expected one"):
        read(folder)


@pytest.mark.parametrize("before", ["CheXpert-v1.0/", "CheXpert-v1.0-small/", "", "/data/train/CheXpert-v1.0/", "a\\b\\"])
@pytest.mark.parametrize("name", ["chexpert-5x200.csv", "CheXpert_5x200.CSV", "chexpert-5x200-meta.csv", "my_5x200_list.csv"])
def test_lists_with_other_columns_and_prefixes(folder: Path, name: str, before: str) -> None:
    """imgpath for Path, and of the findings the five alone; a path may begin as the list's author had it."""
    rows = [line(n, **only(n % 5)).split(",")[0].partition("/")[2] for n in (19, 7)]
    lines = ["imgpath,Atelectasis,Cardiomegaly,Consolidation,Edema,Pleural Effusion,report"]
    lines += [f"{before}{rows[0]},0,0,0,0,1,ok", f"{before}{rows[1]},0.0,False,True,0,,ok"]
    (folder / name).write_text("\n".join(lines) + "\n")
    found = read(folder, per_class=200)
    assert patients(found) == ["patient00019", "patient00007"] and found.labels.tolist() == [4, 2]
    assert found.caveats == () and found.rejects == ()
    rows = {row.image: row for row in chexpert_rows(folder)}
    tested = {str(image): row.row["five"] for image, row in rows.items() if row.split == "test" and not row.skip}
    assert tested == {str(found.images[0]): "pleural effusion", str(found.images[1]): "consolidation"}


def test_lists_that_cannot_be_read(folder: Path) -> None:
    listed = folder / "chexpert-5x200.csv"
    listed.write_text("file,Atelectasis,Cardiomegaly,Consolidation,Edema,Pleural Effusion\nx,1,0,0,0,0\n")
    with pytest.raises(UserError, match=r"chexpert-5x200\.csv: no column 'Path' or 'imgpath'; there are 'file'"):
        read(folder)
    listed.rename(folder / "a_5x200.csv")
    (folder / "b_5x200.csv").write_text("x\n")
    with pytest.raises(UserError, match=r"a_5x200\.csv, b_5x200\.csv: which is the list of 5x200"):
        read(folder)


def test_our_own_draw_is_named(folder: Path) -> None:
    assert "not the published list" in read(folder).caveats[0] and read(folder, "train").caveats == ()


def test_an_image_that_is_listed_twice_counts_once(folder: Path) -> None:
    path = line(19, **only(4))
    (folder / "chexpert_5x200.csv").write_text("\n".join([HEADER, path, path, line(7, **only(2))]))
    found = read(folder)
    assert len(found) == 2 and [(each.row, each.reason) for each in found.rejects] == [("2", "listed twice")]


def test_uncertain_labels(folder: Path) -> None:
    def counts(uncertain: str) -> Counter[str]:
        return Counter(patients(read(folder, uncertain=uncertain)) + patients(read(folder, "train", uncertain)))

    assert not counts("ignore") & Counter(["patient00102", "patient00103"])
    assert "patient00102" in counts("zeros") and "patient00103" not in counts("zeros")
    assert "patient00103" in counts("ones") and "patient00102" not in counts("ones")
    with pytest.raises(UserError, match="uncertain = 'maybe'; expected one of ignore, zeros, ones"):
        read(folder, uncertain="maybe")


def test_the_folder_of_the_release_may_be_given_by_the_one_above(folder: Path) -> None:
    above = folder.parent / "above"
    above.mkdir()
    folder.rename(above / "CheXpert-v1.0-small")
    assert len(read(above)) == 10


def test_images_that_are_not_there_are_listed(folder: Path) -> None:
    gone = read(folder).images[0]
    Path(str(gone)).unlink()
    found = read(folder)
    assert len(found) == 9 and [r.image for r in found.rejects] == [str(gone)]


def test_wrong_layouts(folder: Path) -> None:
    with pytest.raises(UserError, match=r"train\.csv: 4 frontal images with Atelectasis alone, 200 needed"):
        read(folder, per_class=200)
    train = folder / "train.csv"
    content = train.read_text()
    for text, message in (
        (content.replace("Edema", "Oedema", 1), r"train\.csv: no column 'Edema'; there are .*did you mean 'Oedema'"),
        (content.replace(",1.0", ",yes", 1), r"train\.csv, row 1: .*'yes'; expected 1\.0, 0\.0, -1\.0 or nothing"),
    ):
        train.write_text(text)
        with pytest.raises(UserError, match=message) as caught:
            read(folder)
        assert "\n" not in str(caught.value)
    train.unlink()
    with pytest.raises(NotOnDisk, match=r"no train\.csv"):
        read(folder)
