"""A fingerprint changes when an image file, a caption or their order does, and at nothing else."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.clip_benchmark_peer import png
from PIL import Image

from biomedclip_jax.data._tfds_write import BuildWriter
from biomedclip_jax.data.pairs import Pair, Pairs, Subset, pairs_fingerprint, with_readable_texts
from biomedclip_jax.data.sources import open_pairs

pytestmark = pytest.mark.usefixtures("own_cache")


def picture(number: int) -> bytes:
    return png(Image.new("L", (8, 6), number))


CAPTIONS = [f"caption {i}" for i in range(4)]


def write_table(folder: Path, captions: list[str] = CAPTIONS, label: str = "x") -> Path:
    for i in range(4):
        if not (folder / f"{i}.png").exists():
            (folder / f"{i}.png").write_bytes(picture(i))
    path = folder / "data.csv"
    path.write_text("image,caption,label\n" + "".join(f"{i}.png,{caption},{label}\n" for i, caption in enumerate(captions)))
    return path


def write_tar(folder: Path, captions: list[str] = CAPTIONS) -> Path:
    with tarfile.open(folder / "0.tar", "w") as tar:
        for i, caption in enumerate(captions):
            for name, content in ((f"{i}.png", picture(i)), (f"{i}.txt", caption.encode())):
                about = tarfile.TarInfo(name)
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
    return folder / "0.tar"


def write_build(folder: Path, captions: list[str] = CAPTIONS) -> str:
    pytest.importorskip("tensorflow_datasets")
    folder.mkdir()
    writer = BuildWriter(folder, several=False, references=False, labels=False)
    pairs = [(picture(i), Pair(image=picture(i), name=str(i), captions=(caption,))) for i, caption in enumerate(captions)]
    writer.write(0, 1, pairs)
    writer.finish()
    return f"{folder}:train"


def of(source: object) -> str:
    return pairs_fingerprint(open_pairs(str(source)))


def test_of_a_table_without_reading_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = of(write_table(tmp_path))
    assert first == of(tmp_path / "data.csv") == of(write_table(tmp_path, label="another")), "labels and the table's date"
    (tmp_path / "beside.png").write_bytes(picture(9))
    (tmp_path / "data.tsv").write_text((tmp_path / "data.csv").read_text().replace(",", "\t"))
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened"))
    assert of(tmp_path / "data.tsv") == first, "the same pairs in another kind of table"


def change_content(folder: Path) -> Path:
    (folder / "2.png").write_bytes(picture(200) + b"more")
    return folder / "data.csv"


def change_date(folder: Path) -> Path:
    state = (folder / "2.png").stat()
    os.utime(folder / "2.png", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    return folder / "data.csv"


@pytest.mark.parametrize(
    "change",
    [
        change_content,
        change_date,
        lambda folder: write_table(folder, [*CAPTIONS[:3], "caption 3."]),
        lambda folder: write_table(folder, CAPTIONS[::-1]),
        lambda folder: write_table(folder, CAPTIONS[:3]),
    ],
)
def test_of_a_table_that_changes(tmp_path: Path, change: Callable[[Path], Path]) -> None:
    assert of(write_table(tmp_path)) != of(change(tmp_path))


def test_of_captions_by_where_they_end(tmp_path: Path) -> None:
    """Two captions of one image and one of the next are not the other way round."""
    write_table(tmp_path)
    found = set()
    for first, second in ((["a", "b"], ["c"]), (["a"], ["b", "c"]), (["ab"], ["c"])):
        lines = (
            f'{{"image": "{i}.png", "caption": {str(own).replace(chr(39), chr(34))}}}' for i, own in enumerate((first, second))
        )
        (tmp_path / "data.jsonl").write_text("\n".join(lines))
        found.add(of(tmp_path / "data.jsonl"))
    assert len(found) == 3


def test_of_tars(tmp_path: Path) -> None:
    first = of(write_tar(tmp_path))
    assert first == of(tmp_path / "*.tar")
    (tmp_path / "other").mkdir()
    assert of(write_tar(tmp_path / "other")) != first, "another file"
    os.utime(tmp_path / "0.tar", ns=(0, 0))
    changed = of(tmp_path / "0.tar")
    assert changed != first
    write_tar(tmp_path, [*CAPTIONS[:3], "caption X"])
    os.utime(tmp_path / "0.tar", ns=(0, 0))
    assert of(tmp_path / "0.tar") != changed, "a caption of the same length"


def test_of_builds(tmp_path: Path) -> None:
    source = write_build(tmp_path / "a")
    first = of(source)
    assert first == of(source)
    assert len({first, of(f"{source}[:50%]"), of(f"{source}[50%:]"), of(write_build(tmp_path / "b"))}) == 4
    shard = next((tmp_path / "a").glob("*array_record*"))
    os.utime(shard, ns=(0, 0))
    assert of(source) != first


def test_of_several_sources_and_of_a_part(tmp_path: Path) -> None:
    table, tar = str(write_table(tmp_path)), str(write_tar(tmp_path))
    both, turned = (open_pairs(mix) for mix in (((table, 1.0), (tar, 2.0)), ((tar, 1.0), (table, 2.0))))
    pairs = open_pairs(table)
    parts: list[Pairs] = [Subset(pairs, positions, []) for positions in ([0, 1, 2], [0, 1, 3], [0, 3, 1])]
    found = {pairs_fingerprint(each) for each in (both, turned, pairs, *parts)}
    assert len(found) == 6
    assert pairs_fingerprint(with_readable_texts(pairs)) == pairs_fingerprint(pairs)
    state = (tmp_path / "3.png").stat()
    os.utime(tmp_path / "3.png", ns=(0, state.st_mtime_ns + 5))
    assert len({pairs_fingerprint(each) for each in (both, turned, pairs, *parts)} - found) == 6


def test_what_it_does_not_know() -> None:
    """A new kind of pairs must say what its images depend on, or stale embeddings would be used."""

    class Unknown(list):
        pass

    with pytest.raises(AttributeError, match="image_versions"):
        pairs_fingerprint(Unknown())  # type: ignore[arg-type]
