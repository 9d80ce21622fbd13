"""What a file with many images is: told by its content where it can be, by its name where it cannot."""

import logging
from pathlib import Path
from typing import Literal

from biomedclip_jax.data.images._deep_files import is_tiff
from biomedclip_jax.data.images.load import NIFTI_MARKS, is_dicom

Kind = Literal["dicom", "nifti", "slide", "pages"]

NIFTI_SUFFIXES = (".nii", ".nii.gz")
SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi")
_HEAD = 4096


def kind_of(path: Path) -> Kind | None:
    """What kind of many images a file may hold; None of a file with one image, or none.

    A TIFF is a slide where it has a pyramid of sizes or a scanner's marks, else a file of pages. DICOM is told apart
    from other files here, not how many frames it has.
    """
    name = path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        return "nifti"
    if path.suffix.lower() in SLIDE_SUFFIXES:
        return "slide"
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if len(head) >= 348 and head[344:348] in NIFTI_MARKS:
        return "nifti"
    if is_tiff(head):
        return "slide" if _is_slide(path) else "pages"
    if head.startswith((b"GIF8", b"RIFF")):
        return "pages"
    return "dicom" if is_dicom(path, head) else None


def _is_slide(path: Path) -> bool:
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        with path.open("rb") as content, tifffile.TiffFile(content) as file:
            scanner = any(getattr(file, f"is_{mark}") for mark in ("svs", "ndpi", "scn", "bif", "philips"))
            return scanner or (bool(file.series) and len(file.series[0].levels) > 1)
    except Exception:  # a damaged file: what reads it says so
        return False
