"""Copies and near copies of pictures are found, and pictures that differ are not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.data import near_duplicates
from biomedclip_jax.data.near_duplicates import Groups, Look, look_at, near_pairs
from biomedclip_jax.errors import UserError


def picture(seed: int) -> Image.Image:
    """Something smooth with structure, as pictures of bodies are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9)).astype(np.uint8)
    return Image.fromarray(coarse).resize((128, 128), Image.Resampling.BICUBIC)


def looks(paths: list[Path]) -> list[Look]:
    return [each for each in look_at([str(path) for path in paths]) if isinstance(each, Look)]


def test_copies_smaller_brighter_and_recompressed_pictures_are_near_and_others_are_not(tmp_path: Path) -> None:
    base = picture(0)
    variants = {
        "base.png": base,
        "copy.png": base,
        "small.png": base.resize((64, 64)),
        "bright.png": Image.fromarray((0.8 * np.asarray(base) + 40).astype(np.uint8)),
        "lossy.jpg": base,
        **{f"other{seed}.png": picture(seed) for seed in range(1, 30)},
    }
    for name, each in variants.items():
        each.save(tmp_path / name, quality=40)  # which only JPEG has
    found = near_pairs(looks([tmp_path / name for name in variants]))
    groups = Groups(len(variants))
    for i, j in found:
        groups.join(i, j)
    assert [groups.of(i) for i in range(len(variants))] == [0] * 5 + list(range(5, len(variants)))


def test_blank_pictures_are_no_near_duplicates_but_copies_of_a_file_are(tmp_path: Path) -> None:
    for name, value in (("a", 10), ("b", 200), ("c", 10)):
        Image.fromarray(np.full((32, 32), value, np.uint8)).save(tmp_path / f"{name}.png")
    assert near_pairs(looks([tmp_path / f"{name}.png" for name in "abc"])) == [(0, 2)]


def test_a_picture_that_cannot_be_read_gives_its_error_and_the_others_go_on(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    first, second = look_at([str(tmp_path / "a.png"), str(tmp_path / "b.png")])
    assert isinstance(first, Look) and first.size == (128, 128)
    assert isinstance(second, UserError) and "b.png" in str(second)


def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MOST", 1)
    look = Look((1, 1), b"", np.zeros(512, np.float32))
    with pytest.raises(UserError, match="2 pictures: expected at most 1"):
        near_pairs([look, look])


def test_groups_grow_together_and_none_is_no_key() -> None:
    groups = Groups(6)
    groups.join_equal(["x", None, "y", "x", None, "y"])
    assert [groups.of(i) for i in range(6)] == [0, 1, 2, 0, 4, 2]
    groups.join(3, 5)
    assert [groups.of(i) for i in range(6)] == [0, 1, 0, 0, 4, 0]
