"""What images belong to, such as a patient: images of one are alike, so that they count less than as many of several."""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.data._table_header import NoColumn
from biomedclip_jax.data._table_rows import image_file, is_table, table_rows, text_of
from biomedclip_jax.data.images.load import ImageSource
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.names import split_of
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.parallel import read_ahead

PATIENT = "patient"  # without a column of this name: DICOM's PatientID

_ALONE = "\0"  # begins the groups of images that have none
_WHOLE_NUMBER = re.compile(r"0*(\d+)(\.0*)?")


def one_spelling(told: str) -> str | None:
    """One spelling for what a patient may be called in two tables: 7, 07 and 7.0, P7 and p7; None for nothing."""
    whole = _WHOLE_NUMBER.fullmatch(told)
    return whole[1] if whole else told.casefold() or None


def with_groups(data: Labelled, where: str, name: str, image_column: str) -> Labelled:
    """The data with the group of each image.

    where: the table that the data were read from, which may have a column `name`; or, for `PATIENT`, images that are
    DICOM files, of whose PatientID a hash is kept. Images without a group stand for themselves.
    UserError where there is neither, and where the table says two groups of one image.
    """
    path = next((Path(each) for each in (where, split_of(where)[0]) if is_table(each) and Path(each).is_file()), None)
    missing = UserError(f"{where}: no table, so that it has no column {name!r}")
    if path is not None:
        try:
            told = _told_by_table(path, name, image_column)
            return grouped(data, [told.get(str(image)) for image in data.images], name)
        except NoColumn as error:
            missing = error
    if name != PATIENT:
        raise missing
    groups = list(read_ahead(_patient_of, data.images, 16))
    if not any(groups):
        raise UserError(f"{missing}; nor is an image a DICOM file with a PatientID, which --group {PATIENT} means as well")
    return grouped(data, groups, name)


def grouped(data: Labelled, groups: Sequence[str | None], name: str) -> Labelled:
    """The data with these groups, of the kind `name`; None: the image stands for itself."""
    filled = tuple(f"{_ALONE}{i}" if group is None else group for i, group in enumerate(groups))
    return dataclasses.replace(data, groups=filled, grouped_by=name)


def intervals_over(data: Labelled) -> list[str]:
    """What is said beside intervals over groups of these images; [] where each image stands for itself."""
    if data.groups is None:
        return []
    alone = sum(group.startswith(_ALONE) for group in data.groups)
    said = f"intervals over {len(set(data.groups)):,} groups ({data.grouped_by}) of {len(data.groups):,} images"
    return [f"{said}; {alone:,} images without one stand for themselves" if alone else said]


def shared_groups(train: Labelled, test: Labelled) -> list[str]:
    """The groups that are in both; none where one of the two has no groups."""
    own = {group for group in train.groups or () if not group.startswith(_ALONE)}
    return sorted(own & set(test.groups or ()))


def _told_by_table(path: Path, name: str, image_column: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for number, row in table_rows(path, [image_column, name], rejects=[]):
        image, group = str(image_file(path, row, image_column)), one_spelling(text_of(row[name]))
        if (other := found.setdefault(image, group)) is None:
            found[image] = group
        elif group not in (None, other):
            raise UserError(f"{path}, row {number}: {image} has {name} {group!r}, and {other!r} in another row; write it once")
    return found


def _patient_of(image: ImageSource) -> str | None:
    """A hash of a DICOM file's PatientID, so that no result has the number itself."""
    if not isinstance(image, str | Path):
        return None
    try:
        import pydicom
    except ImportError as error:
        raise UserError(f"--group {PATIENT}: DICOM files need pydicom; pip install 'biomedclip_jax[dicom]'") from error
    try:
        told = pydicom.dcmread(image, stop_before_pixels=True, specific_tags=["PatientID"]).get("PatientID")
    except Exception:  # no DICOM file, or a broken one, which the reader of its pixels names
        return None
    return hashlib.sha256(str(told).strip().encode()).hexdigest()[:16] if str(told or "").strip() else None
