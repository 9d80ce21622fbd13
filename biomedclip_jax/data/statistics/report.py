"""What a data set holds (the paper's Figures 3 to 5): `statistics.json`, pictures, and one page with all of it.

Lengths of captions, sizes of images, types of figures by keyword, words, licences, articles by year, in-text references, what a
build left out.

Statistics as one HTML page that holds its pictures and needs nothing else.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biomedclip_jax.data.pmc.figure_types import UNKNOWN, all_types
from biomedclip_jax.data.statistics.counts import Counts, count, parts_of
from biomedclip_jax.data.statistics.pictures import draw
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_folder
from biomedclip_jax.support import html as html_page

LIMITS = (77, 256, 512)  # tokens: CLIP's context, BiomedCLIP's, BERT's positions
SIDES = (224, 336, 512)  # pixels
_WORDS = 200  # that are kept for the cloud
_BINS = 60
_STOP_WORDS = Path(__file__).with_name("stop_words.txt")  # of English, and of captions


def write_statistics(
    source: str,
    out: Path,
    tokenizer: Path | None = None,
    workers: int = 1,
    columns: tuple[str, str] = ("image", "caption"),
) -> dict[str, Any]:
    """Count a build, or another source of pairs, and write `statistics.json`, PNGs and `index.html` to the folder `out`.

    tokenizer: a folder with the tokenizer by which tokens are counted; without it only words are. columns: of image and
    caption, in sources that are no builds. Statistics that were in `out` go. The same data give the same files. Raises
    UserError for a source that cannot be read and a folder that cannot be written.
    """
    taken = out.is_dir() and any(out.iterdir()) and not (out / "statistics.json").is_file()
    if taken or out.is_file():
        raise UserError(f"{out}: holds something else than statistics; choose another folder")
    counts = count(parts_of(source, columns), tokenizer, workers)
    if not counts.pairs:
        raise UserError(f"{source}: no pairs here")
    statistics = summarize(counts, source, tokenizer)
    summary = Path(source) / "summary.json"
    if summary.is_file():
        try:
            statistics["left out"] = _left_out(json.loads(summary.read_text(encoding="utf-8")))
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{summary}: not the summary of a build; build again, or remove it") from error

    def write(folder: Path) -> None:
        text = json.dumps(statistics, indent=1, ensure_ascii=False)
        (folder / "statistics.json").write_text(f"{text}\n", encoding="utf-8")
        pictures = draw(statistics, folder)
        write_page(statistics, pictures, folder / "index.html")

    write_folder(out, write, replace=True)
    return statistics


def summarize(counts: Counts, source: str, tokenizer: Path | None) -> dict[str, Any]:
    """Everything that `statistics.json` holds; plain values. A part is missing where the source says nothing of it."""
    statistics: dict[str, Any] = {
        "source": source,
        "pairs": {"all": counts.pairs.total(), **dict(sorted(counts.pairs.items()))},
        "of which panels": counts.panels.total(),
        "caption": {"characters": _numbers(counts.characters), "words": _numbers(counts.words)},
    }
    if counts.tokens:
        tokens = _numbers(counts.tokens)
        tokens["share over"] = {str(limit): _share_over(counts.tokens, limit) for limit in LIMITS}
        statistics["caption"]["tokens"] = tokens | {"tokenizer": tokenizer.name if tokenizer else ""}
    if counts.widths:
        statistics["image"] = {
            name: _numbers(values) | {"share over": {str(side): _share_over(values, side) for side in SIDES}}
            for name, values in (("width", counts.widths), ("height", counts.heights))
        }
    names = [entry.name for entry in all_types()] + [UNKNOWN]
    names.sort(key=lambda name: -counts.types[name])
    statistics["figure types"] = {name: counts.types[name] for name in names}
    others = counts.types.keys() - set(names)
    statistics["figure types"] |= {name: counts.types[name] for name in sorted(others)}
    if counts.references:
        statistics["references of a figure"] = _numbers(counts.references)
    if counts.licenses:
        statistics["licenses"] = dict(counts.licenses.most_common())
    if counts.articles.total() and (set(counts.articles) != {0} or counts.licenses):
        years = {str(year) if year else "unknown": n for year, n in sorted(counts.articles.items())}
        statistics["articles"] = {"all": counts.articles.total(), "by year": years}
    if counts.in_sub_articles:
        statistics["in sub-articles"] = counts.in_sub_articles[True]
    statistics["words"] = {"captions read": counts.sampled[True], "most frequent": _frequent(counts.vocabulary)}
    return statistics


def _numbers(values: Counter[int]) -> dict[str, Any]:
    """Mean and quantiles, and a histogram to the 99.5th percentile: equal bins, the last of them holds all above."""
    total = values.total()
    quantiles = {name: _quantile(values, q) for name, q in (("median", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))}
    high = _quantile(values, 0.995)
    span = high - min(values) + 1
    step = 1 if span <= _BINS / 2 else _round_up(span / min(_BINS, max(8, 2 * round(total**0.5))))
    low = min(values) // step * step
    bins = [0] * ((high - low) // step + 1)
    for value, n in values.items():
        bins[min((value - low) // step, len(bins) - 1)] += n
    mean = round(sum(value * n for value, n in values.items()) / total, 2)
    return {"mean": mean, "min": min(values), **quantiles, "histogram": {"start": low, "step": step, "counts": bins}}


def _round_up(width: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50 ..."""
    power = 10 ** max(0, len(str(int(width))) - 1)
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width)


def _quantile(values: Counter[int], q: float) -> int:
    """The smallest value that at least this share does not exceed."""
    needed, seen = q * values.total(), 0
    for value in sorted(values):
        seen += values[value]
        if seen >= needed:
            return value
    return max(values)


def _share_over(values: Counter[int], limit: int) -> float:
    return round(sum(n for value, n in values.items() if value > limit) / values.total(), 4)


def _frequent(vocabulary: Counter[str]) -> dict[str, int]:
    """The most frequent words but function words; plurals go to their singulars."""
    joined: Counter[str] = Counter()
    for word, n in vocabulary.items():
        singular = word[:-1]
        joined[singular if word.endswith("s") and vocabulary.get(singular, 0) * 10 >= n else word] += n
    stop_words = frozenset(_STOP_WORDS.read_text(encoding="utf-8").split())
    kept = ((word, n) for word, n in joined.items() if word not in stop_words)
    return dict(sorted(kept, key=lambda entry: (-entry[1], entry[0]))[:_WORDS])


def _left_out(summary: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Reasons of a build's `summary.json`, most frequent first."""
    found = {}
    for kind in ("articles", "pictures"):
        rejected = {reason: int(n) for reason, n in summary[kind]["rejected"].items()}
        found[kind] = dict(sorted(rejected.items(), key=lambda entry: -entry[1]))
    return found


def write_page(statistics: Mapping[str, Any], pictures: Mapping[str, Path], path: Path) -> None:
    """pictures: title -> PNG."""
    parts = [*_overview(statistics), *_lengths(statistics)]
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


def _lengths(statistics: Mapping[str, Any]) -> list[str]:
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
