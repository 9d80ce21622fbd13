"""ChestMNIST with all of its findings: `chestmnist.npz`, labels of 0 and 1, [n, 14]; see `medmnist` for the files.

The images are NIH ChestX-ray14's, small, in a split of their own: numbers of the two are not to be compared.
"""

from pathlib import Path

import numpy as np

from biomedclip_jax.data.benchmarks import check_split
from biomedclip_jax.data.benchmarks.medmnist import KEYS, NpzImage, arrays_of
from biomedclip_jax.data.labelled.multi_label import MultiLabelled, Policy
from biomedclip_jax.data.pairs import file_fingerprint, fingerprint
from biomedclip_jax.errors import UserError

FINDINGS = (
    "atelectasis",
    "cardiomegaly",
    "effusion",
    "infiltration",
    "mass",
    "nodule",
    "pneumonia",
    "pneumothorax",
    "consolidation",
    "edema",
    "emphysema",
    "fibrosis",
    "pleural",
    "hernia",
)


def read_chestmnist(name: str, where: Path, split: str, policy: Policy, flag: str, size: int = 28) -> MultiLabelled:
    """All images of a split with their findings. UserError for a file that is missing, damaged, or holds other arrays."""
    check_split(name, split, tuple(KEYS))
    path, images, labels = arrays_of(where, split, flag, size)
    if labels.shape[1] != len(FINDINGS) or not np.isin(labels, (0, 1)).all():
        raise UserError(f"{path}: {KEYS[split]}_labels is {list(labels.shape)}, expected 0 and 1, [n, {len(FINDINGS)}]")
    return MultiLabelled(
        name=name,
        findings=FINDINGS,
        images=[NpzImage(images, index) for index in range(len(labels))],
        names=[f"{path}, {split} image {index}" for index in range(len(labels))],
        labels=labels.astype(np.int8),
        fingerprint=fingerprint([file_fingerprint([path]), split]),
        policy=policy,
    )
