"""Image files in folders, found as they are read: by their ending, and where that says nothing by how they begin.

A patient CD has DICOM files without an ending, mini-MIAS has .pgm: whatever `load_image` reads is found. What is left
out is counted by its ending, for those who call to say so.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from biomedclip_jax.data.images.load import IMAGE_SUFFIXES, is_bare_dicom
from biomedclip_jax.errors import UserError

_HEAD = 4096  # bytes: DICOM's mark, or its first elements
_MARKS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF8", b"\0\0\1\0"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),  # JPEG 2000, as a file and as a bare stream
    *(b"\x0a\x05\x01\x08", b"\x0a\x03\x01\x08", b"\x0a\x02\x01\x08"),  # PCX
)
MACHINE_FOLDERS = ("__MACOSX", "__pycache__")


def find_images(path: str | Path, left_out: Counter[str] | None = None) -> list[Path]:
    """The image files of a folder, sorted, subfolders included; of a file, that file whatever it is.

    Links to files and folders are followed. Hidden files and folders (`.name`) and those of macOS's archives are left
    out: `._scan.jpg` is no image. left_out: counts the other files that are no images, by their endings.
    Raises `UserError` when there is no such path, or a folder holds no image.
    """
    root = Path(path)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(f"{root}: no such file or folder")
    others: list[Path] = []
    found = sorted(images_in(root, others.append))
    counts = by_ending(others)
    if left_out is not None:
        left_out.update(counts)
    if not found:
        there = f"; {say_left_out(counts)}" if others else ""
        raise UserError(f"{root}: no image in this folder or below it; looked for {' '.join(IMAGE_SUFFIXES)} and more{there}")
    return found


def stream_images(sources: Iterable[str | Path], left_out: Counter[str]) -> Iterator[Path]:
    """The images of `find_images` for one source after the other, in its order, found one by one: for a million files.

    UserError as there, for a source that holds no image when its turn comes.
    """
    for source in map(Path, sources):
        if not source.is_dir():
            yield from find_images(source)
            continue
        count = 0
        for path in images_in(source, lambda other: left_out.update(by_ending([other]))):
            count += 1
            yield path
        if not count:
            find_images(source)


def images_in(root: Path, leave_out: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """The image files of a folder, as `find_images` finds them; none is no error. leave_out: called with each of the rest.

    UserError for a folder that cannot be looked into.
    """
    for candidate in _files_below(root, frozenset()):
        if not candidate.is_file():
            if leave_out is not None and not candidate.exists():  # a link to nothing, but no pipe
                leave_out(candidate)
        elif candidate.suffix.lower() in IMAGE_SUFFIXES or begins_as_image(candidate):
            yield candidate
        elif leave_out is not None:
            leave_out(candidate)


def _files_below(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """What is in a folder and those below it, but no folders and nothing hidden. Links are followed, not in circles.

    above: the folders on the way here, by device and number.
    """
    try:
        state = os.stat(folder)
        if (here := (state.st_dev, state.st_ino)) in above:
            return
        names: list[str] = []  # entries themselves would take more memory, and there may be a million
        folders: set[str] = set()
        for entry in os.scandir(folder):
            if not entry.name.startswith(".") and entry.name not in MACHINE_FOLDERS:
                names.append(entry.name)
                if entry.is_dir():
                    folders.add(entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be looked into ({error.strerror}); make it readable, or move it away") from error
    names.sort()
    for name in names:
        if name in folders:
            yield from _files_below(folder / name, above | {here})
        else:
            yield folder / name


def by_ending(files: Iterable[Path]) -> Counter[str]:
    """How many of the files have each ending, in lower case; links to nothing are counted as such."""
    return Counter("broken link" if not path.exists() else path.suffix.lower() for path in files)


def begins_as_image(path: Path) -> bool:
    """Whether a file begins as one that `load_image` reads; a DICOMDIR is an index and no image."""
    if path.name == "DICOMDIR":
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    if head[128:132] == b"DICM" or head.startswith(_MARKS):
        return True
    netpbm = head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    avif = head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"mif1")
    bmp = head[:2] == b"BM" and head[15:18] == bytes(3)  # the size of the next header, a small number
    return netpbm or webp or avif or bmp or is_bare_dicom(head)


def say_left_out(counts: Counter[str]) -> str:
    """How many files are no images, in words: "3 files left out: 2 .txt, 1 without an ending"."""
    largest = sorted(counts.items(), key=lambda each: (-each[1], each[0] or "~"))[:8]
    kinds = ", ".join(f"{count:,} {ending or 'without an ending'}" for ending, count in largest)
    more = ", ..." if len(counts) > 8 else ""
    return f"{counts.total():,} file{'s' * (counts.total() > 1)} left out: {kinds}{more}"


def find_all_images(sources: list[str] | list[Path]) -> list[Path]:
    """The images of several files and folders; what is left out in folders is said in a line on stderr."""
    left_out: Counter[str] = Counter()
    found = [path for source in sources for path in find_images(source, left_out)]
    if left_out:
        print(say_left_out(left_out), file=sys.stderr)
    return found
