"""TCGA-TIL: patches with and without tumour-infiltrating lymphocytes, in two folders or in a table.

BiomedCLIP's own test set (2,480 patches, 5.9 % positive) was not published. Layouts read here: that of Zenodo record 6604094,
`[TCGA-TILs/]images-tcga-tils/luad/test/til-{negative,positive}`; folders none and til, perhaps below train/ and test/; a table
`labels.csv` with the columns path and label (0 or none, 1 or til).
"""

from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.data.benchmarks.files import NotOnDisk
from biomedclip_jax.data.images.load import find_images
from biomedclip_jax.data.labelled.types import Labelled, files_there, labelled_files
from biomedclip_jax.data.split_names import names_of
from biomedclip_jax.data.tables import image_file, table_rows, text_of
from biomedclip_jax.errors import UserError

_TABLE = "labels.csv"
_NEGATIVE, _POSITIVE = ("none", "til-negative", "0"), ("til", "til-positive", "1")
_RELEASES = ("TCGA-TILs/images-tcga-tils", "images-tcga-tils", ".")


def read_tcga_til(name: str, where: Path, split: str, classes: Sequence[str], cancer: str) -> Labelled:
    """A split. cancer: the study of the Zenodo release that is read ("luad"). UserError for layouts that are none of these."""
    if where.suffix == ".csv" or (where / _TABLE).is_file():
        return _table(name, where if where.suffix == ".csv" else where / _TABLE, split, classes)
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
    for number, row in enumerate(table_rows(path, ["path", "label"], ["split"]), 1):
        label, own, image = text_of(row["label"]).lower(), text_of(row.get("split")), image_file(path, row, "path")
        if (own or "test").lower() not in names_of(split):
            continue
        if label not in _NEGATIVE + _POSITIVE:
            raise UserError(f"{path}, row {number}: label {label!r}; expected 0 or none, 1 or til")
        rows.append((str(number), image, int(label in _POSITIVE)))
    return labelled_files(name, classes, *files_there(rows))
