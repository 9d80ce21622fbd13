"""A model that many threads use at once gives each what it would give it alone."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.served import image_file, served, write_model

import biomedclip_jax as bc
from biomedclip_jax.errors import UserError
from biomedclip_jax.serve._metrics import Metrics
from biomedclip_jax.serve._model import ServedModel, _image_sizes, _widths

TEXTS = ["chest ray", "a " * 30, "the brain " * 60, "", "tumor cells"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> bc.Pretrained:
    return bc.from_pretrained(folder)


@pytest.fixture(scope="module")
def clip(folder: Path) -> ServedModel:
    return served(folder, Metrics())


def test_sizes_and_widths_are_few_and_reach_to_the_largest() -> None:
    assert [_image_sizes(most) for most in (1, 2, 6, 16)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16]]
    assert [_widths(context) for context in (8, 16, 40, 256)] == [[8], [16], [16, 32, 40], [16, 32, 64, 128, 256]]


def test_many_threads_get_what_the_plain_model_gives(clip: ServedModel, plain: bc.Pretrained) -> None:
    images = [[image_file(10 * n + k) for k in range(n % 4 + 1)] for n in range(20)]

    def ask(n: int) -> tuple[np.ndarray, np.ndarray]:
        return clip.encode_images(images[n]), clip.encode_texts(TEXTS[: n % 5 + 1])

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(ask, range(20)))
    texts = plain.encode_texts(TEXTS)
    for n, (of_images, of_texts) in enumerate(found):
        np.testing.assert_allclose(of_images, plain.encode_images(images[n]), atol=1e-5)
        np.testing.assert_allclose(of_texts, texts[: n % 5 + 1], atol=1e-5)


def test_classify_and_nothing_at_all_are_as_of_the_plain_model(clip: ServedModel, plain: bc.Pretrained) -> None:
    images, labels = [image_file(1), image_file(2)], ["chest ray", "brain image"]
    for multi_label in (False, True):
        mine, theirs = (each.classify(images, labels, multi_label=multi_label) for each in (clip, plain))
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert clip.encode_images([]).shape == (0, 32) and clip.encode_texts([]).shape == (0, 32)


def test_a_broken_image_is_named_and_costs_its_own_row(clip: ServedModel) -> None:
    bad: dict[int, UserError] = {}
    assert clip.encode_images([image_file(1), b"no image", image_file(2)], on_error=bad.__setitem__).shape == (2, 32)
    assert list(bad) == [1] and "not an image" in str(bad[1])
    with pytest.raises(UserError, match="not an image"):
        clip.encode_images([b"no image"])


def test_known_texts_are_not_computed_again_and_the_oldest_are_forgotten(
    clip: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("biomedclip_jax.serve._model._KEPT", 3)
    put, asked = clip.batches.put, []
    monkeypatch.setattr(clip.batches, "put", lambda key, row: asked.append(key) or put(key, row))
    first = clip.encode_texts(["one", "two", "one"])
    assert asked == ["text 16", "text 16"] and np.array_equal(first[0], first[2])
    clip.encode_texts(["three", "four"])
    assert np.array_equal(clip.encode_texts(["two"])[0], first[1])
    assert len(asked) == 4
    clip.encode_texts(["one"])
    assert len(asked) == 5 and len(clip._texts) == 3
