"""Which DICOM files are slices of one stack, and in which order they lie."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from biomedclip_jax.data.images.load import quiet_readers
from biomedclip_jax.support.terminal import say_some

if TYPE_CHECKING:
    from pydicom import Dataset

_TAGS = (
    *("SeriesInstanceUID", "ImageOrientationPatient", "ImagePositionPatient", "InstanceNumber"),
    *("Rows", "Columns", "NumberOfFrames"),
)


@dataclass(frozen=True)
class Stack:
    """Slices of one series that lie parallel, in the order of their place along their normal. name: the series' id."""

    name: str
    slices: tuple[Path, ...]


def find_stacks(files: Iterable[Path]) -> list[Stack]:
    """The stacks among DICOM files, in the order of their first files; files that are in none are left out.

    A stack is two or more files of one frame with one SeriesInstanceUID, one orientation and one size, at two or more
    places (PS3.3 C.7.6.2). Radiographs have no place, and so are never slices of each other. Slices at the same
    place (another time, another echo) follow each other by their number, which is said.
    """
    groups: dict[tuple, list[tuple[Path, float, int]]] = defaultdict(list)
    for path in files:
        if (found := _placed(path)) is not None:
            key, along, number = found
            groups[key].append((path, along, number))
    stacks = []
    for key, slices in groups.items():
        places = {round(along, 3) for _, along, _ in slices}
        if len(places) < 2:
            continue
        slices.sort(key=lambda each: (round(each[1], 3), each[2], str(each[0])))
        if len(places) < len(slices):
            say_some(
                f"{slices[0][0].parent}: a series has {len(slices)} slices at {len(places)} places (times, echoes?); they are "
                "taken as one stack, place by place"
            )
        stacks.append(Stack(key[0], tuple(path for path, _, _ in slices)))
    return stacks


def _placed(path: Path) -> tuple[tuple, float, int] | None:
    """What slices of one stack have in common, how far along its normal the file lies, in mm, and its number."""
    import pydicom

    with quiet_readers():
        try:
            head = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_TAGS))
            series, size = str(head.SeriesInstanceUID), (int(head.Rows), int(head.Columns))
            position, normal, orientation = _geometry(head)
            if int(head.get("NumberOfFrames") or 1) > 1:
                return None
            number = int(head.get("InstanceNumber") or 0)
        except Exception:  # no series, no place, or damaged: an image of its own, whose reader says what is wrong
            return None
    if not np.isfinite(position).all():
        return None
    return (series, size, orientation), float(position @ normal), number


def _geometry(head: "Dataset") -> tuple[np.ndarray, np.ndarray, Sequence[float]]:
    position = np.array([float(each) for each in head.ImagePositionPatient])
    turned = np.array([float(each) for each in head.ImageOrientationPatient])
    normal = np.cross(turned[:3], turned[3:])
    # rounded, as writers differ in the last digits between slices of one stack
    return position, normal / np.linalg.norm(normal), tuple(np.round(turned, 2) + 0.0)
