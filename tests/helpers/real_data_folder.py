"""Real articles and BiomedBERT's vocabulary, which no clone has: the folder that holds them is named by a variable."""

import os
from pathlib import Path

import pytest

VARIABLE = "BIOMEDCLIP_REAL_DATA"
SKIPPED = f"tests/real_data is skipped: {VARIABLE}=DIR names a folder with pmc-articles/ and biomedbert-vocab/"


def real_data(name: str) -> Path:
    """DIR/name; a module that asks for it while no folder is named is skipped whole."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(SKIPPED, allow_module_level=True)
    found = Path(folder) / name
    assert found.is_dir(), f"{VARIABLE}={folder}: no {name}/ in it"
    return found
