"""Which DICOM files are slices of one stack, and in which order they lie."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biomedclip_jax.data.images.load import quiet_readers
from biomedclip_jax.support.terminal import say_some

_PARALLEL = 0.01
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
    place (another time, another echo) follow each other by their number, which is said; so are gaps between places.
    """
    parallel: dict[tuple, list[np.ndarray]] = defaultdict(list)  # the orientations of a series that differ
    groups: dict[tuple, list[tuple[Path, float, int]]] = defaultdict(list)
    for path in files:
        if (found := _placed(path)) is None:
            continue
        key, position, turned, number = found
        known = parallel[key]
        # within a hundredth, as writers differ in the last digits; compared, not rounded: digits lie on either side of a .5
        which = next((i for i, each in enumerate(known) if np.abs(each - turned).max() < _PARALLEL), len(known))
        if which == len(known):
            known.append(turned)
        normal = np.cross(known[which][:3], known[which][3:])
        groups[(*key, which)].append((path, float(position @ normal / np.linalg.norm(normal)), number))
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
        _say_gaps(slices[0][0].parent, sorted(places))
        stacks.append(Stack(key[0], tuple(path for path, _, _ in slices)))
    return stacks


def _say_gaps(folder: Path, places: Sequence[float]) -> None:
    """Say on stderr where slices seem to be missing: steps of more than 1.5 times the usual one. places: in mm, rising."""
    steps = np.diff(places)
    usual = float(np.median(steps))
    if wide := steps[steps > 1.5 * usual].tolist():
        say_some(
            f"{folder}: a series of {len(places)} places steps by {usual:g} mm, but {len(wide)} times by more "
            f"(up to {max(wide):g} mm): are slices missing?"
        )


def _placed(path: Path) -> tuple[tuple, np.ndarray, np.ndarray, int] | None:
    """Series and size of a file, its position [3] in mm, the directions of its rows and columns [6], and its number."""
    import pydicom

    with quiet_readers():
        try:
            head = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_TAGS))
            key = str(head.SeriesInstanceUID), int(head.Rows), int(head.Columns)
            position = np.array([float(each) for each in head.ImagePositionPatient])
            turned = np.array([float(each) for each in head.ImageOrientationPatient])
            area = np.linalg.norm(np.cross(turned[:3], turned[3:]))
            if int(head.get("NumberOfFrames") or 1) > 1:
                return None
            number = int(head.get("InstanceNumber") or 0)
        except Exception:  # no series, no place, or damaged: an image of its own, whose reader says what is wrong
            return None
    if not (position.shape == (3,) and np.isfinite(position).all() and 0.5 < area < 2):  # directions of length 1
        return None
    return key, position, turned, number
