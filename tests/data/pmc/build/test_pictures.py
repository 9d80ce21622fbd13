"""Image files of all kinds to the pictures of a build."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from helpers.picture_checks import distances_of_looks
from PIL import Image

from biomedclip_jax.data.pmc.build._pictures import DISTANCE, make_picture
from biomedclip_jax.errors import UserError

pytest.importorskip("imagehash", reason="needs: pip install 'biomedclip_jax[pmc]'")


def scene(width: int = 200, height: int = 120) -> Image.Image:
    """A smooth picture with a red square."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    pixels = np.stack([x * 255, y * 255, 128 + 100 * np.sin(9 * x * y)], axis=-1).astype(np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = (220, 20, 20)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def opened(jpeg: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(jpeg))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    return image


def test_a_small_jpeg_stays_as_it_is() -> None:
    data = encoded(scene(), "JPEG", quality=80)
    picture = make_picture(data, "a.jpg", 512, 32)
    assert picture.jpeg == data
    assert (picture.width, picture.height) == (200, 120)
    assert picture.digest == hashlib.sha256(data).digest()


def test_a_large_one_is_reduced_once_and_its_size_kept() -> None:
    picture = make_picture(encoded(scene(2_000, 1_200), "JPEG"), "a.jpg", 512, 32)
    assert (picture.width, picture.height) == (2_000, 1_200)
    assert opened(picture.jpeg).size == (512, 307)
    wanted = np.asarray(scene(512, 307), int)
    assert np.abs(np.asarray(opened(picture.jpeg), int) - wanted).mean() < 3


@pytest.mark.parametrize(
    "kind, options, mode",
    [
        ("PNG", {}, "RGB"),
        ("PNG", {}, "P"),
        ("GIF", {}, "P"),
        ("TIFF", {"compression": "tiff_lzw"}, "RGB"),
        ("TIFF", {}, "CMYK"),
        ("JPEG", {"quality": 95}, "CMYK"),
        ("WEBP", {"lossless": True}, "RGB"),
    ],
)
def test_other_kinds_look_the_same(kind: str, options: dict[str, object], mode: str) -> None:
    image = scene().quantize(256) if mode == "P" else scene().convert(mode)
    picture = make_picture(encoded(image, kind, **options), "figure", 512, 32)
    shown = np.asarray(opened(picture.jpeg), int)
    difference = np.abs(shown - np.asarray(scene(), int)).mean()
    assert difference < (6 if mode == "P" else 3)
    if mode != "P":  # a palette's dots are seen in the fine structure, which this smooth picture lacks
        assert np.bitwise_count(picture.look ^ make_picture(encoded(scene(), "PNG"), "b", 512, 32).look).sum() <= DISTANCE


@pytest.mark.parametrize("mode", ["L", "1", "I;16"])
def test_gray_ones_become_rgb(mode: str) -> None:
    gray = scene().convert("L")
    image = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257) if mode == "I;16" else gray.convert(mode)
    shown = np.asarray(opened(make_picture(encoded(image, "PNG"), "a.png", 512, 32).jpeg), int)
    assert np.abs(shown[..., 0] - shown[..., 2]).max() <= 2
    if mode != "1":
        assert np.abs(shown[..., 0] - np.asarray(gray, int)).mean() < 2


def test_transparent_parts_are_white() -> None:
    image = scene().convert("RGBA")
    image.putalpha(
        Image.fromarray(np.repeat(np.uint8([[0, 255]]), [100], axis=0).repeat(100, axis=1)[:120].copy()).resize((200, 120))
    )
    shown = np.asarray(opened(make_picture(encoded(image, "PNG"), "a.png", 512, 32).jpeg), int)
    assert shown[:, :80].min() > 245
    assert np.abs(shown[:, 120:] - np.asarray(scene(), int)[:, 120:]).mean() < 3
    palette = scene().quantize(32)
    palette.info["transparency"] = palette.getpixel((60, 40))  # the red square
    shown = np.asarray(opened(make_picture(encoded(palette, "PNG"), "a.png", 512, 32).jpeg), int)
    assert shown[40, 60].min() > 240


@pytest.mark.parametrize(
    "data, reason",
    [
        (encoded(scene(), "JPEG")[:2_000], "damaged or incomplete"),
        (b"<!DOCTYPE html><html>404</html>", "a web page, not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "not an image"),
        (b"", "empty"),
        (encoded(scene(200, 20), "PNG"), "200 x 20 pixels; expected at least 32 on the shorter side"),
    ],
)
def test_what_cannot_be_used_is_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        make_picture(data, "PMC1.1/a.jpg", 512, 32)
    assert str(error.value).startswith("PMC1.1/a.jpg: ")


def test_a_decompression_bomb_is_refused() -> None:
    bomb = encoded(Image.new("1", (30_000, 30_000)), "PNG")
    assert len(bomb) < 200_000
    with pytest.raises(UserError, match="decompression bomb"):
        make_picture(bomb, "bomb.png", 512, 32)


def test_looks_survive_size_and_compression_and_tell_pictures_apart(pmc_articles: Path) -> None:
    """All 54 figures are near enough to their own small, strongly compressed copies, and none to another figure."""
    paths = sorted(path for path in (pmc_articles / "cloud").glob("PMC*/*") if path.suffix not in (".xml", ".json"))
    # a formula, 26 pixels high, and two more forms of one picture
    paths = [path for path in paths if path.name not in ("e001.png", "f3.tif", "f3-small.gif")]
    assert len(paths) == 54
    same, others = distances_of_looks(paths)
    assert len(same) == 54 and max(same) <= DISTANCE, sorted(same)
    assert min(others) > 2 * DISTANCE, sorted(others)[:5]
