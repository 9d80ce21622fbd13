"""How tests describe an article: its words, figures and files. `jats_writer.py` makes files and the truth of a description.

Words are kept in three forms (`Text`): as XML, as a reader sees them without formulas, and with the characters of MathML.
"""

from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from helpers.drawn_figures import Drawing

MATHML = "http://www.w3.org/1998/Math/MathML"
XLINK = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
ROOT = f'xmlns:mml="{MATHML}" {XLINK}'

# --- words ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """Words as XML, as they read without formulas, and as they read with MathML. mentions: the rid of each <xref> in them."""

    xml: str = ""
    plain: str = ""
    full: str = ""
    mentions: tuple[str, ...] = ()

    def __add__(self, other: "Words") -> "Text":
        other = text(other)
        return Text(self.xml + other.xml, self.plain + other.plain, self.full + other.full, self.mentions + other.mentions)

    def __radd__(self, other: str) -> "Text":
        return text(other) + self

    def line(self, formulas: bool = False) -> str:
        """As one line: any white space is one space."""
        return " ".join((self.full if formulas else self.plain).split())


Words = str | Text


def text(words: Words) -> Text:
    return words if isinstance(words, Text) else Text(escape(words), words, words)


def inline(name: str, words: Words, attributes: str = "") -> Text:
    """An element that changes nothing of what is read."""
    words = text(words)
    return Text(f"<{name}{attributes}>{words.xml}</{name}>", words.plain, words.full, words.mentions)


def italic(words: Words) -> Text:
    return inline("italic", words)


def bold(words: Words) -> Text:
    return inline("bold", words)


def script(name: str, words: Words, read: str) -> Text:
    """A <sup> or <sub>. read: as a reader gets it on the line, after what stands before it."""
    return Text(inline(name, words).xml, read, read)


def link(address: str, words: Words) -> Text:
    return inline("ext-link", words, f' ext-link-type="uri" xlink:href="{address}"')


def mention(rid: str, words: Words, kind: str = "fig") -> Text:
    """A reference to one figure, or to several: "fig1 fig2"."""
    found = inline("xref", words, f' ref-type="{kind}" rid="{rid}"')
    return Text(found.xml, found.plain, found.full, (rid,))


def formula(mathml: str, shown: str, tex: str = "") -> Text:
    """An inline formula in MathML; with `tex` in both forms. shown: as a reader of formulas gets it."""
    math = f"<mml:math>{mathml}</mml:math>"
    if tex:
        math = f"<alternatives><tex-math>{escape(tex)}</tex-math>{math}</alternatives>"
    return Text(f"<inline-formula>{math}</inline-formula>", "", shown)


def tex_formula(tex: str, shown: str) -> Text:
    """An inline formula in TeX only. shown: as a reader of formulas gets it."""
    return Text(f"<inline-formula><tex-math>{escape(tex)}</tex-math></inline-formula>", "", shown)


def image_formula(href: str) -> Text:
    """An inline formula that is a picture: nothing is read, and no figure has it."""
    return Text(f'<inline-formula><inline-graphic xlink:href="{href}"/></inline-formula>')


def unread(xml: str) -> Text:
    """A comment, a processing instruction, an id ..."""
    return Text(xml)


def written(xml: str, read: str) -> Text:
    """Anything else: an entity, a break ..."""
    return Text(xml, read, read)


def words_of(*parts: Words) -> Text:
    return sum(parts[1:], text(parts[0]))


# --- figures and their surroundings ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A <graphic>. file: the name that `href` means; None where no such file came with the article.

    shown: whether the file is a picture of the figure, not just another form of one.
    """

    href: str
    file: str | None = None
    drawing: Drawing | None = None
    shown: bool = True
    attributes: str = ""


@dataclass(frozen=True)
class Figure:
    """A <fig>. A tuple among `pictures` is one <alternatives>. panels: labels of the parts that the caption has, in order."""

    id: str | None
    label: Words | None = None
    title: Words | None = None
    paragraphs: tuple[Words, ...] = ()
    pictures: tuple[Picture | tuple[Picture, ...], ...] = ()
    panels: tuple[str, ...] = ()
    supplement: Words | None = None  # <supplementary-material> in the caption: what its own caption says
    supplement_in_paragraph: bool = True
    inner: tuple["Figure", ...] = ()
    attrib: Words | None = None
    own_licence: str | None = None  # <permissions>, with a licence that nobody knows
    doi: str = ""
    attributes: str = ""
    bare_caption: bool = False  # the one paragraph stands in the caption without <p>


@dataclass(frozen=True)
class Group:
    """A <fig-group>."""

    figures: tuple[Figure, ...]
    label: Words | None = None
    caption: Words | None = None


@dataclass(frozen=True)
class Paragraph:
    """Running text, with figures in its midst where a publisher puts them there."""

    words: Words
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Section:
    title: Words | None
    blocks: tuple["Block", ...]
    kind: str = "sec"


@dataclass(frozen=True)
class Table:
    """A table, also as an image; neither is a figure. cells, foot: mentions in them count, but are no running text."""

    id: str
    caption: Words
    cells: tuple[Words, ...]
    picture: Picture | None = None
    foot: Words | None = None


@dataclass(frozen=True)
class DisplayedFormula:
    """A formula of its own line that is an image."""

    picture: Picture


@dataclass(frozen=True)
class SupplementaryFile:
    id: str
    caption: Words


Block = Section | Paragraph | Figure | Group | Table | DisplayedFormula | SupplementaryFile


@dataclass(frozen=True)
class SubArticle:
    """A decision letter, an author's response ... kind: "sub-article" or "response"."""

    title: str
    blocks: tuple[Block, ...]
    kind: str = "sub-article"


@dataclass(frozen=True)
class Licence:
    """xml: of the statement as it stands in <article-meta>. The rest is what the statement says."""

    xml: str
    code: str
    url: str | None
    declared_in: str
    words: str


@dataclass(frozen=True)
class WrittenArticle:
    """id: PMC id and version. root: attributes of <article>. between: what stands between blocks. front: more of the front."""

    id: str
    title: Words
    body: tuple[Block, ...]
    licence: Licence
    doctype: str
    article_type: str = "research-article"
    doi: str | None = None
    pmid: str | None = None
    journal: str = "<journal-title-group><journal-title>Annals of Written Articles</journal-title></journal-title-group>"
    abstract: tuple[Block, ...] = ()
    back: tuple[Block, ...] = ()
    floats: tuple[Block, ...] = ()
    sub_articles: tuple[SubArticle, ...] = ()
    root: str = ROOT
    between: str = ""
    encoding: str = "utf-8"
    wrapper: str = "%s"
    prefix: str = ""  # of the elements' names
    package: str | None = None  # the XML's name in an old package, where the article comes as one, too
    package_suffix: str = ""  # what the package adds to the names of images
    unused: tuple[Picture, ...] = field(default=())  # files that no figure names

    @property
    def pmcid(self) -> str:
        return self.id.partition(".")[0]
