"""A bright spot comes back to where it was in the image, whatever preprocessing did between."""

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images.placement import SeenBox, laid_over, seen_box
from biomedclip_jax.data.images.preprocess import preprocess


def with_spot(width: int, height: int, x: float, y: float) -> Image.Image:
    """A gray gradient image, brighter than black, with a spot of the brightest white at a place."""
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    radius = max(width, height) / 25
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
    return Image.fromarray(np.rint(60 + 195 * spot).astype(np.uint8)).convert("RGB")


CONFIGS = {
    "shortest": {},
    "shortest, cropped": {"resize_size": 80},
    "squash": {"resize_mode": "squash"},
    "longest": {"resize_mode": "longest"},
    "pad": {"resize_mode": "pad"},
    "square": {"gray": True, "square_size": 96},
}


@pytest.mark.parametrize("size", [(200, 200), (301, 170), (113, 240), (40, 52)])
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_a_spot_comes_back(changes: dict, size: tuple[int, int]) -> None:
    config = PreprocessConfig(image_size=64, **changes)
    width, height = size
    box = seen_box(Image.new("RGB", size), config)
    left, top = max(box.left, 0), max(box.top, 0)
    right, bottom = min(box.right, width), min(box.bottom, height)
    for across, down in ((0.25, 0.3), (0.8, 0.6)):
        x, y = left + across * (right - left), top + down * (bottom - top)
        pixels = preprocess(with_spot(width, height, x, y), config)[..., 0]
        over = laid_over(pixels, box, size)
        found_y, found_x = np.unravel_index(np.nanargmax(over), over.shape)
        # as exact as the model's pixels are
        assert abs(found_x + 0.5 - x) <= max(1, (box.right - box.left) / 64)
        assert abs(found_y + 0.5 - y) <= max(1, (box.bottom - box.top) / 64)


@pytest.mark.parametrize("size", [(200, 120), (90, 150)])
def test_a_spot_comes_back_through_otsus_crop(size: tuple[int, int]) -> None:
    """The dark border is cut away, so that the box depends on what the image shows."""
    config = PreprocessConfig(image_size=64, gray=True, square_size=128, otsu_crop=True, resize_mode="squash")
    image = np.zeros((size[1], size[0]), np.uint8)
    image[20 : size[1] - 10, 30 : size[0] - 5] = 150
    image[60:66, 50:56] = 255
    picture = Image.fromarray(image)
    box = seen_box(picture, config)
    assert abs(box.left - 30) < 2 and abs(box.top - 20) < 2
    assert abs(box.right - (size[0] - 5)) < 2 and abs(box.bottom - (size[1] - 10)) < 2
    over = laid_over(preprocess(picture, config)[..., 0], box, size)
    y, x = np.unravel_index(np.nanargmax(over), over.shape)
    assert 59 <= y <= 66 and 49 <= x <= 56
    assert np.isnan(over[5, 5]) and not np.isnan(over[60, 60])


def test_what_is_cropped_off_has_no_map_and_padding_takes_none_away() -> None:
    grid = np.arange(16.0).reshape(4, 4)
    config = PreprocessConfig(image_size=64)
    over = laid_over(grid, seen_box(Image.new("RGB", (200, 100)), config), (200, 100))
    assert over.shape == (100, 200) and over.dtype == np.float32
    assert np.isnan(over[:, :49]).all() and np.isnan(over[:, 151:]).all() and not np.isnan(over[:, 51:149]).any()
    padded = seen_box(Image.new("RGB", (200, 100)), PreprocessConfig(image_size=64, resize_mode="longest"))
    assert (padded.left, padded.top, padded.right, padded.bottom) == (0, -50, 200, 150)
    assert not np.isnan(laid_over(grid, padded, (200, 100))).any()


def test_a_map_keeps_its_values_in_the_middle_of_its_cells() -> None:
    grid = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    over = laid_over(grid, SeenBox(0, 0, 50, 30), (50, 30))
    middles = (over[4::10, 4::10] + over[5::10, 5::10]) / 2
    assert np.abs(middles - grid).max() < 0.2 and np.abs(laid_over(grid, SeenBox(0, 0, 5, 3), (5, 3)) - grid).max() < 1e-6
    assert (laid_over(np.ones((1, 1)), SeenBox(0, 0, 4, 4), (4, 4)) == 1).all()
    half = SeenBox(0, 0, 40, 20).upper_left(0.5).scaled(2, 1)
    assert half == SeenBox(0, 0, 40, 10)
