"""Decoded images that are asked for again: the questions of a data set are about a few images each."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from PIL import Image

_MOST_BYTES = 1 << 29  # of pixels, for each process


class ImageCache:
    """The images that were asked for last, up to 512 MiB of pixels. A copy in another process begins empty."""

    def __init__(self) -> None:
        self._images: OrderedDict[str, Image.Image] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return (ImageCache, ())

    def get(self, name: str, load: Callable[[], Image.Image]) -> Image.Image:
        """The image of this name, which `load` decodes where it is not kept; nobody may change it. Errors of `load` stay."""
        with self._lock:
            if name in self._images:
                self._images.move_to_end(name)
                return self._images[name]
        image = load()
        image.load()  # here, and not in several threads at once
        with self._lock:
            if name not in self._images:
                self._images[name] = image
                self._bytes += _size(image)
            while self._bytes > _MOST_BYTES and self._images:
                self._bytes -= _size(self._images.popitem(last=False)[1])
        return image


def _size(image: Image.Image) -> int:
    return image.width * image.height * len(image.getbands())
