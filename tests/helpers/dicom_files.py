"""DICOM files that tests make: pixels and any elements by keyword."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from biomedclip_jax.data.images._dicom import load_dicom


def write(path: Path, pixels: np.ndarray, **elements: Any) -> Path:
    """A DICOM file of `pixels` [H,W], [frames,H,W] or [H,W,3] with further elements by keyword; None removes one."""
    colour = pixels.shape[-1] == 3 and elements.get("SamplesPerPixel") == 3
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    if not colour and pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.save_as(path, enforce_file_format=True)
    return path


def shown(path: Path) -> list:
    """The pixels that a file is read as; of its one row, where it has one row."""
    pixels = np.asarray(load_dicom(path))
    return (pixels[0] if len(pixels) == 1 else pixels).tolist()


def item(**elements: Any) -> Any:
    dataset = pydicom.Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def table(first: int, bits: int, *entries: int) -> Any:
    """A lookup table: stored value `first` becomes the first entry."""
    lut = pydicom.Dataset()
    lut.add_new("LUTDescriptor", "SS", [len(entries), first, bits])
    lut.add_new("LUTData", "US", list(entries))
    return lut
