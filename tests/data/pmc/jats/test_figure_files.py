"""Which file an href means, and which files are a figure's picture."""

import pytest

from biomedclip_jax.data.pmc.jats.article import Graphic
from biomedclip_jax.data.pmc.jats.figure_files import SUFFIXES, picture, resolve


@pytest.mark.parametrize(
    ("href", "names", "file"),
    [
        # the rule
        ("f1.jpg", ["f1.jpg", "f1.jpg.png"], "f1.jpg"),
        ("f1", ["f1", "f1.jpg"], "f1"),
        ("pone.0000217.g001", ["pone.0000217.jpg", "pone.0000217.g001.tif"], "pone.0000217.g001.tif"),
        ("f1.tif", ["f1.jpg", "f1.tif.png"], "f1.tif.png"),
        ("f1.tif", ["f1.TIF", "f1.tif.gif"], "f1.tif.gif"),
        ("fig 1(a)", ["fig 1(a).webp"], "fig 1(a).webp"),
        ("f1", [], None),
        ("f1", ["f10.jpg", "xf1.jpg", "f1.mp4", "f1.xlsx", "f1.pdf"], None),
        ("f1.g2", ["f1.jpg", "f1.g3.jpg"], None),
        ("", [".jpg", "a.jpg"], None),
        # a path, an address, a DOI
        ("figures/f1.png", ["f1.png"], "f1.png"),
        ("figures\\f1", ["f1.png"], "f1.png"),
        ("./f1.jpg?md5=abc", ["f1.jpg"], "f1.jpg"),
        ("https://host/a%20b/f%201.jpg#x", ["f 1.jpg"], "f 1.jpg"),
        ("info:doi/10.1371/journal.pone.0038869.g001", ["journal.pone.0038869.g001.jpg"], "journal.pone.0038869.g001.jpg"),
        ("info:doi/10.1371/journal.pone.0038869.g001", ["pone.0038869.g001.tif"], "pone.0038869.g001.tif"),
        # another case
        ("Fig1", ["FIG1.JPG"], "FIG1.JPG"),
        ("fig1.JPG", ["Fig1.jpg"], "Fig1.jpg"),
        ("FIG1", ["fig1.jpg", "Fig1.jpg"], None),
        # another way to compose a letter
        ("\u00e91.jpg", ["e\u03011.jpg"], "e\u03011.jpg"),
        ("e\u03011", ["\u00e91.png"], "\u00e91.png"),
        ("\u00e91", ["e\u03011.jpg", "E\u03011.jpg"], "e\u03011.jpg"),
        ("\u00c91.tif", ["e\u03011.jpg"], "e\u03011.jpg"),
        ("\u56f31", ["\u56f31.jpg"], "\u56f31.jpg"),
        # another form of the image
        ("elife-1-fig1.tif", ["elife-1-fig1.jpg", "elife-1-fig1.gif"], "elife-1-fig1.jpg"),
        ("f1.eps", ["f1.gif"], "f1.gif"),
        ("f1.TIF", ["F1.png"], "F1.png"),
        ("f1.mov", ["f1.jpg"], None),
        (".jpg", ["a.jpg", ".png"], None),
    ],
)
def test_resolve(href: str, names: list[str], file: str | None) -> None:
    assert resolve(href, names) == file
    assert resolve(href, tuple(reversed(names))) == file


def test_order_of_the_endings() -> None:
    names = [f"f1{suffix}" for suffix in SUFFIXES]
    assert SUFFIXES == (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif")
    while names:
        assert resolve("f1", set(names)) == resolve("f1.eps", set(names)) == names[0]
        del names[0]


def plain(*hrefs: str) -> list[Graphic]:
    return [Graphic(href) for href in hrefs]


def forms(*hrefs: str, of: int = 0) -> list[Graphic]:
    return [Graphic(href, of) for href in hrefs]


@pytest.mark.parametrize(
    ("graphics", "names", "files"),
    [
        (plain("f1"), ["f1.jpg", "f1.gif"], ["f1.jpg"]),
        (plain("f1.gif"), ["f1.jpg", "f1.gif"], ["f1.jpg"]),
        (plain("f1.tif"), ["f1.tif", "f1.png"], ["f1.png"]),
        (plain("f1.gif"), ["f1.gif"], ["f1.gif"]),
        (plain("f1.png"), ["f1.png", "f1.jpg"], ["f1.png"]),
        (plain("f1"), [], []),
        ([], ["f1.jpg"], []),
        (plain("b", "a", "gone"), ["a.jpg", "b.png"], ["b.png", "a.jpg"]),
        (plain("a", "a"), ["a.jpg"], ["a.jpg"]),
        (plain("a.tif", "a.png"), ["a.png", "a.tif"], ["a.png"]),
        (plain("x_Fig3_Print", "x_Fig3_HTML"), ["x_Fig3_Print.jpg", "x_Fig3_HTML.jpg"], ["x_Fig3_HTML.jpg"]),
        (plain("x_Fig3_Print", "x_Fig3_HTML"), ["x_Fig3_Print.tif", "x_Fig4_HTML.jpg"], ["x_Fig3_Print.tif"]),
        (forms("a.tif", "b.png", "c.webp"), ["a.tif", "b.png", "c.webp"], ["b.png"]),
        (forms("a.gif", "b.tif", "c.webp"), ["a.gif", "b.tif", "c.webp"], ["c.webp"]),
        (forms("gone", "b.gif"), ["b.gif"], ["b.gif"]),
        (forms("a", "b") + forms("c", "d", of=1) + plain("e"), [f"{c}.jpg" for c in "abcde"], ["a.jpg", "c.jpg", "e.jpg"]),
        (forms("488v1_f1", "a.png"), ["488v1_f1", "a.png"], ["488v1_f1"]),
        # what we cannot read gives way, named or not
        (plain("f1.eps"), ["f1.eps", "f1.jpg"], ["f1.jpg"]),
        (plain("f1.eps"), ["f1.EPS", "F1.tif", "f1.gif"], ["F1.tif"]),
        (plain("f1.svg"), ["f1.svg", "f1.png"], ["f1.png"]),
        (plain("f1.pdf"), ["f1.pdf", "f1.gif", "f1.jpeg"], ["f1.jpeg"]),
        (plain("f1.eps"), ["f1.eps", "f10.jpg", "f1.xlsx"], ["f1.eps"]),
        (plain("x_Fig3_Print.eps"), ["x_Fig3_Print.eps", "x_Fig3_HTML.jpg", "x_Fig4_HTML.jpg"], ["x_Fig3_HTML.jpg"]),
        (forms("a.eps", "b.tif"), ["a.eps", "b.tif"], ["b.tif"]),
        (forms("a.svg", "a.gif"), ["a.svg", "a.gif"], ["a.gif"]),
        (plain("u\u0308.eps"), ["\u00fc.eps", "u\u0308.jpg"], ["u\u0308.jpg"]),
        # thumbnails, by name, use and stated size
        (forms("a.png", "a.thumbnail.jpg"), ["a.png", "a.thumbnail.jpg"], ["a.png"]),
        (forms("a-small.jpg", "b.tif"), ["a-small.jpg", "b.tif"], ["b.tif"]),
        (forms("small-intestine-a.jpg", "b.tif"), ["small-intestine-a.jpg", "b.tif"], ["b.tif"]),
        (forms("smallpox.jpg", "b.tif"), ["smallpox.jpg", "b.tif"], ["smallpox.jpg"]),
        ([Graphic("a.jpg", 0, "thumbnail"), Graphic("b.gif", 0)], ["a.jpg", "b.gif"], ["b.gif"]),
        (
            [Graphic("a.tif", 0), Graphic("b.png", 0, "scielo-web"), Graphic("c.jpg", 0, "scielo-web", "scielo-267x140")],
            ["a.tif", "b.png", "c.jpg"],
            ["b.png"],
        ),
        ([Graphic("c.jpg", 0, "scielo-web", "scielo-267x140")], ["c.jpg"], ["c.jpg"]),
        ([Graphic("a.png", 0), Graphic("c.jpg", 0, None, "web-1200x900")], ["a.png", "c.jpg"], ["c.jpg"]),
    ],
)
def test_picture(graphics: list[Graphic], names: list[str], files: list[str]) -> None:
    assert picture(graphics, names) == tuple(files)
    assert picture(graphics, list(reversed(names))) == tuple(files)
