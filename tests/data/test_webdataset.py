"""WebDataset tars: what webdataset itself would read is read, by position; what is missing or cut short is found at once."""

import io
import json
import pickle
import socket
import tarfile
import uuid
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import pytest
from PIL import Image

from biomedclip_jax.data import _tar_index as shard_module
from biomedclip_jax.data._webdataset import find_shards, open_shards
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.errors import UserError

HOST = socket.gethostname()


pytestmark = pytest.mark.usefixtures("own_cache")


def picture(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), (number, 10, 20)).save(out, "PNG")
    return out.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return path


def sample(key: str, number: int, caption: str | None = None, **fields: object) -> dict[str, bytes]:
    members = {f"{key}.png": picture(number), f"{key}.txt": (caption or f"caption {number}").encode()}
    return members | ({f"{key}.json": json.dumps(fields).encode()} if fields else {})


def write_shards(folder: Path, shards: int = 3, each: int = 4) -> list[str]:
    return [
        str(write_tar(folder / f"{s:02d}.tar", {n: c for i in range(each) for n, c in sample(f"{s}_{i}", 10 * s + i).items()}))
        for s in range(shards)
    ]


def test_every_sample_in_order(tmp_path: Path) -> None:
    pairs = open_shards(write_shards(tmp_path))
    assert len(pairs) == 12 and pairs.rejects == []
    for index in (11, 0, 5, 4, 7):
        number = index // 4 * 10 + index % 4
        pair = pairs[index]
        assert isinstance(pair.image, bytes) and load_image(pair.image).getpixel((0, 0)) == (number, 10, 20)
        assert pair.captions == pairs.texts(index).captions == (f"caption {number}",)
        assert pair.name == pairs.name(index) == f"{tmp_path}/{index // 4:02d}.tar: {index // 4}_{index % 4}.png"


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_names_of_members(tmp_path: Path, format: int) -> None:
    """Folders, dots after the first, upper case, names too long for a header (BIOMEDICA's members are .jpg, .txt, .json)."""
    long = "x" * 60 if format == tarfile.USTAR_FORMAT else "x" * 160
    members = {
        **sample("a/one", 1, title="first"),
        "b/one.PNG": picture(2),
        "b/one.txt": b"other folder",
        "b/one.cls": b"3",
        f"{long}.jpeg": picture(3),
        f"{long}.txt": b"long",
        "notes": b"no suffix",
        "two.seg.png": b"not an image of ours",
    }
    pairs = open_shards([str(write_tar(tmp_path / "t.tar", members, format))])
    assert [pairs.texts(i).captions[0] for i in range(len(pairs))] == ["caption 1", "other folder", "long"]
    assert [load_image(pairs[i].image).getpixel((0, 0))[0] for i in range(3)] == [1, 2, 3]  # type: ignore[index]


def test_incomplete_samples_are_listed(tmp_path: Path) -> None:
    members = {**sample("a", 1), "b.png": picture(2), "c.txt": b"alone", "d.png": picture(3), "d.txt": b"", **sample("e", 4)}
    pairs = open_shards([str(write_tar(tmp_path / "t.tar", members))])
    assert [pairs.texts(i).captions[0] for i in range(len(pairs))] == ["caption 1", "caption 4"]
    assert [(r.row, r.image.rpartition("/")[2]) for r in pairs.rejects] == [
        ("2", "t.tar: b.png"),
        ("3", "t.tar: c.txt"),
        ("4", "t.tar: d.png"),
    ]
    assert [r.reason for r in pairs.rejects] == [
        "no caption (.txt) in this sample",
        "no image (.jpg, .png ...) in this sample",
        "caption (.txt) is empty",
    ]


def test_fields_of_the_json(tmp_path: Path) -> None:
    members = {
        **sample("a", 1, references=["see Figure 1"], kind="chest", captions=["x", " y "]),
        **sample("b", 2, kind="", captions=[]),
        "c.png": picture(3),
        "c.txt": b"no json",
        **sample("d", 4, kind="brain"),
        "d.json": b"{",
    }
    path = str(write_tar(tmp_path / "t.tar", members))
    pairs = open_shards([path], label_field="kind")
    assert pairs.texts(0).label == "chest" and pairs[0].references == ("see Figure 1",)
    for index, message in ((1, "no 'kind' in its .json"), (2, "no 'kind'"), (3, "its .json is not JSON")):
        with pytest.raises(UserError, match=rf"t\.tar: [b-d]\.png: {message}"):
            pairs[index]
    other = open_shards([path], caption_field="captions")
    assert other.texts(0).captions == ("x", "y") and [r.row for r in other.rejects] == ["3"]
    with pytest.raises(UserError, match="caption is empty"):
        other.texts(1)


def test_a_caption_in_another_encoding(tmp_path: Path) -> None:
    pairs = open_shards([str(write_tar(tmp_path / "t.tar", {"a.png": picture(1), "a.txt": "café".encode("latin-1")}))])
    with pytest.raises(UserError, match=r"t\.tar: a\.png: its caption is not UTF-8"):
        pairs[0]


# --- shards that are not as they should be --------------------------------------------------------------------------


def test_a_missing_shard_names_host_and_path(tmp_path: Path) -> None:
    write_shards(tmp_path, 2)
    with pytest.raises(
        UserError, match=rf"{tmp_path}/02\.tar on host {HOST}: this shard is missing.*\(and 1 more of 4 shards\)"
    ):
        open_shards(find_shards(f"{tmp_path}/{{00..03}}.tar"))


@pytest.mark.parametrize("part", [0.0, 0.3, 0.5, 0.9, "at a header", "end mark"])
def test_a_short_shard_names_host_and_path(tmp_path: Path, part: float | str) -> None:
    """Wherever the copy broke off: inside a picture, inside a header, or before the end mark."""
    path = Path(write_shards(tmp_path, 1, 30)[0])
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    ends = {"at a header": last.offset + 100, "end mark": last.offset_data + 512}
    path.write_bytes(content[: ends[part] if isinstance(part, str) else int(part * last.offset)])
    with pytest.raises(UserError, match=rf"00\.tar on host {HOST}: this shard is cut short or no tar"):
        open_shards([str(path)])


def test_what_is_no_tar(tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(UserError, match=rf"t\.tar on host {HOST}: .* no tar"):
        open_shards([str(tmp_path / "t.tar")])
    write_tar(tmp_path / "t.tar", {"readme": b"nothing else"})
    with pytest.raises(UserError, match=r"no usable pair in 1 samples; the first: .*readme, no image"):
        open_shards([str(tmp_path / "t.tar")])


def test_a_shard_that_shrinks_during_the_run(tmp_path: Path) -> None:
    (path,) = write_shards(tmp_path, 1)
    pairs = open_shards([path])
    with open(path, "r+b") as file:
        file.truncate(700)
    with pytest.raises(UserError, match=r"00\.tar: has become shorter"):
        pairs[3]


# --- the index ------------------------------------------------------------------------------------------------------


def test_a_tar_is_read_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    through = shard_module._read_through
    monkeypatch.setattr(shard_module, "_read_through", lambda path: (read.append(path), through(path))[1])
    paths = write_shards(tmp_path, 2)
    first, second = open_shards(paths), open_shards(paths)
    assert sorted(read) == paths and second[7] == first[7]
    write_tar(Path(paths[1]), {**sample("new", 9), **sample("more", 8)})  # another size and date
    assert open_shards(paths).texts(4).captions == ("caption 9",) and sorted(read) == [*paths, paths[1]]


def test_without_a_place_for_the_index(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_cache / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_cache / "file"))
    pairs = open_shards(write_shards(tmp_path, 2))
    assert len(pairs) == 8 and pickle.loads(pickle.dumps(pairs))[7] == pairs[7]


def test_workers_share_the_index(tmp_path: Path) -> None:
    pairs = open_shards(write_shards(tmp_path, 2, 200))
    content = pickle.dumps(pairs)
    assert len(content) < 2_000, "the positions are not in it"
    assert pickle.loads(content)[399] == pairs[399]


def test_many_shards_need_few_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "_opened", lru_cache(4)(lambda path, version: shard_module._OpenFile(path)))
    pairs = open_shards(write_shards(tmp_path, 40, 1))
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert {pairs[i].captions[0] for i in range(40)} == {f"caption {10 * i}" for i in range(40)}
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 4


# --- patterns and addresses -----------------------------------------------------------------------------------------


def test_patterns(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, 3)
    assert find_shards(f"{tmp_path}/{{00..02}}.tar") == find_shards(f"{tmp_path}/*.tar") == paths
    assert find_shards(f"{tmp_path}/{{00,02}}.tar") == [paths[0], paths[2]]
    assert find_shards("s3://b/{a,b}/{8..10}.tar") == [f"s3://b/{a}/{n}.tar" for a in "ab" for n in (8, 9, 10)]
    with pytest.raises(UserError, match=rf"on host {HOST}: no such tar"):
        find_shards(f"{tmp_path}/train-*.tar")
    with pytest.raises(UserError, match="counts down"):
        find_shards("{9..0}.tar")


def test_remote_tars_are_read_by_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    memory, folder = fsspec.filesystem("memory"), uuid.uuid4().hex
    for path in write_shards(tmp_path, 2):
        memory.pipe_file(f"/{folder}/{Path(path).name}", Path(path).read_bytes())
    pairs = open_shards(find_shards(f"memory://{folder}/{{00..01}}.tar"))
    fetched: list[int] = []
    cat = memory.cat_file
    monkeypatch.setattr(
        type(memory), "cat_file", lambda self, path, start, end: (fetched.append(end - start), cat(path, start, end))[1]
    )
    pair = pairs[6]
    assert pair.captions == ("caption 12",) and pair.name == f"memory://{folder}/01.tar: 1_2.png"
    assert len(fetched) == 3 and sum(fetched) < 1_000, "a picture, a caption and a header, not the tar"
    with pytest.raises(UserError, match=rf"memory://{folder}/02\.tar on host {HOST}: this shard is missing"):
        open_shards(find_shards(f"memory://{folder}/{{00..02}}.tar"))


def test_what_webdataset_reads_is_read(tmp_path: Path) -> None:
    """The same keys, images and captions as the library that open_clip trains with."""
    webdataset = pytest.importorskip("webdataset")
    paths = write_shards(tmp_path, 2)
    with open(paths[0], "rb") as first, open(paths[1], "rb") as second:
        streams = [{"url": path, "stream": file} for path, file in zip(paths, (first, second), strict=True)]
        theirs = list(webdataset.tariterators.group_by_keys(webdataset.tariterators.tar_file_expander(streams)))
    pairs = open_shards(paths)
    assert [(s["png"], s["txt"].decode()) for s in theirs] == [(pairs[i].image, pairs[i].captions[0]) for i in range(8)]
    assert all(pairs.name(i).endswith(f": {s['__key__']}.png") for i, s in enumerate(theirs))


def test_hidden_files_are_no_samples(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {".hidden.png": b"x", ".hidden.txt": b"x", **sample("a", 1)})
    assert len(open_shards([str(path)])) == 1
