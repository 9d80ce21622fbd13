"""Formulas in MathML and in TeX, as one line that keeps their sense."""

# ruff: noqa: RUF001 -- dashes, primes and Greek letters are meant

import time

import pytest
from lxml import etree

from biomedclip_jax.data.pmc.jats._scripts import joined
from biomedclip_jax.data.pmc.jats._tex import tex_pieces
from biomedclip_jax.data.pmc.jats._text import text_of

MATHML = 'xmlns="http://www.w3.org/1998/Math/MathML"'
A, B = "<mi>a</mi>", "<mi>b</mi>"
SUM = f"<mrow>{A}<mo>+</mo>{B}</mrow>"


def text(inner: str) -> str:
    return text_of(etree.fromstring(f"<p>{inner}</p>"))


def math(inner: str) -> str:
    return text(f"<math {MATHML}>{inner}</math>")


@pytest.mark.parametrize(
    ("inner", "read"),
    [
        ("<mfrac><mn>1</mn><mn>2</mn></mfrac>", "1/2"),
        (f"<mfrac>{SUM}<mi>c</mi></mfrac>", "(a+b)/c"),
        ("<mn>3</mn><mfrac><mn>1</mn><mn>2</mn></mfrac>", "3(1/2)"),
        (f"<mfrac><mn>1</mn><mn>2</mn></mfrac>{A}", "(1/2)a"),
        ('<mfrac linethickness="0"><mi>n</mi><mi>k</mi></mfrac>', "(n choose k)"),
        ("<msup><mn>10</mn><mn>5</mn></msup>", "10^5"),
        ("<msup><mn>10</mn><mrow><mo>−</mo><mn>3</mn></mrow></msup>", "10^−3"),
        (f"<msup>{SUM}<mn>2</mn></msup>", "(a+b)^2"),
        (f"<msup><mrow><mo>(</mo>{A}<mo>)</mo></mrow><mn>2</mn></msup>", "(a)^2"),
        (f"<msup>{A}{SUM}</msup>", "a^(a+b)"),
        (f"<msup>{A}<mn>2</mn></msup>{B}", "a^2 b"),
        ("<msup><mi>e</mi><mfrac><mn>1</mn><mn>2</mn></mfrac></msup>", "e^(1/2)"),
        ("<msup><mn>37</mn><mo>∘</mo></msup><mi>C</mi>", "37°C"),
        (f"<msup>{A}<mo>′</mo></msup>", "a′"),
        ("<msub><mi>x</mi><mi>i</mi></msub>", "x_i"),
        ("<msub><mi>p</mi><mtext>turn</mtext></msub>", "p_turn"),
        ("<msub><mi>τ</mi><mn>2</mn></msub>", "τ2"),
        ("<msub><mi>x</mi><msub><mi>y</mi><mi>i</mi></msub></msub>", "x_(y_i)"),
        ("<msup><mi>x</mi><mo>⊤</mo></msup><msub><mover><mi>b</mi><mo>¯</mo></mover><mi>r</mi></msub>", "x^⊤b¯_r"),
        ("<mfrac><mrow><mo>∂</mo><mi>K</mi></mrow><msub><mi>n</mi><mi>s</mi></msub></mfrac>", "∂K/n_s"),
        ("<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>", "x_i^2"),
        (f"<msqrt>{A}<mo>+</mo>{B}</msqrt>", "√(a+b)"),
        ("<msqrt><mn>2</mn></msqrt>", "√2"),
        ("<mroot><mn>8</mn><mn>3</mn></mroot>", "8^(1/3)"),
        (f"<munderover><mo>∑</mo><mrow><mi>i</mi><mo>=</mo><mn>1</mn></mrow><mi>n</mi></munderover>{A}", "∑_(i=1)^n a"),
        ("<mover><mi>x</mi><mo>¯</mo></mover>", "x¯"),
        (f"<munder><mi>lim</mi><mrow>{A}<mo>→</mo><mn>0</mn></mrow></munder>{B}", "lim_(a→0) b"),
        (f"<mi>log</mi>{A}", "log a"),
        (f"<mi>sin</mi><mo>&#x2061;</mo>{A}", "sin a"),
        ("<mn>2</mn><mo>&#x2062;</mo><mi>x</mi>", "2x"),
        ("<mn>10</mn><mo>&#x2062;</mo><mn>5</mn>", "10·5"),
        ("<mn>1</mn><mn>0</mn>", "10"),
        (f'<mfenced open="[" close="]" separators=";">{A}{B}</mfenced>', "[a;b]"),
        ("<mmultiscripts><mi>F</mi><mprescripts/><none/><mn>18</mn></mmultiscripts>", "18F"),
        ("<mmultiscripts><mi>C</mi><mn>2</mn><none/></mmultiscripts>", "C2"),
        (f"<mtable><mtr><mtd>{A}</mtd><mtd>{B}</mtd></mtr><mtr><mtd><mn>1</mn></mtd></mtr></mtable>", "a, b; 1"),
        (f"<semantics>{A}<annotation>no</annotation></semantics>", "a"),
        (f"<mstyle>{A}<mphantom>{B}</mphantom></mstyle><merror>?</merror>", "a?"),
        ("<mtext>if </mtext><mi>x</mi><mspace width='1em'/><mi>y</mi>", "if x y"),
        (f'<menclose notation="radical">{A}</menclose><menclose notation="box">{B}</menclose>', "√ab"),
        ("<msup/><mfrac/><msqrt/><mroot/><msub/><munder/><mmultiscripts/><mtable/><mfenced/><msubsup/>", "()"),
    ],
)
def test_mathml(inner: str, read: str) -> None:
    assert math(inner) == read


def test_a_formula_that_goes_on_with_the_text() -> None:
    power = f"<math {MATHML}><msup><mi/><mn>5</mn></msup></math>"
    assert text(f"10<inline-formula>{power}</inline-formula> cells") == "10^5 cells"
    index = f"<math {MATHML}><msub><mrow/><mn>2</mn></msub></math>"
    assert text(f"CO{index} and <math {MATHML}><msup><mrow/><mn>18</mn></msup><mi>F</mi></math>") == "CO2 and 18F"


@pytest.mark.parametrize(
    ("tex", "read"),
    [
        (r"\documentclass[12pt]{minimal}\usepackage{amsmath}\begin{document}$$ 10^{5} \pm 2 $$\end{document}", "10^5±2"),
        (r"$10^{-3}$", "10^-3"),
        (r"10^15", "10^15"),
        (r"\frac{1}{2}", "1/2"),
        (r"\frac12", "1/2"),
        (r"2\frac{a+b}{c}", "2((a+b)/c)"),
        (r"\left( \frac{1}{2} \right)", "(1/2)"),
        (r"\sqrt{x}, \sqrt[3]{8}", "√x,8^(1/3)"),
        (r"x_i, x_{i,j}, x_{\mathrm{max}}", "x_i,x_(i,j),x_max"),
        (r"CO_2", "CO2"),
        (r"37\,^{\circ}\mathrm{C}", "37 °C"),
        (r"37^\circ C", "37°C"),
        (r"\bar{x}, \hat{\beta}", "x¯,βˆ"),
        (r"\sum_{i=1}^{n} x_i", "∑_(i=1)^n x_i"),
        (r"\log_2 x, \sin x", "log2 x,sin x"),
        (r"\alpha \le 5\%", "α≤5%"),
        (r"\text{SUV max} = 3", "SUV max=3"),
        (r"{}^{18}\mathrm{F}", "18F"),
        (r"\upmu\text{m}", "μm"),
        (r"f'", "f′"),
        (r"\binom{n}{k}", "(n choose k)"),
        (r"\begin{array}{c} a & b \end{array}", "a b"),
        (r"\underset{x}{\max} f, \overset{\rightarrow}{v}, \stackrel{\mathrm{def}}{=}", "max_x f,v→,=^def"),
        (r"a \not= b \not\in C", "a≠b∉C"),
        (r"{a+b \over c} d, e \over f", "(((a+b)/c)d,e)/f"),
        (r"\lvert x \rvert, \textcolor{red}{y}, \ce{H2O}", "|x|,y,H2O"),
        (r"\unheardof", "unheardof"),
        (r"\frac{", ""),
        (r"}{^_", ""),
        ("\\", ""),
        ("", ""),
    ],
)
def test_tex(tex: str, read: str) -> None:
    assert " ".join(joined(tex_pieces(tex)).split()) == read


def test_hostile_formulas() -> None:
    """As deep and as long as the parser lets them be: no error, and in time."""
    start = time.perf_counter()
    for name in ("mrow", "msqrt", "mfrac", "msup", "mfenced", "mtable", "munder", "mstyle", "semantics"):
        assert math(f"<{name}>" * 250 + A + f"</{name}>" * 250) is not None
    assert math("<msup><mi>x</mi><mn>2</mn></msup>" * 20_000).startswith("x^2")
    for tex in ("{" * 50_000, "^{" * 20_000, r"\frac{" * 20_000, r"\sqrt[" * 20_000, "_" * 50_000, r"\text{" * 20_000):
        joined(tex_pieces(tex))
    nested = "<alternatives>" * 100 + "<tex-math>x</tex-math>" * 2_000 + "</alternatives>" * 100
    assert text(nested) == "x" * 2_000
    assert time.perf_counter() - start < 20, "1.5 s on a machine at rest"
