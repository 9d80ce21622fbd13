"""The quickstart's data: real biomedical pictures that pip packages carry, with captions in our own words.

From each picture come many square regions. A line cuts the picture in two, and a region lies wholly on one side of
it: on the one side for training, on the other held out, so that no pixel is in both. A caption says what a person
who knows the picture sees in the region. Needs pydicom, pydicom-data and scikit-image: `pip install
'biomedclip_jax[demo]'`.
"""

import csv
import importlib.util
import json
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from biomedclip_jax.config import DEFAULT_TEMPLATE
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_folder

SEED = 0
TRAIN_REGIONS = 150  # of each label
HELD_OUT_REGIONS = 25
PIXELS = 96  # width and height of a region as it is saved
COLUMNS = ("image", "caption", "label", "source", "region")

_LEAST_CONTRAST = 7  # standard deviation of the gray values; less is background or one plain tissue
_SIMPLE_SHARE = 0.2  # of the training captions say no more than what kind of picture it is

# label -> ways to say it. The label itself is the class name of the zero-shot test.
MODALITIES = {
    "chest X-ray": ("a chest X-ray", "a chest radiograph", "a plain film of the chest"),
    "bone X-ray": ("a bone X-ray", "a leg radiograph", "an X-ray of the lower leg"),
    "head CT": ("a head CT", "a CT scan of the head", "a head CT with brain window"),
    "abdominal CT": ("an abdominal CT", "a CT scan of the abdomen", "an abdominal CT slice"),
    "spine CT": ("a spine CT", "a CT scan of the thoracic spine", "a spine CT scan"),
    "shoulder MRI": ("a shoulder MRI", "an MR image of the shoulder", "a shoulder MR scan"),
    "abdominal MRI": ("an abdominal MRI", "an MR image of the abdomen", "an abdominal MR scan"),
    "lymph node ultrasound": ("a lymph node ultrasound", "a lymph node sonogram"),
    "pelvic ultrasound": ("a pelvic ultrasound", "a sonogram of the pelvis", "a gray-scale pelvic ultrasound"),
    "echocardiogram": ("an echocardiogram", "a cardiac ultrasound", "an ultrasound of the heart"),
    "bone scintigraphy": ("a bone scintigraphy", "a whole-body bone scan", "a nuclear bone scintigraphy"),
    "retinal fundus photograph": ("a retinal fundus photograph", "a colour photograph of the retina"),
    "immunohistochemistry": ("an immunohistochemistry picture", "an immunohistochemistry section of tissue"),
}


class Source(NamedTuple):
    """A picture and what is where in it. All positions are percent of its width or height, in the order x0 y0 x1 y1."""

    path: str  # package folder, then the path inside it
    label: str
    view: str
    train: tuple[int, int, int, int]  # where regions may lie: without margins and, where possible, burned-in text
    held_out: tuple[int, int, int, int]
    landmarks: dict[str, str]  # what one sees -> where, a box or several


# Every picture was looked at, and every box drawn, by hand.
# fmt: off
SOURCES = (
    Source("data_store/data/RG1_UNCR.dcm", "chest X-ray", "frontal view", (5, 3, 54, 98), (54, 3, 95, 98), {
        "the top of the lung": "12 8 40 24, 56 8 82 24",
        "a rounded mass in the lung": "16 31 28 42, 22 55 36 68, 70 30 82 38, 75 38 86 50, 70 55 85 68",
        "lung root vessels": "32 36 44 58, 56 34 68 46",
        "the spine": "40 5 54 60", "the heart": "40 58 54 76, 55 52 75 76",
        "ribs at the chest wall": "6 22 16 70, 82 22 94 70",
        "the diaphragm": "8 70 36 80, 62 73 90 82", "the upper belly": "10 81 54 98, 55 81 90 98",
    }),
    Source("data_store/data/RG3_UNCR.dcm", "bone X-ray", "distal tibia", (35, 32, 64, 98), (35, 2, 64, 32), {
        "the shaft of the tibia": "45 2 53 32, 45 32 53 60", "the thin fibula": "53 2 61 32, 52 32 59 75",
        "calf muscle": "35 2 44 32, 37 32 44 60", "the ankle joint": "40 76 56 90",
        "a lucent bone lesion": "46 58 53 70", "the foot": "36 86 52 98",
    }),
    Source("data_store/data/693_UNCR.dcm", "head CT", "axial slice", (27, 20, 79, 58), (27, 58, 79, 88), {
        "a dark fluid collection": "58 28 72 52, 66 58 75 70", "the frontal sinus": "43 21 55 26",
        "the lateral ventricle": "36 36 47 57, 40 58 48 71", "the falx in the midline": "46 26 51 38, 49 62 56 82",
        "gray brain tissue": "30 32 38 57, 30 59 41 78, 56 59 66 80", "the bright skull": "27 36 31 57, 30 80 74 88",
    }),
    Source("pydicom/data/test_files/J2K_pixelrep_mismatch.dcm", "head CT", "skull base slice",
           (10, 8, 54, 88), (54, 8, 90, 88), {
        "the air-filled frontal sinus": "33 9 48 20, 55 10 70 20", "the temporal lobe": "25 32 42 52, 58 32 78 54",
        "air cells of the mastoid": "19 50 35 66, 66 53 80 68", "the cerebellum": "27 62 48 79, 55 62 73 79",
        "the brain stem": "42 50 54 64", "the outer ear": "10 58 18 70, 83 60 90 70",
        "thick skull base bone": "26 20 44 31, 56 20 74 31", "the bright skull": "22 70 50 86, 55 70 78 86",
    }),
    Source("data_store/data/explicit_VR-UN.dcm", "abdominal CT", "spine on top", (16, 22, 57, 74), (57, 22, 87, 74), {
        "a solid belly organ": "18 34 33 62, 69 34 79 48", "a kidney": "34 31 45 46, 59 32 68 45",
        "a lumbar vertebra": "44 26 56 43", "great vessels before the spine": "38 44 54 52",
        "bowel with gas": "42 53 48 59, 58 56 73 64", "back muscle": "37 23 48 30, 57 23 68 30",
        "fat of the belly wall": "24 63 56 73, 60 64 82 73",
    }),
    Source("pydicom/data/test_files/CT_small.dcm", "spine CT", "axial slice", (0, 0, 56, 100), (56, 0, 100, 100), {
        "the vertebral body": "34 5 56 36", "the spinal canal": "37 32 55 48", "the aorta": "57 0 86 22",
        "the dark lung": "0 5 28 45, 70 24 100 48", "the bony vertebral arch": "24 44 55 62, 57 42 66 52",
        "muscles of the back": "2 60 55 92, 58 56 100 92",
    }),
    Source("data_store/data/MR2_UNCR.dcm", "shoulder MRI", "coronal slice", (12, 13, 98, 61), (12, 61, 80, 90), {
        "the head of the humerus": "29 36 56 60", "the shaft of the humerus": "29 61 44 90",
        "bright fat under the skin": "30 18 58 32, 18 32 27 60, 60 14 96 22, 12 62 19 90",
        "the deltoid muscle": "20 40 29 60, 18 62 29 90", "the shoulder roof": "42 25 75 33",
        "the shoulder socket": "57 41 68 60", "the supraspinatus muscle": "56 33 98 42",
        "dark muscle with bright fat": "44 68 62 90", "plain dark muscle": "72 46 98 60, 64 62 80 90",
    }),
    Source("data_store/data/MR-SIEMENS-DICOM-WithOverlays.dcm", "abdominal MRI", "axial slice",
           (4, 24, 58, 79), (58, 24, 91, 79), {
        "a solid belly organ": "11 38 26 60, 77 45 84 68", "a dark lesion in the liver": "25 42 36 55",
        "a bright kidney": "24 59 39 73, 60 60 71 73", "a vertebra": "42 56 51 69", "the aorta": "49 52 56 58",
        "the pancreas": "39 42 57 52", "loops of bowel": "38 32 57 40, 60 33 78 44",
        "back muscle": "20 71 42 79, 59 71 78 79",
    }),
    Source("data_store/data/US1_UNCR.dcm", "lymph node ultrasound", "power Doppler",
           (8, 23, 50, 70), (50, 23, 92, 70), {
        "orange blood flow": "14 36 49 54, 50 36 74 52", "the dark node rim": "20 51 44 58, 52 51 80 59",
        "layered tissue around the node": "8 23 49 33, 50 23 92 33, 8 61 49 70, 50 61 92 70",
    }),
    Source("data_store/data/gdcm-US-ALOKA-16.dcm", "pelvic ultrasound", "full bladder",
           (6, 14, 52, 85), (52, 14, 98, 85), {
        "the black bladder": "6 22 38 44, 56 22 96 42", "a solid pelvic organ": "6 48 34 66, 62 46 90 66",
        "layers under the probe": "14 14 42 20, 60 14 86 20", "speckled deep tissue": "6 68 40 84, 56 70 96 84",
    }),
    Source("data_store/data/color3d_jpeg_baseline.dcm", "echocardiogram", "apical view",
           (28, 10, 51, 84), (51, 10, 72, 84), {
        "the apex of the heart": "42 10 50 28, 52 10 62 28", "a bright heart wall": "44 36 50 60, 59 36 68 66",
        "a dark heart chamber": "30 34 43 62, 52 32 59 52, 52 58 60 70",
        "bright echoes at the base": "30 66 50 82, 52 66 62 82",
    }),
    Source("data_store/data/color-px.dcm", "echocardiogram", "transesophageal Doppler",
           (12, 4, 57, 96), (57, 4, 85, 96), {
        "red flow of blood": "37 50 56 68, 58 26 67 46", "blue flow of blood": "40 14 53 40, 42 72 56 90, 58 70 65 88",
        "a bright heart wall": "27 30 44 44, 15 66 36 80, 58 42 73 68", "a dark heart chamber": "16 42 36 66",
    }),
    Source("data_store/data/JPEG2000_UNC.dcm", "bone scintigraphy", "gamma camera", (8, 6, 53, 86), (53, 6, 96, 86), {
        "the skull": "42 8 52 17, 54 8 66 17", "a shoulder": "14 19 40 27, 66 18 88 26",
        "spine and ribs": "36 20 52 34, 54 20 70 34", "the pelvis with the bright bladder": "38 37 52 44, 54 37 66 44",
        "the thigh": "28 48 48 62, 58 48 74 62", "the lower leg": "30 64 48 78, 54 64 70 78",
        "a foot": "34 78 47 85, 54 78 62 85",
    }),
    Source("skimage/data/retina.jpg", "retinal fundus photograph", "back of the eye",
           (2, 2, 98, 60), (2, 60, 98, 98), {
        "the bright optic disc": "13 40 24 52", "the dark macula": "43 43 57 54",
        "a large vessel arcade": "20 10 44 32, 46 18 70 32, 66 22 88 32, 18 62 40 86, 40 84 90 91",
        "fine branching vessels": "40 32 80 42, 40 61 84 82",
        "the round edge of the field": "2 5 20 30, 76 5 96 26, 3 76 24 96, 76 76 96 96",
    }),
    Source("skimage/data/ihc.png", "immunohistochemistry", "brown stain", (0, 0, 66, 100), (66, 0, 100, 100), {
        "brown glands": "0 0 50 45, 52 0 66 40, 0 34 20 59, 10 61 30 100, 67 8 88 54",
        "a round brown nest": "49 60 66 100", "a white empty space": "0 60 9 90, 82 74 97 98",
        "blue nuclei in pale stroma": "40 48 66 60, 32 60 48 100, 89 2 100 60, 76 62 88 100",
    }),
)
# fmt: on

_SIZES = ("a close-up", "a medium region", "a wide region")
_PLACES = (("left", "middle", "right"), ("upper", "middle", "lower"))  # along x, along y
_DETAILED = (  # how captions are put together
    "{size} of {modality}, {place}, showing {landmarks}",
    "{landmarks} in {modality}, {view}, {size} from the {place}",
    "{modality} with {landmarks}, {tone}, {size} of the {place}",
    "{size} showing {landmarks}, {tone}, {place} of {modality}",
    "{place} of {modality}, {view}: {landmarks}, {size}",
    "{landmarks}, {tone}, in {size} of {modality}, {place}",
)
_SIMPLE = ("this picture shows part of {modality}", "a region cut out of {modality}", "here we see {modality}, {view}")

_Box = tuple[int, int, int, int]  # x0 y0 x1 y1 in pixels; x1 and y1 are outside


def make_demo(workdir: Path) -> None:
    """Write `workdir/data/`: `train.csv`, `held_out.csv`, `images/` and `tokenizer/`.

    The same packages give the same bytes every time. Does nothing if the data are there already.
    Raises UserError when a package that carries the pictures is missing.
    """
    data = workdir / "data"
    if not (data / "train.csv").is_file():
        packages = find_packages()
        write_folder(data, lambda folder: _fill(folder, packages))


def find_packages() -> dict[str, Path]:
    """Where the packages of the sources lie; they are found, not imported, which would take seconds."""
    folders = {}
    for name in sorted({source.path.split("/")[0] for source in SOURCES}):
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"the demo's pictures need the package {name}: pip install 'biomedclip_jax[demo]'")
        folders[name] = Path(spec.submodule_search_locations[0])
    return folders


def _fill(folder: Path, packages: dict[str, Path]) -> None:
    (folder / "images").mkdir()
    rows: dict[str, list[tuple[str, ...]]] = {"train": [], "held_out": []}
    for index, source in enumerate(SOURCES):
        package, _, inside = source.path.partition("/")
        image = load_image(packages[package] / inside)
        of_label = [other for other in SOURCES if other.label == source.label]
        for split, regions in (("train", TRAIN_REGIONS), ("held_out", HELD_OUT_REGIONS)):
            # The first sources of a label take one region more when they do not come out even.
            share, rest = divmod(regions, len(of_label))
            generator = np.random.default_rng([SEED, index, split == "train"])
            for number in range(share + (of_label.index(source) < rest)):
                # Retrieval among held-out captions is only fair if no two of them are the same.
                taken = {row[1] for row in rows["held_out"]} if split == "held_out" else set()
                box, caption = _region(source, image, split, taken, generator)
                name = f"images/{Path(inside).stem}_{split}_{number:03d}.png"
                image.crop(box).resize((PIXELS, PIXELS), Image.Resampling.BICUBIC).save(folder / name)
                rows[split].append((name, caption, source.label, source.path, " ".join(map(str, box))))
    for split, of_split in rows.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *of_split])
    prompts = [DEFAULT_TEMPLATE.format(label) for label in MODALITIES]
    write_tokenizer(folder / "tokenizer", [row[1] for row in rows["train"]] + prompts)


def _region(
    source: Source, image: Image.Image, split: str, taken: set[str], generator: np.random.Generator
) -> tuple[_Box, str]:
    """A random region that shows something with a name, and its caption, which is not one of `taken`."""
    train, held_out = (to_pixels(area, *image.size) for area in (source.train, source.held_out))
    x0, y0, x1, y1 = train if split == "train" else held_out
    side_by_side = train[1] == held_out[1]
    # Both splits have regions of the same sizes, though training often has room for larger ones.
    largest = min(min(area[2] - area[0], area[3] - area[1]) for area in (train, held_out))
    for _ in range(10_000):
        side = int(generator.integers(largest // 2, largest, endpoint=True))
        left = int(generator.integers(x0, x1 - side, endpoint=True))
        top = int(generator.integers(y0, y1 - side, endpoint=True))
        box = (left, top, left + side, top + side)
        gray = np.asarray(image.crop(box).convert("L"))
        landmarks = visible(source, box, *image.size)
        if not landmarks or gray.std() < _LEAST_CONTRAST:
            continue
        along = (top + side / 2 - y0) / (y1 - y0) if side_by_side else (left + side / 2 - x0) / (x1 - x0)
        facts = {
            "modality": str(generator.choice(MODALITIES[source.label])),
            "view": source.view,
            "landmarks": " and ".join(landmarks[:2]),
            "size": _SIZES[(side >= 0.67 * largest) + (side >= 0.84 * largest)],
            "place": f"{_PLACES[side_by_side][(along >= 0.4) + (along >= 0.6)]} part",
            "tone": _tone(gray),
        }
        simple = split == "train" and generator.random() < _SIMPLE_SHARE
        caption = str(generator.choice(_SIMPLE if simple else _DETAILED)).format(**facts)
        if caption not in taken:
            return box, caption
    raise RuntimeError(f"{source.path}: no region found; is it another picture than the one the boxes were drawn on?")


def visible(source: Source, box: _Box, width: int, height: int) -> list[str]:
    """The landmarks in a region, the one that shows best first: those it holds half of, or that fill half of it."""
    found: dict[str, float] = {}
    for name, places in source.landmarks.items():
        for place in places.split(","):
            mark = to_pixels([int(number) for number in place.split()], width, height)
            overlap_width = min(box[2], mark[2]) - max(box[0], mark[0])
            overlap_height = min(box[3], mark[3]) - max(box[1], mark[1])
            if overlap_width > 0 and overlap_height > 0:
                smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, mark))
                overlap = overlap_width * overlap_height / smaller
                found[name] = max(found.get(name, 0.0), overlap)
    return sorted((name for name, overlap in found.items() if overlap >= 0.5), key=lambda name: -found[name])


def _tone(gray: np.ndarray) -> str:
    if gray.mean() < 50:
        return "mostly dark"
    if gray.mean() > 170:
        return "mostly bright"
    return "strong contrast" if gray.std() > 55 else "soft contrast"


def to_pixels(percent: Sequence[int], width: int, height: int) -> _Box:
    """A box in percent of a picture, in pixels of it."""
    x0, y0, x1, y1 = percent
    return width * x0 // 100, height * y0 // 100, width * x1 // 100, height * y1 // 100


def write_tokenizer(folder: Path, texts: Iterable[str], more: Iterable[str] = ()) -> None:
    """A BERT tokenizer whose vocabulary is single characters and every word of `texts`, then all other words of `more`.

    The trainer of the tokenizers library would find the same few words, but number them in another way every time.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words, others = (
        {word for text in of for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))} for of in (texts, more)
    )
    letters = string.ascii_lowercase + string.digits
    single = [*letters, *string.punctuation, *(f"##{letter}" for letter in letters)]
    specials = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokens = [*specials.values(), *single, *sorted(words.difference(single))]
    tokens += sorted(others.difference(tokens))
    ids = {token: index for index, token in enumerate(tokens)}

    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.add_special_tokens(list(specials.values()))
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512, **specials}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
