"""What a user holds in hand: `from_pretrained`, `encode_images`, `encode_texts`, `classify`, against open_clip end to end."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.reference import PREPROCESS, load_open_clip, open_clip_model
from PIL import Image

import biomedclip_jax as bc
from biomedclip_jax.config import CLIPConfig
from biomedclip_jax.errors import UserError

CONTEXT = 32
VISION = {"layers": 2, "width": 64, "head_width": 16, "patch_size": 16, "image_size": 64}
TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": CONTEXT}
LABELS = ["chest ray", "brain image", "tumor cells"]
TEXTS = [
    "chest ray of the lung",
    "",
    "tumor cells " * 100,  # cut at the context length
    "a",
    "  the brain &amp;   the\nlung  ",
    "photo of cells, (A) 40x; (B) 100x, with tumor - 12.5%",
    "the " * 15,
]


@dataclass
class Case:
    folder: Path
    reference: Any
    clip: bc.Pretrained


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("model")
    reference = open_clip_model(folder, VISION, TEXT, bert={})
    return Case(folder, reference, bc.from_pretrained(folder))


def their_images(case: Case, images: list[Image.Image]) -> np.ndarray:
    import torch

    transform = load_open_clip().image_transform(64, is_train=False, mean=PREPROCESS["mean"], std=PREPROCESS["std"])
    with torch.no_grad():
        return case.reference.encode_image(torch.stack([transform(image) for image in images]), normalize=True).numpy()


def their_texts(case: Case, texts: list[str]) -> np.ndarray:
    import torch

    tokenizer = load_open_clip().tokenizer.HFTokenizer(str(case.folder), context_length=CONTEXT)
    with torch.no_grad():
        return case.reference.encode_text(tokenizer(texts), normalize=True).numpy()


def pictures(n: int = 7, seed: int = 0) -> list[Image.Image]:
    """Smooth colour images of different sizes, each of another colour."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
        found.append(small.resize((90 + 17 * i, 150 - 9 * i), Image.Resampling.BILINEAR))
    return found


def test_the_programs_for_many_inputs_are_open_clip_too(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("biomedclip_jax.pretrained._WORK", 0)
    clip, images = bc.from_pretrained(case.folder), pictures()
    assert np.abs(clip.encode_images(images) - their_images(case, images)).max() <= 1e-5
    assert np.abs(clip.encode_texts(TEXTS) - their_texts(case, TEXTS)).max() <= 1e-5


def test_images_of_every_kind(case: Case, tmp_path: Path) -> None:
    """A path, a string, a PIL image and an array of the same picture are the same; each file is read in its own mode."""
    rgb, palette, rgba, grey, deep, floats, array = pictures()
    palette = palette.convert("P", palette=Image.Palette.ADAPTIVE)
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    grey = grey.convert("L")
    for name, image in {"rgb": rgb, "palette": palette, "rgba": rgba}.items():
        image.save(tmp_path / f"{name}.png")
    deep8 = np.asarray(deep.convert("L"))
    Image.fromarray(deep8.astype(np.uint16) * 256 + 77).save(tmp_path / "deep.png")
    sources = [
        tmp_path / "rgb.png",
        str(tmp_path / "palette.png"),
        tmp_path / "rgba.png",
        grey,
        tmp_path / "deep.png",
        np.asarray(floats, np.float32) / 255,
        np.asarray(array),
    ]
    ours = case.clip.encode_images(sources)
    theirs = their_images(case, [rgb, palette, rgba, grey, Image.fromarray(deep8), floats, array])
    assert ours.shape == (7, 32) and ours.dtype == np.float32
    assert np.abs(ours - theirs).max() <= 1e-5
    assert np.abs(np.linalg.norm(ours, axis=1) - 1).max() <= 1e-6
    assert min(np.abs(a - b).max() for i, a in enumerate(theirs) for b in theirs[:i]) > 1e-3, "the images differ"


def test_ragged_texts(case: Case) -> None:
    """Sorted by length inside and cut to short batches, they come back in order and equal to open_clip's padded ones."""
    ours = case.clip.encode_texts(TEXTS)
    theirs = their_texts(case, TEXTS)
    assert ours.shape == (len(TEXTS), 32) and ours.dtype == np.float32
    assert np.abs(ours - theirs).max() <= 1e-5
    assert min(np.abs(a - b).max() for i, a in enumerate(theirs) for b in theirs[:i]) > 1e-3, "the texts differ"


@pytest.mark.parametrize("size", [1, 3, 7])
def test_batch_size_changes_nothing(case: Case, size: int) -> None:
    """7 rows: all in one batch; exactly one batch; and two full ones with a last that is filled up."""
    images, done = pictures(), []
    assert np.abs(case.clip.encode_images(images, size, progress=done.append) - case.clip.encode_images(images)).max() <= 1e-6
    assert sum(done) == 7
    done.clear()
    assert np.abs(case.clip.encode_texts(TEXTS, size, done.append) - case.clip.encode_texts(TEXTS)).max() <= 1e-6
    assert sum(done) == 7


def test_classify(case: Case) -> None:
    images = pictures()
    ours = case.clip.classify(images, LABELS, "this is a photo of {}")
    image, text = their_images(case, images), their_texts(case, [f"this is a photo of {label}" for label in LABELS])
    scores = float(case.reference.logit_scale.exp().item()) * image.astype(np.float64) @ text.T
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert ours.shape == (7, 3) and ours.dtype == np.float32
    assert np.abs(ours.sum(axis=1) - 1).max() <= 1e-6
    assert np.abs(ours - expected).max() <= 1e-5
    assert expected.std(axis=0).min() > 1e-4, "the reference tells images apart"


@pytest.mark.parametrize(
    ("labels", "template", "named"),
    [
        ([], "a {}", "0 given"),
        (["brain"], "a {}", "1 given"),
        (["brain", " "], "a {}", "' '"),
        (["brain", 3], "a {}", "3"),
        (["brain", "lung", "brain"], "a {}", "'brain' is given twice"),
        (["brain", "lung"], "a photo", "'a photo'"),
        ("brain", "a {}", "list"),
    ],
)
def test_labels_that_cannot_work(case: Case, labels: Any, template: str, named: str) -> None:
    with pytest.raises(UserError) as caught:
        case.clip.classify(pictures(1), labels, template)
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_braces_in_labels_are_left_alone(case: Case) -> None:
    """str.format would fail on them, or worse."""
    assert case.clip.classify(pictures(1), ["{0}", "{x!r}"]).shape == (1, 2)


@pytest.mark.parametrize("wrong", ["scan.png", Path("scan.png"), Image.new("RGB", (9, 9)), np.zeros((64, 64, 3), np.uint8)])
def test_one_image_is_not_a_list(case: Case, wrong: Any) -> None:
    """An array [H,W,3] would otherwise pass as H thin images."""
    with pytest.raises(UserError, match=r"expected a list"):
        case.clip.encode_images(wrong)


def test_a_stack_of_images_is_a_list(case: Case) -> None:
    stack = np.stack([np.asarray(image.resize((70, 70))) for image in pictures(3)])
    assert np.array_equal(case.clip.encode_images(stack), case.clip.encode_images(list(stack)))


def test_texts_must_be_sentences(case: Case) -> None:
    with pytest.raises(UserError, match="expected a list"):
        case.clip.encode_texts("a sentence")
    with pytest.raises(UserError, match="NoneType"):
        case.clip.encode_texts(["fine", None])  # type: ignore[list-item]


@pytest.mark.parametrize("size", [0, -1])
def test_batch_size_must_be_positive(case: Case, size: int) -> None:
    with pytest.raises(UserError, match="batch_size"):
        case.clip.encode_images(pictures(2), size)
    with pytest.raises(UserError, match="batch_size"):
        case.clip.encode_texts(TEXTS, size)


def test_a_bad_image_stops_or_is_passed_over(case: Case, tmp_path: Path) -> None:
    images = pictures(5)
    (tmp_path / "broken.png").write_bytes(b"no image")
    mixed: list[Any] = [images[0], tmp_path / "broken.png", images[1], tmp_path / "missing.png", *images[2:]]
    with pytest.raises(UserError, match="broken"):
        case.clip.encode_images(mixed)
    bad: dict[int, UserError] = {}
    found = case.clip.encode_images(mixed, 2, on_error=bad.__setitem__)
    assert bad.keys() == {1, 3} and "missing.png" in str(bad[3])
    assert np.abs(found - case.clip.encode_images(images)).max() <= 1e-6


def test_nothing_in_nothing_out(case: Case) -> None:
    assert case.clip.encode_images([]).shape == (0, 32)
    assert case.clip.encode_texts([]).shape == (0, 32)
    assert case.clip.classify([], LABELS).shape == (0, 3)


def test_parts(case: Case) -> None:
    """The pieces of the README's longer example: processor, module, temperature, config."""
    clip = case.clip
    assert isinstance(clip.config, CLIPConfig) and clip.config.embed_width == 32
    assert clip.logit_scale == pytest.approx(1 / 0.07, rel=1e-6)
    images, texts = pictures(2), TEXTS[:2]
    pixels, tokens = clip.processor.images(images), clip.processor.tokens(texts)
    assert pixels.shape == (2, 64, 64, 3) and tokens.shape == (2, CONTEXT)
    assert isinstance(clip.model, bc.CLIP)
    assert np.abs(clip.model.encode_image(pixels) - clip.encode_images(images)).max() <= 1e-6
    assert np.abs(clip.model.encode_text(tokens) - clip.encode_texts(texts)).max() <= 1e-6


def test_bfloat16_is_near_and_other_types_are_refused(case: Case) -> None:
    half = bc.from_pretrained(case.folder, dtype="bfloat16").encode_images(pictures(2))
    assert half.dtype == np.float32
    cosine = (half * case.clip.encode_images(pictures(2))).sum(axis=1)
    assert cosine.min() > 0.99 and cosine.max() < 1 - 1e-9
    with pytest.raises(UserError, match="float16"):
        bc.from_pretrained(case.folder, dtype="float16")


def test_every_device(case: Case) -> None:
    """Split over eight devices, with rows that do not divide evenly and a last batch that is filled up: the same embeddings."""
    eight = bc.from_pretrained(case.folder, every_device=True)
    images = pictures(11)
    assert len(eight.params["logit_scale"].sharding.device_set) == 8
    assert np.abs(eight.encode_images(images, 1) - case.clip.encode_images(images)).max() <= 1e-6
    texts = [f"{text} {i}" for i in range(3) for text in TEXTS]
    assert np.abs(eight.encode_texts(texts, 1) - case.clip.encode_texts(texts)).max() <= 1e-6
    assert np.abs(eight.classify(images, LABELS) - case.clip.classify(images, LABELS)).max() <= 1e-5


def test_texts_are_tokenised_a_part_at_a_time(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = case.clip.encode_texts(TEXTS)
    monkeypatch.setattr("biomedclip_jax.data.processor._TEXTS", 3)
    assert np.abs(case.clip.encode_texts(TEXTS, 2) - whole).max() <= 1e-6


def test_what_cannot_be_read_may_end_a_batch(case: Case, tmp_path: Path) -> None:
    """Rows of good images stay in order where the batch that runs is stored after the next was started."""
    images, bad = pictures(6), []
    mixed: list[Any] = [tmp_path / "a", *images[:2], tmp_path / "b", *images[2:], tmp_path / "c"]
    found = case.clip.encode_images(mixed, 2, on_error=lambda position, _: bad.append(position))
    assert bad == [0, 3, 8] and found.shape == (6, 32)
    assert np.abs(found - case.clip.encode_images(images)).max() <= 1e-6
    raw = case.clip.encode_images(images, 2, normalize=False)
    assert np.abs(raw / np.linalg.norm(raw, axis=1, keepdims=True) - found).max() <= 1e-6
