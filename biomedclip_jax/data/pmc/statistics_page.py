"""Statistics as one HTML page that holds its pictures and needs nothing else."""

import base64
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; }
table { border-collapse: collapse; margin: .5rem 0; }
td, th { padding: .15rem 1.2rem .15rem 0; text-align: left; font-weight: normal; }
td { text-align: right; font-variant-numeric: tabular-nums; } th { color: #555; } thead th { text-align: right; }
img { max-width: 100%; height: auto; } p { color: #555; margin: .2rem 0; }
"""


def write_page(statistics: Mapping[str, Any], pictures: Mapping[str, Path], path: Path) -> None:
    """pictures: title -> PNG."""
    title = html.escape(f"Statistics of {statistics['source']}")
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>",
        _overview(statistics),
        _numbers(statistics),
    ]
    for name, picture in pictures.items():
        content = base64.b64encode(picture.read_bytes()).decode()
        parts.append(f'<h2>{html.escape(name)}</h2><img alt="{html.escape(name)}" src="data:image/png;base64,{content}">')
        if name.startswith("Words"):
            parts.append(f"<p>of {statistics['words']['captions read']:,} captions</p>")
    path.write_text("\n".join([*parts, "</body></html>"]) + "\n", encoding="utf-8")


def _overview(statistics: Mapping[str, Any]) -> str:
    rows = {f"pairs, {split}" if split != "all" else "pairs": n for split, n in statistics["pairs"].items()}
    if set(statistics["pairs"]) == {"all"}:
        rows = {"pairs": statistics["pairs"]["all"]}
    rows["of which panels of compound figures"] = statistics["of which panels"]
    if "articles" in statistics:
        rows["articles"] = statistics["articles"]["all"]
    if "in sub-articles" in statistics:
        rows["figures in sub-articles (decision letters, responses)"] = statistics["in sub-articles"]
    cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{n:,}</td></tr>" for name, n in rows.items() if n or name == "pairs")
    return f"<table>{cells}</table><p>Panels repeat what is known of their figures; all below is of whole figures.</p>"


def _numbers(statistics: Mapping[str, Any]) -> str:
    lines = {f"{unit} of a caption": numbers for unit, numbers in statistics["caption"].items()}
    lines |= {f"{side} of an image, pixels": numbers for side, numbers in statistics.get("image", {}).items()}
    if "references of a figure" in statistics:
        lines["paragraphs that mention a figure"] = statistics["references of a figure"]
    keys = ("mean", "median", "p90", "p99", "max")
    head = "".join(f"<th>{key}</th>" for key in keys)
    body = "".join(
        f"<tr><th>{html.escape(name)}</th>{''.join(f'<td>{numbers[key]:,}</td>' for key in keys)}</tr>"
        for name, numbers in lines.items()
    )
    tokens = statistics["caption"].get("tokens")
    note = ""
    if tokens:
        shares = ", ".join(f"{share:.1%} over {limit}" for limit, share in tokens["share over"].items())
        note = f"<p>Tokens, counted with {html.escape(tokens['tokenizer'])}: {shares}.</p>"
    return f"<table><thead><tr><th></th>{head}</tr></thead>{body}</table>{note}"
