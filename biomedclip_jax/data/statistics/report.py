"""What a data set holds (the paper's Figures 3 to 5): `statistics.json`, pictures, and one page with all of it.

Lengths of captions, sizes of images, types of figures by keyword, words, licences, articles by year, in-text
references, what a build left out.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from biomedclip_jax.data.statistics._counts import count, parts_of
from biomedclip_jax.data.statistics._summary import Statistics, summarize
from biomedclip_jax.data.statistics.captioned import CaptionedPicture, TypesSeen, captioned_pictures
from biomedclip_jax.data.statistics.pictures import draw
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_folder
from biomedclip_jax.support import html as html_page


def write_statistics(
    source: str,
    out: Path,
    tokenizer: Path | None = None,
    workers: int = 1,
    columns: tuple[str, str] = ("image", "caption"),
    see: Callable[[Iterable[CaptionedPicture], int], TypesSeen] | None = None,
) -> Statistics:
    """Count a build, or another source of pairs, and write `statistics.json`, PNGs and `index.html` to the folder
    `out`.

    tokenizer: a folder with the tokenizer by which tokens are counted; without it only words are. columns: of image
    and caption, in sources that are no builds. see: asks a model for the types of all pictures; it
    also gets their number, or a greater one. Statistics that were in `out` go. The same data give the same files.
    Raises UserError for a source that cannot be read and a folder that cannot be written.
    """
    taken = out.is_dir() and any(out.iterdir()) and not (out / "statistics.json").is_file()
    if taken or out.is_file():
        raise UserError(f"{out}: holds something else than statistics; choose another folder")
    parts = parts_of(source, columns)
    counts = count(parts, tokenizer, workers)
    if not counts.pairs:
        unusable = counts.left_out.total()
        raise UserError(f"{source}: none of its {unusable:,} pairs can be used" if unusable else f"{source}: no pairs here")
    left_out = _left_out(Path(source) / "summary.json")
    if counts.left_out:
        left_out = (left_out or {}) | {"pairs": dict(counts.left_out.most_common())}
    statistics = summarize(counts, source, tokenizer, left_out)
    if see is not None:
        pictures = chain.from_iterable(map(captioned_pictures, parts))
        statistics = replace(statistics, types_seen=see(pictures, sum(part.count for part in parts)))

    def write(folder: Path) -> None:
        text = json.dumps(statistics.to_json(), indent=1, ensure_ascii=False)
        (folder / "statistics.json").write_text(f"{text}\n", encoding="utf-8")
        pictures = draw(statistics, folder)
        write_page(statistics, pictures, folder / "index.html")

    write_folder(out, write, replace=True)
    return statistics


def _left_out(path: Path) -> dict[str, dict[str, int]] | None:
    """The reasons in a build's `summary.json`, most frequent first; None if there is no such file."""
    if not path.is_file():
        return None
    try:
        summary: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = {}
        for kind in ("articles", "pictures"):
            rejected = {reason: int(n) for reason, n in summary[kind]["rejected"].items()}
            found[kind] = dict(sorted(rejected.items(), key=lambda entry: -entry[1]))
        return found
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: not the summary of a build; build again, or remove it") from error


def write_page(statistics: Statistics, pictures: Mapping[str, Path], path: Path) -> None:
    """Write statistics as one HTML page. pictures: title -> PNG file, in the order of the page."""
    parts = [*_overview(statistics), *_lengths(statistics)]
    for name, picture in pictures.items():
        parts += [html_page.heading(name), html_page.picture(name, picture)]
        if name.startswith("Words"):
            parts.append(
                html_page.paragraph(
                    f"By the number of articles that have them, of {statistics.articles_read:,} with "
                    f"{statistics.captions_read:,} captions; without articles each caption counts for itself."
                )
            )
        if name.startswith("Types"):
            parts += _types(statistics)
    html_page.write_page(path, f"Statistics of {statistics.source}", parts)


def _overview(statistics: Statistics) -> list[str]:
    rows = {"pairs": sum(statistics.pairs.values())}
    if statistics.has_splits:
        rows |= {f"pairs, {split}": n for split, n in statistics.pairs.items()}
    rows["of which panels of compound figures"] = statistics.panels
    if statistics.articles is not None:
        rows["articles"] = sum(statistics.articles.values())
    if statistics.in_sub_articles is not None:
        rows["figures in sub-articles (decision letters, responses)"] = statistics.in_sub_articles
    shown = [[name, f"{n:,}"] for name, n in rows.items() if n or name == "pairs"]
    return [
        html_page.table([], shown),
        html_page.paragraph("Panels repeat what is known of their figures; all below is of whole figures."),
    ]


def _lengths(statistics: Statistics) -> list[str]:
    lines = {f"{unit} of a caption": numbers for unit, numbers in statistics.caption.items()}
    lines |= {f"{side} of an image, pixels": numbers for side, numbers in statistics.image.items()}
    if statistics.references is not None:
        lines["paragraphs that mention a figure"] = statistics.references
    keys = ("mean", "median", "p90", "p99", "max")
    rows = [[name, *(f"{getattr(numbers, key):,}" for key in keys)] for name, numbers in lines.items()]
    parts = [html_page.table(["", *keys], rows)]
    if statistics.tokens is not None:
        shares = ", ".join(f"{share:.1%} over {limit}" for limit, share in statistics.tokens.share_over.items())
        parts.append(html_page.paragraph(f"Tokens, counted with {statistics.tokenizer}: {shares}."))
    return parts


def _types(statistics: Statistics) -> list[str]:
    """Below the bars of figure types: what mixed figures hold, and what a model sees."""
    parts = []
    if statistics.in_mixed_figures:
        held = ", ".join(f"{name} {n:,}" for name, n in statistics.in_mixed_figures.items())
        parts.append(html_page.paragraph(f"A mixed figure's caption names several types: {held}."))
    seen = statistics.types_seen
    if seen is None:
        return parts
    same, both = seen.agreement()
    share = f", in {same / both:.1%} the same" if both else ""
    unreadable = f" {seen.unreadable:,} more could not be read; the first: {seen.first_unreadable}." if seen.unreadable else ""
    parts += [
        html_page.heading("Types of figures, by their captions and by their pictures"),
        html_page.paragraph(
            f"{seen.model} saw {seen.pairs.total():,} pictures and said which of the types' sentences fits best.{unreadable} "
            f"Of {both:,} pictures caption and picture tell one type{share}. Rows: by the caption; columns: by the picture."
        ),
    ]
    columns = list(seen.by_picture())
    rows = [
        [told, f"{sum(found.values()):,}", *(f"{found[name]:,}" if name in found else "" for name in columns)]
        for told, found in seen.by_words().items()
    ]
    rows.append(["all", f"{seen.pairs.total():,}", *(f"{n:,}" for n in seen.by_picture().values())])
    return [*parts, html_page.table(["", "all", *columns], rows)]
