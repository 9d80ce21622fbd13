"""Frames, series and folders: each image once, in order, under its own name."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.images.views.find import View, find_views
from biomedclip_jax.data.images.views.options import ViewOptions, every_kth
from biomedclip_jax.errors import UserError

pytest.importorskip("pydicom")

from helpers.dicom_files import write

HEAD_FIRST = [1, 0, 0, 0, 1, 0]


def views(source: Path, **options: object) -> list[View]:
    return [*find_views([source], ViewOptions(**options))]  # type: ignore[arg-type]


def ct(folder: Path, name: str, place: float | None, series: str = "1.2.3", **more: object) -> Path:
    """A slice of one shade, its place in millimetres (HU: 10 times that)."""
    folder.mkdir(exist_ok=True)
    pixels = np.full((2, 3), 0 if place is None else int(10 * place), np.int16)
    at = {} if place is None else {"ImageOrientationPatient": HEAD_FIRST, "ImagePositionPatient": [0, 0, place]}
    elements = {"SeriesInstanceUID": series, "Modality": "CT", **at, **more}
    return write(folder / name, pixels, **elements)


@pytest.mark.parametrize(
    "count, every, chosen", [(6, 1, [0, 1, 2, 3, 4, 5]), (10, 5, [2, 7]), (9, 2, [0, 2, 4, 6, 8]), (3, 9, [1])]
)
def test_every_kth_is_the_middle_of_each_k_and_never_nothing(count, every, chosen):
    assert [*every_kth(count, every)] == chosen


def test_frames_of_dicom(tmp_path):
    frames = np.arange(7 * 6, dtype=np.uint8).reshape(7, 2, 3) * 5
    path = write(tmp_path / "cine.dcm", frames, WindowCenter=128, WindowWidth=256)
    found = views(path, every=3)
    assert [view.place for view in found] == ["frame=2", "frame=5"]
    assert {view.group for view in found} == {str(path)}
    for view, number in zip(found, (1, 4), strict=True):
        np.testing.assert_allclose(np.asarray(view.load()), frames[number], atol=1)
    one = write(tmp_path / "one.dcm", frames[0])
    (view,) = views(one)
    assert str(view) == str(one)
    np.testing.assert_array_equal(np.asarray(view.load()), np.asarray(load_image(one)))


def test_a_window_is_in_the_units_of_the_file_and_named_ones_are_cts(tmp_path):
    pixels = np.array([[0, 424, 1024, 1424]], np.int16)
    elements = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 0, "WindowWidth": 10}
    path = write(tmp_path / "a.dcm", pixels, Modality="CT", **elements)
    (view,) = views(path, window="lung")
    by_hand = np.clip((pixels[0] - 1024.0 + 1350) / 1500, 0, 1) * 255
    assert np.asarray(view.load())[0].tolist() == np.rint(by_hand).tolist()
    path = write(tmp_path / "mr.dcm", pixels, Modality="MR")
    (view,) = views(path, window="lung")
    with pytest.raises(UserError, match=r"mr\.dcm: --window lung is in CT's Hounsfield units, and this is MR"):
        view.load()
    (view,) = views(path, window=(700.0, 1400.0))
    assert np.asarray(view.load())[0].tolist() == [0, 77, 187, 255]


def test_a_series_is_in_the_order_of_its_places_and_counts_as_one(tmp_path):
    for name, place in (("a", 30), ("b", 10), ("c", 20), ("d", 0), ("e", 40)):
        ct(tmp_path, name, place)
    ct(tmp_path, "other", 15, series="9.9")  # a series of one slice
    ct(tmp_path, "radiograph-1", None, series="7.7")
    ct(tmp_path, "radiograph-2", None, series="7.7")
    found = views(tmp_path)
    assert [view.path.name for view in found] == ["d", "b", "c", "a", "e", "other", "radiograph-1", "radiograph-2"]
    assert {view.group for view in found[:5]} == {f"{tmp_path}#series=1.2.3"}
    assert [view.group for view in found[5:]] == [str(view.path) for view in found[5:]]
    # thinned by slices, and a radiograph is never one
    assert [view.path.name for view in views(tmp_path, every=3)] == ["b", "e", "other", "radiograph-1", "radiograph-2"]


def test_a_localizer_and_a_second_time_in_one_series(tmp_path, capsys):
    for number, place in enumerate((0, 5, 10)):
        ct(tmp_path, f"{number}", place, InstanceNumber=number)
        ct(tmp_path, f"{number}-later", place, InstanceNumber=number + 3)
    ct(tmp_path, "scout", 3, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    found = views(tmp_path)
    assert [view.path.name for view in found] == ["0", "0-later", "1", "1-later", "2", "2-later", "scout"]
    assert "a series has 6 slices at 3 places" in capsys.readouterr().err


def test_a_gap_between_slices_is_said(tmp_path, capsys):
    for place in (0, 2, 4, 6, 12, 14):
        ct(tmp_path / "gap", f"{place}", place)
        ct(tmp_path / "whole", f"{place}", place / (1 if place < 12 else 1.5))
    assert len(views(tmp_path / "gap")) == 6
    said = capsys.readouterr().err
    assert "gap: a series of 6 places steps by 2 mm, but 1 times by more (up to 6 mm): are slices missing?" in said
    views(tmp_path / "whole")
    assert capsys.readouterr().err == ""


def test_pages_of_tiff_and_frames_of_gif(tmp_path):
    deep = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5) * 1000
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="minisblack", metadata=None)
    found = views(tmp_path / "deep.tif")
    assert [view.place for view in found] == ["frame=1", "frame=2", "frame=3"]
    np.testing.assert_array_equal(np.asarray(found[0].load()), np.asarray(load_image(tmp_path / "deep.tif")))
    np.testing.assert_array_equal(np.asarray(found[2].load()), (deep[2] >> 8).astype(np.uint8))
    colours = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    colours[0].save(tmp_path / "moving.gif", save_all=True, append_images=colours[1:])
    found = views(tmp_path / "moving.gif")
    assert [np.asarray(view.load().convert("RGB"))[0, 0].tolist() for view in found] == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    with pytest.raises(UserError, match="--window is for DICOM and NIfTI"):
        views(tmp_path / "moving.gif", window=(0.0, 1.0))[0].load()


def test_a_folder_with_all_kinds_and_a_broken_one(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    (tmp_path / "broken.dcm").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image")
    found = views(tmp_path)
    assert [view.path.name for view in found] == ["broken.dcm", "photo.png"]
    with pytest.raises(UserError, match=r"broken\.dcm"):
        found[0].load()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image, volume or slide in this folder"):
        views(tmp_path / "empty")


def test_directions_that_differ_in_their_last_digits_are_of_one_stack(tmp_path):
    for number, name in enumerate("hgfedcba"):
        cos = 0.985 + (-1) ** number * 1e-5  # on either side of where two digits are rounded
        sin = (1 - cos**2) ** 0.5
        turned = [f"{each:.6f}" for each in (cos, sin, 0, -sin, cos, 0)]
        ct(tmp_path / "ct", name, 5.0 * number, ImageOrientationPatient=turned)
    assert [view.path.name for view in views(tmp_path / "ct")] == [*"hgfedcba"]


def test_files_whose_directions_are_none_are_images_of_their_own(tmp_path):
    for number, name in enumerate("cba"):
        ct(tmp_path / "ct", name, 5.0 * number, ImageOrientationPatient=[0] * 6)
    assert [view.group for view in views(tmp_path / "ct")] == [str(tmp_path / "ct" / name) for name in "abc"]
