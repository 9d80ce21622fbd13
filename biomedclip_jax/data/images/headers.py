"""Whom and what an image is of, by the header of its file."""

from pathlib import Path

from biomedclip_jax.data.images.load import DICOM_SUFFIXES, IMAGE_SUFFIXES, is_dicom, quiet_readers

_HEAD = 4096
_NAMES = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
_OTHERS = frozenset(IMAGE_SUFFIXES) - frozenset(DICOM_SUFFIXES)


def dicom_ids(path: Path) -> dict[str, str]:
    """What a DICOM file says of `patient`, `study` and `series`, as far as it does; nothing for any other file."""
    if path.suffix.lower() in _OTHERS:
        return {}
    try:
        with path.open("rb") as file:
            if not is_dicom(path, file.read(_HEAD)):
                return {}
        import pydicom

        with quiet_readers():
            head = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_NAMES.values()))
            found = {name: str(head.get(tag) or "").strip() for name, tag in _NAMES.items()}
    except Exception:  # whoever reads its pixels says what is wrong with it
        return {}
    return {name: text for name, text in found.items() if text}
