"""Reading a public S3 bucket: anonymous, and sure that what arrives is whole.

botocore finds the service (AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL lead elsewhere) and tries requests again that fail
or are throttled, for a second or a few. What it leaves to its users is done here: bodies that break off, bodies that
arrive whole and wrong, and networks and services that need longer to come back.
"""

import contextlib
import functools
import hashlib
import io
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import botocore.session
import urllib3.exceptions
from botocore import UNSIGNED
from botocore import exceptions as failures
from botocore.config import Config

from biomedclip_jax.errors import UserError, first_line

CONNECTIONS = 16  # requests at once, if not told otherwise
MAX_CONNECTIONS = 64  # more would be impolite
_ATTEMPTS = 5  # each of several of botocore's
_PAUSE = 1.0  # seconds before the second; twice as long before each further one
_CHUNK = 2**20
_MD5 = re.compile("[0-9a-f]{32}")
Result = TypeVar("Result")


class NotThere(UserError):
    """There is no such object or bucket."""


class _Wrong(Exception):
    """A body with another checksum than it should have."""


_BROKEN_OFF = (
    _Wrong,
    failures.IncompleteReadError,
    failures.ConnectionError,
    failures.HTTPClientError,
    failures.FlexibleChecksumError,
    urllib3.exceptions.HTTPError,  # of those in the middle of a body botocore wraps only some
)


@functools.lru_cache(maxsize=4)
def _client(connections: int, process: int) -> Any:
    """One for all threads of a process; a forked one must not share its parent's connections."""
    try:
        release = version("biomedclip_jax")
    except PackageNotFoundError:  # run from a checkout
        release = "unreleased"
    config = Config(
        signature_version=UNSIGNED,
        region_name="us-east-1",
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=connections,
        connect_timeout=15,
        read_timeout=60,
        user_agent_extra=f"biomedclip_jax/{release}",
    )
    return botocore.session.get_session().create_client("s3", config=config)


@dataclass(frozen=True)
class Bucket:
    """A bucket, or a folder of one: `prefix` is "" or ends in "/". Keys are within it.

    All methods raise NotThere for an object that does not exist and UserError, with the address, for one that cannot
    be had.
    """

    name: str
    prefix: str = ""
    connections: int = CONNECTIONS

    def address(self, key: str) -> str:
        """The address of an object as users write it: "s3://BUCKET/..."."""
        return f"s3://{self.name}/{self.prefix}{key}"

    @property
    def _s3(self) -> Any:
        return _client(self.connections, os.getpid())

    def check(self) -> None:
        """Raise NotThere or UserError if the bucket cannot be reached or listed."""
        self._patiently(lambda: self._s3.list_objects_v2(Bucket=self.name, Prefix=self.prefix, MaxKeys=1), "", attempts=1)

    def objects(self, prefix: str) -> Iterator[tuple[str, str]]:
        """(key, etag) of all objects whose keys begin with `prefix`, sorted."""
        for page in self._pages(prefix):
            for found in page.get("Contents", ()):
                yield found["Key"].removeprefix(self.prefix), found["ETag"].strip('"')

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders in folder `prefix`, sorted."""
        pages = self._pages(prefix, Delimiter="/")
        found = [common["Prefix"] for page in pages for common in page.get("CommonPrefixes", ())]
        return [key.removesuffix("/").rpartition("/")[2] for key in found]

    def get(self, key: str, md5: str | None = None) -> bytes:
        """The bytes of an object. UserError if their MD5 is not `md5`."""
        body = io.BytesIO()
        self.copy(key, body, md5)
        return body.getvalue()

    def download(self, key: str, path: Path, md5: str | None) -> int:
        """An object as a file, written aside and renamed; returns its bytes. OSError where the file cannot be written."""
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("wb") as file:
            self.copy(key, file, md5)
            size = file.tell()
        os.replace(partial, path)
        return size

    def copy(self, key: str, file: BinaryIO, md5: str | None) -> None:
        """Write an object into `file`, its MD5 as given or, without one, as its ETag tells (if that is one)."""

        def attempt() -> None:
            file.seek(0)
            file.truncate()
            response = self._s3.get_object(Bucket=self.name, Key=self.prefix + key)
            digest = hashlib.md5(usedforsecurity=False)
            with contextlib.closing(response["Body"]) as body:  # itself as context, it is a stream without any check
                while chunk := body.read(_CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
            expected = md5 or _md5_of(response)
            if expected and digest.hexdigest() != expected:
                raise _Wrong(f"its MD5 is {digest.hexdigest()}, expected {expected}")

        self._patiently(attempt, key)

    def _pages(self, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        prefix = self.prefix + prefix
        more: dict[str, str] = {}
        while True:
            ask = functools.partial(self._s3.list_objects_v2, Bucket=self.name, Prefix=prefix, **options, **more)
            page = self._patiently(ask, prefix.removeprefix(self.prefix))
            yield page
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _patiently(self, ask: Callable[[], Result], key: str, attempts: int = _ATTEMPTS) -> Result:
        reason = ""
        for attempt in range(attempts):
            if attempt:
                time.sleep(_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
            try:
                return ask()
            except failures.ClientError as error:
                code, text = error.response["Error"].get("Code", "?"), error.response["Error"].get("Message", "")
                if code == "NoSuchBucket":
                    raise NotThere(f"s3://{self.name}: no such bucket") from None
                if code in ("NoSuchKey", "404"):
                    raise NotThere(f"{self.address(key)}: no such object") from None
                reason = f"the service says {code} {text}".rstrip()
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) < 500:
                    raise UserError(f"{self.address(key)}: {reason}") from error
            except _BROKEN_OFF as error:
                reason = first_line(error)
            except failures.BotoCoreError as error:  # an endpoint that is no address, a profile that is not there ...
                raise UserError(f"{self.address(key)}: cannot be asked for ({first_line(error)})") from error
        again = f"; {attempts} times in a row, try again later" if attempts > 1 else ""
        raise UserError(f"{self.address(key)}: {reason}{again}")


def _md5_of(response: dict[str, Any]) -> str | None:
    """The ETag of an object that was stored in one piece, and not encrypted with a key of its own, is its MD5."""
    etag = response.get("ETag", "").strip('"')
    encrypted = response.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in response
    return etag if _MD5.fullmatch(etag) and not encrypted else None
