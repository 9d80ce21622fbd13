"""Decoded images are kept, the latest ones, and an image that cannot be decoded is not."""

import pickle

import pytest
from PIL import Image

from biomedclip_jax.data.images import cache as cache_module
from biomedclip_jax.data.images.cache import ImageCache
from biomedclip_jax.errors import UserError


def test_the_latest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_MOST_BYTES", 250)
    loaded: list[str] = []
    cache = ImageCache()

    def ask(name: str) -> Image.Image:
        def load() -> Image.Image:
            loaded.append(name)
            return Image.new("L", (10, 10))

        return cache.get(name, load)

    first = ask("a")
    assert ask("a") is first and ask("b") is not first and loaded == ["a", "b"]
    ask("a")
    ask("c")  # 300 bytes: b was asked for longest ago
    ask("a")
    assert loaded == ["a", "b", "c"]
    ask("b")
    assert loaded == ["a", "b", "c", "b"]
    copy = pickle.loads(pickle.dumps(cache))
    assert isinstance(copy, ImageCache)
    copy.get("a", lambda: Image.new("L", (1, 1)))


def test_an_error_is_raised_each_time() -> None:
    cache = ImageCache()

    def load() -> Image.Image:
        raise UserError("broken.png: not an image")

    for _ in range(2):
        with pytest.raises(UserError, match="broken"):
            cache.get("broken.png", load)
