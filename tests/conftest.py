"""Every test runs on eight emulated CPU devices, offline, with a compilation cache of its own kept between runs."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def vocabulary() -> Path:
    """BiomedBERT's real vocabulary, which stands beside the repository and is not part of it."""
    folder = SHARED / "biomedbert-vocab"
    assert (folder / "vocab.txt").is_file(), f"{folder} is missing: these tests need the shared files beside the checkout"
    return folder
