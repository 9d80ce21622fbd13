"""Folders are searched as files are read: what `load_image` reads is found, and the rest is counted."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.images.search import find_images, say_left_out
from biomedclip_jax.data.sources import open_labelled
from biomedclip_jax.errors import UserError

KINDS = {"PNG": "a", "JPEG": "b.jfif", "JPEG2000": "c.jp2", "AVIF": "d.avif", "PPM": "e.pgm", "TIFF": "f"}
KINDS |= {"WEBP": "g.x", "BMP": "h"}


def write(path: Path, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(64 * 48, dtype=np.uint8).reshape(48, 64)).save(path, kind)
    return path


def test_images_without_a_known_ending_are_found(tmp_path: Path) -> None:
    for kind, name in KINDS.items():
        write(tmp_path / name, kind)
    (tmp_path / "notes.txt").write_text("BMI 24, P2 and GIF")
    (tmp_path / "README").write_text("text")
    left_out: Counter[str] = Counter()
    found = find_images(tmp_path, left_out)
    assert [path.name for path in found] == sorted(KINDS.values())
    assert all(load_image(path).size == (64, 48) for path in found)
    assert say_left_out(left_out) == "2 files left out: 1 .txt, 1 without an ending"


def test_a_patient_cd(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 2, 2, 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.PixelData = 7, 0, bytes([0, 80, 160, 255])
    folder = tmp_path / "DICOM" / "PA000001" / "ST000001" / "SE000001"
    folder.mkdir(parents=True)
    for number in range(3):
        data.save_as(folder / f"IM{number:06d}", enforce_file_format=True)
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "AUTORUN.INF").write_text("[autorun]")
    left_out: Counter[str] = Counter()
    assert [path.name for path in find_images(tmp_path, left_out)] == ["IM000000", "IM000001", "IM000002"]
    assert left_out == {".inf": 1, "": 1}


def test_nothing_to_find_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no image in this folder .*; 1 file left out: 1 \.heic"):
        find_images(tmp_path)


def test_folders_that_are_no_classes(tmp_path: Path) -> None:
    for name in (
        "brain/a.png",
        "chest/b",
        "__MACOSX/brain/a.png",
        ".ipynb_checkpoints/a.png",
        "brain/.ipynb_checkpoints/a.png",
    ):
        write(tmp_path / name)
    (tmp_path / "later").mkdir()
    (tmp_path / "chest" / "list.csv").write_text("x")
    data = open_labelled(str(tmp_path))
    assert data.classes == ("brain", "chest") and len(data) == 2
    assert [(Path(reject.image).name, reject.reason) for reject in data.rejects] == [
        ("chest", "1 file left out: 1 .csv"),
        ("later", "no image in this class folder"),
    ]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "deep" / "c.png")
    data = tmp_path / "data"
    write(data / "brain" / "a.png")
    (data / "chest").symlink_to(tmp_path / "elsewhere")
    (data / "brain" / "back").symlink_to(data)
    (data / "brain" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    left_out: Counter[str] = Counter()
    assert [path.relative_to(data).as_posix() for path in find_images(data, left_out)] == ["brain/a.png", "chest/deep/c.png"]
    assert say_left_out(left_out) == "1 file left out: 1 broken link"
    found = open_labelled(str(data))
    assert found.classes == ("brain", "chest") and found.labels.tolist() == [0, 1]
    assert [reject.reason for reject in found.rejects] == ["1 file left out: 1 broken link"]


def test_a_folder_that_cannot_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.png")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(UserError, match=r"cannot be looked into .Permission denied.; make it readable, or move it away"):
        find_images(tmp_path)
