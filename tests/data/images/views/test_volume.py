"""NIfTI: which way up, which side left, which gray; by volumes whose every voxel says where it is."""

import struct
from pathlib import Path

import numpy as np
import pytest

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.images.views.find import View, find_views
from biomedclip_jax.data.images.views.options import ViewOptions
from biomedclip_jax.errors import UserError

nibabel = pytest.importorskip("nibabel")

SHAPE = (4, 5, 6)  # left to right, back to front, feet to head
ALL = (-100.0, 1000.0)  # a window that holds 0..120


def write(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


def numbered() -> np.ndarray:
    """Each voxel its number, in patients' order."""
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def slices(path: Path, **options: object) -> list[View]:
    return [*find_views([path], ViewOptions(**options))]  # type: ignore[arg-type]


def shades(view: View) -> np.ndarray:
    return np.asarray(view.load())


@pytest.mark.parametrize(
    "plane, index, rows_and_columns",
    [
        # from the feet: the front at the top, the patient's right at the left
        ("axial", 2, lambda v: [[v[x, y, 2] for x in (3, 2, 1, 0)] for y in (4, 3, 2, 1, 0)]),
        # from in front: the head at the top, the patient's right at the left
        ("coronal", 1, lambda v: [[v[x, 1, z] for x in (3, 2, 1, 0)] for z in (5, 4, 3, 2, 1, 0)]),
        # from the left side: the head at the top, the front at the left
        ("sagittal", 3, lambda v: [[v[3, y, z] for y in (4, 3, 2, 1, 0)] for z in (5, 4, 3, 2, 1, 0)]),
    ],
)
@pytest.mark.parametrize("stored", ["RAS", "LPS", "PIR", "ASL"])
def test_a_slice_lies_as_a_radiologist_looks_at_it_however_it_is_stored(tmp_path, plane, index, rows_and_columns, stored):
    values = numbered()
    image = nibabel.Nifti1Image(values, np.eye(4))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(stored)
    )
    nibabel.save(image.as_reoriented(turn), tmp_path / "a.nii.gz")
    view = slices(tmp_path / "a.nii.gz", plane=plane, window=(60.0, 120.0))[index]
    assert str(view).endswith(f"a.nii.gz#{plane}={index + 1}")
    expected = np.rint(np.array(rows_and_columns(values)) / 120 * 255).astype(np.uint8)
    np.testing.assert_array_equal(shades(view), expected)


def test_a_window_shows_the_same_values_in_all_slices_and_without_one_the_range_of_the_volume(tmp_path):
    values = np.linspace(-1000, 1000, 120).reshape(SHAPE).astype(np.int16)
    path = write(tmp_path / "a.nii", values)
    lung = shades(slices(path, window="lung")[0])
    by_hand = np.clip((values[:, :, 0].astype(np.float64) + 600 + 750) / 1500, 0, 1)
    np.testing.assert_array_equal(lung, np.rint(by_hand * 255).astype(np.uint8).T[::-1, ::-1])
    whole = np.stack([shades(view) for view in slices(path)])
    assert whole.min() == 0 and whole.max() == 255
    assert whole[0].max() < 255  # the brightest is in another slice


def test_voxels_that_are_no_cubes_and_values_that_are_no_numbers(tmp_path):
    values = numbered()
    values[0, 0, 0] = np.nan
    path = write(tmp_path / "a.nii", values, np.diag([1.0, 1.0, 3.0, 1.0]))
    assert slices(path, plane="coronal")[0].load().size == (4, 18)
    assert slices(path, plane="axial")[0].load().size == (4, 5)
    assert shades(slices(path)[0])[-1, -1] == 0
    path = write(tmp_path / "b.nii", np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(UserError, match=r"b\.nii: no value of it is a number"):
        slices(path)[0].load()


def test_colours_and_volumes_over_time(tmp_path, capsys):
    colour = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colour["G"] = 200
    path = write(tmp_path / "c.nii", colour)
    assert shades(slices(path)[0])[0, 0].tolist() == [0, 200, 0]
    with pytest.raises(UserError, match="colours"):
        slices(path, window=ALL)[0].load()
    path = write(tmp_path / "t.nii", np.stack([numbered(), 9 * numbered()], axis=-1))
    assert len(slices(path)) == 6
    np.testing.assert_array_equal(shades(slices(path)[0]), shades(slices(write(tmp_path / "one.nii", numbered()))[0]))
    assert "2 volumes (over time?): the first is used" in capsys.readouterr().err


def test_what_is_damaged_says_so_and_a_volume_is_no_image(tmp_path):
    whole = write(tmp_path / "a.nii", numbered()).read_bytes()
    (tmp_path / "cut.nii").write_bytes(whole[:-40])
    (tmp_path / "no.nii.gz").write_bytes(b"\x1f\x8bnonsense")
    for name in ("cut.nii", "no.nii.gz"):
        (view, *_) = slices(tmp_path / name)
        with pytest.raises(UserError, match=name):
            view.load()
    with pytest.raises(UserError, match=r"a\.nii: a volume, not one image; --every 1"):
        load_image(tmp_path / "a.nii")


def test_voxels_are_as_large_as_their_affine_says_whatever_pixdim_does(tmp_path):
    image = nibabel.Nifti1Image(numbered(), np.diag([1.0, 1.0, 3.0, 1.0]))
    nibabel.save(image, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<3f", content, 80, 1, 1, 1)  # pixdim
    struct.pack_into("<2h", content, 252, 0, 1)  # no qform, a sform
    (tmp_path / "a.nii").write_bytes(content)
    assert nibabel.load(tmp_path / "a.nii").header.get_zooms() == (1, 1, 1)
    assert slices(tmp_path / "a.nii", plane="coronal")[0].load().size == (4, 18)


@pytest.mark.parametrize(
    "affine, said",
    [
        (np.diag([0.0, 0.0, 0.0, 1.0]), "does not say where its voxels are"),
        (np.diag([np.nan, 1.0, 1.0, 1.0]), "does not say where its voxels are"),
        (np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "does not say where its voxels are"),
        (np.diag([1e-6, 1.0, 1.0, 1.0]), "pixels of 1e-06 by 1 mm: mend its header"),
    ],
)
def test_an_affine_that_places_nothing_is_refused(tmp_path, affine, said):
    path = write(tmp_path / "a.nii", numbered())
    content = bytearray(path.read_bytes())
    struct.pack_into("<2h", content, 252, 0, 1)
    struct.pack_into("<12f", content, 280, *affine[:3].ravel())
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"a.nii: .*{said}"):
        slices(path)[0].load()


def test_a_picture_in_a_nifti_is_no_volume(tmp_path):
    with pytest.raises(UserError, match=r"a\.nii: NIfTI of shape \[4, 5\]: expected a volume"):
        slices(write(tmp_path / "a.nii", numbered()[..., 0]))[0].load()


def test_of_a_pair_the_header_is_the_volume(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(numbered(), np.eye(4)), tmp_path / "a.img")
    for source in (tmp_path / "a.hdr", tmp_path):
        found = slices(source)
        assert [view.path.name for view in found] == 6 * ["a.hdr"]
    whole = slices(write(tmp_path / "b.nii", numbered()))
    np.testing.assert_array_equal(shades(found[2]), shades(whole[2]))
    with pytest.raises(UserError, match=r"a\.img: the voxels of a volume; give the \.hdr"):
        load_image(tmp_path / "a.img")
    with pytest.raises(UserError, match=r"a\.hdr: a volume, not one image"):
        load_image(tmp_path / "a.hdr")
