"""The contact sheet shows what was drawn, the same for the same seed, and a note where an image cannot be read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.data.statistics.pictures import write_preview
from biomedclip_jax.data.tables import read_table
from biomedclip_jax.errors import UserError


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = ["image,caption"]
    for i in range(9):
        Image.new("RGB", (300, 200), (0, 255 if i == 0 else 0, 255 if i else 0)).save(tmp_path / f"{i}.png")
        rows.append(f'{i}.png,"caption {i} costs $5 and $6, {"very " * 80} long"')
    (tmp_path / "t.csv").write_text("\n".join(rows))
    return tmp_path / "t.csv"


def sheet(table: Path, **options: int) -> np.ndarray:
    write_preview(read_table(table, "image", "caption"), table.parent / "sheet.png", **options)
    return np.asarray(Image.open(table.parent / "sheet.png").convert("RGB"))


def test_what_is_on_it(table: Path) -> None:
    pixels = sheet(table, count=9)
    assert pixels.shape == (1020, 1280, 3), "three rows of four"
    green, blue = ((pixels == colour).all(axis=-1) for colour in ((0, 255, 0), (0, 0, 255)))
    assert green[:340, :320].sum() > 20_000 and green[340:].sum() == green[:, 320:].sum() == 0, "the first, and nowhere else"
    assert blue.sum() == pytest.approx(8 * green.sum(), rel=0.05)


def test_the_seed_decides(table: Path) -> None:
    pairs, path = read_table(table, "image", "caption"), table.parent / "a.png"
    drawn = write_preview(pairs, path, 4)
    first = path.read_bytes()
    assert drawn == sorted(set(drawn)) and len(drawn) == 4
    assert write_preview(pairs, path, 4) == drawn and path.read_bytes() == first
    assert any(write_preview(pairs, path, 4, seed) != drawn for seed in range(1, 4))


def test_a_bad_image_is_a_note(table: Path) -> None:
    before = sheet(table)
    (table.parent / "0.png").write_bytes(b"<html>$x$ not found</html>")
    after = sheet(table)
    red = (after[..., 0].astype(int) - after[..., 1]) > 100
    assert not (after == (0, 255, 0)).all(axis=-1).any() and (before == (0, 255, 0)).all(axis=-1).any()
    assert red[:340, :320].sum() > 100 and red.sum() == red[:340, :320].sum()


def test_the_name_must_be_a_png(table: Path) -> None:
    with pytest.raises(UserError, match=r"expected a name that ends in \.png"):
        write_preview(read_table(table, "image", "caption"), table.parent / "sheet.jpg")
