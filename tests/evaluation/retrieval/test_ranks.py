"""Ranks by tiles on eight devices against the whole matrix."""

import jax
import numpy as np
import pytest

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.retrieval._ranks import _TEXTS, _counter, ranks
from biomedclip_jax.sharding import make_mesh


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def from_the_matrix(image: np.ndarray, text: np.ndarray, own: np.ndarray) -> tuple[list[int], list[int]]:
    """The definition, in float64."""
    scores = image.astype(np.float64) @ text.astype(np.float64).T
    belong = np.zeros(scores.shape, bool)
    belong[own[:, 0], own[:, 1]] = True

    def one_way(scores: np.ndarray, belong: np.ndarray) -> list[int]:
        best = np.where(belong, scores, -np.inf).max(axis=1, keepdims=True)
        return ((scores >= best - 1e-9) & ~belong).sum(axis=1).tolist()

    return one_way(scores, belong), one_way(scores.T, belong.T)


@pytest.mark.parametrize(
    ("images", "texts", "pairs", "block"),
    [
        (50, 50, 0, 2_048),
        (50, 50, 0, 8),
        (300, 300, 0, 16),
        (70, 33, 120, 8),
        (9, 200, 400, 16),
        (200, 9, 300, 8),
        (1, 1, 0, 8),
    ],
)
def test_as_from_the_whole_matrix(images: int, texts: int, pairs: int, block: int) -> None:
    """pairs = 0: image i and text i; else that many at random, so that some rows have several and some none."""
    rng = np.random.default_rng(images + texts)
    image = unit(rng.normal(size=(images, 24)))
    if pairs:
        own = np.unique(np.stack([rng.integers(0, images, pairs), rng.integers(0, texts, pairs)], axis=1), axis=0)
        own = own[rng.permutation(len(own))]
        text = unit(rng.normal(size=(texts, 24)))
    else:
        own = np.repeat(np.arange(images)[:, None], 2, axis=1)
        text = unit(image + 0.8 * rng.normal(size=image.shape))
    found = ranks(image, text, own, block)
    expected = from_the_matrix(image, text, own)
    assert (found[0].tolist(), found[1].tolist()) == expected
    assert images < 50 or len(set(expected[0])) > 3


def test_equal_scores_count_against_us() -> None:
    """A constant model, whose scores come from tiles of other positions, is last everywhere; copies of a text rank above it."""
    rng = np.random.default_rng(0)
    same = np.tile(unit(rng.normal(size=(1, 40))), (100, 1))
    own = np.repeat(np.arange(100)[:, None], 2, axis=1)
    for side in ranks(same, same, own, 16):
        assert side.tolist() == [99] * 100
    image = unit(rng.normal(size=(60, 40)))
    text = np.concatenate([image, image])  # text 60 + i is a copy of text i
    to_text, to_image = ranks(image, text, own[:60], 8)
    assert to_text.tolist() == [1] * 60
    assert to_image[:60].tolist() == [0] * 60 and to_image[60:].tolist() == [60] * 60


def test_a_broken_model_finds_nothing() -> None:
    image = np.eye(4, dtype=np.float32)
    image[2, 1] = np.nan
    with pytest.raises(UserError, match="image embedding 2 is not finite"):
        ranks(image, np.eye(4, dtype=np.float32), np.repeat(np.arange(4)[:, None], 2, axis=1))


def test_memory_is_that_of_the_embeddings() -> None:
    """The compiled count of 8 x 16,384 queries and 131,072 keys holds tiles, not the 64 GiB of all scores."""
    block = 2_048
    mesh = make_mesh(jax.local_devices())
    queries, tiles = 8 * block, _TEXTS // block
    shapes = [(queries, 64), (queries,), (tiles, block, 64), (tiles, block)]
    arguments = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    memory = _counter(mesh).lower(*arguments).compile().memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes < 8 * 4 * block * block * 4


def test_texts_in_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that lie on the devices a few tiles at a time, the last part shorter than the others, and scores below zero."""
    rng = np.random.default_rng(3)
    image, text = unit(rng.normal(size=(100, 24))), unit(rng.normal(size=(90, 24)))
    own = np.stack([rng.permutation(100)[:60], rng.permutation(90)[:60]], axis=1)
    expected = from_the_matrix(image, text, own)
    worst = from_the_matrix(image, -image[:90], np.repeat(np.arange(90)[:, None], 2, axis=1))
    monkeypatch.setattr("biomedclip_jax.evaluation.retrieval._ranks._TEXTS", 32)
    assert tuple(side.tolist() for side in ranks(image, text, own, 8)) == expected
    found = ranks(image, -image[:90], np.repeat(np.arange(90)[:, None], 2, axis=1), 8)
    assert tuple(side.tolist() for side in found) == worst


def test_one_device_and_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    image, own = unit(rng.normal(size=(333, 48))), np.repeat(np.arange(333)[:, None], 2, axis=1)
    text = unit(image + 0.5 * rng.normal(size=image.shape))
    eight = ranks(image, text, own, 16)
    one = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: one)
    for ours, theirs in zip(ranks(image, text, own, 16), eight, strict=True):
        assert ours.tolist() == theirs.tolist() and len(set(ours.tolist())) > 20
