"""XML from strangers, read without harm and without loss: no entity engine, no DTD, no network, bounded depth and
size.

The document type declaration is cut out before parsing, so nothing it declares can be fetched or unfolded. What
authors mean by `&nbsp;` or `&alpha;` is kept nevertheless: the names of HTML and of the ISO sets that JATS builds on
become their characters, short plain texts that the document declares itself become those texts, any other reference
stays as it is written (`&name;`).
"""

import codecs
import re
from html import unescape
from html.entities import html5
from typing import TYPE_CHECKING

from biomedclip_jax.errors import UserError, first_line

if TYPE_CHECKING:
    from lxml import etree  # of the extra `pmc`: sources that need only this module's limits open without it

MAX_BYTES = 128 * 2**20  # of one document; PubMed Central's largest articles are some tens of megabytes
MAX_DEPTH = 256  # of nested elements; the parser's own limit (libxml2), as are 10,000,000 characters in one text
MAX_ENTITY_VALUE = 64  # characters of a declared entity that is replaced; a longer one is no character's name

_PREDEFINED = frozenset({b"amp", b"lt", b"gt", b"quot", b"apos"})
# ISOgrk1, plain Greek letters: the one set of the JATS DTDs that HTML did not take over; from U+0391 and from
# U+03B1 on
# fmt: off
_GREEK = (
    "a", "b", "g", "d", "e", "z", "ee", "th", "i", "k", "l", "m", "n", "x", "o", "p", "r", "sf", "s", "t", "u",
    "ph", "kh", "ps", "oh",
)
# fmt: on
_CHARACTERS = {name[:-1]: text for name, text in html5.items() if name.endswith(";")}
_CHARACTERS |= {f"{letter}gr": chr(0x3B1 + i) for i, letter in enumerate(_GREEK)}
_CHARACTERS |= {f"{letter.upper()}gr": chr(0x391 + i) for i, letter in enumerate(_GREEK) if letter != "sf"}

_NAMED_REFERENCE = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos);|#)")
_REFERENCE_OR_VERBATIM = re.compile(rb"&([A-Za-z_][\w.\-]*);|<!--|<!\[CDATA\[|<\?")
_ENDS = {b"<!--": b"-->", b"<![CDATA[": b"]]>", b"<?": b"?>"}
_DECLARED_ENCODING = re.compile(rb"<\?xml\s[^>]*?encoding\s*=\s*[\"']([A-Za-z][\w.\-]*)[\"']")
_BLANKS = b" \t\r\n"
_WIDE = (b"utf-16", b"utf-32", b"ucs-", b"iso-10646")
_BEFORE_DOCTYPE = re.compile(rb"(?:\s++|<\?.*?\?>|<!--.*?-->)*+(?=<!DOCTYPE\b)", re.DOTALL)
_DOCTYPE = re.compile(
    rb"""<!DOCTYPE(?:[^\[>"']|"[^"]*"|'[^']*')*+"""
    rb"""(?:\[((?:[^\]"'<]|"[^"]*"|'[^']*'|<!--.*?-->|<\?.*?\?>|<(?!!--|\?))*+)\]\s*)?>""",
    re.DOTALL,
)
_ENTITY = re.compile(rb"""<!ENTITY\s+([A-Za-z_][\w.\-]*)\s+(?:"([^"]*)"|'([^']*)')\s*>""")
_HREF = re.compile(rb"""\bhref\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_CHARACTER_REFERENCE = re.compile(r"&#(?:x([0-9A-Fa-f]{1,6})|([0-9]{1,7}));")
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_xml(xml: bytes, name: str) -> "etree._Element":
    """The root element, without comments and processing instructions. Prefixes that nothing declares are dropped.

    Raises UserError with `name` (and the line where there is one) for what is not well-formed, too large or too deep.
    """
    from lxml import etree

    text = _text_of_document(xml, name)
    # `recover`, as a prefix without declaration is no reason to stop; everything worse stops us below
    parser = etree.XMLParser(
        encoding="utf-8",
        recover=True,
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(text, parser)
    except etree.XMLSyntaxError as error:
        raise UserError(f"{name}: no readable XML ({first_line(error)}); expected an article in JATS") from error
    for entry in parser.error_log:
        if entry.level >= etree.ErrorLevels.FATAL:
            raise UserError(f"{name}, line {entry.line}: not well-formed XML ({entry.message.strip()}); get the file again")
    if root is None:
        raise UserError(f"{name}: no XML element in it; expected an article in JATS")
    if len(parser.error_log):
        for element in root.iter():
            element.tag = _bare(element.tag)
            for key, value in element.attrib.items():
                if (bare := _bare(str(key))) != key:
                    del element.attrib[key]
                    element.set(bare, value)
    return root


def hrefs(xml: bytes, name: str) -> frozenset[str]:
    """What all attributes called href hold, with any prefix; found without parsing, so those in comments are among them.

    None of a document that `read_xml` would refuse for its size, encoding or document type.
    """
    try:
        text = _text_of_document(xml, name)
    except UserError:
        return frozenset()
    found = {double or single for double, single in _HREF.findall(text)}
    return frozenset(unescape(value.decode("utf-8", "replace")) for value in found)


def _text_of_document(xml: bytes, name: str) -> bytes:
    if len(xml) > MAX_BYTES:
        raise UserError(f"{name}: {len(xml):,} bytes of XML; expected at most {MAX_BYTES:,}: leave it out or split it")
    return _without_doctype(_as_utf8(xml, name), name)


def _bare(name: str) -> str:
    """Without a prefix that is bound to no namespace."""
    return name if name.startswith("{") else name.rpartition(":")[2]


def _as_utf8(xml: bytes, name: str) -> bytes:
    """The document in UTF-8; what its declaration says afterwards is not looked at again."""
    encoding = next((encoding for mark, encoding in _BYTE_ORDER_MARKS if xml.startswith(mark)), None)
    if encoding is None and xml[:4] in (b"<\0?\0", b"\0<\0?"):
        encoding = "utf-16-le" if xml[0] else "utf-16-be"
    if encoding is None:
        xml = xml.lstrip(_BLANKS)
        declaration = _DECLARED_ENCODING.match(xml)
        # what can be read byte for byte is in no wide encoding, whatever it says
        encoding = declaration[1].decode().lower() if declaration and not declaration[1].lower().startswith(_WIDE) else "utf-8"
    if encoding in ("utf-8", "utf8", "ascii", "us-ascii"):
        return xml.removeprefix(codecs.BOM_UTF8).lstrip(_BLANKS)
    try:
        return xml.decode(encoding).lstrip("\ufeff \t\r\n").encode("utf-8", "replace")
    except LookupError as error:
        raise UserError(
            f"{name}: unknown encoding '{encoding}'; expected UTF-8 or one that Python knows: convert it"
        ) from error
    except UnicodeError as error:
        raise UserError(f"{name}: not {encoding} text, as it claims to be ({error}); get the file again") from error


def _without_doctype(xml: bytes, name: str) -> bytes:
    """Without the document type declaration (its lines stay, empty), every named reference replaced."""
    declared: dict[bytes, bytes] = {}
    if before := _BEFORE_DOCTYPE.match(xml):
        doctype = _DOCTYPE.match(xml, before.end())
        if doctype is None:
            raise UserError(f"{name}: its document type declaration (<!DOCTYPE ...>) has no end; get the file again")
        for entity, double, single in _ENTITY.findall(doctype[1] or b""):
            declared.setdefault(entity, double or single)
        xml = xml[: before.end()] + b"\n" * doctype[0].count(b"\n") + xml[doctype.end() :]
    return _with_characters(xml, declared, name) if _NAMED_REFERENCE.search(xml) else xml


def _with_characters(xml: bytes, declared: dict[bytes, bytes], document: str) -> bytes:
    # one buffer that grows, and no further than it may: a reference of three bytes can stand there millions of times
    text, done, position = bytearray(), 0, 0
    known: dict[bytes, bytes] = {}
    while found := _REFERENCE_OR_VERBATIM.search(xml, position):
        position = found.end()
        name = found[1]
        if name is None:  # a comment, CDATA or an instruction: nothing in it is a reference
            position = xml.find(_ENDS[found[0]], position)
            if position < 0:
                break  # never closed: the parser will say so
        elif name not in _PREDEFINED:
            if name not in known:
                known[name] = _in_place_of(name, declared.get(name))
            text += memoryview(xml)[done : found.start()]
            text += known[name]
            done = found.end()
            if len(text) + len(xml) - done > MAX_BYTES:
                raise UserError(f"{document}: over {MAX_BYTES:,} bytes of XML once its entities are in place: leave it out")
    text += memoryview(xml)[done:]
    return bytes(text)


def _in_place_of(name: bytes, value: bytes | None) -> bytes:
    """What stands for `&name;`, as XML."""
    text = _CHARACTERS.get(name.decode())
    if value is not None and len(value) <= MAX_ENTITY_VALUE:
        plain = _CHARACTER_REFERENCE.sub(_character, value.decode("utf-8", "replace"))
        if "&" not in plain and "<" not in plain:
            text = plain
    if text is None:
        return b"&amp;" + name + b";"
    return "".join(f"&#{ord(c)};" if c in "<&\"'" or ord(c) > 126 else c for c in text).encode()


def _character(reference: re.Match[str]) -> str:
    code = int(reference[1], 16) if reference[1] else int(reference[2])
    return chr(code) if code < 0x110000 else reference[0]
