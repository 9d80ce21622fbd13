"""Superscripts, subscripts and reference numbers: what a reader sees raised or lowered keeps its sense on one line."""

# ruff: noqa: RUF001 -- dashes, primes and Greek letters are meant

import pytest
from lxml import etree

from biomedclip_jax.data.pmc.jats._text import text_of


def text(inner: str, *, references: bool = False) -> str:
    return text_of(etree.fromstring(f"<p>{inner}</p>"), references=references)


def cited(number: object, words: str = "") -> str:
    return f'<xref ref-type="bibr" rid="b{number}">{words or number}</xref>'


@pytest.mark.parametrize(
    ("xml", "read"),
    [
        # powers
        ("10<sup>5</sup> PFU/ml", "10^5 PFU/ml"),
        ("5 × 10<sup>−3</sup> M", "5 × 10^−3 M"),
        ("1.12x10<sup>-7</sup>", "1.12x10^-7"),
        ("3 cm<sup>2</sup>, s<sup>−1</sup>, R<sup>2</sup> = 0.9", "3 cm^2, s^−1, R^2 = 0.9"),
        ("x<sup>n+1</sup>, 10<sup>3–5</sup>", "x^(n+1), 10^(3–5)"),
        ("10<sup>−</sup><sup>3</sup>", "10^−3"),
        ("10 <sup>5</sup> cells and 3 cm <sup>2</sup>.", "10^5 cells and 3 cm^2."),
        ("2<sup>3</sup>4", "2^3 4"),
        ("<italic>x<sup><bold>2</bold></sup></italic>", "x^2"),
        ("10<sup>10<sup>2</sup></sup>", "10^(10^2)"),
        ("10<sup>5 </sup>cells, CO<sub>2 </sub>levels, CD4<sup>+ </sup>T cells", "10^5 cells, CO2 levels, CD4+ T cells"),
        ("a<sup> </sup>b", "a b"),
        # fractions
        ("1<sup>1</sup>/<sub>2</sub> inch, <sup>1</sup>/<sub>2</sub>, 3<sup>1</sup>⁄<sub>4</sub>", "1 1/2 inch, 1/2, 3 1/4"),
        ("x<sup>2</sup>/<sub>5</sub>", "x^2/5"),
        # names
        ("Halo<sup>ligand</sup>, Halo<sup>SF650+</sup>mGFP<sup>−</sup>", "Halo^ligand, Halo^SF650+mGFP−"),
        ("Taar1<sup>m1J/m1J</sup>, Taar1<sup>+/+</sup>", "Taar1^m1J/m1J, Taar1+/+"),
        # as they are read
        ("37 <sup>o</sup>C, 4 <sup>0</sup>C, 37<sup>o</sup> C, n<sup>th</sup>", "37 °C, 4 °C, 37° C, nth"),
        ("<sup>18 </sup>F, group 5 <sup>O</sup>Control", "18F, group 5 O Control"),
        ("CD8<sup>+</sup>, Ca<sup>2+</sup>, Na<sup>+</sup>", "CD8+, Ca2+, Na+"),
        ("SO<sub>4</sub><sup>2−</sup>", "SO4^2−"),
        ("<sup>18</sup>F-FDG, <sup>99 m</sup>Tc, [<sup>18</sup>F]FDG, of <sup>13</sup>C", "18F-FDG, 99mTc, [18F]FDG, of 13C"),
        ("25<sup>th</sup>, 37<sup>o</sup>C, 37<sup>0</sup>C, X<sup>®</sup>, X<sup>TM</sup>", "25th, 37°C, 37°C, X®, X™"),
        ("<sup>a</sup>P, <sup>*</sup>P, <sup>1</sup>These", "a P, *P, 1 These"),
        # subscripts
        ("H<sub>2</sub>O, CO<sub>2</sub>, log<sub>2</sub>, V<sub>max</sub>", "H2O, CO2, log2, Vmax"),
        ("T<sub>1</sub>-weighted, FEV<sub>1</sub>, CO <sub>2</sub>", "T1-weighted, FEV1, CO2"),
        ("x<sub>i</sub>, x<sub>i,j</sub>, x<sub>−1</sub>, 10<sub>2</sub>", "x_i, x_(i,j), x_−1, 10_2"),
        ("log<sub>2</sub>10, x<sub>1</sub><sup>2</sup>", "log2 10, x1^2"),
        # nothing in them
        ("a<sup/>b<sub> </sub>c", "ab c"),
    ],
)  # fmt: skip
def test_superscripts_and_subscripts(xml: str, read: str) -> None:
    assert text(xml) == read


@pytest.mark.parametrize(
    ("xml", "read"),
    [
        (f"tissue<sup>{cited(12)},{cited(13)}</sup> is", "tissue is"),
        (f"tissue<sup>{cited(12)}</sup><sup>,</sup><sup>{cited(13)}</sup>.", "tissue."),
        (f"tissue<sup>{cited(12)}</sup>,<sup>{cited(13)}</sup>, and", "tissue, and"),
        (f"tissue<sup>{cited(12)}–{cited(14)}</sup>", "tissue"),
        (f"tissue{cited(12, '<sup>12</sup>')}–{cited(14, '<sup>14</sup>')}, and", "tissue, and"),
        (f"tissue <sup>[{cited(12)}]</sup>.", "tissue."),
        (f"of 5<sup>{cited(12)}</sup> mice, 10<sup>5</sup><sup>{cited(3)}</sup> cells", "of 5 mice, 10^5 cells"),
        (f"3 cm<sup>2,{cited(3)}</sup>", "3 cm^2"),
        (f"tissue{cited(12)}. Mice.{cited(13)} Rats", "tissue. Mice. Rats"),
        ("tissue<sup>12,13</sup> and mice<sup>1–3</sup> ran.<sup>4</sup>", "tissue and mice ran."),
        # what is a word or a bracket on the line stays
        (
            f"Smith [{cited(12)},{cited(13)}] and ref. {cited(3)}; {cited(4, 'Lee, 2012')}",
            "Smith [12,13] and ref. 3; Lee, 2012",
        ),
        ('Mice<sup><xref ref-type="fn" rid="n">a</xref></sup> and <xref ref-type="fig" rid="f">1</xref>', "Mice^a and 1"),
    ],
)
def test_reference_numbers(xml: str, read: str) -> None:
    assert text(xml) == read


def test_reference_numbers_may_be_kept() -> None:
    assert text(f"Adapted from Smith<sup>{cited(12)},{cited(13)}</sup>.", references=True) == "Adapted from Smith [12,13] ."
    assert text(f"Adapted from {cited(7)}.", references=True) == "Adapted from [7] ."


def test_deep_and_many() -> None:
    assert text("<sup>" * 120 + "5" + "</sup>" * 120) == "5"
    assert text("x" + "<sub><sup>i</sup></sub>" * 20_000).startswith("x")
