"""Panels of compound figures: drawn ones, alone and in written articles, whose places are known."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.picture_checks import offered_panels, overlap
from PIL import Image, ImageDraw, ImageFont

from biomedclip_jax.data.pmc.panels.compound import MatchedPanel, match_panels, split_image

CAPTION = "A title. (A) Axial slice of the head. (B) Coronal slice of it. (C) Sagittal slice of it. (D) The same a year later."
LABELS = "ABCD"


def figure(
    places: dict[str, tuple[int, int, int, int]],
    ground: str = "white",
    mark: tuple[float, float] | None = (0.03, 0.03),
    size: tuple[int, int] = (600, 400),
    color: str = "white",
) -> Image.Image:
    """Dark noisy pictures with a light letter in each; `mark`: where it stands in its panel."""
    image = Image.new("RGB", size, ground)
    font = ImageFont.load_default(22)
    noise = np.random.default_rng(0)
    for label, (left, top, right, bottom) in places.items():
        pixels = noise.integers(20, 70, (bottom - top, right - left, 3), np.uint8)
        image.paste(Image.fromarray(pixels), (left, top))
        if mark:
            at = (left + mark[0] * (right - left), top + mark[1] * (bottom - top))
            ImageDraw.Draw(image).text(at, label, color, font)
    return image


GRID = {"A": (0, 0, 290, 190), "B": (310, 0, 600, 190), "C": (0, 210, 290, 400), "D": (310, 210, 600, 400)}


def check(found: list[MatchedPanel], places: dict[str, tuple[int, int, int, int]]) -> None:
    assert [panel.label for panel in found] == sorted(places)
    for panel in found:
        assert overlap(panel.box, places[panel.label]) > 0.9, panel


@pytest.mark.parametrize("mark", [(0.03, 0.03), (0.03, 0.84), (0.9, 0.03), (0.9, 0.84)])
@pytest.mark.parametrize("ground", ["white", "black", "#fff4d0"])
def test_marks_in_any_corner_on_any_ground(mark: tuple[float, float], ground: str) -> None:
    check(match_panels(figure(GRID, ground, mark), CAPTION), GRID)


def test_the_marks_decide_not_the_order() -> None:
    by_columns = {"A": GRID["A"], "B": GRID["C"], "C": GRID["B"], "D": GRID["D"]}
    check(match_panels(figure(by_columns), CAPTION), by_columns)
    uneven = {"A": (0, 0, 180, 400), "B": (200, 0, 600, 120), "C": (200, 140, 380, 400), "D": (400, 140, 600, 400)}
    check(match_panels(figure(uneven), CAPTION), uneven)


def test_small_letters_for_capitals_in_the_caption() -> None:
    places = {label.lower(): box for label, box in GRID.items()}
    check([MatchedPanel(p.label, "", p.box) for p in match_panels(figure(places), CAPTION)], GRID)


def test_captions_of_panels_have_the_title() -> None:
    found = match_panels(figure(GRID), CAPTION)
    assert found[1].caption == "A title. Coronal slice of it."
    assert match_panels(figure(GRID), "(A) Left eye. (B) Right eye. (C) Both. (D) None.") == [], "too little is said"


def test_large_figures_are_looked_at_smaller() -> None:
    image = figure(GRID)
    found = match_panels(image.resize((2400, 1600), Image.Resampling.LANCZOS), CAPTION)
    check([MatchedPanel(p.label, p.caption, tuple(value // 4 for value in p.box)) for p in found], GRID)


def test_nothing_where_numbers_do_not_fit() -> None:
    image = figure(GRID)
    assert match_panels(image, "A caption without parts, of all of it.") == []
    assert match_panels(image, CAPTION.replace(" (D) The same a year later.", "")) == [], "a D is in the picture"
    assert match_panels(image, CAPTION + " (E) Something else altogether.") == []
    assert match_panels(figure({**GRID, "A": GRID["B"], "B": GRID["B"]}), CAPTION) == []
    assert match_panels(figure(GRID, mark=None), CAPTION) == [], "a grid may be counted by rows or by columns"
    assert match_panels(Image.new("RGB", (600, 400), "white"), CAPTION) == []
    assert match_panels(Image.new("RGB", (1, 1)), CAPTION) == []


PAIR = "(A) Axial slice of the head. (B) Coronal slice of it."


def test_nothing_where_a_mark_is_far_from_the_gutter_or_from_a_corner() -> None:
    strip = figure({"A": (0, 0, 600, 50), "B": (0, 60, 600, 400)}, mark=None)  # the second picture belongs to A, and B follows
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(22)
    draw.text((10, 0), "A", "white", font)
    draw.text((10, 150), "B", "white", font)
    assert match_panels(strip, PAIR) == []
    small = {"A": (0, 0, 105, 100), "B": (115, 0, 220, 100)}
    assert match_panels(figure(small, mark=(0.42, 0.4), size=(220, 100)), PAIR) == []
    check(match_panels(figure(small, mark=(0.05, 0.05), size=(220, 100)), PAIR), small)


def test_without_marks_panels_in_one_row_or_column() -> None:
    row = {"A": (0, 0, 190, 400), "B": (205, 0, 395, 400), "C": (410, 0, 600, 400)}
    caption = "(A) Axial slice of the head. (B) Coronal slice of it. (C) Sagittal slice of it."
    check(match_panels(figure(row, mark=None), caption), row)
    column = {label: (box[1], box[0], box[3], box[2]) for label, box in row.items()}
    check(match_panels(figure(column, mark=None, size=(400, 600)), caption), column)
    uneven = {**row, "B": (205, 0, 320, 400), "C": (335, 0, 600, 400)}
    assert match_panels(figure(uneven, mark=None), caption) == []


def test_left_and_right() -> None:
    halves = {"left": (0, 0, 290, 400), "right": (310, 0, 600, 400)}
    caption = "Left panel: the head before surgery. Right panel: the head after surgery."
    check(match_panels(figure(halves, mark=None), caption), halves)
    assert match_panels(figure(halves, mark=None), caption.replace("Left", "Top").replace("Right", "Bottom")) == []


def test_split_image() -> None:
    image = figure(GRID, mark=None)
    assert split_image(image, 4) == list(GRID.values()) == split_image(image, None)
    assert split_image(image, 2) in ([(0, 0, 600, 190), (0, 210, 600, 400)], [(0, 0, 290, 400), (310, 0, 600, 400)])
    assert split_image(image, 1) == [(0, 0, 600, 400)]
    assert len(split_image(image, 9)) == 4
    assert split_image(figure({"A": (0, 0, 600, 400)}), None) == [(0, 0, 600, 400)]


def test_panels_of_written_articles(pmc_articles: Path) -> None:
    """The level that was measured: 47 of 65 panels are offered, in 19 of 24 figures, and every one is right."""
    articles = json.loads((pmc_articles / "expected.json").read_text(encoding="utf-8"))["articles"]
    truth = {f"{a['id']}/{f['graphics'][0]['media']}": f["panels"] for a in articles for f in a["figures"] if f["panels"]}
    assert len(truth) == 24 and sum(map(len, truth.values())) == 65
    figures, offered, right = offered_panels(pmc_articles, truth)
    assert right == offered, "precision before recall"
    assert figures >= 19 and offered >= 47
