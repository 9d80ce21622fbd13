"""From files and folders to a list of images: each frame, slice and tile that is wanted, and single images as they are."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from biomedclip_jax.data.images.load import LazyImage
from biomedclip_jax.data.images.search import by_ending, find_images, images_in, say_left_out
from biomedclip_jax.data.images.views._frames import DicomFrames, Pages
from biomedclip_jax.data.images.views._kinds import NIFTI_SUFFIXES, SLIDE_SUFFIXES, Kind, kind_of
from biomedclip_jax.data.images.views._series import find_stacks
from biomedclip_jax.data.images.views._slide import Slide
from biomedclip_jax.data.images.views._volume import Volume
from biomedclip_jax.data.images.views.options import ViewOptions, every_kth
from biomedclip_jax.errors import UserError

_READERS = {"dicom": DicomFrames, "pages": Pages, "nifti": Volume, "slide": Slide}
_OPEN = 2  # files that are kept open, as their images come one after the other


@dataclass(frozen=True)
class View(LazyImage):
    """One image of a file that may hold many. str() of it is its name: `scan.nii.gz#axial=31`, `film.dcm`.

    path: the file. place: which of its images, "" of the only one. group: what it is one image of, the file or, of a
    slice of a DICOM series, the folder and the series.
    """

    path: Path
    place: str
    group: str
    options: ViewOptions

    def __str__(self) -> str:
        return f"{self.path}#{self.place}" if self.place else str(self.path)

    def load(self) -> Image.Image:
        """Read and decode the image. UserError, which names it, if that fails."""
        opened, lock = _files.open(self.path, self.options)
        with lock:
            return opened.image(self.place)


class _Files:
    """The files that were read last, opened: a volume is decompressed once for all of its slices."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: OrderedDict[tuple[Path, ViewOptions], tuple[Any, threading.Lock]] = OrderedDict()

    def open(self, path: Path, options: ViewOptions) -> tuple[Any, threading.Lock]:
        with self._lock:
            key = path, options
            if key not in self._opened:
                self._opened[key] = _open(path, options), threading.Lock()
                while len(self._opened) > _OPEN:
                    self._opened.popitem(last=False)
            self._opened.move_to_end(key)
            return self._opened[key]


_files = _Files()


def _open(path: Path, options: ViewOptions) -> Any:
    kind = kind_of(path)
    return Pages(path, options) if kind is None else _READERS[kind](path, options)


def find_views(sources: Iterable[str | Path], options: ViewOptions, left_out: Counter[str] | None = None) -> Iterator[View]:
    """The images of files and folders, in the order of the sources and of the sorted names; slices of a series by place.

    A file that cannot be opened is one `View`, whose `load` raises what is wrong with it. left_out: counts files in
    folders that hold no images, by their endings. Raises UserError for a source that is not there or holds no image.
    """
    for source in map(Path, sources):
        if source.is_dir():
            yield from _of_folder(source, options, left_out)
        else:
            (found,) = find_images(source)
            yield from _of_file(found, kind_of(found), options)


def _of_folder(folder: Path, options: ViewOptions, left_out: Counter[str] | None) -> Iterator[View]:
    files: list[Path] = []
    others: list[Path] = []

    def leave_out(path: Path) -> None:
        many = path.name.lower().endswith((*NIFTI_SUFFIXES, *SLIDE_SUFFIXES)) or kind_of(path) == "nifti"  # an .hdr
        (files if many else others).append(path)

    files += images_in(folder, leave_out)
    if left_out is not None:
        left_out.update(by_ending(others))
    if not files:
        there = f"; {say_left_out(by_ending(others))}" if others else ""
        raise UserError(f"{folder}: no image, volume or slide in this folder or below it{there}")
    kinds: dict[Path, Kind | None] = {path: kind_of(path) for path in sorted(files)}
    stacks = find_stacks(path for path, kind in kinds.items() if kind == "dicom")
    stack_of = {path: stack for stack in stacks for path in stack.slices}
    given: set[Path] = set()  # with the first slice of a stack all of it is given
    for path, kind in kinds.items():
        if path not in stack_of:
            yield from _of_file(path, kind, options)
        elif path not in given:
            slices = stack_of[path].slices
            given.update(slices)
            for number in every_kth(len(slices), options.every):
                yield View(slices[number], "", f"{folder}#series={stack_of[path].name}", options)


def _of_file(path: Path, kind: Kind | None, options: ViewOptions) -> Iterator[View]:
    if kind is None:
        yield View(path, "", str(path), options)
        return
    try:
        names = _files.open(path, options)[0].names()
    except UserError:
        names = [""]
    for name in names:
        yield View(path, name, str(path), options)
