"""Image files of all kinds to the pictures of a build."""

import hashlib
import io
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.picture_checks import distances_of_looks
from PIL import Image

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.pmc.build import _pictures as pictures
from biomedclip_jax.data.pmc.build._pictures import DISTANCE, PictureError, make_picture
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


@pytest.mark.parametrize(
    ("width", "height", "used"), [(1_000, 50, True), (1_001, 50, False), (50, 1_001, False), (60_000, 33, False)]
)
def test_a_strip_is_no_picture(width: int, height: int, used: bool) -> None:
    data = encoded(Image.new("L", (width, height), 100), "PNG")
    if used:
        assert make_picture(data, "a.png", 512, 32).width == width
        return
    with pytest.raises(PictureError, match=f"a.png: {width} x {height} pixels; expected at most 20 times") as error:
        make_picture(data, "a.png", 512, 32)
    assert error.value.reason == "image too narrow"
    assert pickle.loads(pickle.dumps(error.value)).reason == "image too narrow"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1"])
@pytest.mark.parametrize("size", [(1_501, 1_200), (700, 2_222), (513, 40)])
def test_strip_by_strip_gives_what_all_at_once_gives(mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_STRIP", 50_000)
    image = scene(*size).quantize(64) if mode == "P" else scene(*size).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(scene(*size).convert("L"))
    found = pictures._reduced_rgb(image, image.size, 200)
    wanted = pictures.on_white(image)
    pictures.reduce(wanted, 200)
    assert found.size == wanted.size and found.tobytes() == wanted.tobytes()
    assert pictures.whole_rgb(image).tobytes() == pictures.on_white(image).tobytes()


def test_a_large_jpeg_is_not_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(pictures, "load_image", lambda source, name: loaded.append(source) or load_image(source, name))
    data = encoded(scene(6_000, 3_000), "JPEG")
    picture = make_picture(data, "a.jpg", 200, 32)
    assert (picture.width, picture.height) == (6_000, 3_000)
    assert [image.size for image in loaded] == [(750, 375)]
    wanted = make_picture(encoded(scene(6_000, 3_000), "PNG"), "a.png", 200, 32)
    assert opened(picture.jpeg).size == opened(wanted.jpeg).size == (200, 100)
    assert np.abs(np.asarray(opened(picture.jpeg), int) - np.asarray(opened(wanted.jpeg), int)).mean() < 2
    assert np.bitwise_count(picture.look ^ wanted.look).sum() <= DISTANCE
    with pytest.raises(UserError, match="damaged or incomplete"):
        make_picture(data[: len(data) // 2], "a.jpg", 200, 32)


def test_large_pictures_are_decoded_one_after_the_other() -> None:
    budget = pictures._Budget(100)
    open_now, most = [], []

    def work(pixels: int) -> None:
        with budget.take(pixels):
            open_now.append(pixels)
            most.append(sum(open_now))
            time.sleep(0.01)
            open_now.remove(pixels)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, [40, 40, 40, 500, 10, 90, 500, 20] * 3))
    assert max(total for total in most if total != 500) <= 100 and most.count(500) == 6


def test_want_of_memory_is_a_reason_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_memory(self: Image.Image) -> None:
        raise MemoryError

    data = encoded(scene(), "PNG")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", without_memory)
    with pytest.raises(PictureError) as error:
        make_picture(data, "a.png", 512, 32)
    assert error.value.reason == "image too large for the memory"


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
