"""What a batch holds is a function of (seed, place in the run): the ground under resuming and under several processes."""

import dataclasses
import string
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference import write_vocabulary

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images import load_image, preprocess_train
from biomedclip_jax.data.loader import TrainLoader
from biomedclip_jax.data.pairs import Pairs
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError

RECORDS = 10
BATCH = 4
Batches = list[dict[str, np.ndarray]]


@pytest.fixture
def loader(tmp_path: Path) -> TrainLoader:
    """Ten images of noise; the caption of each is a letter of its own, which makes records known again in a batch."""
    write_vocabulary(tmp_path)
    rng = np.random.default_rng(0)
    images = [tmp_path / f"{i}.png" for i in range(RECORDS)]
    for path in images:
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(path)
    rejects: list[dict[str, str]] = []
    return TrainLoader(
        Pairs(images, list(string.ascii_lowercase[:RECORDS]), None, rejects),
        Tokenizer(tmp_path, 8, 0, 200),
        PreprocessConfig(image_size=16),
        crop_scale=(0.5, 1.0),
        seed=3,
        reject=rejects.append,
    )


def records(batches: Batches) -> list[int]:
    """Which records are in the batches: the first letter of the vocabulary has id 5."""
    return [int(token) - 5 for batch in batches for token in batch["tokens"][:, 1]]


def same(a: Batches, b: Batches) -> bool:
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(np.array_equal(x[k], y[k]) for k in x) for x, y in zip(a, b, strict=True)
    )


def test_shapes_and_contents(loader: TrainLoader) -> None:
    (batch,) = loader.batches(20, BATCH, 1)
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        "images": ((BATCH, 16, 16, 3), np.float32),
        "tokens": ((BATCH, 8), np.int32),
        "index": ((BATCH,), np.uint32),
    }
    assert list(batch["index"]) == [20, 21, 22, 23]
    for row, record in enumerate(records([batch])):  # image and caption of a row are of the same pair
        generator = np.random.default_rng((loader.seed, 20 + row))
        expected = preprocess_train(load_image(loader.pairs.images[record]), loader.preprocess, generator, loader.crop_scale)
        assert np.array_equal(batch["images"][row], expected)


@pytest.mark.parametrize("done", [1, 3])
def test_a_resumed_run_sees_what_an_unbroken_one_sees(loader: TrainLoader, done: int) -> None:
    """Bit for bit, the random crops too, and across the end of an epoch (10 records, batches of 4)."""
    whole = list(loader.batches(0, BATCH, 6))
    assert same(list(loader.batches(done * BATCH, BATCH, 6 - done)), whole[done:])
    assert not same(whole[:1], whole[1:2])


def test_batch_size_does_not_change_the_order(loader: TrainLoader) -> None:
    """A run may change its batch size from stage to stage: places count samples, not batches."""
    large, small = list(loader.batches(0, 12, 1)), list(loader.batches(0, 3, 4))
    joined = {name: np.concatenate([batch[name] for batch in small]) for name in small[0]}
    assert same(large, [joined])


def test_every_record_once_an_epoch_in_a_new_order(loader: TrainLoader) -> None:
    seen = records(list(loader.batches(0, 5, 8)))
    epochs = [seen[i : i + RECORDS] for i in range(0, len(seen), RECORDS)]
    assert all(sorted(epoch) == list(range(RECORDS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4 and epochs[0] != list(range(RECORDS))


def test_a_record_is_cropped_anew_in_each_epoch(loader: TrainLoader) -> None:
    batches = list(loader.batches(0, RECORDS, 2))
    first, second = (batch["images"][np.argsort(records([batch]))] for batch in batches)
    assert (np.abs(first - second).max(axis=(1, 2, 3)) > 0.1).sum() > RECORDS / 2


def test_the_parts_of_two_processes_make_one_batch(loader: TrainLoader) -> None:
    whole = list(loader.batches(8, BATCH, 3))
    parts = [list(loader.batches(8, BATCH, 3, process, 2)) for process in range(2)]
    joined = [{k: np.concatenate([a[k], b[k]]) for k in a} for a, b in zip(*parts, strict=True)]
    assert same(joined, whole)


def test_another_seed_is_another_order(loader: TrainLoader) -> None:
    other = dataclasses.replace(loader, seed=4)
    assert records(list(other.batches(0, 5, 4))) != records(list(loader.batches(0, 5, 4)))


def test_a_broken_image_is_replaced_and_reported(loader: TrainLoader) -> None:
    """By the record after it, at the same place, so that no other place changes."""
    before = list(loader.batches(0, 5, 2))
    loader.pairs.images[4].write_bytes(b"broken since the run began")
    after = list(loader.batches(0, 5, 2))
    expected = [5 if record == 4 else record for record in records(before)]
    assert records(after) == expected
    reject = loader.pairs.rejects[0]
    assert reject["row"] == "5" and reject["image"] == str(loader.pairs.images[4]) and "4.png" in reject["reason"]
    kept = np.array(records(before)) != 4
    images = [np.concatenate([batch["images"] for batch in batches]) for batches in (before, after)]
    assert np.array_equal(images[0][kept], images[1][kept])


def test_when_no_image_can_be_read(loader: TrainLoader) -> None:
    for path in loader.pairs.images:
        path.unlink()
    with pytest.raises(UserError, match="none of the 10 images"):
        next(iter(loader.batches(0, BATCH, 1)))
