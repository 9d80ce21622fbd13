"""Recall at k against counting by hand."""

import numpy as np
import pytest

from biomedclip_jax.evaluation.retrieval import recall

KS = (1, 3, 5)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def counted(image: np.ndarray, text: np.ndarray, captions: list[str], ks: tuple[int, ...]) -> dict[str, float]:
    """The definition, one query at a time: sort, take the k best, look for a right one. For scores without ties."""
    unique = sorted(set(captions))
    texts = {caption: text[captions.index(caption)] for caption in unique}
    found = {}
    for k in ks:
        hits = 0
        for i, caption in enumerate(captions):
            best = sorted(unique, key=lambda c: -float(image[i] @ texts[c]))[:k]
            hits += caption in best
        found[f"image_to_text_recall_at_{k}"] = hits / len(captions)
        hits = 0
        for caption in unique:
            best = sorted(range(len(captions)), key=lambda i: -float(image[i] @ texts[caption]))[:k]
            hits += any(captions[i] == caption for i in best)
        found[f"text_to_image_recall_at_{k}"] = hits / len(unique)
    return found


def test_against_counting() -> None:
    """Forty pairs, a caption of which stands for several images."""
    rng = np.random.default_rng(0)
    captions = [f"caption {n}" for n in rng.integers(0, 25, 40)]
    embedded = {caption: rng.normal(size=6) for caption in sorted(set(captions))}
    text = unit(np.stack([embedded[caption] for caption in captions]))
    image = unit(text + 0.7 * rng.normal(size=text.shape))
    expected = counted(image, text, captions, KS)
    found = recall(image, text, captions, KS)
    assert found == pytest.approx(expected) and found.keys() == expected.keys()
    assert len(set(captions)) < 30 and 0.1 < expected["image_to_text_recall_at_1"] < 0.9
    assert expected["image_to_text_recall_at_1"] != expected["text_to_image_recall_at_1"]


def test_perfect_and_reversed() -> None:
    eye = np.eye(20, dtype=np.float32)
    captions = [str(i) for i in range(20)]
    assert set(recall(eye, eye, captions).values()) == {1.0}
    assert set(recall(eye, eye[::-1], captions).values()) == {0.0}


def test_ties_give_no_credit() -> None:
    """A model that maps everything to one point must not look like one that finds what it is asked for."""
    same = np.tile(np.array([[1.0, 0.0]], np.float32), (20, 1))
    captions = [str(i) for i in range(20)]
    assert set(recall(same, same, captions).values()) == {0.0}
    assert set(recall(same, same, captions, ks=(20,)).values()) == {1.0}, "among all 20 the right one is found"


def test_pairs_with_one_caption_are_one_text() -> None:
    """Each of three images is right for the caption they share, which is ranked once."""
    image = np.eye(4, dtype=np.float32)
    text = np.stack([image[0], image[0], image[0], image[3]])
    found = recall(image, text, ["lung", "lung", "lung", "brain"], ks=(1,))
    assert found["text_to_image_recall_at_1"] == 1.0
    # images 1 and 2 lie at right angles to both texts: a tie, no credit
    assert found["image_to_text_recall_at_1"] == 0.5
