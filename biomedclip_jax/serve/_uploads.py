"""What clients send as images: their heads are read before they are decoded, so that a small file cannot fill memory."""

import threading
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

from PIL import Image

from biomedclip_jax.data.images.heads import announced
from biomedclip_jax.data.images.load import LazyImage, is_dicom, load_image, size_in_head
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.parallel import core_count

_decoders = threading.BoundedSemaphore(core_count())  # a decoded image is many times its file, and threads are many
_LONGEST_NAME = 100


class Upload(LazyImage):
    """The bytes of a file that a client sent, and what the client calls it. most: pixels that it may have."""

    def __init__(self, content: bytes, name: str | None, most: int):
        self.content = content
        self.name = shown_name(name)
        self._most = most

    def load(self) -> Image.Image:
        """As `load_image` decodes it. UserError for more pixels than allowed, too, which are then not decoded."""
        for width, height in self._sizes():
            if width * height > self._most:
                raise UserError(
                    f"{self.name}: {width:,} x {height:,} pixels; expected {self._most:,} at most: make it smaller, or crop it"
                )
        with _decoders:
            try:
                return load_image(self.content, self.name)
            except UserError as error:
                if isinstance(error.__cause__, Image.DecompressionBombError):  # whose advice is for who runs the server
                    raise UserError(f"{self.name}: more than {self._most:,} pixels: make it smaller, or crop it") from error
                raise

    def _sizes(self) -> Iterator[tuple[int, int]]:
        found = None if is_dicom(Path(self.name), self.content[:4096]) else size_in_head(self.content)
        if found is not None:
            yield found
        yield from announced(self.content, self.name, self._most)


def shown_name(name: str | None) -> str:
    """A client's name of a file as it stands in answers: without folders, on one line, not long."""
    last = PureWindowsPath(name or "").name  # knows the separators of both kinds
    return "".join(each for each in last if each.isprintable())[-_LONGEST_NAME:] or "image"
