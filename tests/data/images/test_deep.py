"""Where black and white lie in pixels deeper than 8 bits: `to_8_bits`, by hand and against the rule without outliers."""

import numpy as np
import pytest

from biomedclip_jax.data.images._deep import alpha_to_8_bits, to_8_bits, value_range
from biomedclip_jax.errors import UserError
from biomedclip_jax.support import terminal

RAMP = np.linspace(0, 1, 64)[None].repeat(64, axis=0)
SHADES = (RAMP * 255.999).astype(np.uint8)


def ramp(dtype: str, low: float, high: float) -> np.ndarray:
    """64 x 64 values from `low` on the left to `high` on the right."""
    return np.rint(low + RAMP * (high - low)).astype(dtype) if dtype[0] != "f" else (low + RAMP * (high - low)).astype(dtype)


def off(values: np.ndarray, shades: np.ndarray = SHADES) -> int:
    """The largest difference of what becomes of `values` from `shades`."""
    return int(abs(to_8_bits(values, "x").astype(int) - shades).max())


def only_shifted(values: np.ndarray) -> np.ndarray:
    """The rule for integers without outliers and offset."""
    values = values.astype(np.int64) - min(int(values.min()), 0)
    return (values >> max(int(values.max()).bit_length() - 8, 0)).astype(np.uint8)


# --- what has no outliers


@pytest.mark.parametrize(
    ("dtype", "high"),
    [
        *(("uint16", 4095), ("uint16", 65535), ("uint32", 2**32 - 1), ("uint32", 4095), ("int32", 2**31 - 1)),
        *(("int16", 1023), ("uint64", 2**50 - 1), ("int64", 2**40 - 1)),
        *(("f2", 1.0), ("f4", 1.0), ("f8", 1.0), ("f4", 5000.0)),
    ],
)
def test_any_dtype_fills_8_bits(dtype, high):
    assert off(ramp(dtype, 0, high)) <= 1
    colours = np.dstack([ramp(dtype, 0, high), ramp(dtype, 0, high // 2), ramp(dtype, 0, 0)])
    assert off(colours, np.dstack([SHADES, SHADES // 2, np.zeros_like(SHADES)])) <= (1 if high > 1 else 255)


@pytest.mark.parametrize(("low", "high"), [(-1024, 3071), (-32768, 32767), (-2000, 2095)])
def test_signed_values_start_at_the_darkest(low, high):
    assert off(ramp("int16", low, high)) <= 1


@pytest.mark.parametrize(("dtype", "low"), [("uint16", 32768), ("int16", 20000), ("uint32", 2**31), ("int32", 10**9)])
def test_an_offset_does_not_eat_the_range(dtype, low):
    assert off(ramp(dtype, low, low + 4095)) <= 1


def test_clean_pictures_are_only_shifted():
    noise = np.random.default_rng(0)
    gamma = noise.gamma(2.0, 300.0, (200, 200)).clip(0, 4095)
    beads = noise.poisson(40, (200, 200)) + 3000.0 * (gamma > 1500)
    film = noise.normal(2000, 500, (200, 200)).clip(0, 4095)
    spots = noise.poisson(100, (200, 200)).astype(float)
    spots[50:60, 50:60] += 20000 * np.hanning(10)[:, None] * np.hanning(10)  # a bead, not a hot pixel
    mask = np.zeros((200, 200))
    mask[3, 4] = 65535
    for picture in (gamma, beads, film, spots, mask, film * 16, ramp("u2", 0, 255), gamma * 0 + 700):
        for dtype in (np.uint16, np.int32):
            values = picture.astype(dtype)
            np.testing.assert_array_equal(to_8_bits(values, "x"), only_shifted(values))


def test_8_bits_in_a_deeper_type_stay_as_they_are():
    values = np.zeros((100, 100), np.uint16)
    values[:50] = np.arange(100) % 21
    values[60:70] = 255  # far brighter than all others, and one value
    np.testing.assert_array_equal(to_8_bits(values, "x"), values)


def test_a_dark_float_picture_with_a_white_object_stays_dark():
    values = np.random.default_rng(0).uniform(0, 0.05, (100, 100)).astype(np.float32)
    values[10:30, 10:30] = 1.0
    np.testing.assert_array_equal(to_8_bits(values, "x"), np.rint(values * np.float64(255)).astype(np.uint8))


def test_floats_that_would_share_a_few_shades_are_stretched():
    assert off(ramp("f4", 0.0, 0.01)) <= 1
    assert np.unique(to_8_bits(np.full((9, 9), 0.5), "x")).tolist() == [128]


# --- what lies far outside


@pytest.mark.parametrize("hot", [65535, 20000])
@pytest.mark.parametrize("count", [1, 5, 40])
def test_hot_pixels(hot, count):
    values = ramp("uint16", 0, 4095)
    expected = SHADES.copy()
    values.reshape(-1)[7 : 7 + 64 * count : 64] = hot
    expected.reshape(-1)[7 : 7 + 64 * count : 64] = 255
    assert off(values, expected) <= 1


def test_hot_pixels_of_floats_from_0_to_1():
    for scale in (1.0, 1 / 16, 1e-4):
        values = ramp("f4", 0, 1) * np.float32(scale)
        expected = SHADES.copy()
        values[3, 3] = 1.0
        expected[3, 3] = 255
        assert off(values, expected) <= 1


def test_hot_pixels_of_a_large_picture_in_colour():
    values = np.dstack([np.linspace(0, 4095, 300)[None].repeat(300, 0)] * 3).astype(np.uint16)
    expected = (values >> 4).astype(np.uint8)
    places = np.random.default_rng(1).choice(values.size, 99, replace=False)
    values.reshape(-1)[places] = np.random.default_rng(2).integers(6000, 65536, 99)
    expected.reshape(-1)[places] = 255
    assert off(values, expected) <= 3


def test_hot_pixels_of_many_values_and_blurred_ones():
    values = np.random.default_rng(0).integers(0, 4096, (512, 512)).astype(np.uint16)
    expected = values >> 4
    places = np.random.default_rng(1).choice(values.size, 200, replace=False)
    values.reshape(-1)[places] = np.random.default_rng(2).integers(4096, 65536, 200)
    expected.reshape(-1)[places] = 255
    assert abs(to_8_bits(values, "x").astype(int) - expected).max() <= 2


def test_dead_pixels_in_an_offset_picture():
    values = ramp("uint16", 32768, 36863)
    values[5, 9] = 0
    expected = SHADES.copy()
    expected[5, 9] = 0
    assert off(values, expected) <= 1


def test_a_mark_burnt_into_a_twelve_bit_picture_stays_white():
    values = ramp("uint16", 0, 4095)
    values[:20, :20] = 65535  # a tenth of the picture
    expected = SHADES.copy()
    expected[:20, :20] = 255
    assert off(values, expected) <= 1
    colours = np.dstack([values] * 3)
    assert off(colours, np.dstack([expected] * 3)) <= 1


def test_padding_of_a_signed_picture():
    values = ramp("int16", -1000, 1000)
    values[:, :5] = -32768
    shades = to_8_bits(values, "x")
    assert shades[:, :5].max() == 0 and shades[0, -1] >= 225 and len(np.unique(shades)) > 50


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -9999, -32768.0, 3.4e38, -3.4028235e38, 1e20])
@pytest.mark.parametrize("high", [1.0, 4000.0])
def test_floats_that_are_no_measurements(bad, high):
    for count in (1, 200):
        values = ramp("f4", 0, high)
        values.reshape(-1)[:count] = bad
        shades = to_8_bits(values, "x").reshape(-1)
        tolerance = 1 if bad != -9999 or high == 1.0 else 255  # four times the range is no gap of sixteen: stays
        assert abs(shades[count:].astype(int) - SHADES.reshape(-1)[count:]).max() <= tolerance
        assert shades[0] == (255 if bad == 1e20 else 0)


def test_no_data_at_both_ends():
    values = ramp("f4", 0, 1)
    values[0, :3], values[1, :3], values[2, :3] = -9999, 1e9, -1e20
    assert abs(to_8_bits(values, "x")[3:].astype(int) - SHADES[3:]).max() <= 1


def test_declared_no_data_is_black_and_not_in_the_range():
    for dtype, high, no_data in (("uint16", 4095, 5000.0), ("int16", 4095, -1.0), ("f4", 1.0, 1.5)):
        values = ramp(dtype, 0, high)
        values[:, 30:40] = no_data
        expected = SHADES.copy()
        expected[:, 30:40] = 0
        shades = to_8_bits(values, "x", no_data=no_data)
        assert abs(shades.astype(int) - expected).max() <= 1
        inverted = to_8_bits(values, "x", no_data=no_data, white_is_zero=True)
        assert inverted[0, 0] == 255 and inverted[0, -1] == 0 and inverted[:, 30:40].max() == 0
    assert to_8_bits(ramp("uint16", 0, 4095), "x", no_data=1e300).max() == 255


def test_pixels_of_which_none_is_a_number():
    for values in (np.full((4, 4), np.nan), np.full((4, 4), -np.inf, np.float16)):
        with pytest.raises(UserError, match="x: no pixel of it is a number"):
            to_8_bits(values, "x")
    with pytest.raises(UserError, match="complex"):
        to_8_bits(np.zeros((2, 2), complex), "x")


def test_brighter_pixels_never_become_darker():
    noise = np.random.default_rng(0)
    for turn in range(400):
        dtype = np.dtype(noise.choice(["u2", "i2", "u4", "i4", "i8", "f4", "f8"]))
        scale = 10.0 ** noise.uniform(0.5, 4.5)
        values = noise.choice(
            [noise.gamma(2, scale, (40, 50)), noise.normal(0, scale, (40, 50)), noise.uniform(0, scale, (40, 50))]
        )
        values += noise.choice([0, 0, 3e4])
        for _ in range(noise.integers(3)):
            places = noise.choice(values.size, noise.choice([1, 3, 15, 400]), replace=False)
            values.reshape(-1)[places] = noise.choice([-32768, -9999, -1000, 0, 255, 4095, 32767, 65535])
        limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
        values = values.clip(max(limits.min, -(2**40)), min(limits.max, 2**40)).astype(dtype).reshape(-1)
        shades = to_8_bits(values.reshape(40, 50), turn).reshape(-1)
        order = values.argsort(kind="stable")
        assert (np.diff(shades[order].astype(int)) >= 0).all(), (turn, dtype)


def test_range_of_few_values_is_their_own():
    assert value_range(np.array([[0, 1, 65535]], np.uint16)) == (0, 65535)
    assert value_range(np.array([[-1e9, 0.0, 1.0]])) == (-1e9, 1.0)


def test_alpha_has_a_depth_of_its_own():
    assert alpha_to_8_bits(np.array([[0, 2048, 4095]], np.uint16)).tolist() == [[0, 128, 255]]
    assert alpha_to_8_bits(np.array([[0, 32768, 65535]], np.uint16)).tolist() == [[0, 128, 255]]
    assert alpha_to_8_bits(np.array([[0.0, 0.5, 1.0, np.nan, 7]])).tolist() == [[0, 128, 255, 0, 255]]


# --- what is said


@pytest.fixture(autouse=True)
def nothing_said_before(monkeypatch):
    monkeypatch.setattr(terminal, "_said", set())


def test_few_shades_are_said_once_with_the_name(capsys):
    for _ in range(2):
        to_8_bits(np.full((9, 9), 700, np.uint16), "flat.png")
    to_8_bits(np.arange(90, dtype=np.uint16).reshape(9, 10) * 40 % 3, "three.tif")
    to_8_bits(ramp("uint16", 0, 4095), "good.png")
    said = capsys.readouterr().err.splitlines()
    assert said == ["flat.png: comes out in one shade", "three.tif: comes out in 3 shades of 256"]


def test_many_pictures_of_few_shades_do_not_flood_the_terminal(capsys):
    for number in range(100):
        to_8_bits(np.zeros((4, 4), np.uint16), f"{number}.png")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 11 and said[0].startswith("0.png") and "not said" in said[-1]
