"""`heatmap` from an image and phrases to numbers, warnings and a picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.reference import open_clip_model
from PIL import Image

import biomedclip_jax as bc
from biomedclip_jax.heatmaps import heatmap
from biomedclip_jax.heatmaps.maps import FINDINGS, NONSENSE

VISION = {"layers": 3, "width": 64, "head_width": 16, "patch_size": 8, "image_size": 64}
TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 32}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bc.Pretrained:
    folder = tmp_path_factory.mktemp("model")
    open_clip_model(folder, VISION, TEXT, bert={})
    return bc.from_pretrained(folder)


def picture(width: int = 90, height: int = 70) -> Image.Image:
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def test_every_map_stands_beside_another_finding_and_nonsense(clip: bc.Pretrained) -> None:
    found = heatmap(clip, picture(), "lung tumor")
    assert found.texts == ("lung tumor", FINDINGS[0], *NONSENSE)
    assert found.maps.keys() == {"attention", "similarity"}
    for maps in found.maps.values():
        assert maps.shape == (4, 8, 8) and maps.dtype == np.float32 and np.isfinite(maps).all()
    expected = clip.encode_texts(list(found.texts)) @ clip.encode_images([picture()])[0]
    assert np.abs(found.cosines - expected).max() <= 1e-6
    similarity = clip.encode_texts(["lung tumor"]) @ clip.image_tokens([picture()], projected=True)[0].T
    assert np.abs(found.maps["similarity"][0].ravel() - similarity[0]).max() <= 1e-6
    over = found.over_image("attention", "lung tumor")
    assert over.shape == (70, 90) and np.isnan(over[:, :9]).all() and not np.isnan(over[:, 12:78]).any()


def test_the_other_finding_shares_no_word_with_the_phrase(clip: bc.Pretrained) -> None:
    assert heatmap(clip, picture(), ["a pleural mass"], methods=["similarity"]).findings == (FINDINGS[1],)
    assert heatmap(clip, picture(), "lung", against=["brain", "chest"], methods=["similarity"]).findings == ("brain", "chest")


def test_a_phrase_has_the_same_maps_and_numbers_alone_and_among_others(clip: bc.Pretrained) -> None:
    alone = heatmap(clip, picture(), "brain", against=["chest"])
    among = heatmap(clip, picture(), ["lung", "brain"], against=["chest"])
    for method in alone.maps:
        scale = np.abs(alone.maps[method][0]).max()
        assert np.abs(alone.maps[method][0] - among.maps[method][1]).max() <= 1e-4 * scale
        assert alone.word_dependence[method][0] == pytest.approx(among.word_dependence[method][1], abs=0.01)


def test_a_text_tower_that_says_the_same_of_everything_depends_on_no_words(
    clip: bc.Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = clip.encode_texts(["lung"])
    monkeypatch.setattr(clip, "encode_texts", lambda texts, *_, **__: np.repeat(one, len(texts), axis=0))
    found = heatmap(clip, picture(), "lung tumor")
    for method in found.maps:
        assert found.word_dependence[method][0] == pytest.approx(0, abs=1e-6)
    assert len(found.warnings) == 2 and all("hardly depends on the words" in line for line in found.warnings)


def test_texts_that_differ_make_maps_that_differ(clip: bc.Pretrained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings of other texts at right angles to the phrase's: no warning of words; wording that changes as much: one."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(32, 32)))[0].astype(np.float32)
    monkeypatch.setattr(clip, "encode_texts", lambda texts, *_, **__: basis[: len(texts)])
    found = heatmap(clip, picture(), "lung tumor")
    assert min(found.word_dependence["similarity"]) > 0.3
    assert not any("hardly" in line for line in found.warnings)
    basis[4:6] = -basis[0]
    worse = heatmap(clip, picture(), "lung tumor", methods=["similarity"])
    assert worse.rewording["similarity"][0] == 1 and "no more than from its own" in worse.warnings[0]


def test_numbers_are_json_and_the_picture_has_all_maps(clip: bc.Pretrained) -> None:
    found = heatmap(clip, picture(200, 100), ["lung", "胸部"])
    numbers = json.loads(json.dumps(found.numbers()))
    assert numbers["box"] == [50, 0, 150, 100] and numbers["image_size"] == [200, 100]
    assert np.allclose(numbers["methods"]["attention"]["maps"]["lung"], found.maps["attention"][0])
    drawn = found.picture(100)
    assert drawn.mode == "RGB" and drawn.width > 6 * 100 and drawn.height > 2 * 50
    assert found.image.size == (200, 100), "the image is left as it is"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"phrase": ""}, "expected words"),
        ({"phrase": []}, "expected one or more"),
        ({"phrase": ["lung", "lung"]}, "given twice"),
        ({"phrase": "lung", "against": ["lung"]}, "is a phrase itself"),
        ({"phrase": "lung", "methods": ["gradcam"]}, "expected attention or similarity"),
    ],
)
def test_what_cannot_be_asked(clip: bc.Pretrained, arguments: dict, message: str) -> None:
    with pytest.raises(bc.UserError, match=message):
        heatmap(clip, picture(), **arguments)


def test_a_resnet_has_the_similarity_alone(tmp_path: Path) -> None:
    vision = {"layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "image_size": 96}
    open_clip_model(tmp_path, vision, TEXT, bert={})
    clip = bc.from_pretrained(tmp_path)
    found = heatmap(clip, picture(), "lung")
    assert found.maps.keys() == {"similarity"} and found.maps["similarity"].shape == (4, 3, 3)
    found.picture(60)
    with pytest.raises(bc.UserError, match="is a ResNet"):
        heatmap(clip, picture(), "lung", methods=["attention"])


@pytest.mark.parametrize("phrases, against", [(["lung", "LUNG "], ["brain"]), (["lung"], ["Lung"]), (["Blick dax wug"], [])])
def test_texts_that_are_one_to_the_model_are_not_compared_with_each_other(
    clip: bc.Pretrained, phrases: list[str], against: list[str]
) -> None:
    with pytest.raises(bc.UserError, match="are one text to this model"):
        heatmap(clip, picture(), phrases, against=against, methods=["similarity"])
