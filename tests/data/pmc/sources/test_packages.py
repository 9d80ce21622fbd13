"""PMC*.tar.gz: sound ones, damaged ones, and ones made to do harm."""

import gzip
import io
import pickle
import tarfile
from pathlib import Path

import pytest

from biomedclip_jax.data.pmc.sources import _packages as packages
from biomedclip_jax.data.pmc.sources._packages import Packages
from biomedclip_jax.data.pmc.sources.open import open_source
from biomedclip_jax.data.pmc.sources.selection import OlderVersion
from biomedclip_jax.errors import UserError

XML = b"<article><body><fig id='f1'/></body></article>"


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **facts: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    for key, value in facts.items():
        setattr(info, key, value)
    return info, data


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def package(folder: Path, *members: tuple[tarfile.TarInfo, bytes], name: str = "PMC5.tar.gz") -> Packages:
    (folder / name).write_bytes(gzip.compress(tar(member("PMC5/a.nxml", XML), *members), mtime=0))
    return Packages(folder)


def test_packages_of_articles(pmc_articles: Path) -> None:
    source = pickle.loads(pickle.dumps(open_source(str(pmc_articles / "packages"))))
    assert list(source.keys()) == ["PMC99000001.tar.gz", "PMC99000006.tar.gz"]
    for key, cloud in (("PMC99000001", "PMC99000001.1"), ("PMC99000006", "PMC99000006.1")):
        files = source.open(f"{key}.tar.gz")
        assert files.key == key and files.location.startswith(f"{key}.tar.gz/{key}/") and files.metadata is None
        assert files.xml == (pmc_articles / "cloud" / cloud / f"{cloud}.xml").read_bytes()
        again = pickle.loads(pickle.dumps(files))
        assert sorted(again.media) == sorted(files.media) and len(files.media) in (5, 6)
        for name in files.media:
            original = name if cloud.startswith("PMC99000001") else name.removesuffix(".jpg")
            assert files.read(name) == again.read(name) == (pmc_articles / "cloud" / cloud / original).read_bytes()
        with pytest.raises(UserError, match=r"no other\.jpg in this package"):
            files.read("other.jpg")


def test_one_package_by_any_name(tmp_path: Path) -> None:
    package(tmp_path, member("PMC5/f.jpg", b"x"), name="download.tar.gz")
    source = open_source(str(tmp_path / "download.tar.gz"))
    assert list(source.keys()) == ["download.tar.gz"]
    files = source.open("download.tar.gz")
    assert (files.key, files.location, files.media) == ("PMC5", "PMC5/a.nxml", ("f.jpg",))


def test_media_are_what_lies_beside_the_article(tmp_path: Path) -> None:
    long = "PMC5/" + "n" * 150 + ".jpg"
    folders = [member("PMC5/", kind=tarfile.DIRTYPE), member("PMC5/sub/", kind=tarfile.DIRTYPE)]
    source = package(tmp_path, *folders, member("./PMC5/f.jpg", b"1"), member("PMC5/sub/g.jpg", b"2"), member(long, b"3"))
    files = source.open("PMC5.tar.gz")
    assert set(files.media) == {"f.jpg", long[5:]} and files.read(long[5:]) == b"3"


def test_large_media_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_CACHE_BYTES", 3 * 2**20)
    contents = {f"{n}.jpg": bytes([n]) * (2**21 + n) for n in range(3)}
    files = package(tmp_path, *(member(f"PMC5/{n}", data) for n, data in contents.items())).open("PMC5.tar.gz")
    assert {name: files.read(name) for name in reversed(files.media)} == contents


HOSTILE = {
    "absolute": (member("/etc/cron.d/x", b"x"), "is a path that leads out"),
    "parent": (member("PMC5/../../x.jpg", b"x"), "is a path that leads out"),
    "drive": (member("C:\\x.jpg", b"x"), "is a path that leads out"),
    "symbolic link": (member("PMC5/f.jpg", kind=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
    "hard link": (member("PMC5/f.jpg", kind=tarfile.LNKTYPE, linkname="PMC5/a.nxml"), "is a link"),
    "device": (member("PMC5/f.jpg", kind=tarfile.CHRTYPE), "is a link, a device"),
    "pipe": (member("PMC5/f.jpg", kind=tarfile.FIFOTYPE), "is a link, a device"),
    "unknown kind": (member("PMC5/f.jpg", kind=b"Z"), "is a link, a device or another special file"),
    "twice": (member("PMC5//a.nxml", XML), "is in it twice"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_members(tmp_path: Path, case: str) -> None:
    hostile, reason = HOSTILE[case]
    source = package(tmp_path, member("PMC5/f0.jpg", b"x"), hostile)
    with pytest.raises(UserError, match=reason) as raised:
        source.open("PMC5.tar.gz")
    assert str(raised.value).startswith(f"{tmp_path}/PMC5.tar.gz: ") and "such a package is not read" in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["PMC5.tar.gz"]


def test_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = bytes(2**20)
    source = package(tmp_path, member("PMC5/f.jpg", zeros), member("PMC5/g.jpg", zeros))
    assert len(source.open("PMC5.tar.gz").read("g.jpg")) == 2**20
    with monkeypatch.context() as smaller:
        smaller.setattr(packages, "MAX_MEMBERS", 2)
        with pytest.raises(UserError, match=r"g\.jpg' is one file more than 2"):
            source.open("PMC5.tar.gz")
    with monkeypatch.context() as smaller:
        smaller.setattr(packages, "MAX_MEMBER_BYTES", 2**20 - 1)
        with pytest.raises(UserError, match=r"f\.jpg' has 1,048,576 bytes, more than 1,048,575"):
            source.open("PMC5.tar.gz")
    with monkeypatch.context() as smaller:
        smaller.setattr(packages, "MAX_TOTAL_BYTES", 2**20)
        with pytest.raises(UserError, match="unpacks to more than 1,048,576 bytes"):
            source.open("PMC5.tar.gz")


def test_a_bomb_is_given_up_early(tmp_path: Path) -> None:
    """300 MB of zeros in 300 kB, as it is: refused by its ratio, long before its end."""
    with gzip.open(tmp_path / "PMC5.tar.gz", "wb") as out:
        out.write(tar(member("PMC5/a.nxml", XML))[:-1024].rstrip(b"\0").ljust(1024, b"\0"))
        info = tarfile.TarInfo("PMC5/f.jpg")
        info.size = 300 * 2**20
        out.write(info.tobuf())
        for _ in range(300):
            out.write(bytes(2**20))
    with pytest.raises(UserError, match=r"f\.jpg' is where the package unpacks to more than"):
        Packages(tmp_path).open("PMC5.tar.gz")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_as_large_as_memory(tmp_path: Path, kind: bytes) -> None:
    """tarfile reads such headers whole: the length that they claim is refused before anything is read."""
    header = tarfile.TarInfo("long")
    header.type, header.size = kind, 2**32
    data = tar(member("PMC5/a.nxml", XML))[:1024] + header.tobuf(tarfile.GNU_FORMAT) + bytes(2**21)
    (tmp_path / "PMC5.tar.gz").write_bytes(gzip.compress(data))
    with pytest.raises(UserError, match=r"has a header of 4,294,967,\d+ bytes"):
        Packages(tmp_path).open("PMC5.tar.gz")


def test_damaged(pmc_articles: Path, tmp_path: Path) -> None:
    whole = (pmc_articles / "packages" / "PMC99000001.tar.gz").read_bytes()
    path = tmp_path / "PMC99000001.tar.gz"
    flipped = bytearray(whole)
    flipped[len(whole) * 3 // 4] ^= 255
    for data in (whole[: len(whole) // 2], whole[:-4], whole[:20], b"", b"<html>not found</html>", bytes(flipped)):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"PMC99000001\.tar\.gz: damaged at or after '.*; fetch it again$"):
            Packages(tmp_path).open(path.name)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"damaged at or after 'PMC99000001/.*\.jpg'"):
        Packages(tmp_path).open(path.name)


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    """tarfile itself would stop there and call it a shorter archive."""
    data = bytearray(tar(member("PMC5/a.nxml", XML), member("PMC5/f.jpg", b"x" * 600), member("PMC5/g.jpg", b"y")))
    assert data[1024 : 1024 + 10] == b"PMC5/f.jpg"
    data[1024 + 148] ^= 1  # its checksum
    (tmp_path / "PMC5.tar.gz").write_bytes(gzip.compress(bytes(data)))
    with pytest.raises(UserError, match=r"damaged at or after 'PMC5/a\.nxml'"):
        Packages(tmp_path).open("PMC5.tar.gz")


@pytest.mark.parametrize(
    ("names", "found"),
    [(["PMC5/f.jpg"], "none"), (["a.nxml", "b.nxml"], "a.nxml, b.nxml"), (["a/x.xml", "b/y.xml"], "a/x.xml, b/y.xml")],
)
def test_not_one_article(tmp_path: Path, names: list[str], found: str) -> None:
    (tmp_path / "PMC5.tar.gz").write_bytes(gzip.compress(tar(*(member(name, XML) for name in names))))
    with pytest.raises(UserError, match=rf"expected one article \(\.nxml\) in it, found {found}$"):
        Packages(tmp_path).open("PMC5.tar.gz")


def test_an_xml_supplement_is_no_article(tmp_path: Path) -> None:
    files = package(tmp_path, member("PMC5/model.xml", b"<sbml/>"), member("PMC5/sub/b.nxml", XML)).open("PMC5.tar.gz")
    assert files.location == "PMC5.tar.gz/PMC5/a.nxml" and files.media == ()


def test_ids_and_versions(tmp_path: Path) -> None:
    (tmp_path / "00" / "ab").mkdir(parents=True)
    for name in ("PMC5.tar.gz", "PMC6.tar.gz", "PMC55.tar.gz"):
        package(tmp_path / "00" / "ab", name=name)
    (tmp_path / "other.tar.gz").write_bytes(b"")
    source = open_source(str(tmp_path), ids=("PMC5", "PMC7"))
    assert list(source.keys()) == ["00/ab/PMC5.tar.gz", "PMC7"]
    with pytest.raises(UserError, match="PMC7: no such package"):
        source.open("PMC7")
    before = source.version("00/ab/PMC5.tar.gz")
    assert before == source.version("00/ab/PMC5.tar.gz") != open_source(str(tmp_path)).version("00/ab/PMC6.tar.gz")
    package(tmp_path / "00" / "ab", member("PMC5/f.jpg", b"x"))
    assert source.version("00/ab/PMC5.tar.gz") != before


def test_of_two_versions_the_newer_counts(tmp_path: Path) -> None:
    package(tmp_path, name="PMC5.1.tar.gz")
    source = package(tmp_path, name="PMC5.2.tar.gz")
    assert source.open("PMC5.2.tar.gz").key == "PMC5.2"
    with pytest.raises(OlderVersion, match=r"PMC5\.1\.tar\.gz: an older version of PMC5\.2\.tar\.gz, which is taken"):
        source.open("PMC5.1.tar.gz")


def test_a_large_xml_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the article, nor a supplement that comes before or after it."""
    monkeypatch.setattr(packages, "MAX_BYTES", 100)
    large = b"<a>" + b"x" * 200 + b"</a>"
    source = package(tmp_path, member("PMC5/deep/b.nxml", large), member("PMC5/model.xml", large))
    assert source.open("PMC5.tar.gz").xml == XML
    (tmp_path / "PMC6.tar.gz").write_bytes(gzip.compress(tar(member("PMC6/a.nxml", large))))
    with pytest.raises(UserError, match=r"'PMC6/a\.nxml' has 207 bytes of XML, more than 100; such a package is not read"):
        source.open("PMC6.tar.gz")
