"""Elements of XML by their local names, whatever their namespace."""

from functools import lru_cache

from lxml import etree


@lru_cache(maxsize=4096)
def local_name(tag: str) -> str:
    """ "fig" of "fig" and "{https://jats.nlm.nih.gov/ns/archiving/1.4/}fig"."""
    return tag[tag.rfind("}") + 1 :]


def children(element: etree._Element | None, *names: str) -> list[etree._Element]:
    """The children with one of these local names, in document order."""
    return [] if element is None else list(element.iterchildren(*(f"{{*}}{name}" for name in names)))


def child(element: etree._Element | None, name: str) -> etree._Element | None:
    """The first child element of this name, or None."""
    return None if element is None else next(element.iterchildren(f"{{*}}{name}"), None)


def characters(element: etree._Element) -> str:
    """All character data in an element, as they stand there."""
    return "".join(map(str, element.itertext()))


def language(element: etree._Element) -> str:
    """The language that an element is in ("en", "pt" ...), as it or the nearest element round it says; "" if none does."""
    for outer in (element, *element.iterancestors()):
        if code := outer.get("{http://www.w3.org/XML/1998/namespace}lang"):
            return code[:2].lower()
    return ""
