"""CheXpert, as a choice among five findings: CheXpert 5x200, and images under the same rule to learn from.

`train.csv` and `valid.csv`: Path, Sex, Age, Frontal/Lateral, AP/PA and 14 findings, each 1.0 present, 0.0 absent, -1.0
uncertain or empty where the report says nothing. Paths begin with the release's name (CheXpert-v1.0,
CheXpert-v1.0-small ...). GLoRIA's rule for 5x200 is: frontal, exactly one of the five present, and every other finding
but "No Finding" absent, with empty read as absent; 200 images of each, drawn without a seed. The 1,000 images are in
lists that others published (`chexpert_5x200.csv`, `chexpert-5x200.csv`), whose paths are in a column Path or imgpath.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from biomedclip_jax.data._table_rows import Row, table_rows, text_of
from biomedclip_jax.data.benchmarks import check_split, existing
from biomedclip_jax.data.labelled.caption_table import LabelledRow
from biomedclip_jax.data.labelled.captions import packaged_captions
from biomedclip_jax.data.labelled.types import Labelled, existing_files, labelled_files
from biomedclip_jax.data.pairs import Reject
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
_PATHS = ("Path", "imgpath")  # what lists call the column of image files
_OURS = "drawn from train.csv with our seed, not the published list of 5x200: not to be compared with others' numbers"
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

    test: the published list, if a table called so (`*5x200*.csv`) is in `where`; else `per_class` images of each finding
    by GLoRIA's rule from train.csv with a fixed seed: not the same images, which `caveats` say.
    train: the other images of train.csv under that rule, of patients who are not in the test set. validation: of
    valid.csv.
    uncertain: what -1.0 counts as: "ignore" (such an image is not taken, GLoRIA's way), "zeros" absent, "ones"
    present. Images without a file are in `rejects`. UserError for missing tables and columns, and too few images.
    """
    check_split(name, split, ("train", "validation", "test"))
    if uncertain not in _UNCERTAIN:
        raise UserError(f"{name}: uncertain = {uncertain!r}; expected one of {', '.join(_UNCERTAIN)}")
    root = release_root(where)
    caveats: list[str] = []
    if split == "validation":
        chosen = list(_single(existing(root, "valid.csv"), _UNCERTAIN[uncertain]))
    else:
        listed = _published_list(where, root)
        table = existing(root, "train.csv") if listed is None or split == "train" else None
        pool = [] if table is None else list(_single(table, _UNCERTAIN[uncertain]))
        test = _listed(listed) if listed is not None else _drawn(root / "train.csv", pool, per_class)
        patients = {_patient_of(path) for path, _ in test}
        chosen = test if split == "test" else [each for each in pool if _patient_of(each[0]) not in patients]
        if split == "test" and listed is None:
            caveats.append(_OURS)
    rows: list[tuple[str, Path, int]] = []
    twice: list[Reject] = []
    seen: set[Path] = set()
    for number, (path, label) in enumerate(chosen, 1):
        image = root / inside_release(path)
        if image in seen:
            twice.append(Reject(str(number), str(image), "listed twice"))
        else:
            rows.append((str(number), image, findings.index(FIVE[label])))
        seen.add(image)
    found, missing = existing_files(rows)
    return labelled_files(name, classes, found, missing + twice, caveats)


def chexpert_rows(where: Path, per_class: int = 200) -> Iterator[LabelledRow]:
    """The frontal images of train.csv, 95 % of the patients for training and 5 % for validation, drawn with a fixed
    seed.

    test: those of CheXpert 5x200, as `read_chexpert` has them; the other images of their patients are left out.
    A column "five" says which of the five findings an image has, if it is the only one of them.
    """
    root = release_root(where)
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
        rows = table_rows(source, columns) if source == table else _rows_of_list(source)
        for _, row in rows:
            path = text_of(row["Path"])
            image, patient = root / inside_release(path), _patient_of(path)
            known = "test" if image in chosen else "validation" if patient in held_out else "train"
            if image in seen or (source == listed and image not in chosen):
                continue
            seen.add(image)
            frontal = source == listed or text_of(row["AP/PA"]) in ("AP", "PA")  # the list has no others
            skip = "" if frontal else "not frontal (AP/PA)"
            if not skip and known != "test" and patient in tested:
                skip = "of a patient of the test set"
            present = [finding for finding in FIVE if _is_present(row[finding])]
            five = chosen.get(image) or (present[0] if len(present) == 1 else "")
            told = {column: row.get(column, "") for column in columns}
            yield LabelledRow(image, {**told, "five": five.lower()}, known, skip)


def release_root(where: Path) -> Path:
    """The folder with train.csv or train/: `where`, or that of a release in it."""
    releases = (where, *sorted(where.glob(_RELEASES)))
    return next((each for each in releases if (each / "train").is_dir() or (each / "train.csv").is_file()), where)


def _published_list(where: Path, root: Path) -> Path | None:
    """The list of 5x200's images, if there is one. UserError for several of which none has a usual name."""
    for folder in (where, root):
        there = {path.name.lower(): path for path in sorted(folder.glob("*.[cC][sS][vV]")) if "5x200" in path.name.lower()}
        usual = next((there[name] for name in _LISTS if name in there), None)
        if usual is None and len(there) > 1:
            names = ", ".join(path.name for path in there.values())
            raise UserError(f"{folder}: {names}: which is the list of 5x200? Call it {_LISTS[0]}, or move the others")
        if there:
            return usual or next(iter(there.values()))
    return None


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
    for number, row in _rows_of_list(path):
        present = [label for label, finding in enumerate(FIVE) if _is_present(row[finding])]
        if len(present) != 1:
            raise UserError(
                f"{path}, row {number}: {len(present)} of the five findings; expected one: is it the list of 5x200?"
            )
        rows.append((text_of(row["Path"]), present[0]))
    return rows


def _rows_of_list(path: Path) -> Iterator[tuple[int, Row]]:
    """The rows of a published list, their image file as "Path", whatever the list calls it."""
    for number, row in table_rows(path, FIVE):
        column = next((name for name in _PATHS if name in row), None)
        if column is None:
            raise UserError(f"{path}: no column {' or '.join(map(repr, _PATHS))}; there are {', '.join(map(repr, row))}")
        if not text_of(row[column]):
            raise UserError(f"{path}, row {number}: {column} is empty; is it the list of 5x200?")
        yield number, {**row, "Path": row[column]}


def _is_present(value: object) -> bool:
    return text_of(value).lower() in ("1", "1.0", "true")


def inside_release(path: str) -> Path:
    """The path in the release's folder, whatever a table writes before it.

    CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg -> train/patient00001/...
    """
    parts = PurePosixPath(path.replace("\\", "/")).parts
    patient = next((number for number, part in enumerate(parts) if part.startswith("patient")), None)
    splits = [number for number, part in enumerate(parts[:patient]) if part in ("train", "valid", "test")]
    if splits:
        return Path(*parts[splits[-1] :])
    return Path("train", *parts[patient:]) if patient is not None else Path(*parts[1:])


def _patient_of(path: str) -> str:
    """CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg -> patient00001."""
    return next((part for part in PurePosixPath(path.replace("\\", "/")).parts if part.startswith("patient")), path)
