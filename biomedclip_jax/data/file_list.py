"""The names of any number of files, which memory need not hold."""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from biomedclip_jax.data.images.views.find import View
from biomedclip_jax.data.images.views.options import ViewOptions
from biomedclip_jax.errors import UserError


class FileList:
    """Names of any number of files, or of images in files, kept in a temporary file; read a part at a time."""

    def __init__(self, paths: Iterable[Path | View], part_size: int, options: ViewOptions | None = None):
        """part_size: how many names are read at once. options: of the views, if `paths` are such.

        UserError for a path that is not there any more.
        """
        self._options = options
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, `__exit__` closes it
        self._starts = [0]
        self.count = 0
        self.listed = ""
        try:
            self._list(paths, part_size)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "FileList":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _list(self, paths: Iterable[Path | View], part_size: int) -> None:
        listed = hashlib.sha256()
        position = 0
        for image in paths:
            path, place = (image.path, image.place) if isinstance(image, View) else (image, "")
            try:
                size = os.stat(path).st_size
            except OSError as error:
                raise UserError(f"{path}: went while the files were listed ({error.strerror}); run it again") from error
            name = os.fsencode(path) + b"\0"
            listed.update(b"%b%d\0" % (name, size))
            if place:
                listed.update(place.encode() + b"\0")
            position += self._file.write(name if self._options is None else name + place.encode() + b"\0")
            self.count += 1
            if self.count % part_size == 0:
                self._starts.append(position)
        if self._starts[-1] != position:
            self._starts.append(position)
        self.listed = listed.hexdigest()[:32]

    def part(self, number: int) -> list[Path] | list[View]:
        """The paths, or views, of a part, numbered from 0."""
        self._file.seek(self._starts[number])
        data = self._file.read(self._starts[number + 1] - self._starts[number])
        names = data.split(b"\0")[:-1]
        if self._options is None:
            return [Path(os.fsdecode(name)) for name in names]
        pairs = zip(names[::2], names[1::2], strict=True)
        return [View(Path(os.fsdecode(path)), place.decode(), os.fsdecode(path), self._options) for path, place in pairs]
