"""Files in a folder, or behind any address that fsspec knows (s3://, gs://, ...). They appear whole or not at all."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.files import write_file

_ONE_SLASH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")


def is_address(where: object) -> bool:
    """Whether a text names a place that fsspec reaches, such as s3://bucket/folder, rather than a path here.

    UserError for "s3:/bucket", which a `Path` makes of an address: it would be a folder of that name.
    """
    if _ONE_SLASH.match(str(where)):
        raise UserError(f"{where}: an address has two slashes after its kind, and is given as text, not as a Path")
    return "://" in str(where)


@dataclass(frozen=True)
class Stored:
    """What is known of a file behind an address. version: another one where the content is another, as far as one can see."""

    size: int
    version: str


@dataclass(frozen=True)
class Storage:
    """Files under `root`, by names with "/" in them. Raises UserError where the destination cannot be reached or
    written.
    """

    root: str

    @property
    def is_local(self) -> bool:
        """Whether the destination is a folder of this machine."""
        return not is_address(self.root)

    @cached_property
    def _remote(self) -> tuple[Any, str]:
        import fsspec

        try:
            return fsspec.core.url_to_fs(self.root)
        except Exception as error:  # no such protocol, a library or a credential that is missing ...
            raise UserError(f"{self.root}: cannot be opened ({first_line(error)})") from error

    def __getstate__(self) -> dict[str, str]:
        return {"root": self.root}  # a worker opens its own connection

    def __setstate__(self, state: dict[str, str]) -> None:
        object.__setattr__(self, "root", state["root"])

    def _path(self, name: str) -> str:
        return f"{self._remote[1].rstrip('/')}/{name}"

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        if self.is_local:
            return (Path(self.root) / name).exists()
        with self._one_line(name, "looked for"):
            return self._remote[0].exists(self._path(name))

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one; says whether it was written. Of several at once one succeeds."""
        if not self.is_local:
            self._remote[0].invalidate_cache()
            if self.exists(name):  # some stores do not heed "create"
                return False
            try:
                with self._one_line(name, "written"):
                    self._remote[0].pipe_file(self._path(name), data, mode="create")
            except FileExistsError:
                return False
            return True
        path = Path(self.root) / name
        with self.writing():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    file.write(data)
            except FileExistsError:
                if path.exists():
                    return False
                raise UserError(f"{self.root}: a file where a folder was expected") from None
        return True

    @contextlib.contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """A folder of this machine for what is not finished: in the folder `name` here, so that it has that disk's room."""
        with self.writing():
            base = Path(self.root) / name if self.is_local else None
            if base is not None:
                base.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=base, ignore_cleanup_errors=True) as folder:
                yield Path(folder)

    def clear_staging(self, name: str) -> None:
        """Remove these folders, also what killed processes left in them."""
        if self.is_local:
            shutil.rmtree(Path(self.root) / name, ignore_errors=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """UserError, one line, for a full disk and all else that keeps the block from writing."""
        try:
            yield
        except FileNotFoundError:
            raise  # something is missing that was there: no matter of room or rights
        except OSError as error:
            reason = error.strerror or first_line(error)
            where = error.filename or self.root
            raise UserError(
                f"{where}: cannot be written ({reason}); free space, or choose a folder that you may write to"
            ) from error

    def names(self, folder: str) -> Iterator[str]:
        """The names of the files directly in a folder; none if there is no such folder."""
        if self.is_local:
            path = Path(self.root) / folder
            found = [entry.name for entry in path.iterdir() if entry.is_file()] if path.is_dir() else []
        else:
            system, base = self._remote[0], self._path(folder)
            system.invalidate_cache()
            with self._one_line(folder, "listed"):
                there = system.ls(base, detail=False) if system.exists(base) else []
            found = [entry.rsplit("/", 1)[-1] for entry in there]
        yield from sorted(name for name in found if not name.endswith(".partial"))

    def put(self, source: Path, name: str) -> None:
        """Move a finished local file here; it appears whole."""
        if self.is_local:
            write_file(Path(self.root) / name, lambda partial: shutil.move(source, partial))
            return
        self.upload(source, name)
        source.unlink()

    def upload(self, source: Path, name: str) -> None:
        """Copy a local file behind an address; it appears when the upload is complete. FileNotFoundError if it is gone."""
        try:
            with self._one_line(name, "written"):
                self._remote[0].put_file(str(source), self._path(name))
        except UserError as error:
            if not source.exists():  # meanwhile
                raise FileNotFoundError(str(source)) from error
            raise

    @contextlib.contextmanager
    def _one_line(self, name: str, done: str, *passed: type[Exception]) -> Iterator[None]:
        """UserError for whatever goes wrong behind an address: the libraries behind fsspec have no common error.

        passed: what the caller knows how to go on from.
        """
        try:
            yield
        except (UserError, FileExistsError, *passed):
            raise
        except Exception as error:
            raise UserError(f"{self.root}/{name}: cannot be {done} ({first_line(error)})") from error

    def download(self, name: str, target: Path) -> None:
        """Copy a file behind an address here; it appears whole. FileNotFoundError if there is none."""
        with self._one_line(name, f"fetched to {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")  # another process may fetch it, too
        try:
            with self._one_line(name, f"fetched to {target}", FileNotFoundError):
                self._remote[0].get_file(self._path(name), str(partial))
                os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    def files(self) -> dict[str, Stored]:
        """All files behind an address, also those of folders in it, by name; none where there is nothing.

        Of an address that is a file that one, with the name "".
        """
        system, base = self._remote[0], self._remote[1].rstrip("/")
        system.invalidate_cache()
        try:
            found = system.find(base, detail=True)
        except FileNotFoundError:  # the bucket
            return {}
        except Exception as error:
            raise UserError(f"{self.root}: cannot be listed ({first_line(error)})") from error
        # a name that ends in "/" marks a folder: some web pages make one where they show a folder
        files = {name: about for name, about in found.items() if not name.endswith("/")}
        return {name.removeprefix(base).lstrip("/"): _stored(about) for name, about in files.items()}

    def get(self, name: str, folder: Path) -> Path:
        """A local file with the content of `name`: the file itself, or a copy in `folder`."""
        if self.is_local:
            return Path(self.root) / name
        copy = folder / name.replace("/", "_")
        with self._one_line(name, f"fetched to {copy}", FileNotFoundError):
            self._remote[0].get_file(self._path(name), str(copy))
        return copy

    def read(self, name: str) -> bytes:
        """The content of a file. FileNotFoundError if there is none."""
        if self.is_local:
            return (Path(self.root) / name).read_bytes()
        with self._one_line(name, "read", FileNotFoundError):
            return self._remote[0].cat_file(self._path(name))

    def write(self, name: str, data: bytes) -> None:
        """Write a file; it appears whole."""
        if self.is_local:
            write_file(Path(self.root) / name, lambda partial: partial.write_bytes(data))
        else:
            with self._one_line(name, "written"):
                self._remote[0].pipe_file(self._path(name), data)

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as indented JSON."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """The value in a JSON file. FileNotFoundError, or ValueError for another content."""
        return json.loads(self.read(name))

    def remove(self, name: str) -> None:
        """Remove a file; a missing one is no error."""
        if self.is_local:
            (Path(self.root) / name).unlink(missing_ok=True)
        elif self.exists(name):
            with contextlib.suppress(FileNotFoundError), self._one_line(name, "removed", FileNotFoundError):
                self._remote[0].rm_file(self._path(name))


def _stored(about: dict[str, Any]) -> Stored:
    version = next((about[key] for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created") if key in about), "")
    return Stored(about["size"], str(version))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
