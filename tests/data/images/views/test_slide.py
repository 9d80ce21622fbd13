"""Slides: each pixel of tissue is in a tile, at the size that was asked for, by both readers."""

from pathlib import Path

import numpy as np
import pytest
from helpers.slide_files import picture, write_aperio, write_ome

from biomedclip_jax.data.images.views.find import View, find_views
from biomedclip_jax.data.images.views.options import ViewOptions
from biomedclip_jax.errors import UserError

openslide = pytest.importorskip("openslide")
pytest.importorskip("zarr")

PIXELS = picture(800, 600, (128, 64, 500, 400))
WRITERS = {"a.svs": write_aperio, "b.ome.tif": write_ome}


def tiles(path: Path, **options: object) -> list[View]:
    return [*find_views([path], ViewOptions(**options))]  # type: ignore[arg-type]


def corner(view: View) -> tuple[int, int]:
    x, y = view.place.split(",")
    return int(x.removeprefix("x=")), int(y.removeprefix("y="))


@pytest.mark.parametrize("name", WRITERS)
def test_tiles_are_the_pixels_of_the_slide_and_all_tissue_is_in_one(tmp_path, name, capsys):
    path = WRITERS[name](tmp_path / name, PIXELS)
    covered = np.zeros(PIXELS.shape[:2], bool)
    for view in tiles(path, tile=64, mpp=None):
        x, y = corner(view)
        np.testing.assert_array_equal(np.asarray(view.load()), PIXELS[y : y + 64, x : x + 64])
        covered[y : y + 64, x : x + 64] = True
    assert "36 of 130 tiles have tissue, the others are left out" in capsys.readouterr().err
    tissue = PIXELS[..., 1] < 255
    assert covered[tissue].mean() > 0.99  # a tile with less than a tenth of tissue has none


@pytest.mark.parametrize("name", WRITERS)
def test_a_tile_at_half_the_resolution_is_from_the_level_of_that_size(tmp_path, name):
    path = WRITERS[name](tmp_path / name, PIXELS)
    found = tiles(path, tile=64, mpp=0.5)
    x, y = corner(found[5])
    np.testing.assert_array_equal(np.asarray(found[5].load()), PIXELS[::2, ::2][y // 2 : y // 2 + 64, x // 2 : x // 2 + 64])
    coarse = tiles(path, tile=40, mpp=0.8)  # between two levels
    x, y = corner(coarse[1])
    assert np.asarray(coarse[1].load()).shape == (40, 40, 3)
    own = PIXELS[y : y + 128, x : x + 128].reshape(4, 32, 4, 32, 3).mean(axis=(1, 3))
    got = np.asarray(coarse[1].load().resize((4, 4), 4), np.float64)  # 4: the mean of a box
    assert np.abs(own - got).max() < 6


def test_the_last_tiles_end_where_the_slide_does(tmp_path):
    path = write_aperio(tmp_path / "a.svs", picture(200, 130, (0, 0, 200, 130)))
    corners = [corner(view) for view in tiles(path, tile=64, mpp=None)]
    assert corners == [(x, y) for y in (0, 64, 66) for x in (0, 64, 128, 136)]
    (whole,) = tiles(path, tile=500, mpp=None)
    assert whole.load().size == (200, 130)


@pytest.mark.parametrize("name", WRITERS)
def test_an_unknown_resolution_and_what_is_no_slide(tmp_path, name):
    path = WRITERS[name](tmp_path / name, PIXELS, None)
    (view,) = tiles(path)
    with pytest.raises(UserError, match="how many micrometres a pixel is wide; --mpp none"):
        view.load()
    (tmp_path / "no.svs").write_bytes(b"II*\0 no slide")
    (view,) = tiles(tmp_path / "no.svs")
    with pytest.raises(UserError, match=r"no\.svs: not readable as a slide"):
        view.load()


def test_a_slide_without_tissue_is_taken_whole_and_channels_that_are_no_colours_are_refused(tmp_path, capsys):
    path = write_aperio(tmp_path / "white.svs", np.full((256, 256, 3), 255, np.uint8))
    assert len(tiles(path, tile=64, mpp=None)) == 16
    assert "no tissue found by its colour (fluorescence?): all 16 tiles are taken" in capsys.readouterr().err
    import tifffile

    with tifffile.TiffWriter(tmp_path / "f.ome.tif", ome=True) as file:
        file.write(np.zeros((5, 256, 256), np.uint16), subifds=1, tile=(64, 64), metadata={"axes": "CYX"})
        file.write(np.zeros((5, 128, 128), np.uint16), subfiletype=1, tile=(64, 64), metadata=None)
    (view,) = tiles(tmp_path / "f.ome.tif")
    with pytest.raises(UserError, match="a slide of axes CYX, uint16: expected RGB of 8 bits"):
        view.load()


@pytest.mark.parametrize("mpp", [0.0, float("nan")])
def test_a_resolution_of_0_or_nan_is_none(tmp_path, mpp):
    for name, write in WRITERS.items():
        (view,) = tiles(write(tmp_path / name, PIXELS, mpp))
        with pytest.raises(UserError, match="how many micrometres a pixel is wide"):
            view.load()


def test_tiles_have_the_size_that_was_asked_for_also_where_they_are_enlarged(tmp_path):
    path = write_aperio(tmp_path / "a.svs", PIXELS)
    assert {view.load().size for view in tiles(path, tile=50, mpp=0.037, every=200)} == {(50, 50)}
