"""Files of deep samples: TIFF of every layout, PNG, JPEG 2000, 12-bit JPEG; libvips reads them, too, where installed."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from biomedclip_jax.data.images._deep import to_8_bits
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.errors import UserError

LEFT_TO_RIGHT, TOP_TO_BOTTOM = np.meshgrid(np.linspace(0, 1, 64), np.linspace(0, 1, 48))
SHARES = np.dstack([LEFT_TO_RIGHT, TOP_TO_BOTTOM, LEFT_TO_RIGHT * TOP_TO_BOTTOM])
needs_vips = pytest.mark.skipif(shutil.which("vips") is None, reason="vips, a second reader, is not installed")


def samples(dtype: str, high: float, channels: int) -> np.ndarray:
    """[48,64] or [48,64,C] of values from 0 to `high`; the last of 2 and 4 is an alpha that falls to the right."""
    shares = np.dstack([SHARES, 1 - LEFT_TO_RIGHT])
    values = shares[..., {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]] * high
    return np.ascontiguousarray(values[..., 0] if channels == 1 else values).astype(dtype)


def shades(channels: int) -> np.ndarray:
    return samples("uint8", 255.999, channels)


def off(image: Image.Image, channels: int) -> int:
    assert image.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    return int(abs(np.asarray(image).astype(int) - shades(channels)).max())


def write_tiff(path: Path, values: np.ndarray, **options: Any) -> Path:
    channels = values.shape[2] if values.ndim == 3 else 1
    planes = options.get("planarconfig") == "separate"
    options = {"photometric": "rgb" if channels > 2 else "minisblack", "compression": None} | options
    if channels in (2, 4):
        options["extrasamples"] = ["unassalpha"]
    tifffile.imwrite(path, np.moveaxis(values, -1, 0) if planes else values, **options)
    return path


def message_of(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_image(path)
    message = str(caught.value)
    assert path.name in message and "\n" not in message
    return message


# --- TIFF


@pytest.mark.parametrize(
    ("dtype", "high"),
    [
        *(("uint16", 65535), ("uint16", 4095), ("uint32", 2**32 - 1), ("int16", 4095), ("int32", 2**24 - 1)),
        *(("float16", 1.0), ("float32", 1.0), ("float64", 1.0)),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tiff_of_every_depth_and_layout(tmp_path, dtype, high, channels):
    layouts: list[dict[str, Any]] = [
        {},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"tile": (32, 32), "compression": "zlib"},
        {"compression": "lzw", "predictor": True},
        {"compression": "packbits", "byteorder": ">"},
        {"compression": "zstd", "rowsperstrip": 7},
        {"compression": "lzma", "predictor": True},
    ]
    if channels > 1:
        layouts += [{"planarconfig": "separate"}, {"planarconfig": "separate", "compression": "lzw", "tile": (16, 16)}]
    for layout in layouts:
        path = write_tiff(tmp_path / "a.tif", samples(dtype, high, channels), **layout)
        assert off(load_image(path), channels) <= 1, layout
        assert off(load_image(path.read_bytes()), channels) <= 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd", "lzma"])
def test_8_bit_tiff_of_every_layout(tmp_path, channels, compression):
    for layout in ({}, {"byteorder": ">"}, {"tile": (32, 32)}) + (({"planarconfig": "separate"},) if channels > 1 else ()):
        path = write_tiff(tmp_path / "a.tif", shades(channels), compression=compression, **layout)
        np.testing.assert_array_equal(np.asarray(load_image(path)), shades(channels), str(layout))


@pytest.mark.parametrize(
    ("dtype", "high"), [("uint8", 255), ("uint16", 4095), ("uint16", 65535), ("uint32", 4095), ("float32", 1), ("int16", 4095)]
)
def test_white_is_zero_at_any_depth(tmp_path, dtype, high):
    path = write_tiff(tmp_path / "a.tif", samples(dtype, high + (high == 255) * 0.999, 1), photometric="miniswhite")
    assert abs(np.asarray(load_image(path)).astype(int) - (255 - shades(1))).max() <= 1


def test_white_is_zero_of_one_and_four_bits(tmp_path):
    bits = (LEFT_TO_RIGHT > 0.5).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", bits, bitspersample=1, photometric="miniswhite")
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.tif").convert("L")), 255 * (1 - bits))


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_samples(tmp_path, bits):
    for channels in (1, 3):
        values = samples("uint16", 2**bits - 1, channels)
        path = write_tiff(tmp_path / "a.tif", values, bitspersample=bits)
        assert off(load_image(path), channels) <= 1


def test_gdal_no_data(tmp_path):
    for text, dtype, high, no_data in [("-9999", "f4", 1.0, -9999), ("nan", "f4", 1.0, np.nan), ("0", "u2", 4095, 0)]:
        values = samples(dtype, high, 1)
        values[:, 20:30] = no_data
        tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, text, True)])
        expected = shades(1)
        expected[:, 20:30] = 0
        assert abs(np.asarray(load_image(tmp_path / "a.tif")).astype(int) - expected).max() <= 1


def test_nothing_but_nan(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4), np.nan, np.float32))
    assert "no pixel of it is a number" in message_of(tmp_path / "a.tif")


def test_cmyk(tmp_path):
    ink = np.dstack([samples("uint16", 65535, 3), np.zeros((48, 64), np.uint16)])
    tifffile.imwrite(tmp_path / "deep.tif", ink, photometric="separated")
    tifffile.imwrite(tmp_path / "a.tif", (ink >> 8).astype(np.uint8), photometric="separated")
    deep, plain = load_image(tmp_path / "deep.tif"), load_image(tmp_path / "a.tif")
    assert deep.mode == plain.mode == "CMYK" and np.array_equal(np.asarray(deep), np.asarray(plain))


def test_palette(tmp_path):
    colours = np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", shades(1), photometric="palette", colormap=colours)
    np.testing.assert_array_equal(
        np.asarray(load_image(tmp_path / "a.tif").convert("RGB")), (colours >> 8).T[shades(1)].astype(np.uint8)
    )


def test_the_first_page_and_the_first_slice(tmp_path):
    pages = np.stack([samples("uint16", 4095, 1), np.zeros((48, 64), np.uint16)])
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack")
    tifffile.imwrite(tmp_path / "volume.tif", pages.repeat(8, 0), photometric="minisblack", volumetric=True, tile=(16, 16, 16))
    assert off(load_image(tmp_path / "pages.tif"), 1) <= 1
    assert off(load_image(tmp_path / "volume.tif"), 1) <= 1


def test_cielab_becomes_rgb(tmp_path):
    lab = np.full((8, 8, 3), (138, 81, 70), np.uint8)  # pure red, seen in the light of D50
    tifffile.imwrite(tmp_path / "a.tif", lab, photometric="cielab")
    np.testing.assert_allclose(load_image(tmp_path / "a.tif").getpixel((3, 3)), (255, 0, 0), atol=6)
    tifffile.imwrite(tmp_path / "b.tif", lab.astype(np.uint16), photometric="cielab")
    assert "CIELAB" in message_of(tmp_path / "b.tif")


def test_a_file_whose_pixels_were_never_written(tmp_path):
    for dtype in ("uint8", "uint16"):
        path = write_tiff(tmp_path / "a.tif", samples(dtype, 255, 1), compression="lzw")
        with tifffile.TiffFile(path, mode="r+") as tiff:
            for tag in ("StripOffsets", "StripByteCounts"):
                tiff.pages.first.tags[tag].overwrite([0] * len(tiff.pages.first.dataoffsets))
        assert "damaged" in message_of(path)


def test_orientation_is_applied_to_deep_tiff_as_pillow_does_to_plain_ones(tmp_path):
    for orientation in range(1, 9):
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(tmp_path / "a.tif", shades(3), photometric="rgb", extratags=tags)
        tifffile.imwrite(tmp_path / "b.tif", shades(3).astype(np.uint16) * 257, photometric="rgb", extratags=tags)
        np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "a.tif")), np.asarray(load_image(tmp_path / "b.tif")))


def test_channels_that_no_picture_has(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4, 12), np.uint16), photometric="minisblack", planarconfig="contig")
    assert "12 uint16 channels" in message_of(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((4, 4), np.complex64), photometric="minisblack")
    assert "complex64" in message_of(tmp_path / "b.tif")


@needs_vips
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_vips_shows_the_same(tmp_path, photometric, compression):
    for channels in (1, 3):
        values = samples("uint16", 65535, channels)
        options = {"photometric": photometric} if channels == 1 else {}
        path = write_tiff(tmp_path / "a.tif", values, compression=compression, predictor=compression == "lzw", **options)
        subprocess.run(["vips", "copy", path, tmp_path / "b.png"], check=True)
        second = imagecodecs.png_decode((tmp_path / "b.png").read_bytes()) >> 8
        assert abs(np.asarray(load_image(path)).astype(int) - second).max() <= 1


# --- PNG, JPEG 2000, JPEG


@pytest.mark.parametrize("high", [65535, 4095, 255])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_deep_png(tmp_path, channels, high):
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(samples("uint16", high + 0.999, channels)))
    assert off(load_image(tmp_path / "a.png"), channels) <= (1 if channels in (2, 4) else 0)


@pytest.mark.parametrize("codec", ["j2k", "jp2"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("high", [65535, 4095])
def test_deep_jpeg_2000(tmp_path, channels, high, codec):
    content = imagecodecs.jpeg2k_encode(samples("uint16", high + 0.999, channels), codecformat=codec, level=0)
    (tmp_path / "a.jp2").write_bytes(content)
    assert off(load_image(tmp_path / "a.jp2"), channels) <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_of_12_bits(tmp_path, channels):
    content = imagecodecs.jpeg8_encode(samples("uint16", 4095.999, channels), level=98, bitspersample=12)
    (tmp_path / "a.jpg").write_bytes(content)
    assert off(load_image(tmp_path / "a.jpg"), channels) <= (2 if channels == 1 else 6)


# --- what is wrong with a file


def deep_files(folder: Path) -> list[Path]:
    (folder / "a.png").write_bytes(imagecodecs.png_encode(samples("uint16", 65535, 3)))
    (folder / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(samples("uint16", 65535, 3), level=0))
    return [
        write_tiff(folder / "plain.tif", samples("uint16", 65535, 3)),
        write_tiff(folder / "lzw.tif", samples("uint16", 65535, 4), compression="lzw", predictor=True),
        write_tiff(folder / "zlib.tif", samples("float32", 1.0, 1), compression="zlib", tile=(16, 16)),
        folder / "a.png",
        folder / "a.jp2",
    ]


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_truncated_deep_files(tmp_path, share):
    for path in deep_files(tmp_path):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        message = message_of(path)
        assert "damaged" in message, path.name


def test_garbage_in_the_middle_of_deep_files(tmp_path, caplog):
    noise = np.random.default_rng(0)
    outcomes = set()
    for path in deep_files(tmp_path):
        good = path.read_bytes()
        for _ in range(60):
            bad = bytearray(good)
            for position in noise.integers(0, min(len(bad), 2000), 6):
                bad[position] = noise.integers(256)
            path.write_bytes(bad)
            try:
                load_image(path)
                outcomes.add("loaded")
            except UserError as error:
                assert path.name in str(error) and "\n" not in str(error)
                outcomes.add("refused")
    assert outcomes == {"loaded", "refused"} and not caplog.records


def test_decompression_bombs(tmp_path, monkeypatch):
    files = deep_files(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for path in [*files, write_tiff(tmp_path / "f8.tif", samples("float64", 1.0, 3))]:
        assert "MAX_IMAGE_PIXELS" in message_of(path)


def test_few_shades_of_a_file_are_said(tmp_path, capsys):
    write_tiff(tmp_path / "flat.tif", np.full((48, 64, 3), 9000, np.uint16))
    load_image(tmp_path / "flat.tif")
    assert capsys.readouterr().err == f"{tmp_path / 'flat.tif'}: comes out in one shade\n"
    assert to_8_bits(samples("uint16", 4095, 1), "good").max() == 255
