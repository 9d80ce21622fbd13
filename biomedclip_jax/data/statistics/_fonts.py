"""Fonts that show the signs of any script, so far as this machine has them; what none shows is replaced and said."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from biomedclip_jax.support.terminal import say_some

_BASE = "DejaVu Sans"  # comes with matplotlib; Latin, Greek, Cyrillic, Arabic, Hebrew, mathematics
_UNSHOWN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Fonts:
    """Families to be tried in this order, and the signs that none of them shows. path: the file of the last of them."""

    families: list[str]
    path: Path
    unshown: frozenset[str] = frozenset()

    def fit(self, text: str) -> str:
        """The text with a question mark in a rhombus for each sign that no font shows: never an empty box."""
        return "".join(_UNSHOWN if sign in self.unshown else sign for sign in text)


def fonts_for(texts: Iterable[str], candidates: list[str] | None = None) -> Fonts:
    """The fonts that show these texts together. Signs that no font shows are said on the terminal, with what helps.

    candidates: files of fonts; None: all that this machine has.
    """
    from matplotlib import font_manager, get_data_path

    base = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    fonts, last = [_BASE], base
    missing = {sign for sign in set().union(*texts) if _is_drawn(sign)} - _signs(str(base))
    if not missing:
        return Fonts(fonts, last)
    for path in sorted(font_manager.findSystemFonts() if candidates is None else candidates):
        if found := missing & _signs(path):
            missing -= found
            font_manager.fontManager.addfont(path)
            family = font_manager.get_font(path).family_name
            fonts, last = [*fonts, family], Path(path)
        if not missing:
            break
    if missing:
        shown = ", ".join(f"U+{ord(sign):04X}" for sign in sorted(missing)[:3])
        say_some(
            f"no font here shows {len(missing)} of the signs ({shown}{' ...' if len(missing) > 3 else ''}): a question mark"
            " stands for each; install such as fonts-noto-cjk"
        )
    return Fonts(fonts, last, frozenset(missing))


def _is_drawn(sign: str) -> bool:
    return not sign.isspace() and unicodedata.category(sign)[0] not in "CZ"


@cache
def _signs(path: str) -> frozenset[str]:
    """What a font has a picture for; nothing of a file that is no font."""
    from matplotlib import font_manager

    if "lastresort" in path.lower():  # a box for everything
        return frozenset()
    try:
        font: Any = font_manager.get_font(path)
        return frozenset(map(chr, font.get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()
