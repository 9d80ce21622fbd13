"""Tars of strangers: every sample is used, or stands in a reject with its reason."""

import gzip
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from biomedclip_jax.data._tar_index import cache_file, index_tar
from biomedclip_jax.data._webdataset import open_shards
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")


def picture(number: int, format: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), (number, 10, 20)).save(out, format)
    return out.getvalue()


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    """Members in this order; a name may be there twice."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return out.getvalue()


def opened(path: Path, content: bytes) -> tuple[list[str], list[Reject]]:
    """The captions of the pairs, and what was left out."""
    path.write_bytes(content)
    pairs = open_shards([str(path)])
    again = open_shards([str(path)])  # from the index that was kept
    assert again.rejects == pairs.rejects and len(again) == len(pairs)
    return [pairs.texts(i).captions[0] for i in range(len(pairs))], pairs.rejects


def reasons(rejects: list[Reject]) -> list[tuple[str, str]]:
    return [(reject.image.rpartition(": ")[2], reject.reason) for reject in rejects]


def pair(key: str, caption: str, ending: str = "png") -> list[tuple[str, bytes]]:
    return [(f"{key}.{ending}", picture(1)), (f"{key}.txt", caption.encode())]


def test_names_with_dots(tmp_path: Path) -> None:
    keys = ["scan_1.5T", "PMC1.2_fig.1", "1.2.840.113619/1.2.3", "v1.0/a.b"]
    captions, rejects = opened(tmp_path / "t.tar", tar_bytes(member for key in keys for member in pair(key, key)))
    assert captions == keys and not rejects


def test_every_kind_of_image(tmp_path: Path) -> None:
    kinds = {"jpg": "JPEG", "tif": "TIFF", "TIFF": "TIFF", "gif": "GIF", "bmp": "BMP", "webp": "WEBP", "jp2": "JPEG2000"}
    members = [m for key, kind in kinds.items() for m in ((f"{key}.{key}", picture(1, kind)), (f"{key}.txt", key.encode()))]
    captions, rejects = opened(tmp_path / "t.tar", tar_bytes(members))
    assert captions == list(kinds) and not rejects


def test_a_sample_that_is_there_twice(tmp_path: Path) -> None:
    members = [*pair("a", "first"), *pair("b", "b"), *pair("a", "second")]
    captions, rejects = opened(tmp_path / "t.tar", tar_bytes(members))
    twice = "a member of this name is in the tar twice"
    assert captions == ["b"] and [reason for _, reason in reasons(rejects)] == [twice, twice]


def test_two_images_of_one_key(tmp_path: Path) -> None:
    members = [("a.jpg", picture(1, "JPEG")), *pair("a", "a"), *pair("b", "b")]
    captions, rejects = opened(tmp_path / "t.tar", tar_bytes(members))
    assert captions == ["b"]
    assert reasons(rejects) == [("a.png", "several members for one part of its key, such as two images")]


def test_members_of_unknown_ending(tmp_path: Path) -> None:
    """Beside a whole sample they are nobody's loss; where a part is missing, they are named."""
    members = [*pair("a", "a"), ("a.url", b"x"), ("b.heic", b"x"), ("b.txt", b"b"), ("readme", b"x"), ("._a.png", b"x")]
    members += [("__MACOSX/a.png", b"x"), (".DS_Store", b"x")]
    captions, rejects = opened(tmp_path / "t.tar", tar_bytes(members))
    assert captions == ["a"]
    no_image = "no image (.jpg, .png ...) in this sample; {!r} has an ending that is no part of a sample"
    assert reasons(rejects) == [("b.txt", no_image.format("b.heic")), ("readme", no_image.format("readme"))]


def test_links_are_no_images(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in pair("a", "a"):
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.LNKTYPE, "a.png"
        tar.addfile(link)
    captions, rejects = opened(tmp_path / "t.tar", out.getvalue())
    assert captions == ["a"] and reasons(rejects) == [
        ("b.png", "a link, not a file: pack with tar --hard-dereference --dereference")
    ]


@pytest.mark.parametrize("zeros", [0, 512, 20 * 512])
def test_concatenated_tars(tmp_path: Path, zeros: int) -> None:
    """What follows an end mark is read; both may have a sample of the same key."""
    both = tar_bytes(pair("0", "first")) + bytes(zeros) + tar_bytes([*pair("0", "second"), *pair("1", "third")])
    assert opened(tmp_path / "t.tar", both) == (["first", "second", "third"], [])


def test_what_follows_an_end_mark_and_is_no_tar(tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(tar_bytes(pair("a", "a")) + b"no tar" * 200)
    with pytest.raises(UserError, match="cut short or no tar"):
        open_shards([str(tmp_path / "t.tar")])


@pytest.mark.parametrize("name", ["t.tar", "t.tar.gz", "t.TAR"])
def test_compressed_tars(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(tar_bytes(pair("a", "a"))))
    with pytest.raises(UserError, match=rf"{name}: compressed \(gzip\).*unpack it with gunzip first"):
        open_pairs(str(tmp_path / name))


def test_members_with_holes_are_no_pieces_of_the_tar(tmp_path: Path) -> None:
    """GNU tar --sparse leaves runs of zeros out: what lies at the member's place is not the file."""
    if (program := shutil.which("tar")) is None:
        pytest.skip("no tar")
    with (tmp_path / "a.png").open("wb") as file:
        file.write(picture(1))
        file.seek(2_000_000)
        file.write(b"end")
    (tmp_path / "b.png").write_bytes(picture(2))
    for key in "ab":
        (tmp_path / f"{key}.txt").write_text(f"caption {key}")
    members = ["a.png", "a.txt", "b.png", "b.txt"]
    for format in ("gnu", "pax"):
        path = tmp_path / f"{format}.tar"
        subprocess.run([program, "--sparse", f"--format={format}", "-cf", path, *members], cwd=tmp_path, check=True)
        if path.stat().st_size > 1_000_000:
            pytest.skip("this tar, or this disk, keeps no holes")
        pairs = open_shards([str(path)])
        assert [pairs.texts(i).captions for i in range(len(pairs))] == [("caption b",)]
        assert [r.reason for r in pairs.rejects] == [
            "stored with holes left out, so not in one piece: pack without tar --sparse"
        ]


def test_an_index_that_is_just_being_written(tmp_path: Path) -> None:
    """Of two processes that index the same tar at once, neither trips over the other's file."""
    path = tmp_path / "t.tar"
    assert opened(path, tar_bytes([("a.png", picture(1)), ("a.txt", b"one")]))[0] == ["one"]
    for file in Path(os.environ["XDG_CACHE_HOME"]).rglob("*.npy"):
        file.write_bytes(file.read_bytes()[:20])
    tar, parts = index_tar(str(path))
    assert parts.shape == (1, 5, 2) and cache_file(tar).stat().st_size > 20


def test_values_in_json_that_are_no_text(tmp_path: Path) -> None:
    fields = [b'{"c": {"en": "x"}}', b'{"c": "x", "c": "y"}', b'{"c": ["x", "y"]}']
    members = [
        (f"{n}{end}", content) for n, own in enumerate(fields) for end, content in ((".png", picture(n)), (".json", own))
    ]
    (tmp_path / "case[1].tar").write_bytes(tar_bytes(members))
    pairs = open_pairs(str(tmp_path / "case[1].tar"), caption_column="c")
    for index, message in enumerate(["caption holds dict, not text", "its .json is not JSON .key 'c' is there twice"]):
        with pytest.raises(UserError, match=message):
            pairs.texts(index)
    assert pairs.texts(2).captions == ("x", "y")
