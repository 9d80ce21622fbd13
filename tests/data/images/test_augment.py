"""The extras do to an image what torchvision does with the same factors."""

import numpy as np
import pytest
from helpers.reference import load_open_clip
from PIL import Image

from biomedclip_jax.config import AugmentConfig
from biomedclip_jax.data.images.preprocess import augment, shift_hue
from biomedclip_jax.errors import UserError


@pytest.fixture
def image() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (17, 23, 3), np.uint8))


def changed(image: Image.Image, config: AugmentConfig, seed: int = 0) -> np.ndarray:
    return np.asarray(augment(image, config, np.random.default_rng(seed)))


@pytest.mark.parametrize("shift", [-0.5, -0.123, 0.0, 0.04, 0.5])
def test_hue(image: Image.Image, shift: float) -> None:
    load_open_clip()
    from torchvision.transforms import functional

    assert np.array_equal(np.asarray(shift_hue(image, shift)), np.asarray(functional.adjust_hue(image, shift)))


@pytest.mark.parametrize(("part", "name"), [(0, "brightness"), (1, "contrast"), (2, "saturation")])
def test_each_factor(image: Image.Image, part: int, name: str) -> None:
    """The factor is drawn from 1 - limit to 1 + limit, the others stay."""
    load_open_clip()
    from torchvision.transforms import functional

    limits = [0.0, 0.0, 0.0, 0.0]
    limits[part] = 0.4
    config = AugmentConfig(color_jitter=tuple(limits), color_jitter_prob=1.0)  # type: ignore[arg-type]
    generator = np.random.default_rng(0)
    generator.random()  # whether at all
    factor = [generator.uniform(1 - limit, 1 + limit) for limit in limits[:3]][part]
    assert abs(factor - 1) > 0.01
    expected = getattr(functional, f"adjust_{name}")(image, factor)
    assert np.array_equal(changed(image, config), np.asarray(expected))


def test_flip_and_gray(image: Image.Image) -> None:
    assert np.array_equal(changed(image, AugmentConfig(flip_prob=1.0)), np.asarray(image)[:, ::-1])
    gray = changed(image, AugmentConfig(gray_scale_prob=1.0))
    assert np.array_equal(gray, np.repeat(np.asarray(image.convert("L"))[..., None], 3, axis=2))


def test_how_often(image: Image.Image) -> None:
    config = AugmentConfig(gray_scale_prob=0.2)
    assert 40 < sum(not np.array_equal(changed(image, config, seed), np.asarray(image)) for seed in range(300)) < 80


def test_the_order_of_the_jitter_is_drawn_too(image: Image.Image) -> None:
    config = AugmentConfig(color_jitter=(0.5, 0.5, 0.5, 0.1), color_jitter_prob=1.0)
    assert len({changed(image, config, seed).tobytes() for seed in range(20)}) == 20
    assert np.array_equal(changed(image, config, 3), changed(image, config, 3))


@pytest.mark.parametrize(
    "values", [{"flip_prob": 1.5}, {"color_jitter": (0.1, 0.1, 0.1)}, {"color_jitter": (0.1, 0.1, 0.1, 0.6)}]
)
def test_values_that_cannot_be(values: dict) -> None:
    with pytest.raises(UserError, match=next(iter(values))):
        AugmentConfig(**values)
