"""Captions of compound figures, split: hand-written ones of each style, what must not fool it, and that nothing is lost."""

import time
from typing import Any

import pytest
from helpers.caption_checks import assert_no_character_is_lost
from helpers.jats_writer import truth_of
from helpers.written_articles import ARTICLES

from biomedclip_jax.data.pmc.panels._caption_parts import split_caption

SPLIT = {
    "(A) Chest X-ray. (B) CT.": {"A": "Chest X-ray.", "B": "CT."},
    "A: Axial CT. B: Coronal CT. C, Sagittal view.": {"A": "Axial CT.", "B": "Coronal CT.", "C": "Sagittal view."},
    "A) H&E stain, x40. B) Same section as in A) at x400.": {"A": "H&E stain, x40.", "B": "Same section as in A) at x400."},
    "Histology. a Hematoxylin and eosin. b CD20 stain.": {"a": "Hematoxylin and eosin.", "b": "CD20 stain."},
    "a, Blot of lysates. b,c, Quantification of a (n = 3).": {
        "a": "Blot of lysates.",
        "b": "Quantification of a (n = 3).",
        "c": "Quantification of a (n = 3).",
    },
    "Chest X-ray (A) and CT (B) of a man.": {"A": "Chest X-ray of a man.", "B": "CT of a man."},
    "The patient (A) before and (B) after treatment.": {"A": "The patient before", "B": "The patient after treatment."},
    "Left: before surgery; right: after surgery.": {"left": "before surgery", "right": "after surgery."},
    "The left panel shows the CT. The right panel shows the MRI.": {
        "left": "The left panel shows the CT.",
        "right": "The right panel shows the MRI.",
    },
    "T1-weighted (a), T2-weighted (b), and FLAIR (c) images show a mass.": {
        "a": "T1-weighted images show a mass.",
        "b": "T2-weighted images show a mass.",
        "c": "FLAIR images show a mass.",
    },
    "(A-C) Images of (A) lung, (B) liver and (C) skin. (D) Counts.": {
        "A": "Images of lung",
        "B": "Images of liver",
        "C": "Images of skin.",
        "D": "Counts.",
    },
    "Panel A shows the survival. Panel B shows the risk.": {"A": "Panel A shows the survival.", "B": "Panel B shows the risk."},
    "[A] Before. [B] After.": {"A": "Before.", "B": "After."},
    "( a) Cells at 0 h. (b–c) Cells after ( 2 h).": {  # noqa: RUF001
        "a": "Cells at 0 h.",
        "b": "Cells after ( 2 h).",
        "c": "Cells after ( 2 h).",
    },
    "(A) and (B) show the mass. (C) shows the margin.": {
        "A": "show the mass.",
        "B": "show the mass.",
        "C": "shows the margin.",
    },
    "Two chains: forward (F) or turning (T). (A) First. (B) Turning (A) again.": {"A": "First.", "B": "Turning (A) again."},
}


@pytest.mark.parametrize("caption", SPLIT)
def test_each_style_is_split(caption: str) -> None:
    assert {part.label: part.text for part in split_caption(caption).parts} == SPLIT[caption]


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "A chest X-ray.",
        "Serum vitamin A (N = 3). P < 0.05 (t-test) in A. baumannii.",
        "Risk factors: (i) age, (ii) sex, (iii) smoking.",
        "(A) First. (C) Third.",  # B is missing
        "(A) First. (B) Second. (D) Fourth.",
        "(B) Second. (C) Third.",
        "Hepatitis A, B and C viruses.",
        "Cells as in (A).",
        "Alleles are (a) or (A).",
        "(B) Second. (A) First.",
    ],
)
def test_nothing_is_split_that_is_not_certain(caption: str) -> None:
    assert split_caption(caption).parts == ()
    assert split_caption(caption).intro == caption


def test_notes_behind_the_last_part_are_about_all() -> None:
    parts = split_caption("Title. (A) One. (B) Two. Scale bars, 5 µm (A, B). CT, computed tomography; MR, magnetic resonance.")
    assert parts.intro == "Title. Scale bars, 5 µm (A, B). CT, computed tomography; MR, magnetic resonance."
    assert [part.text for part in parts.parts] == ["One.", "Two."]


def _written_figures() -> dict[str, dict[str, Any]]:
    return {f"{article.id}/{figure['index']}": figure for article in ARTICLES for figure in truth_of(article)["figures"]}


def _written_captions() -> dict[str, str]:
    figures = _written_figures().items()
    return {key: figure.get("caption_if_mathml_text_kept") or figure["caption"] or "" for key, figure in figures}


def test_labels_of_written_captions() -> None:
    """Whoever wrote the captions of the articles said which parts they have; 26 of 51 are of compound figures."""
    truth = {key: figure["caption_parts"] for key, figure in _written_figures().items()}
    found = {key: [part.label for part in split_caption(text).parts] for key, text in _written_captions().items()}
    assert found == truth
    assert len(truth) == 51 and sum(map(bool, truth.values())) == 26 and sum(map(len, truth.values())) == 70
    assert {tuple(labels) for labels in truth.values()} >= {("left", "right"), tuple("ab"), tuple("abcd"), tuple("ABCD")}


@pytest.mark.parametrize("seed", range(4))
def test_no_character_is_lost(seed: int) -> None:
    """Every character lies in one piece, or in a marker between two pieces."""
    assert_no_character_is_lost([*_written_captions().values(), *SPLIT], seed)


@pytest.mark.parametrize("text", [". A ", "(A)", "(A) x. (B) y. ", "(a, ", "A and ", "A-"])
def test_no_caption_takes_long(text: str) -> None:
    """What grows with the square of the length took 20 s and more here."""
    start = time.process_time()
    split_caption(text * (60_000 // len(text)))
    assert time.process_time() - start < 3
