"""Histology in folders of patches: LC25000 and TCGA-TIL.

LC25000: five folders of 5,000 JPEGs, 768 x 768, made of 1,250 originals by rotating and flipping; all of it is "test",
as in BiomedCLIP. Which images come of one original was found out later: LC25000-clean (Batchkala, Li and Rittscher,
DEMI 2024) publishes it as `lc25000_image_groups.csv`. Where that table lies beside the images, they have these groups.

TCGA-TIL: patches with and without tumour-infiltrating lymphocytes. BiomedCLIP's own test set (2,480 patches, 5.9 %
positive) was not published. Layouts read here: that of Zenodo record 6604094,
`[TCGA-TILs/]images-tcga-tils/luad/test/til-{negative,positive}`; folders none and til, perhaps below train/ and test/;
a table `labels.csv` with the columns path and label (0 or none, 1 or til).
"""

import os
from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.data._table_rows import absent, image_file, table_rows, text_of
from biomedclip_jax.data.benchmarks import NotOnDisk, check_split
from biomedclip_jax.data.images.search import images_in
from biomedclip_jax.data.labelled.captions import code_of
from biomedclip_jax.data.labelled.groups import grouped
from biomedclip_jax.data.labelled.types import Labelled, existing_files, labelled_files
from biomedclip_jax.data.names import names_of, no_known_split
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.errors import UserError

_TABLE = "labels.csv"
_GROUPS = "lc25000_image_groups.csv"
_NEGATIVE, _POSITIVE = ("none", "til-negative", "0"), ("til", "til-positive", "1")
_RELEASES = ("TCGA-TILs/images-tcga-tils", "images-tcga-tils", ".")
_NOT_THEIRS = "BiomedCLIP's own test set of 2,480 patches was not published: not to be compared with its numbers"
_FOLDERS = {"lung": ("lung_aca", "lung_n", "lung_scc"), "colon": ("colon_aca", "colon_n")}


def read_lc25000(name: str, where: Path, split: str, classes: Sequence[str], organ: str) -> Labelled:
    """All LC25000 images of an organ ("lung" or "colon"); `split` must be "test". NotOnDisk for a missing class
    folder. Files that are no images are in `rejects`.
    """
    check_split(name, split, ("test",))
    roots = [where / "lung_colon_image_set" / f"{organ}_image_sets", where / f"{organ}_image_sets", where]
    folders = _FOLDERS[organ]
    root = next((root for root in roots if any((root / folder).is_dir() for folder in folders)), roots[0])
    for folder in folders:
        if not (root / folder).is_dir():
            raise NotOnDisk(f"{root}: no folder {folder}")
    found, rejects = _in_folders([root / folder for folder in folders])
    data = labelled_files(name, classes, found, rejects)
    table = next((each / _GROUPS for each in (where, root, root.parent) if (each / _GROUPS).is_file()), None)
    if table is None:
        return data
    groups = {text_of(row["stem"]): text_of(row["group_id"]) or None for _, row in table_rows(table, ["stem", "group_id"])}
    own = [groups.get(path.stem) for path, _ in found]
    if not any(own):
        raise UserError(
            f"{table}: its stems are of none of the images in {root}; take it away, or bring the one that fits them"
        )
    return grouped(data, own, "originals, LC25000-clean")


def _in_folders(folders: Sequence[Path]) -> tuple[list[tuple[Path, int]], list[Reject]]:
    """The images of each class's folder, and its files that are no images."""
    found: list[tuple[Path, int]] = []
    rejects: list[Reject] = []
    for label, folder in enumerate(folders):
        others: list[Path] = []
        found += [(path, label) for path in sorted(images_in(folder, others.append))]
        rejects += [Reject("", str(path), "no image") for path in sorted(others)]
        if not found or found[-1][1] != label:
            raise UserError(f"{folder}: no image in this folder or below it; unpack it again")
    return found, rejects


def read_tcga_til(name: str, where: Path, split: str, classes: Sequence[str], cancer: str) -> Labelled:
    """A split of TCGA-TIL. cancer: the study of the Zenodo release that is read ("luad"). UserError for any other
    layout.
    """
    if where.suffix.lower() == ".csv" or (where / _TABLE).is_file():
        return _table(name, where if where.suffix.lower() == ".csv" else where / _TABLE, split, classes)
    roots = [where / release / cancer / own for release in _RELEASES for own in names_of(split)]
    roots += [where / own for own in names_of(split)]
    if split == "test":
        roots.append(where)
    for root in roots:
        folders = [next((root / own for own in names if (root / own).is_dir()), None) for names in (_NEGATIVE, _POSITIVE)]
        if all(folders):
            found, rejects = _in_folders([folder for folder in folders if folder is not None])
            inside = {path for path, _ in found}
            outside = sorted(path for path in images_in(root) if path not in inside)
            rejects += [Reject("", str(path), "lies outside the folders of the classes") for path in outside]
            return labelled_files(name, classes, found, rejects, [_NOT_THEIRS])
    raise NotOnDisk(
        f"{where}: neither {_TABLE} nor folders none and til (or til-negative and til-positive) for split {split!r}"
    )


def _table(name: str, path: Path, split: str, classes: Sequence[str]) -> Labelled:
    rows: list[tuple[str, Path, int]] = []
    rejects: list[Reject] = []
    listed: set[Path] = set()
    for number, row in table_rows(path, ["path", "label"], ["split"], rejects):
        label, own, image = _label(row["label"]), text_of(row.get("split")) or "test", image_file(path, row, "path")
        listed.add(Path(os.path.normpath(image)))
        if own.lower() not in names_of(split):
            if (reason := no_known_split(own, split)) is not None:
                rejects.append(Reject(str(number), str(image), reason))
        elif not label:
            rejects.append(Reject(str(number), str(image), absent("label", row["label"])))
        elif label not in _NEGATIVE + _POSITIVE:
            raise UserError(f"{path}, row {number}: label {label!r}; expected 0 or none, 1 or til")
        else:
            rows.append((str(number), image, int(label in _POSITIVE)))
    found, missing = existing_files(rows)
    others = sorted({Path(os.path.normpath(each)) for each in images_in(path.parent)} - listed) if split == "test" else []
    rejects += [Reject("", str(image), f"not in {path.name}") for image in others]
    return labelled_files(name, classes, found, rejects + missing, [_NOT_THEIRS])


def _label(value: object) -> str:
    """The text of a label, in lower case: of 1.0 "1"; "none" is a class here and no missing value."""
    text = "" if value is None else str(value).strip().lower()
    return text if text == "none" else code_of(text_of(text))
