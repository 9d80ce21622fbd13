"""Statistics as one HTML page that holds its pictures and needs nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biomedclip_jax import html_page


def write_page(statistics: Mapping[str, Any], pictures: Mapping[str, Path], path: Path) -> None:
    """pictures: title -> PNG."""
    parts = [*_overview(statistics), *_numbers(statistics)]
    for name, picture in pictures.items():
        parts += [html_page.heading(name), html_page.picture(name, picture)]
        if name.startswith("Words"):
            parts.append(html_page.paragraph(f"of {statistics['words']['captions read']:,} captions"))
    html_page.write_page(path, f"Statistics of {statistics['source']}", parts)


def _overview(statistics: Mapping[str, Any]) -> list[str]:
    rows = {f"pairs, {split}" if split != "all" else "pairs": n for split, n in statistics["pairs"].items()}
    if set(statistics["pairs"]) == {"all"}:
        rows = {"pairs": statistics["pairs"]["all"]}
    rows["of which panels of compound figures"] = statistics["of which panels"]
    if "articles" in statistics:
        rows["articles"] = statistics["articles"]["all"]
    if "in sub-articles" in statistics:
        rows["figures in sub-articles (decision letters, responses)"] = statistics["in sub-articles"]
    shown = [[name, f"{n:,}"] for name, n in rows.items() if n or name == "pairs"]
    return [
        html_page.table([], shown),
        html_page.paragraph("Panels repeat what is known of their figures; all below is of whole figures."),
    ]


def _numbers(statistics: Mapping[str, Any]) -> list[str]:
    lines = {f"{unit} of a caption": numbers for unit, numbers in statistics["caption"].items()}
    lines |= {f"{side} of an image, pixels": numbers for side, numbers in statistics.get("image", {}).items()}
    if "references of a figure" in statistics:
        lines["paragraphs that mention a figure"] = statistics["references of a figure"]
    keys = ("mean", "median", "p90", "p99", "max")
    rows = [[name, *(f"{numbers[key]:,}" for key in keys)] for name, numbers in lines.items()]
    parts = [html_page.table(["", *keys], rows)]
    tokens = statistics["caption"].get("tokens")
    if tokens:
        shares = ", ".join(f"{share:.1%} over {limit}" for limit, share in tokens["share over"].items())
        parts.append(html_page.paragraph(f"Tokens, counted with {tokens['tokenizer']}: {shares}."))
    return parts
