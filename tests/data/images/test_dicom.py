"""DICOM files: synthetic ones against numbers worked out by hand, real ones of pydicom against each other."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images._dicom import load_dicom
from biomedclip_jax.data.images.load import is_bare_dicom, is_dicom, load_image
from biomedclip_jax.data.images.preprocess import preprocess
from biomedclip_jax.data.images.search import find_images
from biomedclip_jax.errors import UserError

pydicom = pytest.importorskip("pydicom")

from helpers.dicom_files import item, shown, table, write  # noqa: E402  (it imports pydicom)


def example(name: str) -> Path:
    """A real file of pydicom or pydicom-data."""
    pytest.importorskip("data_store")
    return Path(str(pydicom.data.get_testdata_file(name, download=False)))


def error_of(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- gray, by hand

RAMP = np.array([[0, 25, 50, 100]], np.uint16)
HOUNSFIELD = np.array([[0, 974, 1024, 1074, 4095]], np.int16)
CT = {"RescaleSlope": 1, "RescaleIntercept": -1024}


def test_without_a_window_the_range_of_the_pixels(tmp_path):
    assert shown(write(tmp_path / "a.dcm", RAMP)) == [0, 64, 128, 255]


def test_monochrome1_is_inverted(tmp_path):
    assert shown(write(tmp_path / "a.dcm", RAMP, PhotometricInterpretation="MONOCHROME1")) == [255, 191, 128, 0]


def test_signed_pixels(tmp_path):
    assert shown(write(tmp_path / "a.dcm", np.array([[-100, 0, 100]], np.int16))) == [0, 128, 255]


def test_negative_slope_inverts(tmp_path):
    assert shown(write(tmp_path / "a.dcm", RAMP, RescaleSlope=-2, RescaleIntercept=7)) == [255, 191, 128, 0]


def test_constant_image_and_one_bit_image(tmp_path):
    assert shown(write(tmp_path / "a.dcm", np.full((1, 3), 700, np.uint16))) == [0, 0, 0]
    packed = np.array([[0b10110001]], np.uint8)  # the lowest bit is the first pixel
    path = write(tmp_path / "b.dcm", packed, BitsAllocated=1, BitsStored=1, Columns=8)
    assert shown(path) == [255, 0, 0, 0, 255, 255, 0, 255]


def test_window_after_rescale(tmp_path):
    # LINEAR: (x - (c - 0.5)) / (w - 1) + 0.5 is 0.005, 0.505 and 1.005 at -50, 0 and 50 HU
    path = write(tmp_path / "a.dcm", HOUNSFIELD, **CT, WindowCenter=0, WindowWidth=101)
    assert shown(path) == [0, round(0.005 * 255), round(0.505 * 255), 255, 255]


def test_exact_window(tmp_path):
    path = write(tmp_path / "a.dcm", HOUNSFIELD, **CT, WindowCenter=0, WindowWidth=200, VOILUTFunction="LINEAR_EXACT")
    assert shown(path) == [0, round(0.25 * 255), 128, round(0.75 * 255), 255]


def test_sigmoid_window(tmp_path):
    path = write(tmp_path / "a.dcm", HOUNSFIELD, **CT, WindowCenter=0, WindowWidth=100, VOILUTFunction="SIGMOID")
    assert shown(path) == [0, round(255 / (1 + np.e**2)), 128, round(255 / (1 + np.e**-2)), 255]


def test_window_of_width_one_is_a_step(tmp_path):
    path = write(tmp_path / "a.dcm", RAMP, WindowCenter=50.5, WindowWidth=1)
    assert shown(path) == [0, 0, 0, 255]


def test_first_of_several_windows(tmp_path):
    one = shown(write(tmp_path / "a.dcm", HOUNSFIELD, **CT, WindowCenter=0, WindowWidth=101))
    two = shown(write(tmp_path / "b.dcm", HOUNSFIELD, **CT, WindowCenter=[0, 3000], WindowWidth=[101, 9]))
    assert one == two


@pytest.mark.parametrize("window", [{"WindowCenter": 7}, {"WindowCenter": 7, "WindowWidth": 0}, {"WindowCenter": ""}])
def test_half_a_window_is_none(tmp_path, window):
    assert shown(write(tmp_path / "a.dcm", RAMP, **window)) == [0, 64, 128, 255]


def test_padding_is_black_and_not_in_the_range(tmp_path):
    stored = np.array([[-2000, 0, 50, 100]], np.int16)
    assert shown(write(tmp_path / "a.dcm", stored, PixelPaddingValue=-2000)) == [0, 0, 128, 255]
    inverted = write(tmp_path / "b.dcm", stored, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1")
    assert shown(inverted) == [0, 255, 128, 0]
    assert shown(write(tmp_path / "c.dcm", stored)) == [0, 243, 249, 255]


def test_padding_range(tmp_path):
    stored = np.array([[60000, 65000, 65535, 0, 100]], np.uint16)
    path = write(tmp_path / "a.dcm", stored, PixelPaddingValue=65535, PixelPaddingRangeLimit=60000)
    assert shown(path) == [0, 0, 0, 0, 255]


def test_padding_value_stored_as_unsigned(tmp_path):
    path = write(tmp_path / "a.dcm", np.array([[-2000, 0, 50, 100]], np.int16))
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 2**16 - 2000)
    dataset.save_as(path)
    assert shown(path) == [0, 0, 128, 255]


def test_nothing_but_padding(tmp_path):
    assert shown(write(tmp_path / "a.dcm", np.full((1, 3), 9, np.uint16), PixelPaddingValue=9)) == [0, 0, 0]


def test_modality_table(tmp_path):
    stored = np.array([[0, 1, 2, 3]], np.uint16)
    assert shown(write(tmp_path / "a.dcm", stored, ModalityLUTSequence=[table(1, 16, 0, 50, 100)])) == [0, 0, 128, 255]


def test_voi_table_goes_before_a_window(tmp_path):
    stored = np.array([[0, 10, 11, 12, 99]], np.uint16)
    elements = {"VOILUTSequence": [table(10, 12, 0, 1365, 4095)], "WindowCenter": 1, "WindowWidth": 1}
    assert shown(write(tmp_path / "a.dcm", stored, **elements)) == [0, 0, 85, 255, 255]
    rescaled = shown(write(tmp_path / "b.dcm", stored, RescaleSlope=1, RescaleIntercept=-1, **elements))
    assert rescaled == [0, 0, 0, 85, 255]


def test_first_frame_of_several(tmp_path):
    frames = np.array([[[0, 5, 10]], [[1000, 2000, 0]]], np.uint16)
    assert shown(write(tmp_path / "a.dcm", frames)) == [0, 128, 255]


def test_settings_in_functional_groups(tmp_path):
    window = item(FrameVOILUTSequence=[item(WindowCenter=0, WindowWidth=200, VOILUTFunction="LINEAR_EXACT")])
    other = item(FrameVOILUTSequence=[item(WindowCenter=1, WindowWidth=2)])
    rescale = item(PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")])
    path = write(
        tmp_path / "a.dcm",
        np.stack([HOUNSFIELD, HOUNSFIELD]),
        PerFrameFunctionalGroupsSequence=[window, other],
        SharedFunctionalGroupsSequence=[rescale],
    )
    assert shown(path) == [0, 64, 128, 191, 255]


def test_float_pixels(tmp_path):
    path = tmp_path / "a.dcm"

    def write_floats(*values: float) -> Path:
        floats = np.array([values], np.float32)
        return write(path, floats, PixelData=None, FloatPixelData=floats.tobytes(), PixelRepresentation=None)

    assert shown(write_floats(-1.5, 0.0, 1.5)) == [0, 128, 255]
    assert shown(write_floats(np.nan, 0.0, 1.5, 3.0, np.inf)) == [0, 0, 128, 255, 0]


# --- colour, by hand


def test_rgb(tmp_path):
    colours = np.array([[[255, 0, 1], [2, 3, 4]]], np.uint8)
    path = write(tmp_path / "a.dcm", colours, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    assert shown(path) == colours[0].tolist()


def test_deep_rgb_is_shifted_by_its_stored_bits_or_those_that_it_uses(tmp_path):
    colours = np.array([[[4095, 16, 15], [2048, 0, 100]]], np.uint16)
    rgb = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    assert shown(write(tmp_path / "a.dcm", colours, **rgb, BitsStored=12)) == [[255, 1, 0], [128, 0, 6]]
    assert shown(write(tmp_path / "b.dcm", colours, **rgb)) == [[255, 1, 0], [128, 0, 6]]
    assert shown(write(tmp_path / "c.dcm", colours // 3, **rgb, BitsStored=12)) == [[85, 0, 0], [42, 0, 2]]


def test_ybr(tmp_path):
    ybr = np.array([[[76, 85, 255], [255, 128, 128]]], np.uint8)  # BT.601: pure red, white
    path = write(tmp_path / "a.dcm", ybr, SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(np.asarray(load_dicom(path))[0], [[255, 0, 0], [255, 255, 255]], atol=1)


def test_unknown_colour_kind_is_refused(tmp_path):
    ybr = np.zeros((2, 2, 3), np.uint8)
    path = write(tmp_path / "a.dcm", ybr, SamplesPerPixel=3, PhotometricInterpretation="YBR_PARTIAL_420")
    message = error_of(load_dicom, path)
    assert "a.dcm" in message and "YBR_PARTIAL_420" in message


@pytest.mark.parametrize(("factor", "red"), [(257, [0, 0x20, 0xFF]), (1, [0, 0x20, 0xFF])])
def test_palette_of_16_bits_even_if_its_values_have_8(tmp_path, factor, red):
    path = write(tmp_path / "a.dcm", np.array([[0, 1, 2]], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    dataset = pydicom.dcmread(path)
    for number, colour in enumerate(("Red", "Green", "Blue")):
        values = np.array(red if number == 0 else [0, 0, 0], np.uint16) * factor
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [3, 0, 16])
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", values.tobytes())
    dataset.save_as(path)
    assert shown(path) == [[value, 0, 0] for value in red]


# --- how a file is recognised, and what can be wrong with it


def test_recognised_by_content_then_by_suffix(tmp_path):
    write(tmp_path / "scan", RAMP)
    assert np.asarray(load_image(tmp_path / "scan")).tolist() == [[0, 64, 128, 255]]
    (tmp_path / "scan").rename(tmp_path / "scan.jpg")
    assert load_image(tmp_path / "scan.jpg").mode == "L"
    assert is_dicom(Path("a.DICOM"), b"") and not is_dicom(Path("a.png"), bytes(200))


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("name", ["bare.dcm", "bare", "IM000001"])
@pytest.mark.parametrize("first", [{}, {"SpecificCharacterSet": "ISO_IR 100"}, {"ImageType": ["ORIGINAL", "PRIMARY"]}])
def test_file_without_preamble_and_header(tmp_path, implicit, name, first):
    dataset = pydicom.dcmread(write(tmp_path / "a.dcm", RAMP, **first))
    dataset.preamble, dataset.file_meta = None, pydicom.dataset.FileMetaDataset()
    dataset.save_as(tmp_path / name, implicit_vr=implicit, little_endian=True)
    assert (tmp_path / name).read_bytes()[128:132] != b"DICM"
    assert np.asarray(load_image(tmp_path / name)).tolist() == [[0, 64, 128, 255]]
    assert np.asarray(load_image((tmp_path / name).read_bytes())).tolist() == [[0, 64, 128, 255]]
    assert find_images(tmp_path) == sorted([tmp_path / "a.dcm", tmp_path / name])


def test_what_only_begins_like_bare_dicom_is_none():
    assert not any(map(is_bare_dicom, (b"", b"\x08\0", bytes(300), b"\x08\0\x05\0" * 60, b"\x02\0" * 99, bytes(range(256)))))


def test_without_pydicom(tmp_path, monkeypatch):
    path = write(tmp_path / "a.dcm", RAMP)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert "pip install 'biomedclip_jax[dicom]'" in error_of(load_image, path)


def test_file_without_pixels(tmp_path):
    message = error_of(load_image, write(tmp_path / "a.dcm", RAMP, PixelData=None))
    assert "a.dcm" in message and "no image" in message and "Secondary Capture" in message


@pytest.mark.parametrize("content", [b"one,two\n" * 100, bytes(range(256)) * 4, b"\x89PNG\r\n\x1a\n" * 9])
def test_not_a_dicom_file_under_its_suffix(tmp_path, content):
    (tmp_path / "a.dcm").write_bytes(content)
    assert "a.dcm" in error_of(load_image, tmp_path / "a.dcm")


def test_truncated_file(tmp_path):
    path = write(tmp_path / "a.dcm", np.zeros((50, 50), np.uint16))
    path.write_bytes(path.read_bytes()[:-100])
    message = error_of(load_image, path)
    assert "a.dcm" in message and "cannot be decoded" in message


def test_missing_file_and_folder(tmp_path):
    assert "none.dcm" in error_of(load_dicom, tmp_path / "none.dcm")
    assert "cannot be read" in error_of(load_dicom, tmp_path)


def test_no_decoder_installed(tmp_path, monkeypatch):
    from pydicom.pixels.decoders.base import JPEGLSLosslessDecoder

    monkeypatch.setattr(JPEGLSLosslessDecoder, "_available", {})
    path = write(tmp_path / "a.dcm", RAMP)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    dataset.save_as(path)
    message = error_of(load_image, path)
    assert "JPEG-LS Lossless" in message and "[dicom]" in message
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    dataset.save_as(path)
    assert "MPEG2" in error_of(load_image, path)


def test_damaged_files_never_escape_as_another_error(tmp_path):
    noise = np.random.default_rng(0)
    good = write(tmp_path / "a.dcm", RAMP, WindowCenter=[1, 2], WindowWidth=[3, 4], **CT).read_bytes()
    outcomes = set()
    for _ in range(300):
        bad = bytearray(good)
        for position in noise.integers(132, len(bad), 4):
            bad[position] = noise.integers(256)
        (tmp_path / "a.dcm").write_bytes(bad)
        try:
            load_image(tmp_path / "a.dcm")
            outcomes.add("loaded")
        except UserError as error:
            assert "a.dcm" in str(error) and "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"loaded", "refused"}


# --- real files


@pytest.mark.parametrize(
    ("name", "mode", "size", "mean"),  # looked at, one by one; the mean pins what was seen
    [
        ("RG1_UNCR.dcm", "L", (1841, 1955), 192.2),  # chest radiograph, MONOCHROME1
        ("RG3_UNCR.dcm", "L", (1760, 1760), 177.5),  # leg radiograph, MONOCHROME1
        ("693_UNCR.dcm", "L", (512, 512), 40.1),  # head CT, signed, brain window, padding
        ("CT_small.dcm", "L", (128, 128), 96.0),
        ("MR2_UNCR.dcm", "L", (1024, 1024), 36.1),
        ("MR_small.dcm", "L", (64, 64), 113.1),
        ("emri_small.dcm", "L", (64, 64), 86.6),  # enhanced, ten frames
        ("eCT_Supplemental.dcm", "L", (512, 512), 39.3),
        ("mlut_18.dcm", "L", (512, 512), 128.8),  # SMPTE pattern through a modality table
        ("vlut_04.dcm", "L", (512, 512), 128.8),  # SMPTE pattern through a VOI table
        ("liver.dcm", "L", (512, 512), 35.2),  # one bit
        ("image_dfl.dcm", "L", (512, 512), 127.1),  # deflated
        ("examples_overlay.dcm", "L", (484, 300), 48.1),
        ("US1_UNCR.dcm", "RGB", (640, 480), 34.5),
        ("color-pl.dcm", "RGB", (256, 120), 42.7),
        ("gdcm-US-ALOKA-16.dcm", "RGB", (640, 480), 29.7),  # segmented 16-bit palette
        ("examples_palette.dcm", "RGB", (800, 350), 20.5),
        ("OT-PAL-8-face.dcm", "RGB", (640, 480), 100.0),  # no file-meta header
        ("examples_ybr_color.dcm", "RGB", (320, 240), 9.5),  # JPEG, 30 frames
        ("color3d_jpeg_baseline.dcm", "RGB", (640, 480), 9.5),
    ],
)
def test_real_files(name, mode, size, mean):
    image = load_image(example(name))
    assert (image.mode, image.size) == (mode, size)
    assert np.asarray(image).mean() == pytest.approx(mean, abs=0.1)


@pytest.mark.parametrize(
    ("one", "other", "tolerance"),
    [
        ("US1_UNCR.dcm", "US1_J2KR.dcm", 0),
        ("693_UNCR.dcm", "693_J2KR.dcm", 0),
        ("color-pl.dcm", "color-px.dcm", 0),
        ("OBXXXX1A.dcm", "OBXXXX1A_rle.dcm", 0),
        ("gdcm-US-ALOKA-16.dcm", "gdcm-US-ALOKA-16_big.dcm", 0),
        ("SC_rgb.dcm", "SC_rgb_16bit.dcm", 0),
        ("SC_rgb.dcm", "SC_rgb_expb_32bit.dcm", 0),
        ("SC_rgb.dcm", "SC_ybr_full_uncompressed.dcm", 6),
        ("MR_small.dcm", "MR_small_bigendian.dcm", 0),
        ("MR_small.dcm", "MR_small_jp2klossless.dcm", 0),
        ("emri_small.dcm", "emri_small_RLE.dcm", 0),
        ("mlut_18.dcm", "vlut_04.dcm", 1),
    ],
)
def test_one_image_in_two_encodings(one, other, tolerance):
    a, b = (np.asarray(load_dicom(example(name))).astype(int) for name in (one, other))
    assert abs(a - b).max() <= tolerance


def test_colour_bars():
    bars = np.asarray(load_dicom(example("SC_rgb.dcm")))[5::10, 50].tolist()
    assert bars[:5] == [[255, 0, 0], [255, 128, 128], [0, 255, 0], [128, 255, 128], [0, 0, 255]]
    assert bars[6:] == [[0, 0, 0], [64, 64, 64], [192, 192, 192], [255, 255, 255]]


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "693_UNCR.dcm", "MR2_UNCR.dcm", "MR_small.dcm"])
def test_windows_agree_with_pydicom(name):
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    dataset = pydicom.dcmread(example(name))
    windowed = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    # pydicom maps the window to the range of all storable values, after rescaling.
    low = -(2 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
    ends = np.array([low, low + 2**dataset.BitsStored - 1])
    ends = ends * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        ends = ends[::-1]
    expected = (windowed - ends[0]) / (ends[1] - ends[0]) * 255
    assert abs(np.asarray(load_dicom(example(name))) - expected).max() <= 0.51


def test_chest_radiograph_looks_like_one():
    pixels = np.asarray(load_dicom(example("RG1_UNCR.dcm")).resize((100, 100))).astype(float)
    lung, spine = pixels[25:40, 62:72].mean(), pixels[25:40, 46:50].mean()
    assert lung < spine - 30  # bone is brighter than air, so MONOCHROME1 was inverted


def test_every_example_file_loads_or_is_refused_in_one_line():
    folder = example("CT_small.dcm").parent
    results = {"loaded": 0, "refused": 0}
    for path in find_images(folder):
        try:
            image = load_image(path)
            assert image.mode in ("L", "RGB") and isinstance(image, Image.Image)
            results["loaded"] += 1
        except UserError as error:
            assert path.name in str(error) and "\n" not in str(error)
            results["refused"] += 1
    assert results["loaded"] >= 50 and results["refused"] >= 10


def test_a_dicom_file_goes_on_to_preprocess():
    pixels = preprocess(load_image(example("693_UNCR.dcm")), PreprocessConfig())
    assert pixels.shape == (224, 224, 3) and np.isfinite(pixels).all() and pixels.std() > 0.5
