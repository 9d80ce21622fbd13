"""Reading of image files, and preprocessing against open_clip's own transforms, bit for bit."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images.load import IMAGE_SUFFIXES, image_size, load_image
from biomedclip_jax.data.images.normalise import normalised
from biomedclip_jax.data.images.preprocess import preprocess, preprocess_train
from biomedclip_jax.data.images.search import find_images
from biomedclip_jax.errors import UserError

MODES = ("1", "L", "P", "P with alpha table", "LA", "RGB", "RGB with alpha key", "RGBA", "CMYK", "I;16", "I", "F")
SIZES = ((32, 32), (33, 32), (31, 47), (64, 48), (7, 90), (90, 7), (3, 5), (1, 1), (101, 77))


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30), seed: int = 0) -> Image.Image:
    """A picture of a mode with nothing regular in it, so that a shift by one pixel shows."""
    width, height = size
    noise = np.random.default_rng(seed)
    if mode in ("I;16", "I", "F"):
        deep = noise.integers(0, 700, (height, width))
        return Image.fromarray(deep.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    image = Image.fromarray(noise.integers(0, 256, (height, width, 4), np.uint8))
    if mode == "P with alpha table":
        image = image.convert("RGB").quantize(200)
        image.info["transparency"] = bytes(range(200))
        return image
    if mode == "RGB with alpha key":
        image = image.convert("RGB")
        image.info["transparency"] = (1, 2, 3)
        return image
    if mode == "P":
        return image.convert("RGB").quantize(200)
    if mode == "CMYK":
        return Image.frombytes("CMYK", size, image.tobytes())
    return image.convert(mode)


def open_clip_pixels(image: Image.Image, config: PreprocessConfig) -> np.ndarray:
    """What open_clip makes of a PIL image, as [H,W,3]."""
    from helpers.reference import load_open_clip

    resample = config.interpolation
    transform = load_open_clip().image_transform(
        config.image_size,
        is_train=False,
        mean=config.mean,
        std=config.std,
        resize_mode=config.resize_mode,
        interpolation="bicubic" if resample == "nearest" else resample,
        fill_color=config.fill_color,
    )
    if resample == "nearest":  # which open_clip does not offer; its Resize does
        from torchvision.transforms import InterpolationMode

        transform.transforms[0].interpolation = InterpolationMode.NEAREST
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # open_clip lets Pillow warn of transparency tables
        return transform(image).permute(1, 2, 0).numpy()


class TorchDraws:
    """A stand-in for np.random.Generator that draws from torch, in torchvision's way."""

    def uniform(self, low: float, high: float) -> float:
        import torch

        return torch.empty(1).uniform_(low, high).item()

    def integers(self, low: int, high: int) -> int | float:
        import torch

        return torch.randint(low, high, size=(1,)).item()


def error_of(function, *arguments) -> str:
    """The message of the `UserError` that a call raises; it has to be one line."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- preprocess


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("mode", MODES)
def test_preprocess_equals_open_clip(mode, resize_mode, interpolation):
    config = PreprocessConfig(
        image_size=32,
        mean=(0.4, 0.5, 0.1),
        std=(0.2, 0.25, 0.3),
        resize_mode=resize_mode,
        interpolation=interpolation,
        fill_color=77 if mode != "1" else 1,
    )
    for seed, size in enumerate(SIZES):
        image = picture(mode, size, seed)
        untouched = image.copy()
        pixels = preprocess(image, config)
        assert pixels.dtype == np.float32 and pixels.shape == (32, 32, 3)
        np.testing.assert_array_equal(pixels, open_clip_pixels(image, config), err_msg=f"{mode} {size}")
        assert image == untouched and image.info == untouched.info


@pytest.mark.parametrize("resize_mode", ["shortest", "longest"])
def test_preprocess_rounds_sizes_as_torchvision_does(resize_mode):
    config = PreprocessConfig(image_size=35, resize_mode=resize_mode)
    sizes = np.random.default_rng(0).integers(10, 200, (200, 2)).tolist()
    for width, height in sizes:
        image = picture("L", (width, height))
        np.testing.assert_array_equal(preprocess(image, config), open_clip_pixels(image, config), f"{width}x{height}")


def test_preprocess_at_biomedclip_size():
    image = picture("RGB", (613, 417))
    np.testing.assert_array_equal(preprocess(image, PreprocessConfig()), open_clip_pixels(image, PreprocessConfig()))


def test_preprocess_of_a_photograph_equals_open_clip():
    skimage_data = pytest.importorskip("skimage.data")
    image = Image.fromarray(skimage_data.astronaut())
    np.testing.assert_array_equal(preprocess(image, PreprocessConfig()), open_clip_pixels(image, PreprocessConfig()))


def test_normalisation_by_hand():
    config = PreprocessConfig(image_size=2, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    pixels = preprocess(Image.new("RGB", (2, 2), (255, 0, 51)), config)
    np.testing.assert_allclose(pixels[0, 0], [1.0, -1.0, 0.2], atol=1e-7)


def test_a_line_of_one_pixel_survives_resize_mode_longest():
    config = PreprocessConfig(image_size=32, mean=(0, 0, 0), std=(1, 1, 1), resize_mode="longest")
    upright = preprocess(Image.new("L", (1, 300), 255), config)  # open_clip fails: its width is round(32 / 300) = 0
    assert upright[:, 15].min() == 1.0 and upright.sum() == 32 * 3
    np.testing.assert_array_equal(preprocess(Image.new("L", (300, 1), 255), config), upright.transpose(1, 0, 2))


def test_preprocess_refuses_what_would_fill_the_memory():
    assert "too elongated" in error_of(preprocess, Image.new("L", (1, 3000)), PreprocessConfig())
    assert preprocess(Image.new("L", (1, 3000)), PreprocessConfig(resize_mode="squash")).shape == (224, 224, 3)


# --- preprocess_train


@pytest.mark.parametrize("crop_scale", [(0.9, 1.0), (0.08, 0.5)])
@pytest.mark.parametrize("mode", ["RGB", "P", "L", "RGBA"])
def test_train_crop_equals_open_clip_for_the_same_draws(mode, crop_scale):
    import torch
    from helpers.reference import load_open_clip

    config = PreprocessConfig(image_size=32, interpolation="bilinear")  # open_clip trains bicubic all the same
    transform = load_open_clip().image_transform(
        32, is_train=True, mean=config.mean, std=config.std, aug_cfg={"scale": crop_scale}
    )
    for seed, size in enumerate([(64, 48), (41, 57), (9, 200), (200, 9), (32, 32)]):  # two need the central crop
        image = picture(mode, size, seed)
        torch.manual_seed(seed)
        expected = transform(image).permute(1, 2, 0).numpy()
        torch.manual_seed(seed)
        draws: Any = TorchDraws()
        pixels = normalised(preprocess_train(image, config, draws, crop_scale), config)
        np.testing.assert_array_equal(pixels, expected, err_msg=f"{mode} {size}")


def test_train_crop_gives_up_after_ten_tries():
    class CountedDraws:
        count = 0

        def uniform(self, low: float, high: float) -> float:
            self.count += 1
            return high

    draws: Any = CountedDraws()
    config = PreprocessConfig(image_size=8)
    pixels = normalised(preprocess_train(picture("L", (9, 200)), config, draws), config)
    middle = picture("L", (9, 200)).crop((0, 94, 9, 106))  # 9 / (3/4) = 12 rows
    np.testing.assert_array_equal(pixels, preprocess(middle.resize((8, 8), Image.Resampling.BICUBIC), config))
    assert draws.count == 2 * 10


def test_train_crop_is_a_function_of_the_generator():
    image, config = picture("RGB", (80, 60)), PreprocessConfig(image_size=32)

    def crop(seed: int) -> np.ndarray:
        return preprocess_train(image, config, np.random.default_rng(seed), (0.3, 0.6))

    first = crop(1)
    assert first.dtype == np.uint8 and first.shape == (32, 32, 3)
    np.testing.assert_array_equal(first, crop(1))
    assert not np.array_equal(first, crop(2))


def test_train_crops_cover_the_asked_share_of_the_area(monkeypatch):
    boxes = []
    crop = Image.Image.crop
    monkeypatch.setattr(Image.Image, "crop", lambda image, box: boxes.append(box) or crop(image, box))
    generator = np.random.default_rng(0)
    for _ in range(300):
        preprocess_train(picture("L", (100, 100)), PreprocessConfig(image_size=4), generator, (0.25, 0.75))
    left, top, right, bottom = np.transpose(boxes)
    shares = (right - left) * (bottom - top) / 100**2
    ratios = (right - left) / (bottom - top)
    assert shares.min() > 0.23 and shares.max() < 0.77 and 0.47 < shares.mean() < 0.53
    assert ratios.min() > 0.72 and ratios.max() < 1.38
    assert min(left.min(), top.min()) == 0 and max(right.max(), bottom.max()) == 100


# --- load_image: files


@pytest.mark.parametrize(
    ("mode", "suffix", "options"),
    [
        ("RGB", ".png", {}),
        ("RGB", ".bmp", {}),
        ("RGB", ".tif", {"compression": "tiff_lzw"}),
        ("RGB", ".webp", {"lossless": True}),
        ("RGBA", ".png", {}),
        ("LA", ".png", {}),
        ("L", ".png", {}),
        ("P", ".png", {}),
        ("P with alpha table", ".png", {}),
        ("1", ".png", {}),
        ("CMYK", ".tif", {}),
        ("P", ".gif", {}),
    ],
)
def test_lossless_files_keep_mode_and_pixels(tmp_path, mode, suffix, options):
    image = picture(mode)
    image.save(tmp_path / f"a{suffix}", **options)
    loaded = load_image(tmp_path / f"a{suffix}")
    assert loaded.mode == image.mode
    rgba = "RGBA" if mode != "CMYK" else "RGB"
    np.testing.assert_array_equal(np.asarray(loaded.convert(rgba)), np.asarray(image.convert(rgba)))
    preprocess(loaded, PreprocessConfig(image_size=8))  # warns of nothing: pytest makes warnings errors


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_equals_pillow_and_open_clip(tmp_path, mode):
    picture(mode, (80, 60)).save(tmp_path / "a.jpg", quality=80)
    loaded = load_image(str(tmp_path / "a.jpg"))
    with Image.open(tmp_path / "a.jpg") as direct:
        assert loaded.mode == mode
        np.testing.assert_array_equal(np.asarray(loaded), np.asarray(direct))
        config = PreprocessConfig(image_size=32)
        np.testing.assert_array_equal(preprocess(loaded, config), open_clip_pixels(direct, config))


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "a.gif").convert("RGB").getpixel((2, 2)) == (255, 0, 0)


def test_format_goes_by_content_not_by_name(tmp_path):
    picture("RGB").save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.jpg")), np.asarray(picture("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ([0, 1, 255], [0, 1, 255]),  # 8-bit data in a 16-bit file
        ([0, 15, 16, 4095], [0, 0, 1, 255]),  # 12 bits
        ([0, 256, 65535], [0, 1, 255]),
        ([0, 256], [0, 128]),  # 9 bits
    ],
)
def test_depth_rule_for_16_bit_files(tmp_path, stored, shown, suffix):
    Image.fromarray(np.array([stored], np.uint16)).save(tmp_path / f"a{suffix}")
    loaded = load_image(tmp_path / f"a{suffix}")
    assert loaded.mode == "L"
    assert np.asarray(loaded).tolist() == [shown]


@pytest.mark.parametrize(
    ("dtype", "stored", "shown"),
    [
        (">u2", [0, 15, 16, 4095], [0, 0, 1, 255]),
        ("int16", [-1024, -1008, 0, 3071], [0, 1, 64, 255]),  # HU: 0..4095 once the darkest is 0
        ("int32", [0, 2**19, 2**20 - 1], [0, 128, 255]),
        ("float32", [0.0, 0.5, 1.0], [0, 128, 255]),
        ("float32", [0.25, 0.75], [64, 191]),
        ("float32", [-2.0, 0.0, 2.0], [0, 128, 255]),
        ("float32", [10.0, 10.0], [0, 0]),
    ],
)
def test_depth_rule_for_tiff(tmp_path, dtype, stored, shown):
    byte_order = ">" if dtype.startswith(">") else "<"
    tifffile.imwrite(tmp_path / "a.tif", np.array([stored], dtype), byteorder=byte_order)
    loaded = load_image(tmp_path / "a.tif")
    assert loaded.mode == "L"
    assert np.asarray(loaded).tolist() == [shown]


# --- load_image: PIL images and arrays


def test_pil_image_passes_through():
    for mode in MODES:
        image = picture(mode)
        assert load_image(image) is image


def test_lazy_pil_image_is_loaded_or_refused(tmp_path):
    picture("RGB", (60, 60)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        loaded = load_image(image)
    assert loaded.getpixel((0, 0)) == picture("RGB", (60, 60)).getpixel((0, 0))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with Image.open(tmp_path / "b.png") as image:
        assert "damaged or incomplete" in error_of(load_image, image)


@pytest.mark.parametrize(
    ("array", "mode", "expected"),
    [
        (np.array([[0, 200]], np.uint8), "L", [[0, 200]]),
        (np.array([[[0], [200]]], np.uint8), "L", [[0, 200]]),
        (np.array([[[1, 2, 3]]], np.uint8), "RGB", [[[1, 2, 3]]]),
        (np.array([[[1, 2, 3, 4]]], np.uint8), "RGBA", [[[1, 2, 3, 4]]]),
        (np.array([[0, 16, 4095]], np.uint16), "L", [[0, 1, 255]]),
        (np.array([[0, 16, 4095]], ">u2"), "L", [[0, 1, 255]]),
        (np.array([[False, True]]), "L", [[0, 255]]),
        (np.array([[0.0, 0.5, 1.0]]), "L", [[0, 128, 255]]),
        (np.array([[[0.0, 0.25, 1.0]]], np.float32), "RGB", [[[0, 64, 255]]]),
        (np.arange(12, dtype=np.uint8).reshape(2, 6)[:, ::2], "L", [[0, 2, 4], [6, 8, 10]]),  # not contiguous
    ],
)
def test_arrays(array, mode, expected):
    image = load_image(array)
    assert image.mode == mode
    assert np.asarray(image).tolist() == expected


def test_8_bit_values_survive_as_floats():
    values = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(np.asarray(load_image(values / np.float32(255))), values)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3, 2), np.uint8),
        np.zeros((3, 8, 8, 3), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((2, 2, 3), np.uint16),
        np.zeros((2, 2), np.int64),
        np.zeros((2, 2, 4), np.float32),
        np.zeros((2, 2), complex),
        np.full((2, 2), 1.01),
        np.full((2, 2), -0.01),
        np.full((2, 2), np.nan, np.float16),
        np.array([["a"]]),
    ],
)
def test_other_arrays_are_refused_by_shape_and_dtype(array):
    message = error_of(load_image, array)
    assert str(list(array.shape)) in message and str(array.dtype) in message and "expected" in message


def test_size_of_an_image_without_decoding_it_where_its_head_says_it(tmp_path):
    picture("RGB", (31, 17)).save(tmp_path / "a.jpg")
    cut = (tmp_path / "a.jpg").read_bytes()[:700]
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((7, 9, 3)), photometric="rgb")  # Pillow does not open it
    assert image_size(tmp_path / "a.jpg") == image_size(cut) == (31, 17)
    assert image_size(tmp_path / "b.tif") == (9, 7)
    assert error_of(image_size, tmp_path / "none.png").endswith("no such file")
    assert error_of(image_size, b"text", "t.tar: a.jpg").startswith("t.tar: a.jpg: not an image")


def test_other_sources_are_refused():
    assert "list" in error_of(load_image, [1, 2])


def test_the_bytes_of_a_file_are_as_good_as_the_file(tmp_path):
    picture("RGB").save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert np.array_equal(np.asarray(load_image(content)), np.asarray(picture("RGB")))
    assert error_of(load_image, content[:60], "shard.tar: a.png").startswith("shard.tar: a.png: a damaged")
    assert error_of(load_image, b"<html>", "s3://bucket/a.tar: b.jpg").startswith("s3://bucket/a.tar: b.jpg: a web page")


# --- load_image: what is wrong with a file


def test_missing_file_folder_and_empty_file(tmp_path):
    (tmp_path / "nothing.png").touch()
    assert error_of(load_image, tmp_path / "none.png") == f"{tmp_path / 'none.png'}: no such file"
    assert "folder" in error_of(load_image, tmp_path)
    assert "the file is empty" in error_of(load_image, tmp_path / "nothing.png")
    assert "cannot be read" in error_of(load_image, "a\0b.png")
    assert "cannot be read" in error_of(load_image, tmp_path / ("a" * 300))


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>", b"\n <html><body>404", b"\xef\xbb\xbf<?xml version='1'?>"])
@pytest.mark.parametrize("name", ["a.jpg", "a.dcm"])
def test_web_page_saved_as_an_image(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    message = error_of(load_image, tmp_path / name)
    assert name in message and "web page" in message


@pytest.mark.parametrize("content", [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<?xml version='1.0'?>\n<svg></svg>"])
@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_drawing_that_has_no_pixels(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    message = error_of(load_image, tmp_path / name)
    assert name in message and "SVG / XML, not a picture of pixels" in message


def test_text_is_not_an_image(tmp_path):
    (tmp_path / "a.jpg").write_text("one,two\n" * 100)
    message = error_of(load_image, tmp_path / "a.jpg")
    assert "a.jpg" in message and "not an image" in message


def test_formats_that_run_other_programs_are_not_opened(tmp_path):
    picture("RGB").save(tmp_path / "a.eps")
    assert "not an image" in error_of(load_image, tmp_path / "a.eps")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_truncated_files(tmp_path, suffix, share):
    path = tmp_path / f"a{suffix}"
    picture("RGB", (120, 90)).save(path)
    load_image(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    message = error_of(load_image, path)
    assert path.name in message and "damaged" in message


def test_garbage_in_the_middle_never_escapes_as_a_pillow_error(tmp_path):
    noise = np.random.default_rng(0)
    outcomes = set()
    for suffix in (".png", ".tif", ".webp", ".gif", ".bmp", ".jpg"):
        picture("RGB", (30, 30)).save(tmp_path / f"good{suffix}")
        good = (tmp_path / f"good{suffix}").read_bytes()
        for _ in range(60):
            bad = bytearray(good)
            for position in noise.integers(0, len(bad), 10):
                bad[position] = noise.integers(256)
            (tmp_path / f"bad{suffix}").write_bytes(bad)
            try:
                load_image(tmp_path / f"bad{suffix}")
                outcomes.add("loaded")
            except UserError as error:
                assert f"bad{suffix}" in str(error) and "\n" not in str(error)
                outcomes.add("refused")
    assert outcomes == {"loaded", "refused"}


def test_decompression_bomb(tmp_path, monkeypatch):
    for side in (12, 15):
        picture("RGB", (side, side)).save(tmp_path / f"{side}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow warns above it and refuses above twice as many
    image = load_image(tmp_path / "12.png")
    for seed in range(20):  # a crop that is not the whole image is checked by Pillow once more
        preprocess_train(image, PreprocessConfig(image_size=4), np.random.default_rng(seed))
    message = error_of(load_image, tmp_path / "15.png")
    assert "15.png" in message and "225 pixels" in message and "MAX_IMAGE_PIXELS" in message


def test_threads_leave_the_warning_filters_as_they_were(tmp_path, monkeypatch):
    picture("RGB", (12, 12)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(load_image, [tmp_path / "a.png"] * 400))
    assert len(images) == 400 and warnings.filters == before
    with pytest.warns(Image.DecompressionBombWarning), Image.open(tmp_path / "a.png"):
        pass


# --- find_images


def test_find_images(tmp_path):
    for name in ("b.PNG", "a.jpg", "sub/c.dcm", "sub/deep/d.tiff", "no.txt", "._a.jpg", ".trash/e.jpg", "f.png/g.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in find_images(str(tmp_path))]
    assert found == ["a.jpg", "b.PNG", "f.png/g.bmp", "sub/c.dcm", "sub/deep/d.tiff"]
    assert find_images(tmp_path / "no.txt") == [tmp_path / "no.txt"]


def test_find_images_errors(tmp_path):
    assert error_of(find_images, tmp_path / "none") == f"{tmp_path / 'none'}: no such file or folder"
    message = error_of(find_images, tmp_path)
    assert str(tmp_path) in message and all(suffix in message for suffix in IMAGE_SUFFIXES)
