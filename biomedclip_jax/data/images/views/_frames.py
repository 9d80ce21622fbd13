"""The frames of one file: multi-frame DICOM, TIFF of several pages, moving GIF and WebP."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from biomedclip_jax.data.images.load import load_image, quiet_readers
from biomedclip_jax.data.images.views.options import ViewOptions, every_kth
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.data.images._dicom import DicomFile


class DicomFrames:
    """The frames of a DICOM file, shown as `load_image` shows one. Listing them reads the header alone."""

    def __init__(self, path: Path, options: ViewOptions):
        self._path, self._options = path, options

    def names(self) -> list[str]:
        """One for each frame that is wanted, counted from 1; "" of a file with one frame, or whose header is damaged."""
        frames = _count_frames(self._path)
        return [f"frame={number + 1}" for number in every_kth(frames, self._options.every)] if frames > 1 else [""]

    def image(self, name: str) -> Image.Image:
        """The frame of a name, mode "L" or "RGB". UserError for what cannot be read, and for a window of CT on what is none."""
        if not name and self._options.window is None:
            return load_image(self._path)
        return Image.fromarray(self._file.frame(int(name.removeprefix("frame=") or 1) - 1))

    @cached_property
    def _file(self) -> "DicomFile":
        from biomedclip_jax.data.images._dicom import DicomFile

        path, window = self._path, self._options.window
        file = DicomFile(path, window=self._options.centre_and_width)
        if isinstance(window, str) and file.modality != "CT":
            raise UserError(
                f"{path}: --window {window} is in CT's Hounsfield units, and this is {file.modality or 'of no modality'}; "
                "leave --window out, or give CENTRE,WIDTH"
            )
        return file


def _count_frames(path: Path) -> int:
    try:
        import pydicom
    except ImportError:
        return 1  # who loads it says what is missing
    with quiet_readers():
        try:
            head = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["NumberOfFrames"])
            return int(head.get("NumberOfFrames") or 1)
        except Exception:  # damaged: whoever loads it says how
            return 1


class Pages:
    """The pages of a TIFF file, or the frames of a moving GIF or WebP."""

    def __init__(self, path: Path, options: ViewOptions):
        """UserError where --window is given: these files have no units that it could be in."""
        if options.window is not None:
            raise UserError(f"{path}: --window is for DICOM and NIfTI; leave it out, or this file")
        self._path = path
        self._count = _count_pages(path)
        self._chosen = every_kth(self._count, options.every)

    def names(self) -> list[str]:
        """One for each page that is wanted, counted from 1; "" of a file with one page."""
        return [f"frame={number + 1}" for number in self._chosen] if self._count > 1 else [""]

    def image(self, name: str) -> Image.Image:
        """The page or frame that a name stands for. Deep pixels are brought to 8 bits, by the range of each page."""
        number = int(name.removeprefix("frame=") or 1) - 1
        if number == 0:
            return load_image(self._path)
        from biomedclip_jax.data.images._deep_files import is_deep, load_page

        with quiet_readers():
            try:
                with Image.open(self._path) as image:
                    image.seek(number)
                    if image.format != "TIFF" or not is_deep(image, b""):
                        return image.convert("RGB") if image.mode in ("P", "PA") else image.copy()
                return load_page(self._path, number)
            except UserError:
                raise
            except Exception as error:
                raise UserError(f"{self._path}: frame {number + 1} is damaged ({error}); export the file again") from error


def _count_pages(path: Path) -> int:
    with quiet_readers():
        try:
            with Image.open(path) as image:
                return getattr(image, "n_frames", 1)
        except Exception:  # TIFF that Pillow does not open, deep ones mostly: what is damaged says so when it is read
            return _count_tiff_pages(path)


def _count_tiff_pages(path: Path) -> int:
    import tifffile

    try:
        with path.open("rb") as content, tifffile.TiffFile(content) as file:
            return len(file.pages)
    except Exception:
        return 1
