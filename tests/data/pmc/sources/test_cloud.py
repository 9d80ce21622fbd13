"""Articles from an S3 bucket, over a network that fails."""

import gzip
import json
import pickle
from pathlib import Path

import pytest
from helpers.faulty_s3 import BUCKET, FaultyS3, md5, small_article

from biomedclip_jax.data.pmc.sources import _s3 as s3_module
from biomedclip_jax.data.pmc.sources._cloud import CloudSource
from biomedclip_jax.data.pmc.sources._s3 import Bucket, NotThere
from biomedclip_jax.data.pmc.sources.open import open_source
from biomedclip_jax.data.pmc.sources.selection import NotWanted
from biomedclip_jax.errors import UserError

IDS = [f"PMC9900000{number}" for number in range(1, 10)]
INVENTORY = "inventory-reports/pmc-oa-opendata/metadata"
XML, PICTURE = "PMC99000001.1/PMC99000001.1.xml", "PMC99000001.1/fig1.jpg"


def source(**options: object) -> CloudSource:
    opened = open_source(f"s3://{BUCKET}", **options)  # type: ignore[arg-type]
    assert isinstance(opened, CloudSource)
    return opened


def test_the_bucket_is_the_folder(s3: FaultyS3, pmc_articles: Path) -> None:
    ours, folder = source(), open_source(str(pmc_articles / "cloud"))
    assert list(ours.keys()) == list(folder.keys()) == IDS
    for key in IDS:
        there, here = ours.open(key), folder.open(key)
        assert (there.key, there.location, there.xml, there.metadata) == (here.key, here.location, here.xml, here.metadata)
        assert sorted(there.media) == sorted(here.media)
        assert [there.read(name) for name in there.media] == [here.read(name) for name in there.media]
    assert not [headers for _, headers in s3.requests if "Authorization" in headers], "anonymous"
    assert all("biomedclip_jax/" in headers["User-Agent"] for _, headers in s3.requests), "says who asks"


def test_a_folder_of_a_bucket_and_pickling(s3: FaultyS3) -> None:
    s3.put({f"mirror/pmc/{key}": data for key, data in small_article(5, 1).items()})
    ours = open_source(f"s3://{BUCKET}/mirror/pmc/")
    assert list(ours.keys()) == ["PMC5"]
    again = pickle.loads(pickle.dumps(ours))
    files = pickle.loads(pickle.dumps(again.open("PMC5")))
    assert files.key == "PMC5.1" and files.location == "PMC5.1/PMC5.1.xml" and files.read("f1.png")[1:4] == b"PNG"
    assert "_index" in vars(ours) and "_index" not in vars(again)
    assert again.version("PMC5") == ours.version("PMC5"), "with and without the index"


def test_the_best_version(s3: FaultyS3) -> None:
    """The highest that is open access and no manuscript, whatever its number."""
    s3.put(
        small_article(5, 1)
        | small_article(5, 2)
        | small_article(5, 10)
        | small_article(5, 11, is_manuscript=True, license_code="TDM", media_urls=[])
        | small_article(5, 12, is_pmc_openaccess=False)
    )
    ours = source()
    assert list(ours.keys()) == sorted([*IDS, "PMC5"])
    assert ours.open("PMC5").key == "PMC5.10"
    assert ours.open("PMC5.2").key == "PMC5.2"
    before = ours.version("PMC5")
    s3.put(small_article(5, 3))
    assert source().version("PMC5") != before
    assert source().version("PMC5.2") == ours.version("PMC5.2") != before


def test_only_open_manuscripts(s3: FaultyS3) -> None:
    s3.put(small_article(5, 1, is_manuscript=True) | small_article(5, 2, is_manuscript=True))
    assert source().open("PMC5").key == "PMC5.2"


@pytest.mark.parametrize(("kind", "times"), [("503", 6), ("truncated", 2), ("wrong", 2), ("reset", 2), ("closed", 6)])
def test_faults_are_tried_again(s3: FaultyS3, pmc_articles: Path, kind: str, times: int) -> None:
    for pattern in ("list-type", "metadata/PMC99000001", r"\.xml", r"\.jpg"):
        s3.fail(pattern, kind, times)
    ours = source(ids=("PMC99000001",))
    files = ours.open("PMC99000001")
    assert files.xml == (pmc_articles / "cloud" / XML).read_bytes()
    assert files.read("fig1.jpg") == (pmc_articles / "cloud" / PICTURE).read_bytes()
    assert not [fault for fault in s3.faults if fault[2]], "all faults happened"
    assert len(s3.asked(r"\.xml$")) == len(s3.asked(r"\.jpg$")) == times + 1


@pytest.mark.parametrize("kind", ["truncated", "reset"])
def test_half_a_body_is_seen_without_a_checksum(
    s3: FaultyS3, pmc_articles: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Large objects are stored in parts: then the ETag is no MD5."""
    monkeypatch.setattr(s3_module, "_md5_of", lambda response: None)
    s3.fail("fig1.jpg", kind, 2)
    assert Bucket(BUCKET).get(PICTURE) == (pmc_articles / "cloud" / PICTURE).read_bytes()
    assert len(s3.asked("fig1.jpg")) == 3


@pytest.mark.parametrize(("kind", "reason"), [("wrong", "its MD5 is"), ("truncated", "5 times in a row"), ("503", "SlowDown")])
def test_a_fault_that_stays_is_one_line(s3: FaultyS3, kind: str, reason: str) -> None:
    s3.fail(r"\.jpg", kind, 100)
    files = source().open("PMC99000001")
    with pytest.raises(UserError, match=reason) as raised:
        files.read("fig1.jpg")
    assert str(raised.value).startswith(f"s3://{BUCKET}/{PICTURE}: ") and "\n" not in str(raised.value)
    assert len(s3.asked(r"\.jpg$")) == (20 if kind == "503" else 5)


def test_what_is_not_there(s3: FaultyS3) -> None:
    with pytest.raises(UserError, match=r"PMC7: no such article in s3://pmc-oa-opendata/"):
        source(ids=("PMC7",)).open("PMC7")
    with pytest.raises(NotThere, match=r"^s3://nowhere: no such bucket$"):
        list(open_source("s3://nowhere").keys())
    with pytest.raises(NotThere, match="no such bucket"):
        list(open_source("s3://nowhere", ids=("PMC7",)).keys())
    with pytest.raises(UserError, match="no metadata"):
        list(open_source(f"s3://{BUCKET}/elsewhere").keys())
    with pytest.raises(UserError, match="no bucket named"):
        open_source("s3:///x")
    files = source().open("PMC99000001")
    with pytest.raises(UserError, match="not among the media"):
        files.read("fig9.jpg")


def test_nobody_answers(s3: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"^s3://pmc-oa-opendata/: Could not connect to the endpoint"):
        list(source().keys())


def test_the_licence_is_looked_at_first(s3: FaultyS3) -> None:
    ours = source(licenses=frozenset({"CC0"}))
    with pytest.raises(NotWanted, match=r"PMC99000001\.1: its licence is CC BY; wanted CC0"):
        ours.open("PMC99000001")
    assert ours.open("PMC99000003").key == "PMC99000003.3"
    assert s3.asked("PMC99000001") == [
        "?list-type=2&prefix=metadata/PMC99000001.&encoding-type=url",
        "metadata/PMC99000001.1.json",
    ]


@pytest.mark.parametrize(
    "url",
    ["s3://b/PMC5.1/../../evil.png", "s3://b/PMC6.1/f1.png", "/etc/passwd", "s3://b/PMC5.1/..", "s3://b/PMC5.1/", 7, None],
)
def test_metadata_that_lead_elsewhere(s3: FaultyS3, url: object) -> None:
    s3.put(small_article(5, 1, media_urls=[url]))
    with pytest.raises(UserError, match=r"PMC5\.1: .* in its metadata; expected s3://BUCKET/PMC5\.1/NAME"):
        source().open("PMC5")


def test_supplements_are_no_pictures(s3: FaultyS3) -> None:
    names = ["f1.png", "table.xlsx", "film.MP4", "pone.0000217.g001", "488149v1_fig1", "data.tar.gz", "PMC5.1.pdf", "a?b.jpg"]
    s3.put(small_article(5, 1, media_urls=[f"s3://b/PMC5.1/{name}?md5={'0' * 32}" for name in names]))
    assert source().open("PMC5").media == ("f1.png", "pone.0000217.g001", "488149v1_fig1", "a?b.jpg")


def inventory(rows: list[tuple[str, str]], date: str = "2026-11-20T01-00Z") -> dict[str, bytes]:
    """Keys and ETags as the bucket's daily report."""
    text = "".join(f'"{BUCKET}","{key}","2026-01-08T11:47:59.000Z","{etag}"\n' for key, etag in rows)
    data = gzip.compress(text.encode())
    key = f"{INVENTORY}/data/{date}.csv.gz"
    manifest = {
        "sourceBucket": BUCKET,
        "fileSchema": "Bucket, Key, LastModifiedDate, ETag",
        "files": [{"key": key, "size": len(data), "MD5checksum": md5(data)}],
    }
    encoded = json.dumps(manifest).encode()
    folder = f"{INVENTORY}/{date}"
    return {key: data, f"{folder}/manifest.json": encoded, f"{folder}/manifest.checksum": md5(encoded).encode() + b"\n"}


def rows_of(s3: FaultyS3) -> list[tuple[str, str]]:
    return list(Bucket(BUCKET).objects("metadata/"))


def test_the_inventory_instead_of_a_listing(s3: FaultyS3) -> None:
    s3.put(inventory([("metadata/PMC8.1.json", "old")], "2026-11-18T01-00Z"))
    s3.put(inventory([*rows_of(s3), ("metadata/index.html", "x"), (f"{INVENTORY}/x.json", "x")]))
    s3.put({f"{INVENTORY}/2026-11-21T01-00Z/data": b"in the making", f"{INVENTORY}/hive/dt=2026-11-30-01-00/symlink.txt": b""})
    listed = source()
    keys = list(listed.keys())
    versions = [listed.version(key) for key in keys]
    s3.requests.clear()
    s3.fail("csv.gz", "truncated")
    s3.fail("csv.gz", "wrong")
    ours = source(inventory="latest")
    assert list(ours.keys()) == keys == IDS and len(ours) == 9
    assert [ours.version(key) for key in keys] == versions
    assert not s3.asked("prefix=metadata") and len(s3.asked("csv.gz")) == 3
    some = source(inventory="latest", ids=("PMC7", "PMC99000004"))
    assert some.open("PMC99000004").key == "PMC99000004.2"
    with pytest.raises(UserError, match="PMC7: no such article"):
        some.open("PMC7")
    old = source(inventory=f"s3://{BUCKET}/{INVENTORY}/2026-11-18T01-00Z/manifest.json")
    assert list(old.keys()) == ["PMC8"] and old.version("PMC8")


def test_an_inventory_on_the_disk(s3: FaultyS3, tmp_path: Path) -> None:
    for key, data in inventory(rows_of(s3)).items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(data)
    manifest = next(tmp_path.rglob("manifest.json"))
    data = next(tmp_path.rglob("*.csv.gz"))
    assert list(source(inventory=str(manifest)).keys()) == IDS
    assert not s3.asked("csv.gz")
    data.write_bytes(data.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"its MD5 is .*, as .*manifest\.json says"):
        list(source(inventory=str(manifest)).keys())
    described = json.loads(manifest.read_text())
    del described["files"][0]["MD5checksum"]
    manifest.write_text(json.dumps(described))
    with pytest.raises(UserError, match="not a CSV of an inventory, or damaged"):
        list(source(inventory=str(manifest)).keys())
    manifest.write_text("[]")
    with pytest.raises(UserError, match="not the manifest"):
        list(source(inventory=str(manifest)).keys())


def test_no_inventory(s3: FaultyS3, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no inventory there; leave --inventory out"):
        list(source(inventory="latest").keys())
    with pytest.raises(UserError, match=r"none\.json: No such file or directory; expected `latest` or"):
        list(source(inventory=str(tmp_path / "none.json")).keys())
    damaged = inventory(rows_of(s3))
    s3.put(damaged | {key: b"0" * 32 for key in damaged if key.endswith("checksum")})
    with pytest.raises(UserError, match=r"manifest\.json: its MD5 is"):
        list(source(inventory="latest").keys())
