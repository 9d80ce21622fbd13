"""DICOM files with one odd element, by hand; DCMTK as a second reader and as a writer of other encodings, where installed."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.data.images._dicom_jpeg import is_ybr
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.errors import UserError
from biomedclip_jax.support import terminal

pydicom = pytest.importorskip("pydicom")

from helpers.dicom_files import item, shown, table, write  # noqa: E402  (it imports pydicom)

RAMP = np.linspace(0, 4095, 256).astype(np.uint16)[None]
SHADES = np.arange(256)
TWELVE = {"BitsStored": 12}
needs_dcmtk = pytest.mark.skipif(shutil.which("dcm2pnm") is None, reason="DCMTK, a second reader, is not installed")


@pytest.fixture(autouse=True)
def nothing_said_before(monkeypatch):
    monkeypatch.setattr(terminal, "_said", set())


def off(path: Path, expected: np.ndarray) -> int:
    return int(abs(np.array(shown(path)) - expected).max())


def with_raw(path: Path, **texts: bytes) -> Path:
    """The file with some elements as these bytes, which pydicom would not write."""
    dataset = pydicom.dcmread(path)
    for keyword in texts:
        setattr(dataset, keyword, "9" * 8)
    dataset.save_as(path)
    content = path.read_bytes()
    for keyword, text in texts.items():
        tag = pydicom.tag.Tag(keyword)
        head = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + b"DS\x08\x00"
        assert content.count(head + b"9" * 8) == 1 and len(text) <= 8
        content = content.replace(head + b"9" * 8, head + text.ljust(8))
    path.write_bytes(content)
    return path


# --- windows that are no help


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": b"", "WindowWidth": b""},
        {"WindowCenter": b"abc", "WindowWidth": b"100"},
        {"WindowCenter": b"2048", "WindowWidth": b"0"},
        {"WindowCenter": b"2048", "WindowWidth": b"-100"},
        {"WindowCenter": b"NaN", "WindowWidth": b"100"},
        {"WindowCenter": b"2048", "WindowWidth": b"inf"},
        {"WindowCenter": b"40000", "WindowWidth": b"100"},
        {"WindowCenter": b"-9000", "WindowWidth": b"1"},
    ],
)
def test_a_window_that_shows_nothing_gives_way_to_the_range(tmp_path, window):
    assert off(with_raw(write(tmp_path / "a.dcm", RAMP, **TWELVE), **window), SHADES) == 0


def test_a_window_outside_of_all_values_is_said(tmp_path, capsys):
    path = write(tmp_path / "a.dcm", RAMP, **TWELVE, WindowCenter=40000, WindowWidth=100)
    load_image(path)
    load_image(path)
    assert capsys.readouterr().err == f"{path}: its window shows one shade: the range of its pixels is shown instead\n"


def test_a_name_that_is_no_path_is_said_as_it_is(tmp_path, capsys):
    content = write(tmp_path / "a.dcm", RAMP, **TWELVE, WindowCenter=40000, WindowWidth=100).read_bytes()
    load_image(content, "s3://bucket/a.tar: b")
    assert capsys.readouterr().err.startswith("s3://bucket/a.tar: b: its window")


def test_the_next_window_that_shows_anything(tmp_path):
    two = write(tmp_path / "a.dcm", RAMP, **TWELVE, WindowCenter=[40000, 1000], WindowWidth=[100, 500])
    one = write(tmp_path / "b.dcm", RAMP, **TWELVE, WindowCenter=1000, WindowWidth=500)
    assert shown(two) == shown(one)


def test_a_comma_is_a_decimal_point(tmp_path):
    comma = {"WindowCenter": b"1024,5", "WindowWidth": b"2048,5", "RescaleSlope": b"1,5", "RescaleIntercept": b"-10,25"}
    point = {keyword: text.replace(b",", b".") for keyword, text in comma.items()}
    one = shown(with_raw(write(tmp_path / "a.dcm", RAMP, **TWELVE), **comma))
    assert one == shown(with_raw(write(tmp_path / "b.dcm", RAMP, **TWELVE), **point))
    assert one != SHADES.tolist()


def test_a_flat_picture_keeps_its_window(tmp_path, capsys):
    flat = np.full((1, 99), 700, np.uint16)
    assert shown(write(tmp_path / "a.dcm", flat, WindowCenter=100, WindowWidth=50)) == [255] * 99
    assert capsys.readouterr().err == f"{tmp_path / 'a.dcm'}: comes out in one shade\n"


def test_an_unreadable_slope_is_one(tmp_path):
    assert off(with_raw(write(tmp_path / "a.dcm", RAMP), RescaleSlope=b"x", RescaleIntercept=b""), SHADES) == 0


# --- lookup tables


@pytest.mark.parametrize(("bits", "high"), [(16, 4095), (16, 1023), (12, 4095), (16, 65535), (10, 1023), (16, 255), (8, 255)])
def test_voi_table_of_more_bits_than_it_uses(tmp_path, bits, high):
    entries = np.linspace(0, high, 4096).astype(int).tolist()
    path = write(tmp_path / "a.dcm", RAMP, **TWELVE, VOILUTSequence=[table(0, bits, *entries)])
    assert off(path, SHADES) <= 1


def test_voi_table_that_nearly_fills_its_bits_is_not_stretched(tmp_path):
    path = write(tmp_path / "a.dcm", np.array([[0, 1]], np.uint16), VOILUTSequence=[table(0, 12, 1000, 3000)])
    assert shown(path) == [round(1000 / 4095 * 255), round(3000 / 4095 * 255)]


def test_entries_of_8_bits_two_to_a_word(tmp_path):
    entries = np.arange(256, dtype=np.uint8)
    lut = pydicom.Dataset()
    lut.add_new("LUTDescriptor", "US", [256, 0, 8])
    for vr, data in (("OW", entries.tobytes()), ("US", entries.view("<u2").tolist())):
        lut.add_new("LUTData", vr, data)
        path = write(tmp_path / "a.dcm", np.arange(256, dtype=np.uint8)[None], VOILUTSequence=[lut])
        assert off(path, SHADES) == 0
    lut.LUTDescriptor = [256, 0, 8]
    path = write(tmp_path / "b.dcm", np.arange(256, dtype=np.uint8)[None], ModalityLUTSequence=[lut])
    assert off(path, SHADES) == 0


def test_first_value_of_a_table_is_negative(tmp_path):
    pixels = np.linspace(-1024, 1023, 256).astype(np.int16)[None]
    entries = np.linspace(0, 4095, 2048).astype(int).tolist()
    for vr in ("SS", "US"):
        lut = table(0, 12, *entries)
        lut.add_new("LUTDescriptor", vr, [2048, -1024 if vr == "SS" else 2**16 - 1024, 12])
        assert off(write(tmp_path / "a.dcm", pixels, VOILUTSequence=[lut]), SHADES) <= 1


def test_table_of_65536_entries(tmp_path):
    lut = pydicom.Dataset()
    lut.add_new("LUTDescriptor", "US", [0, 0, 16])
    lut.add_new("LUTData", "OW", np.arange(65536, dtype="<u2").tobytes())
    path = write(tmp_path / "a.dcm", (np.arange(256) * 257).astype(np.uint16)[None], VOILUTSequence=[lut])
    assert off(path, SHADES) <= 1


@pytest.mark.parametrize("broken", ["no data", "no descriptor", "empty", "two numbers"])
def test_a_table_that_cannot_be_read_gives_way_to_the_window(tmp_path, broken):
    lut = table(0, 12, 0, 4095)
    if broken == "no data":
        del lut.LUTData
    elif broken == "no descriptor":
        del lut.LUTDescriptor
    elif broken == "empty":
        lut.add_new("LUTData", "OW", b"")
    else:
        lut.add_new("LUTDescriptor", "US", [2, 0])
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    path = write(tmp_path / "a.dcm", RAMP, **TWELVE, VOILUTSequence=[lut], **window)
    assert off(path, SHADES) <= 1


# --- what is white


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", False),
        ("MONOCHROME1", "", True),
        ("MONOCHROME2", "", False),
        ("MONOCHROME1", "LIN OD", True),
    ],
)
def test_presentation_lut_shape(tmp_path, photometric, shape, inverted):
    elements = {"PresentationLUTShape": shape, "PhotometricInterpretation": photometric}
    path = write(tmp_path / "a.dcm", RAMP, **TWELVE, **elements)
    assert off(path, SHADES[::-1] if inverted else SHADES) == 0
    if shutil.which("dcm2pnm") and shape != "LIN OD":
        assert abs(dcmtk(path, "+Wm")[0].astype(int) - shown(path)).max() <= 1


# --- what has no say in the range


def test_hot_pixels_and_undeclared_padding(tmp_path):
    pixels = np.tile(RAMP, (64, 1))
    pixels[3, 3] = 65535
    rows = shown(write(tmp_path / "a.dcm", pixels))
    assert abs(np.array(rows[9]) - SHADES).max() <= 1 and rows[3][3] == 255
    signed = pixels.astype(np.int16) - 1024
    signed[:, :40] = -32768
    rows = shown(write(tmp_path / "b.dcm", signed))
    assert rows[9][:40] == [0] * 40 and rows[9][-1] == 255 and rows[9][41] < 5


def test_padding_of_float_pixels(tmp_path):
    floats = np.array([[-5.0, 0.0, 1.0, 2.0]], np.float32)
    elements = {"PixelData": None, "FloatPixelData": floats.tobytes(), "PixelRepresentation": None}
    assert shown(write(tmp_path / "a.dcm", floats, **elements, FloatPixelPaddingValue=-5.0)) == [0, 0, 128, 255]


def test_an_overlay_in_the_unused_bits_is_not_shown(tmp_path):
    pixels = RAMP.copy()
    pixels[0, ::3] |= 0x8000
    path = write(tmp_path / "a.dcm", pixels, **TWELVE)
    dataset = pydicom.dcmread(path)
    for element, vr, value in ((0x0010, "US", 1), (0x0011, "US", 256), (0x0100, "US", 16), (0x0102, "US", 15)):
        dataset.add_new((0x6000, element), vr, value)
    dataset.save_as(path)
    assert off(path, SHADES) == 0


@pytest.mark.parametrize("left_aligned", [True, False])
def test_high_bit_that_is_not_the_last_one_stored(tmp_path, left_aligned):
    window = {"WindowCenter": 1000, "WindowWidth": 700}
    path = write(tmp_path / "a.dcm", RAMP << 4 if left_aligned else RAMP, **TWELVE, **window)
    dataset = pydicom.dcmread(path)
    dataset.HighBit = 15  # wrong of the other one
    dataset.save_as(path)
    assert shown(path) == shown(write(tmp_path / "b.dcm", RAMP, **TWELVE, **window))


# --- frames


def test_a_blank_first_frame(tmp_path, capsys):
    frames = np.stack([RAMP * 0, RAMP * 0, RAMP])
    path = write(tmp_path / "a.dcm", frames, **TWELVE)
    assert off(path, SHADES) == 0
    assert capsys.readouterr().err == f"{path}: the first of its 3 frames has one shade: frame 3 is used\n"
    assert shown(write(tmp_path / "b.dcm", frames * 0)) == [0] * 256
    assert capsys.readouterr().err == f"{tmp_path / 'b.dcm'}: comes out in one shade\n"


def test_a_later_frame_has_its_own_window(tmp_path):
    windows = [item(FrameVOILUTSequence=[item(WindowCenter=c, WindowWidth=w)]) for c, w in ((9, 9), (1000, 500))]
    path = write(tmp_path / "a.dcm", np.stack([RAMP * 0, RAMP]), **TWELVE, PerFrameFunctionalGroupsSequence=windows)
    assert shown(path) == shown(write(tmp_path / "b.dcm", RAMP, **TWELVE, WindowCenter=1000, WindowWidth=500))


def test_a_blank_first_frame_in_colour(tmp_path):
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    frames[1, :, :2] = [255, 0, 0]
    rgb = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "NumberOfFrames": 2}
    path = write(tmp_path / "a.dcm", frames[0], **rgb, PixelData=frames.tobytes())
    assert load_image(path).getpixel((0, 0)) == (255, 0, 0)


# --- colours of a JPEG


def jpeg(mode: str, marks: str, subsampling: int = 0) -> bytes:
    """A red JPEG whose samples are YCbCr or RGB, with or without the marks that say so."""
    from io import BytesIO

    out = BytesIO()
    picture = Image.new("RGB", (16, 16), (220, 0, 0))
    picture.save(out, "JPEG", quality=95, subsampling=subsampling, keep_rgb=mode == "RGB")
    content = out.getvalue()
    if marks == "none":  # Pillow writes JFIF for YCbCr, Adobe for RGB, right behind the start
        while content[2:4] in (b"\xff\xe0", b"\xff\xee"):
            content = content[:2] + content[4 + int.from_bytes(content[4:6], "big") :]
    return content


def write_jpeg(path: Path, stream: bytes, photometric: str) -> Path:
    write(path, np.zeros((16, 16, 3), np.uint8), SamplesPerPixel=3, PhotometricInterpretation="RGB")
    dataset = pydicom.dcmread(path)
    dataset.PhotometricInterpretation = photometric
    dataset.PixelData = pydicom.encaps.encapsulate([stream])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    dataset.save_as(path)
    return path


@pytest.mark.parametrize(
    ("mode", "marks", "subsampling", "photometric"),
    [
        ("YCbCr", "none", 0, "RGB"),
        ("YCbCr", "JFIF", 0, "RGB"),
        ("YCbCr", "none", 2, "RGB"),
        ("YCbCr", "none", 0, "YBR_FULL"),
        ("YCbCr", "JFIF", 1, "YBR_FULL_422"),
        ("RGB", "Adobe", 0, "RGB"),
        ("RGB", "none", 0, "RGB"),  # its components are called R, G and B
    ],
)
def test_red_comes_out_red(tmp_path, mode, marks, subsampling, photometric):
    path = write_jpeg(tmp_path / "a.dcm", jpeg(mode, marks, subsampling), photometric)
    np.testing.assert_allclose(load_image(path).getpixel((8, 8)), (220, 0, 0), atol=6)


def test_components_of_other_numbers_and_damaged_streams_are_as_the_header_says():
    stream = jpeg("YCbCr", "none")
    frame = stream.index(b"\xff\xc0")
    other = stream[: frame + 10] + b"\0" + stream[frame + 11 :]
    assert is_ybr(stream) and not is_ybr(other)
    assert not any(is_ybr(stream[:end]) for end in range(0, frame, 7))


# --- DCMTK


def dcmtk(path: Path, *options: str) -> np.ndarray:
    """The first frame as DCMTK shows it."""
    png = path.with_suffix(".second.pgm")
    subprocess.run(["dcm2pnm", "+F", "1", *options, path, png], check=True, capture_output=True)
    return np.asarray(Image.open(png))


@needs_dcmtk
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("elements", "options"),
    [
        ({}, ["+Wm"]),
        ({"WindowCenter": 1000, "WindowWidth": 700}, ["+Wi", "1"]),
        ({"WindowCenter": 500, "WindowWidth": 700, "RescaleSlope": 0.5, "RescaleIntercept": -100}, ["+Wi", "1"]),
        ({"WindowCenter": 1000, "WindowWidth": 700, "VOILUTFunction": "SIGMOID"}, ["+Wi", "1", "+Wfs"]),
        ({"VOILUTSequence": "table"}, ["+Wl", "1"]),
        ({"ModalityLUTSequence": "table"}, ["+Wm"]),
    ],
)
def test_dcmtk_shows_the_same(tmp_path, elements, options, photometric):
    tables = {"table": [table(0, 12, *(int(4095 * (i / 4095) ** 0.5) for i in range(4096)))]}
    made = {keyword: tables.get(value, value) if isinstance(value, str) else value for keyword, value in elements.items()}
    path = write(tmp_path / "a.dcm", RAMP.reshape(16, 16), **TWELVE, **made, PhotometricInterpretation=photometric)
    assert abs(dcmtk(path, *options).astype(int) - np.array(shown(path))).max() <= 2


@needs_dcmtk
@pytest.mark.parametrize(
    ("command", "tolerance"),
    [
        (["dcmcjpeg", "+el"], 0),  # JPEG Lossless, 1.2.840.10008.1.2.4.57
        (["dcmcjpeg", "+e1"], 0),  # ... 70
        (["dcmcjpls", "+el"], 0),
        (["dcmcrle"], 0),
        (["dcmconv", "+td"], 0),  # deflated
        (["dcmconv", "+tb"], 0),  # big-endian
        (["dcmconv", "+ti"], 0),
        (["dcmconv", "-F"], 0),  # without preamble
        (["dcmcjpeg", "+ee"], 16),  # JPEG Extended: 12 bits where there are
        (["dcmcjpeg", "+eb"], 16),
    ],
)
def test_one_picture_in_dcmtks_encodings(tmp_path, command, tolerance):
    share = np.sin(np.arange(48) / 7)[None] / 4 + np.cos(np.arange(40) / 5)[:, None] / 4 + 0.5
    pictures: list[tuple[np.ndarray, dict[str, Any]]] = [
        ((share * 4095).astype(np.uint16), TWELVE),
        ((share * 4095 - 2048).astype(np.int16), TWELVE),
        ((share * 4000 - 1024).astype(np.int16), {}),
        ((share * 255).astype(np.uint8), {}),
        (
            (np.dstack([share, 1 - share, share**2]) * 255).astype(np.uint8),
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
        ),
    ]
    for pixels, elements in pictures:
        path = write(tmp_path / "a.dcm", pixels, **elements)
        subprocess.run([*command, path, tmp_path / "b"], check=True, capture_output=True)
        difference = np.asarray(load_image(tmp_path / "b")).astype(int) - np.asarray(load_image(path))
        assert abs(difference).max() <= tolerance


def test_what_is_not_decoded_is_said(tmp_path):
    path = write(tmp_path / "a.dcm", RAMP)
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0"))
    with pytest.raises(UserError, match=r"a\.dcm"):
        load_image(path)
