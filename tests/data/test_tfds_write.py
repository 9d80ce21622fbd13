"""Records to files that TFDS reads, the same bytes from any process."""

import subprocess
import sys
from pathlib import Path

import pytest

tfds = pytest.importorskip("tensorflow_datasets", reason="needs: pip install 'biomedclip_jax[tfds]'")

from biomedclip_jax.data._tfds_write import Encoder, file_name, read_records, write_metadata, write_records  # noqa: E402

PROGRAM = """
import sys
from pathlib import Path
import tensorflow_datasets as tfds
from biomedclip_jax.data._tfds_write import Encoder, file_name, write_records
text = tfds.features.Text()
encode = Encoder(tfds.features.FeaturesDict({name: text for name in "abcdefghij"}))
write_records(Path(sys.argv[1]), [encode({name: name * 50 for name in "abcdefghij"}) for _ in range(20)])
"""


def test_the_same_examples_give_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    """Protobuf orders a map by a hash that each process salts."""
    files = [tmp_path / str(number) for number in range(4)]
    for file in files:
        subprocess.run([sys.executable, "-c", PROGRAM, str(file)], check=True)
    assert len({file.read_bytes() for file in files}) == 1


def test_tfds_reads_what_was_written(tmp_path: Path) -> None:
    text = tfds.features.Text()
    features = tfds.features.FeaturesDict({"name": text, "others": tfds.features.Sequence(text)})
    encode = Encoder(features)
    examples = [{"name": f"é{i}", "others": ["x"] * (i % 3)} for i in range(5)]
    lengths = []
    for shard, part in enumerate((examples[:3], [], examples[3:])):
        path = tmp_path / file_name("mine", "train", shard, 3)
        lengths.append(write_records(path, map(encode, part)))
        assert list(read_records(path)) == [encode(example) for example in part]
    assert lengths == [3, 0, 2]
    write_metadata(tmp_path, "mine", "2.0.0", features, {"train": lengths}, {"train": 1})
    source = tfds.builder_from_directory(tmp_path).as_data_source("train")
    found = [{"name": r["name"].decode(), "others": [text.decode() for text in r["others"]]} for r in source]
    assert found == examples
    assert "tensorflow" not in sys.modules
