"""CLEFT's preprocessing: Otsu's threshold against scikit-image's, the square against means by hand, and the whole chain."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.config import CLIPConfig, PreprocessConfig
from biomedclip_jax.data.images._crop import foreground_box, in_square, otsu_cropped, otsu_threshold
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.images.normalise import normalised
from biomedclip_jax.data.images.preprocess import preprocess, preprocess_train
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.formats.open_clip.write_config import write_config

CLEFT = PreprocessConfig(
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    interpolation="bilinear",
    resize_mode="squash",
    gray=True,
    square_size=256,
    otsu_crop=True,
)


@pytest.mark.parametrize("name", ["camera", "coins", "page"])
def test_the_threshold_is_that_of_scikit_image(name: str) -> None:
    """To which OpenCV 5.0's was equal on all of these as well."""
    image = getattr(pytest.importorskip("skimage.data"), name)()
    assert otsu_threshold(image) == pytest.importorskip("skimage.filters").threshold_otsu(image)


def test_the_threshold_of_few_values() -> None:
    threshold_otsu = pytest.importorskip("skimage.filters").threshold_otsu
    generator = np.random.default_rng(0)
    for count in (1, 2, 3, 5, 40):
        for _ in range(20):
            image = generator.choice(256, count, replace=False).astype(np.uint8)[generator.integers(0, count, (9, 11))]
            assert ((image > otsu_threshold(image)) == (image > threshold_otsu(image))).all()
    assert otsu_threshold(np.array([[10, 10], [200, 200]], np.uint8)) == 10  # the lowest of those that divide them


def test_the_box_of_the_foreground() -> None:
    film = np.zeros((20, 30), np.uint8)
    film[4:15, 7:21] = 180
    film[0, 0] = 12
    assert foreground_box(film) == (7, 4, 21, 15)
    assert otsu_cropped(Image.fromarray(film)).size == (14, 11)
    assert foreground_box(np.full((5, 6), 90, np.uint8)) == (0, 0, 6, 5)
    colored = np.repeat(film[..., None], 3, axis=2)
    assert otsu_cropped(Image.fromarray(colored)).size == (14, 11)


def test_a_square_of_means_over_areas() -> None:
    """3 to 2 pixels: each is the mean over one and a half. OpenCV's INTER_AREA gives the same."""
    image = Image.fromarray(np.array([[30, 60, 90]], np.uint8).repeat(2, axis=0))
    square = np.asarray(in_square(image, 2))
    assert square.tolist() == [[40, 80], [0, 0]]  # 2 rows become int(1.33), the row that is missing is below
    larger = np.asarray(in_square(Image.fromarray(np.array([[0, 90], [30, 120]], np.uint8)), 3))
    assert larger.tolist() == [[0, 45, 90], [15, 60, 105], [30, 75, 120]]
    tall = np.asarray(in_square(Image.new("RGB", (10, 40), (200, 100, 50)), 8))
    assert tall.shape == (8, 8, 3) and (tall[:, 3:5] == (200, 100, 50)).all() and tall.sum() == 8 * 2 * 350
    with pytest.raises(UserError, match="1000 x 2 pixels is too elongated to be made 256 pixels long"):
        in_square(Image.new("L", (1000, 2)), 256)


def test_the_whole_chain() -> None:
    """A film with a dark border, in colour: gray, in a square, cut, resized whatever its shape, from -1 to 1."""
    film = np.zeros((512, 384, 3), np.uint8)
    film[64:448, 32:352] = (200, 200, 200)
    pixels = preprocess(Image.fromarray(film), CLEFT)
    assert pixels.shape == (224, 224, 3) and pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, (200 / 255 - 0.5) / 0.5, atol=0.02)  # nothing of the border, nor of the padding
    uncut = preprocess(Image.fromarray(film), PreprocessConfig(resize_mode="squash", square_size=256))
    assert uncut.min() < -1
    drawn = normalised(preprocess_train(Image.fromarray(film), CLEFT, np.random.default_rng(0), (1.0, 1.0)), CLEFT)
    assert drawn.min() > 0.5  # training sees the cut image as well


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK"])
def test_any_mode(mode: str) -> None:
    image = Image.new("L", (40, 30), 0)
    image.paste(255, (10, 10, 30, 20))
    for gray in (True, False):
        config = PreprocessConfig(gray=gray, square_size=32, otsu_crop=True, image_size=8, resize_mode="squash")
        assert preprocess(image.convert(mode), config).shape == (8, 8, 3)


def test_a_caller_s_image_stays_as_it_is() -> None:
    buffer = io.BytesIO()
    Image.new("P", (40, 30), 3).save(buffer, "PNG")
    image = load_image(buffer.getvalue())
    preprocess(image, CLEFT)
    assert image.mode == "P" and image.size == (40, 30)


@pytest.mark.parametrize("own", [{"square_size": 256}, {"otsu_crop": True}])
def test_open_clip_has_no_form_for_it(own: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="this preprocessing has no open_clip form"):
        write_config(CLIPConfig(), PreprocessConfig(**own), "", "")


def test_a_square_of_no_size() -> None:
    with pytest.raises(UserError, match=r"PreprocessConfig\.square_size = 0"):
        PreprocessConfig(square_size=0)
