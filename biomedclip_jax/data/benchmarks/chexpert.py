"""CheXpert, as a choice among five findings: CheXpert 5x200, and images under the same rule to learn from.

`train.csv` and `valid.csv`: Path, Sex, Age, Frontal/Lateral, AP/PA and 14 findings, each 1.0 present, 0.0 absent, -1.0
uncertain or empty where the report says nothing. Paths begin with the release's name (CheXpert-v1.0,
CheXpert-v1.0-small ...). GLoRIA's rule for 5x200 is: frontal, exactly one of the five present, and every other finding
but "No Finding" absent, with empty read as absent; 200 images of each, drawn without a seed. The 1,000 images are in
published lists (`chexpert_5x200.csv`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from biomedclip_jax.data._table_rows import table_rows, text_of
from biomedclip_jax.data.benchmarks import check_split, existing
from biomedclip_jax.data.labelled.caption_table import LabelledRow
from biomedclip_jax.data.labelled.captions import packaged_captions
from biomedclip_jax.data.labelled.types import Labelled, existing_files, labelled_files
from biomedclip_jax.errors import UserError

FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
_OTHERS = (
    "Enlarged Cardiomediastinum",
    "Lung Lesion",
    "Lung Opacity",
    "Pneumonia",
    "Pneumothorax",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
_LISTS = ("chexpert_5x200.csv", "chexpert-5x200.csv", "chexpert-5x200-meta.csv")
_RELEASES = "CheXpert-v1.0*"
_HELD_OUT = 0.05  # of the patients for validation: the share in CLEFT, whose lists were not published
_UNCERTAIN = {"ignore": -1.0, "zeros": 0.0, "ones": 1.0}


def read_chexpert(
    name: str,
    where: Path,
    split: str,
    classes: Sequence[str],
    uncertain: str,
    per_class: int = 200,
    findings: Sequence[str] = FIVE,
) -> Labelled:
    """A split; labels are class indices in `findings`, which are the five in any order.

    test: the published list, if one of `chexpert_5x200.csv`, `chexpert-5x200.csv`, `chexpert-5x200-meta.csv` is in
    `where`;
        else `per_class` images of each finding by GLoRIA's rule from train.csv with a fixed seed: not the same images.
    train: the other images of train.csv under that rule, of patients who are not in the test set. validation: of
    valid.csv.
    uncertain: what -1.0 counts as: "ignore" (such an image is not taken, GLoRIA's way), "zeros" absent, "ones"
    present. Images without a file are in `rejects`. UserError for missing tables and columns, and too few images.
    """
    check_split(name, split, ("train", "validation", "test"))
    if uncertain not in _UNCERTAIN:
        raise UserError(f"{name}: uncertain = {uncertain!r}; expected one of {', '.join(_UNCERTAIN)}")
    root = _release_root(where)
    if split == "validation":
        chosen = list(_single(existing(root, "valid.csv"), _UNCERTAIN[uncertain]))
    else:
        listed = _published_list(where, root)
        table = existing(root, "train.csv") if listed is None or split == "train" else None
        pool = [] if table is None else list(_single(table, _UNCERTAIN[uncertain]))
        test = _listed(listed) if listed is not None else _drawn(root / "train.csv", pool, per_class)
        patients = {_patient_of(path) for path, _ in test}
        chosen = test if split == "test" else [each for each in pool if _patient_of(each[0]) not in patients]
    rows = ((root / _inside_release(path), findings.index(FIVE[label])) for path, label in chosen)
    return labelled_files(name, classes, *existing_files((str(number), *row) for number, row in enumerate(rows, 1)))


def chexpert_rows(where: Path, per_class: int = 200) -> Iterator[LabelledRow]:
    """The frontal images of train.csv, 95 % of the patients for training and 5 % for validation, drawn with a fixed
    seed.

    test: those of CheXpert 5x200, as `read_chexpert` has them; the other images of their patients are left out.
    A column "five" says which of the five findings an image has, if it is the only one of them.
    """
    root = _release_root(where)
    columns = ("Path", "AP/PA", *packaged_captions("chexpert").style("default").columns)
    test = read_chexpert("chexpert", where, "test", FIVE, "ignore", per_class)
    chosen = {Path(str(image)): FIVE[label] for image, label in zip(test.images, test.labels, strict=True)}
    tested = {_patient_of(str(image.relative_to(root))) for image in chosen}
    table = existing(root, "train.csv")
    patients = sorted({_patient_of(text_of(row["Path"])) for _, row in table_rows(table, ["Path"])} - tested)
    order = np.random.default_rng(0).permutation(len(patients))
    held_out = {patients[i] for i in order[: round(_HELD_OUT * len(patients))]}
    seen: set[Path] = set()
    listed = _published_list(where, root)
    for source in (table, *([listed] if listed is not None else [])):  # published lists may hold images of another table
        for _, row in table_rows(source, columns):
            path = text_of(row["Path"])
            image, patient = root / _inside_release(path), _patient_of(path)
            known = "test" if image in chosen else "validation" if patient in held_out else "train"
            if image in seen or (source == listed and image not in chosen):
                continue
            seen.add(image)
            skip = "" if text_of(row["AP/PA"]) in ("AP", "PA") else "not frontal (AP/PA)"
            if not skip and known != "test" and patient in tested:
                skip = "of a patient of the test set"
            present = [finding for finding in FIVE if text_of(row[finding]) in ("1", "1.0")]
            five = chosen.get(image) or (present[0] if len(present) == 1 else "")
            yield LabelledRow(image, {**row, "five": five.lower()}, known, skip)


def _release_root(where: Path) -> Path:
    """The folder with train.csv or train/: `where`, or that of a release in it."""
    releases = (where, *sorted(where.glob(_RELEASES)))
    return next((each for each in releases if (each / "train").is_dir() or (each / "train.csv").is_file()), where)


def _published_list(where: Path, root: Path) -> Path | None:
    """The list of 5x200's images, if there is one."""
    return next((folder / file for folder in (where, root) for file in _LISTS if (folder / file).is_file()), None)


def _single(path: Path, uncertain: float) -> Iterator[tuple[str, int]]:
    """(Path, position in `FIVE`) of the rows that fulfil GLoRIA's rule."""
    for number, row in table_rows(path, ["Path", "Frontal/Lateral", *FIVE, *_OTHERS]):
        if row["Frontal/Lateral"] != "Frontal":
            continue
        try:
            values = np.array([float(text_of(row[finding]) or 0) for finding in (*FIVE, *_OTHERS)])
        except ValueError as error:
            raise UserError(f"{path}, row {number}: {error}; expected 1.0, 0.0, -1.0 or nothing for each finding") from None
        values[values == -1.0] = uncertain
        if (values != 0).sum() == 1 and (values[: len(FIVE)] == 1).any():
            yield text_of(row["Path"]), int(values.argmax())


def _drawn(table: Path, pool: Sequence[tuple[str, int]], per_class: int) -> list[tuple[str, int]]:
    generator = np.random.default_rng(0)
    chosen: list[tuple[str, int]] = []
    for label, finding in enumerate(FIVE):
        own = [each for each in pool if each[1] == label]
        if len(own) < per_class:
            raise UserError(
                f"{table}: {len(own)} frontal images with {finding} alone, {per_class} needed; is it the whole train.csv?"
            )
        chosen += [own[i] for i in np.sort(generator.choice(len(own), per_class, replace=False))]
    return chosen


def _listed(path: Path) -> list[tuple[str, int]]:
    rows: list[tuple[str, int]] = []
    for number, row in table_rows(path, ["Path", *FIVE]):
        present = [label for label, finding in enumerate(FIVE) if text_of(row[finding]) in ("1.0", "1")]
        if len(present) != 1:
            raise UserError(
                f"{path}, row {number}: {len(present)} of the five findings; expected one: is it the list of 5x200?"
            )
        rows.append((text_of(row["Path"]), present[0]))
    return rows


def _inside_release(path: str) -> Path:
    """CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg -> train/patient00001/..."""
    parts = Path(path).parts
    first = next((number for number, part in enumerate(parts) if part in ("train", "valid")), 1)
    return Path(*parts[first:])


def _patient_of(path: str) -> str:
    """CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg -> patient00001."""
    return next((part for part in Path(path).parts if part.startswith("patient")), path)
