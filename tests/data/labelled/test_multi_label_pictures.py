"""Findings of pictures that lie in Parquet: a column for each, lists of names, and lists of class numbers."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from biomedclip_jax.data.images.load import LazyImage
from biomedclip_jax.data.labelled.multi_label import Policy
from biomedclip_jax.data.labelled.multi_label_pictures import open_multi_label
from biomedclip_jax.data.labelled.multi_label_table import Declared
from biomedclip_jax.errors import UserError


def write(path: Path, columns: dict[str, Any], names: list[str] | None = None) -> str:
    """A file with pictures of rising shades."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = []
    for shade in range(len(next(iter(columns.values())))):
        encoded = io.BytesIO()
        Image.new("L", (3, 3), shade).save(encoded, "PNG")
        pictures.append({"bytes": encoded.getvalue(), "path": None})
    found = pa.table({"image": pictures, **columns})
    if names is not None:
        features = {"label": {"_type": "Sequence", "feature": {"_type": "ClassLabel", "names": names}}}
        found = found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(found, path, row_group_size=2)
    return str(path)


def test_a_column_for_each(tmp_path: Path) -> None:
    source = write(tmp_path / "t.parquet", {"Edema": [1, 0, None, None, 3], "Mass": [0.0, -1.0, 1.0, None, 0.0]})
    data = open_multi_label(source, "test", "image", Declared(columns=("Edema", "Mass")))
    assert data.findings == ("Edema", "Mass") and data.labels.tolist() == [[1, 0], [0, -1], [-2, 1]]
    assert [reject.reason for reject in data.rejects] == [
        "Edema holds '3'; expected 1, 0, -1 or nothing",
        "says nothing of any finding",
    ]
    last = data.images[2]
    assert isinstance(last, LazyImage) and np.asarray(last.load()).max() == 2
    negative = open_multi_label(source, "test", "image", Declared(columns=("Edema", "Mass"), policy=Policy(empty="negative")))
    assert len(negative) == 4
    with pytest.raises(UserError, match=r"no column 'Oedema'; .* did you mean 'Edema'"):
        open_multi_label(source, "test", "image", Declared(columns=("Oedema",)))


def test_lists_of_names_and_of_numbers(tmp_path: Path) -> None:
    names = [["Mass", "Edema"], [], ["No Finding"], ["Edema"]]
    data = open_multi_label(write(tmp_path / "t.parquet", {"label": names}), "test", "image", Declared())
    assert data.findings == ("Edema", "Mass") and data.labels.tolist() == [[1, 1], [0, 0], [0, 0], [1, 0]]
    numbers = write(tmp_path / "n.parquet", {"label": [[2, 1], [], [0], [1]]}, ["No Finding", "Mass", "Edema", "Hernia"])
    data = open_multi_label(numbers, "test", "image", Declared())
    assert data.findings == ("Mass", "Edema", "Hernia"), "in the schema's order, and the one that no image has"
    assert data.labels.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_splits_of_a_folder_and_of_a_column(tmp_path: Path) -> None:
    for split, labels in (("train", [["a"], ["b"]]), ("test", [["b"]])):
        write(tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet", {"label": labels})
    folder, declared = str(tmp_path / "hub"), Declared()
    assert open_multi_label(folder, "train", "image", declared).labels.tolist() == [[1, 0], [0, 1]]
    assert open_multi_label(f"{folder}:test", "train", "image", declared, ("a", "b")).labels.tolist() == [[0, 1]]
    own = write(tmp_path / "s.parquet", {"label": [["a"], ["b"], ["a"]], "split": ["train", "test", "dev"]})
    assert open_multi_label(own, "test", "image", declared).findings == ("a", "b"), "of all splits"
    assert open_multi_label(folder, "test", "image", declared).findings == ("a", "b")
    with pytest.raises(UserError, match="unknown finding 'a'"):
        open_multi_label(own, "train", "image", declared, ("b",))
    with pytest.raises(UserError, match="several labels an image are read from tables"):
        open_multi_label(str(tmp_path / "none"), "test", "image", declared)
