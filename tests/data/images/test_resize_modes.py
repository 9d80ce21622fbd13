"""What of a long image the tower sees, in evaluation and in training, by resize_mode; and what is cut off."""

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images.normalise import normalised
from biomedclip_jax.data.images.preprocess import cut_off, preprocess, preprocess_train
from biomedclip_jax.errors import UserError

MODES = ("shortest", "squash", "longest", "pad")
SHAPES = [(300, 200), (64, 96), (31, 200), (500, 33), (40, 40)]


def config(mode: str, size: int = 32) -> PreprocessConfig:
    return PreprocessConfig(size, (0.0,) * 3, (1.0,) * 3, resize_mode=mode, fill_color=100)  # type: ignore[arg-type]


def marked(width: int, height: int) -> Image.Image:
    """Gray 50, with 200 in the first and last fifth of the long side."""
    pixels = np.full((height, width), 50, np.uint8)
    long, first = (pixels, height // 5) if height > width else (pixels.T, width // 5)
    long[:first] = long[len(long) - first :] = 200
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_equals_open_clip(mode: str, shape: tuple[int, int]) -> None:
    pytest.importorskip("torch")
    from helpers.reference import load_open_clip

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape[::-1], 3), np.uint8))
    transform = load_open_clip().image_transform(
        32, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3, resize_mode=mode, fill_color=100
    )
    expected = transform(image).permute(1, 2, 0).numpy()
    assert np.abs(preprocess(image, config(mode)) - expected).max() <= 1 / 255


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_training_sees_what_evaluation_sees(mode: str, shape: tuple[int, int]) -> None:
    """With whole crops: the marked ends of the image, and the padding, in the same shares; one crop is as large as one."""
    image = marked(*shape)
    seen = preprocess(image, config(mode))
    drawn = normalised(preprocess_train(image, config(mode), np.random.default_rng(0), (1.0, 1.0)), config(mode))
    assert drawn.shape == seen.shape
    if mode != "shortest":
        for value in (50, 100, 200):
            share, own = (np.isclose(pixels, value / 255, atol=0.02).mean() for pixels in (seen, drawn))
            assert abs(share - own) < 0.08, (value, share, own)
    for seed in range(20):  # no crop is outside the image, whatever is drawn
        preprocess_train(image, config(mode), np.random.default_rng(seed), (0.01, 1.0))


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1), (1, 1)])
def test_lines_and_points(shape: tuple[int, int]) -> None:
    for mode in ("squash", "longest", "pad"):
        drawn = preprocess_train(Image.new("L", shape, 7), config(mode), np.random.default_rng(0), (0.01, 0.02))
        assert drawn.shape == (32, 32, 3)


def test_too_long_for_a_square() -> None:
    with pytest.raises(UserError, match="an image of 20000 x 2 pixels is too large for resize_mode 'longest': crop it"):
        preprocess_train(Image.new("L", (20_000, 2)), config("longest"), np.random.default_rng(0))


def test_what_is_cut_off() -> None:
    """Only a middle square of the short side is seen; of BioViL's 512 only the 480 in the middle."""
    assert cut_off((300, 200), config("shortest", 224)) == pytest.approx(1 / 3, abs=0.01)
    assert cut_off((200, 300), config("shortest", 224)) == pytest.approx(1 / 3, abs=0.01)
    assert cut_off((64, 64), config("shortest", 224)) == 0
    assert all(cut_off((300, 200), config(mode)) == 0 for mode in MODES[1:])
    assert cut_off((600, 600), PreprocessConfig(480, resize_size=512)) == pytest.approx(1 - (480 / 512) ** 2)
