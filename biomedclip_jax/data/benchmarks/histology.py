"""Histology in folders of patches: LC25000 and TCGA-TIL.

LC25000: five folders of 5,000 JPEGs, 768 x 768, made of 1,250 originals by rotating and flipping. Which images come of
one original is not recorded, so any random split leaks: all of it is "test", as in BiomedCLIP.

TCGA-TIL: patches with and without tumour-infiltrating lymphocytes. BiomedCLIP's own test set (2,480 patches, 5.9 %
positive) was not published. Layouts read here: that of Zenodo record 6604094,
`[TCGA-TILs/]images-tcga-tils/luad/test/til-{negative,positive}`; folders none and til, perhaps below train/ and test/;
a table `labels.csv` with the columns path and label (0 or none, 1 or til).
"""

from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.data._table_rows import image_file, table_rows, text_of
from biomedclip_jax.data.benchmarks import NotOnDisk, check_split
from biomedclip_jax.data.images.search import find_images
from biomedclip_jax.data.labelled.types import Labelled, existing_files, labelled_files
from biomedclip_jax.data.names import names_of
from biomedclip_jax.errors import UserError

_TABLE = "labels.csv"
_NEGATIVE, _POSITIVE = ("none", "til-negative", "0"), ("til", "til-positive", "1")
_RELEASES = ("TCGA-TILs/images-tcga-tils", "images-tcga-tils", ".")
_FOLDERS = {"lung": ("lung_aca", "lung_n", "lung_scc"), "colon": ("colon_aca", "colon_n")}


def read_lc25000(name: str, where: Path, split: str, classes: Sequence[str], organ: str) -> Labelled:
    """All LC25000 images of an organ ("lung" or "colon"); `split` must be "test". NotOnDisk for a missing class
    folder.
    """
    check_split(name, split, ("test",))
    roots = [where / "lung_colon_image_set" / f"{organ}_image_sets", where / f"{organ}_image_sets", where]
    folders = _FOLDERS[organ]
    root = next((root for root in roots if any((root / folder).is_dir() for folder in folders)), roots[0])
    found = []
    for label, folder in enumerate(folders):
        if not (root / folder).is_dir():
            raise NotOnDisk(f"{root}: no folder {folder}")
        found += [(path, label) for path in find_images(root / folder)]
    return labelled_files(name, classes, found)


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
            found = [(path, label) for label, folder in enumerate(folders) if folder for path in find_images(folder)]
            return labelled_files(name, classes, found)
    raise NotOnDisk(
        f"{where}: neither {_TABLE} nor folders none and til (or til-negative and til-positive) for split {split!r}"
    )


def _table(name: str, path: Path, split: str, classes: Sequence[str]) -> Labelled:
    rows: list[tuple[str, Path, int]] = []
    for number, row in table_rows(path, ["path", "label"], ["split"]):
        label, own, image = str(row["label"]).strip().lower(), text_of(row.get("split")), image_file(path, row, "path")
        if (own or "test").lower() not in names_of(split):
            continue
        if label not in _NEGATIVE + _POSITIVE:
            raise UserError(f"{path}, row {number}: label {label!r}; expected 0 or none, 1 or til")
        rows.append((str(number), image, int(label in _POSITIVE)))
    return labelled_files(name, classes, *existing_files(rows))
