"""One HTML page that holds its pictures and needs nothing else, no network and no other file."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; }
div.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .5rem 0; }
td, th { padding: .15rem .9rem .15rem 0; text-align: left; font-weight: normal; vertical-align: top; }
td { text-align: right; font-variant-numeric: tabular-nums; } th { color: #555; }
tbody th { min-width: 11rem; }
thead th { text-align: right; } thead th:first-child { text-align: left; }
tbody tr + tr:has(th:not(:empty)) { border-top: 1px solid #ddd; }
img { max-width: 100%; height: auto; } p { color: #555; margin: .2rem 0; }
div.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1.2rem .9rem; }
figure { margin: 0; overflow-wrap: anywhere; } figure img { width: 100%; max-height: 14rem; object-fit: contain; }
figure img { background: #f5f5f5; } figure p { line-height: 1.3; } p.good { color: #116b2e; } p.bad { color: #b3261e; }
p.title { color: #222; font-weight: 600; } p.small { font-size: .75rem; }
p.lacking { background: #f5f5f5; padding: 2rem .5rem; }
pre { overflow-x: auto; background: #f5f5f5; padding: .5rem; font-size: .8rem; }
"""


def write_page(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write one HTML page of these parts, which the functions below make. The caller sees to it that the file appears
    whole.
    """
    head = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>",
    ]
    path.write_text("\n".join([*head, *parts, "</body></html>"]) + "\n", encoding="utf-8")


def heading(text: str) -> str:
    """HTML of a heading within the page."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str) -> str:
    """HTML of a paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as HTML, with escaped texts. The first cell of each row names it. head: empty for a table without one."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr><th>{html.escape(name)}</th>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    return f'<div class="wide"><table>{f"<thead><tr>{top}</tr></thead>" if head else ""}<tbody>{body}</tbody></table></div>'


def picture(title: str, file: Path) -> str:
    """HTML of a PNG that the page holds itself. title: for those who cannot see it."""
    content = base64.b64encode(file.read_bytes()).decode()
    return f'<p><img alt="{html.escape(title)}" src="data:image/png;base64,{content}"></p>'


@dataclass(frozen=True, kw_only=True)
class Card:
    """A picture and what is said of it, in plain texts; an empty one leaves no line.

    picture: a JPEG file's content; None is shown as the text `alternative`, which those who cannot see a picture hear.
    good, bad: in green and in red. small: in small letters.
    """

    title: str
    picture: bytes | None
    alternative: str
    good: str = ""
    bad: str = ""
    small: str = ""


def gallery(cards: Sequence[Card]) -> str:
    """HTML of cards side by side, as many as fit."""
    return f'<div class="cards">{"".join(map(_figure, cards))}</div>' if cards else ""


def _figure(card: Card) -> str:
    alternative = html.escape(card.alternative)
    shown = f'<p class="lacking">{alternative}</p>'
    if card.picture is not None:
        content = base64.b64encode(card.picture).decode()
        shown = f'<img alt="{alternative}" src="data:image/jpeg;base64,{content}">'
    lines = [("title", card.title), ("bad", card.bad), ("good", card.good), ("small", card.small)]
    texts = "".join(f'<p class="{name}">{html.escape(text)}</p>' for name, text in lines if text)
    return f"<figure>{shown}<figcaption>{texts}</figcaption></figure>"


def folded(title: str, text: str) -> str:
    """HTML of plain text under a title, shown when the title is clicked."""
    return f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"
