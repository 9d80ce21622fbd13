"""XML from strangers: encodings, entities, attacks, and what is no XML."""

import pytest
from lxml import etree

from biomedclip_jax.data.pmc.jats import safe_xml
from biomedclip_jax.data.pmc.jats.safe_xml import MAX_DEPTH, read_xml
from biomedclip_jax.errors import UserError


def text(xml: bytes | str) -> str | None:
    return read_xml(xml.encode() if isinstance(xml, str) else xml, "a.xml").text


@pytest.mark.parametrize(
    "xml",
    [
        "<a>é€</a>".encode(),
        '\ufeff<?xml version="1.0" encoding="UTF-8"?><a>é€</a>'.encode(),
        b'\n  <?xml version="1.0" encoding="utf8"?>' + "<a>é€</a>".encode(),
        '<?xml version="1.0" encoding="UTF-16"?><a>é€</a>'.encode("utf-16"),
        '<?xml version="1.0"?><a>é€</a>'.encode("utf-16-le"),
        '<?xml version="1.0"?><a>é€</a>'.encode("utf-16-be"),
        '<?xml version="1.0" encoding="UTF-32"?><a>é€</a>'.encode("utf-32"),
        '<?xml version="1.0" encoding="UTF-16"?><a>é€</a>'.encode(),  # re-coded, the declaration forgotten
        '<?xml version="1.0" encoding="windows-1252"?><a>é€</a>'.encode("cp1252"),
        "<?xml version='1.0' encoding='iso-8859-15' standalone='yes'?><a>é€</a>".encode("iso-8859-15"),
        b'<?xml version="1.0" encoding="us-ascii"?><a>&#xe9;&#8364;</a>',
    ],
)
def test_encodings(xml: bytes) -> None:
    assert text(xml) == "é€"


def test_latin_1_as_python_and_xml_call_it() -> None:
    for name in ("latin-1", "ISO-8859-1", "latin1"):
        assert text(f'<?xml version="1.0" encoding="{name}"?><a>é µ</a>'.encode("latin-1")) == "é µ"


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "unknown encoding 'klingon'"),
        ('<?xml version="1.0" encoding="ascii"?><a>é</a>'.encode("latin-1"), "line 1: not well-formed XML"),
        ("\n<a>é</a>".encode("latin-1"), "not well-formed XML"),
        (b"\xff\xfe<\0a\0>\0\x00\xd8<\0/\0a\0>\0", "not utf-16 text"),
        (b"", "no readable XML"),
        (b"   ", "no readable XML"),
        (b"no XML at all", "not well-formed XML|no readable XML"),
        (b"\x1f\x8b\x08\x00 gzip", "not well-formed XML|no readable XML"),
        (b"<a>\n<b>\n</a>", "line 3: not well-formed XML"),
        (b"<!DOCTYPE a [\n<!ENTITY x 'y'>\n]>\n<a>\n<b>\n</a>", "line 6: not well-formed XML"),
        (b"<a>\ncut", "line 2: not well-formed XML"),
        (b"<a/>\n<b/>", "line 2: not well-formed XML"),
        (b"<a>AT&T</a>", "not well-formed XML"),
        (b"<a b='1' b='2'/>", "not well-formed XML"),
        (b"<a>&#11;</a>", "not well-formed XML"),
        (b"<!DOCTYPE a [ <!-- ]><a/>", "has no end"),
    ],
)
def test_unreadable(xml: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_xml(xml, "PMC1.xml")
    assert str(error.value).startswith("PMC1.xml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "before",
    ["", "<!DOCTYPE a>", '<!DOCTYPE a PUBLIC "-//NLM//DTD//EN" "J>.dtd">', "<?x y?><!-- <!DOCTYPE z --><!DOCTYPE a []>"],
)
def test_known_entities_keep_their_meaning(before: str) -> None:
    # HTML, ISO sets with HTML's names, MathML's, and plain Greek of ISOgrk1
    assert text(f"{before}<a>&beta;&nbsp;&mdash;&thinsp;&percnt;&lsqb;&bgr;&sfgr;&OHgr;&InvisibleTimes;</a>") == (
        "β\u00a0—\u2009%[βςΩ\u2062"
    )
    assert read_xml(f'{before}<a b="&eacute;&quot;&lt;&LT;"/>'.encode(), "a.xml").get("b") == 'é"<<'


def test_predefined_and_numbered_references() -> None:
    assert text("<a>&lt;&amp;beta;&gt;&quot;&apos;&#x3b2;&#946;&beta;</a>") == "<&beta;>\"'βββ"


def test_nothing_is_replaced_where_nothing_refers() -> None:
    assert text("<a><!-- &beta; --><?x &beta;?><![CDATA[&beta;]]>&beta;</a>") == "&beta;β"


def test_unknown_entities_are_not_lost() -> None:
    assert text("<a>5 &myunit; x</a>") == "5 &myunit; x"


def test_short_declared_entities() -> None:
    subset = """<!ENTITY unit "mm&#178;"> <!ENTITY beta 'a]>'><!ENTITY beta "no"><!-- <!ENTITY --> <!ENTITY % p "no">"""
    assert text(f'<!DOCTYPE a SYSTEM "x.dtd" [{subset}]><a>&unit;&beta;&p;</a>') == "mm²a]>&p;"


def test_entities_that_unfold_are_left_alone() -> None:
    """A billion laughs, and a long text many times."""
    laughs = '<!ENTITY l0 "ha">' + "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    laughs += f'<!ENTITY long "{"x" * 1000}"><!ENTITY markup "<b/>">'
    assert text(f"<!DOCTYPE a [{laughs}]><a>&l0;&l9;&long;&markup;</a>") == "ha&l9;&long;&markup;"


def test_external_entities_are_not_read(tmp_path) -> None:
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    uri = (tmp_path / "secret.txt").as_uri()
    for subset in (f'<!ENTITY x SYSTEM "{uri}">', f'<!ENTITY % d SYSTEM "{uri}"> %d; <!ENTITY x PUBLIC "p" "{uri}">'):
        root = read_xml(f'<!DOCTYPE a [{subset}]><a b="&x;">&x;</a>'.encode(), "a.xml")
        assert "secret" not in etree.tostring(root, encoding="unicode")
        assert root.text == root.get("b") == "&x;"


def test_too_deep() -> None:
    read_xml(b"<a>" * (MAX_DEPTH - 1) + b"</a>" * (MAX_DEPTH - 1), "a.xml")
    with pytest.raises(UserError, match="Excessive depth"):
        read_xml(b"<a>" * (MAX_DEPTH + 1) + b"</a>" * (MAX_DEPTH + 1), "a.xml")


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_xml, "MAX_BYTES", 120)
    assert text(b"<a>" + b"x" * 100 + b"</a>")
    with pytest.raises(UserError, match="157 bytes of XML; expected at most 120"):
        text(b"<a>" + b"x" * 150 + b"</a>")
    with pytest.raises(UserError, match="once its entities are in place"):
        text(b'<!DOCTYPE a [<!ENTITY b "' + b"x" * 60 + b'">]><a>&b;&b;&b;</a>')


def test_a_flood_of_references_stops_where_it_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known only by what has been replaced so far: what all of it would take is never in memory."""
    import tracemalloc

    monkeypatch.setattr(safe_xml, "MAX_BYTES", 2**20)
    xml = b"<a>" + b"&a;" * 300_000 + b"</a>"
    tracemalloc.start()
    with pytest.raises(UserError, match="over 1,048,576 bytes of XML once its entities are in place"):
        read_xml(xml, "a.xml")
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


def test_hrefs_of_a_text() -> None:
    declared = '<!DOCTYPE a [<!ENTITY n "12">]>'
    xml = f"""{declared}<a xlink:href="f&n;"><b l:href = 'a&amp;b "&beta;"'/><!-- href="c" --><c nohref="d"/></a>"""
    for encoding in ("utf-8", "utf-16"):
        assert safe_xml.hrefs(xml.encode(encoding), "a.xml") == {"f12", 'a&b "β"', "c"}
    assert safe_xml.hrefs(b"<!DOCTYPE a [", "a.xml") == frozenset()


def test_comments_and_instructions_are_gone() -> None:
    root = read_xml(b"<?x y?><!-- a --><a>1<!-- 2 -->3<?x 4?>5<b/></a>", "a.xml")
    assert (root.text, len(root)) == ("135", 1)


def test_prefixes_that_nothing_declares() -> None:
    """DTDs declare xlink and mml; without them the prefixes hang in the air."""
    root = read_xml(b'<a><graphic xlink:href="f1" id="g"/><mml:math>x</mml:math></a>', "a.xml")
    assert [element.tag for element in root] == ["graphic", "math"]
    assert dict(root[0].attrib) == {"href": "f1", "id": "g"}
