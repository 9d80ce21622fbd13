"""What images belong to, such as a patient: images of one are alike, so that they count less than as many of several."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from biomedclip_jax.data._picture_pairs import PicturePairs
from biomedclip_jax.data._table_header import NoColumn
from biomedclip_jax.data._table_rows import image_file, is_table, table_rows, text_of
from biomedclip_jax.data.images.load import ImageSource
from biomedclip_jax.data.labelled.multi_label import MultiLabelled
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.names import split_of
from biomedclip_jax.data.pairs import ImageOf, Pairs, Subset
from biomedclip_jax.data.tables import TablePairs
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.parallel import read_ahead

PATIENT = "patient"  # without a column of this name: DICOM's PatientID

_ALONE = "\0"  # begins the groups of images that have none
_WHOLE_NUMBER = re.compile(r"0*(\d+)(\.0*)?")


def one_spelling(told: str) -> str | None:
    """One spelling for what a patient may be called in two tables: 7, 07 and 7.0, P7 and p7; None for nothing."""
    whole = _WHOLE_NUMBER.fullmatch(told)
    return whole[1] if whole else told.casefold() or None


class Images(Protocol):
    """What may have groups: images of one class or of several findings."""

    @property
    def groups(self) -> tuple[str, ...] | None:
        """The group of each image, in one spelling; None where each stands for itself."""
        ...

    @property
    def grouped_by(self) -> str:
        """What messages call a group."""
        ...


Data = TypeVar("Data", Labelled, MultiLabelled)


def with_groups(data: Data, where: str, name: str, image_column: str) -> Data:
    """The data with the group of each image, see `groups_of`."""
    return grouped(data, groups_of(data.images, where, name, image_column), name)


def grouped(data: Data, groups: Sequence[str | None], name: str) -> Data:
    """The data with these groups, of the kind `name`; None: the image stands for itself."""
    return dataclasses.replace(data, groups=each_of(groups), grouped_by=name)


def each_of(groups: Sequence[str | None]) -> tuple[str, ...]:
    """The groups, and one of its own for each image that has none."""
    return tuple(f"{_ALONE}{i}" if group is None else group for i, group in enumerate(groups))


def groups_of(images: Sequence[ImageSource], where: str, name: str, image_column: str) -> list[str | None]:
    """The group of each image; None for one that has none.

    where: what the images were read from, a table or files with pictures, which may have a column `name`. name may be
    TABLE:COLUMN, a table with paths of the images, such as of a list or of class folders. Or `PATIENT`, where images are
    DICOM files, of whose PatientID a hash is kept.
    UserError where there is neither, where the table says two groups of one image, and where it has none of the images.
    """
    other, _, column = name.rpartition(":")
    if is_table(other):
        told = _told_by_table(Path(other), column, image_column)
        found = [told.get(os.path.abspath(_file_of(image) or "")) for image in images]
        if not any(found):
            raise UserError(f"--group {name}: no image of {where} has a {column} there; expected paths from its folder on")
        return found
    missing = UserError(f"{where}: no table, so that it has no column {name!r}; another one may have it: TABLE:{name}")
    try:
        if (cells := _told_by_rows(images, name)) is not None:
            return cells
        path = next((Path(each) for each in (where, split_of(where)[0]) if is_table(each) and Path(each).is_file()), None)
        if path is not None:
            told = _told_by_table(path, name, image_column)
            return [told.get(os.path.abspath(_file_of(image) or "")) for image in images]
    except NoColumn as error:
        missing = error
    if name != PATIENT:
        raise missing
    groups = list(read_ahead(_patient_of, images, 16))
    if not any(groups):
        raise UserError(f"{missing}; nor is an image a DICOM file with a PatientID, which --group {PATIENT} means as well")
    return groups


def intervals_over(data: Images) -> list[str]:
    """What is said beside intervals over groups of these images; [] where each image stands for itself."""
    return [] if data.groups is None else [said_of_groups(data.groups, data.grouped_by)]


def said_of_groups(groups: Sequence[str], kind: str) -> str:
    """What is said beside intervals over these groups, one for each image. kind: what a group is."""
    alone = sum(group.startswith(_ALONE) for group in groups)
    said = f"intervals over {len(set(groups)):,} groups ({kind}) of {len(groups):,} images"
    return f"{said}; {alone:,} images without one stand for themselves" if alone else said


def shared_groups(train: Images, test: Images) -> list[str]:
    """The groups that are in both; none where one of the two has no groups."""
    own = {group for group in train.groups or () if not group.startswith(_ALONE)}
    return sorted(own & set(test.groups or ()))


def numbers_of(groups: Sequence[str] | None) -> np.ndarray | None:
    """The groups as numbers from 0 on, int [n]; None for none."""
    return None if groups is None else np.unique(np.array(groups), return_inverse=True)[1]


def _own(image: ImageSource) -> tuple[Pairs, int] | None:
    """The pairs that an image is of, and its position in them."""
    if not isinstance(image, ImageOf):
        return None
    pairs, index = image.pairs, image.index
    while isinstance(pairs, Subset):
        pairs, index = pairs.pairs, pairs.positions[index]
    return pairs, index


def _file_of(image: ImageSource) -> str | None:
    """The path of an image's file; None where it has none of its own."""
    if isinstance(image, str | Path):
        return str(image)
    own = _own(image)
    return own[0].name(own[1]) if own is not None and isinstance(own[0], TablePairs) else None


def _told_by_rows(images: Sequence[ImageSource], name: str) -> list[str | None] | None:
    """By the rows that hold the pictures themselves; None where the images are not of such."""
    found: list[str | None] = []
    cells: dict[int, list[object]] = {}
    for image in images:
        own = _own(image)
        if own is None:
            return None
        pairs, index = own
        if not isinstance(pairs, PicturePairs):
            return None
        if id(pairs) not in cells:
            cells[id(pairs)] = pairs.cells(name)
        found.append(one_spelling(text_of(cells[id(pairs)][index])))
    return found if images else None


def _told_by_table(path: Path, name: str, image_column: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for number, row in table_rows(path, [image_column, name], rejects=[]):
        image, group = os.path.abspath(image_file(path, row, image_column)), one_spelling(text_of(row[name]))
        if (other := found.setdefault(image, group)) is None:
            found[image] = group
        elif group not in (None, other):
            raise UserError(f"{path}, row {number}: {image} has {name} {group!r}, and {other!r} in another row; write it once")
    return found


def _patient_of(image: ImageSource) -> str | None:
    """A hash of a DICOM file's PatientID, so that no result has the number itself."""
    if (file := _file_of(image)) is None:
        return None
    try:
        import pydicom
    except ImportError as error:
        raise UserError(f"--group {PATIENT}: DICOM files need pydicom; pip install 'biomedclip_jax[dicom]'") from error
    try:
        told = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["PatientID"]).get("PatientID")
    except Exception:  # no DICOM file, or a broken one, which the reader of its pixels names
        return None
    return hashlib.sha256(str(told).strip().encode()).hexdigest()[:16] if str(told or "").strip() else None
