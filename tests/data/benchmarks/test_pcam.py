"""PatchCamelyon: its HDF5 files and TFDS's form of them, in small."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.data.benchmarks import NotOnDisk
from biomedclip_jax.data.benchmarks.pcam import read_pcam
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.errors import UserError

h5py = pytest.importorskip("h5py")
CLASSES = ("normal lymph node", "lymph node metastasis")
LABELS = [0, 1, 1, 0, 1]


def patches(count: int = len(LABELS)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)


def write(folder: Path, x: np.ndarray | None = None, y: np.ndarray | None = None, split: str = "test", key: str = "x") -> Path:
    """As the release: compressed in chunks, labels [n, 1, 1, 1]."""
    x = patches() if x is None else x
    y = np.array(LABELS, np.uint8).reshape(-1, 1, 1, 1) if y is None else y
    with h5py.File(folder / f"camelyonpatch_level_2_split_{split}_x.h5", "w") as file:
        file.create_dataset(key, data=x, chunks=(min(2, len(x)), *x.shape[1:]), compression="gzip")
    with h5py.File(folder / f"camelyonpatch_level_2_split_{split}_y.h5", "w") as file:
        file.create_dataset("y", data=y)
    return folder


def test_the_files_of_the_release(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, split="valid", y=np.zeros((5, 1, 1, 1), np.uint8))
    found = read_pcam("pcam", tmp_path, "test", CLASSES)
    assert found.classes == CLASSES and found.labels.tolist() == LABELS and found.labels.dtype == np.int64
    assert found.names[2].endswith("_test_x.h5, image 2")
    assert read_pcam("pcam", tmp_path, "validation", CLASSES).labels.tolist() == [0] * 5
    with ThreadPoolExecutor(8) as pool:  # as encode_images decodes
        again = list(pool.map(lambda image: np.asarray(load_image(image)), [*found.images] * 4))
    assert (np.stack(again) == np.tile(patches(), (4, 1, 1, 1))).all()
    assert (np.asarray(pickle.loads(pickle.dumps(found.images[3])).load()) == patches()[3]).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"x": np.zeros((5, 3, 96, 96), np.uint8)},
            r"_x\.h5: key 'x' is uint8 \[5, 3, 96, 96\], expected uint8 \[n, 96, 96, 3\]",
        ),
        ({"x": np.zeros((5, 96, 96, 3), np.float32)}, r"_x\.h5: key 'x' is float32"),
        ({"y": np.zeros((4, 1, 1, 1), np.uint8)}, r"_y\.h5: key 'y' is of shape \[4, 1, 1, 1\], expected \[5, 1, 1, 1\]"),
        ({"y": np.full((5, 1, 1, 1), 7, np.uint8)}, r"_y\.h5: labels \[7\], expected 0 and 1"),
        ({"key": "images"}, r"_x\.h5: no array 'x'; there are: 'images'"),
    ],
)
def test_files_of_another_shape(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_pcam("pcam", write(tmp_path, **wrong), "test", CLASSES)
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(NotOnDisk, match=r"no camelyonpatch_level_2_split_test_x\.h5"):
        read_pcam("pcam", tmp_path, "test", CLASSES)
    packed = tmp_path / "camelyonpatch_level_2_split_test_x.h5.gz"
    packed.touch()
    with pytest.raises(UserError, match=r"_x\.h5\.gz: still compressed"):
        read_pcam("pcam", tmp_path, "test", CLASSES)
    whole = write(tmp_path) / "camelyonpatch_level_2_split_test_x.h5"
    whole.write_bytes(whole.read_bytes()[:5_000])
    with pytest.raises(UserError, match=r"_x\.h5: not readable as HDF5 \(.*\); download it again"):
        read_pcam("pcam", tmp_path, "test", CLASSES)
    with pytest.raises(UserError, match="pcam: no split 'dev'; there are: train, validation, test"):
        read_pcam("pcam", tmp_path, "dev", CLASSES)


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(UserError, match=r"needs h5py: pip install 'biomedclip_jax\[evaluate\]'"):
        read_pcam("pcam", tmp_path, "test", CLASSES)


def test_as_tfds_prepares_it(tmp_path: Path) -> None:
    """The label has no names there: 0 and 1 get ours."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.0.0")

        def _info(self) -> Any:
            image = tfds.features.Image(shape=(96, 96, 3), encoding_format="png")
            label = tfds.features.ClassLabel(num_classes=2)
            features = tfds.features.FeaturesDict({"id": tfds.features.Text(), "image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager: Any) -> Any:
            return {"test": self._generate_examples()}

        def _generate_examples(self) -> Any:
            for number, (patch, label) in enumerate(zip(patches(), LABELS, strict=True)):
                yield f"test_{number}", {"id": f"test_{number}", "image": Image.fromarray(patch), "label": label}

    Builder.name = "patch_camelyon"
    Builder(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    found = read_pcam("pcam", tmp_path, "test", CLASSES)
    assert found.classes == CLASSES and sorted(found.labels.tolist()) == sorted(LABELS)
    by_patch = {patch.tobytes(): label for patch, label in zip(patches(), LABELS, strict=True)}
    assert [by_patch[np.asarray(load_image(image)).tobytes()] for image in found.images] == found.labels.tolist()
    with pytest.raises(UserError, match="no split 'train'"):
        read_pcam("pcam", tmp_path, "train", CLASSES)
