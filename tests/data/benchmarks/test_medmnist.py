"""MedMNIST's npz files: gray and colour, small and large, and the multi-label one."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from biomedclip_jax.data.benchmarks import NotOnDisk
from biomedclip_jax.data.benchmarks.medmnist import read_medmnist
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.benchmarks import benchmark, load_findings

RNG = np.random.default_rng(0)


def write(folder: Path, name: str, size: int, channels: tuple[int, ...] = (), labels: np.ndarray | None = None) -> Path:
    """Compressed, as on Zenodo; two images in test, three in val, four in train."""
    arrays = {}
    for split, count in (("train", 4), ("val", 3), ("test", 2)):
        arrays[f"{split}_images"] = RNG.integers(0, 256, (count, size, size, *channels), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8) if labels is None else labels[:count]
    np.savez_compressed(folder / name, **arrays)
    return folder / f"{name}.npz"


@pytest.mark.parametrize(("size", "channels"), [(28, ()), (28, (3,)), (224, (3,))])
def test_sizes_and_colours(tmp_path: Path, size: int, channels: tuple[int, ...]) -> None:
    path = write(tmp_path, "bloodmnist" if size == 28 else f"bloodmnist_{size}", size, channels)
    found = read_medmnist("bloodmnist", tmp_path, "validation", ("a", "b"), "bloodmnist", size)
    assert found.labels.tolist() == [0, 1, 0] and found.labels.dtype == np.int64
    with np.load(path) as file, ThreadPoolExecutor(4) as pool:
        images = list(pool.map(load_image, found.images))
        assert (np.stack([np.asarray(image) for image in images]) == file["val_images"]).all()
    assert images[0].mode == ("RGB" if channels else "L")
    assert (np.asarray(pickle.loads(pickle.dumps(found.images[1])).load()) == np.asarray(images[1])).all()
    assert found.fingerprint != read_medmnist("bloodmnist", tmp_path, "test", ("a", "b"), "bloodmnist", size).fingerprint


def test_images_are_read_when_one_is_asked_for(tmp_path: Path) -> None:
    """An evaluation whose embeddings are known needs the labels alone; of PathMNIST in 224 pixels the images are 13 GB."""
    found = read_medmnist("x", write(tmp_path, "x", 28).parent, "train", ("a", "b"), "x")
    (tmp_path / "x.npz").unlink()
    with pytest.raises(UserError, match=r"x\.npz: train_images is damaged .*; download it again"):
        load_image(found.images[0])


def test_all_findings(tmp_path: Path) -> None:
    labels = np.zeros((4, 14), np.uint8)
    labels[0, [3, 12]] = 1
    for name, size in (("chestmnist", 28), ("chestmnist_64", 64)):
        write(tmp_path, name, size, labels=labels)
        data = load_findings(name.replace("_", "-"), tmp_path)
        assert data.answers.tolist() == labels[:2].tolist() and data.whole == 22_433
        assert data.findings == benchmark("chestmnist").classes and load_image(data.images[0]).size == (size, size)
    write(tmp_path, "chestmnist", 28, labels=labels[:, :3])
    with pytest.raises(UserError, match=r"test_labels is \[2, 3\], expected 0 and 1, \[n, 14\]"):
        load_findings("chestmnist", tmp_path)


def test_of_many_findings_those_with_one(tmp_path: Path) -> None:
    labels = np.array([[0, 0, 1], [0, 0, 0], [1, 1, 0], [1, 0, 0]], np.int64)
    path = write(tmp_path, "chestmnist", 28, labels=labels)
    found = read_medmnist("chestmnist-one-finding", tmp_path, "train", ("a", "b", "c"), "chestmnist")
    assert found.labels.tolist() == [2, 0] and found.names[1].endswith("train image 3")
    with np.load(path) as file:
        assert (np.asarray(load_image(found.images[1])) == file["train_images"][3]).all()


def test_wrong_files(tmp_path: Path) -> None:
    def message(labels: np.ndarray | None = None, size: int = 28, classes: int = 2, **arrays: np.ndarray) -> str:
        if arrays:
            np.savez(tmp_path / "x.npz", **arrays)
        else:
            write(tmp_path, "x", size, labels=labels)
        with pytest.raises(UserError) as caught:
            read_medmnist("x", tmp_path, "test", tuple("abc"[:classes]), "x")
        assert "\n" not in str(caught.value) and "x.npz" in str(caught.value)
        return str(caught.value)

    assert "test_images is of shape [2, 64, 64], expected [n, 28, 28]" in message(size=64)
    assert "no array 'test_images'" in message(images=np.zeros(3))
    assert "labels from 0 to 5, expected 0 to 1" in message(labels=np.array([[0], [5], [0], [0]]))
    assert "test_labels is int64 [4], expected integers [2, 1]" in message(
        test_images=np.zeros((2, 28, 28), np.uint8), test_labels=np.zeros(4, np.int64)
    )
    (tmp_path / "x.npz").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"x\.npz: not readable as \.npz"):
        read_medmnist("x", tmp_path, "test", ("a", "b"), "x")
    with pytest.raises(NotOnDisk, match=r"no x_224\.npz"):
        read_medmnist("x", tmp_path, "test", ("a", "b"), "x", 224)
