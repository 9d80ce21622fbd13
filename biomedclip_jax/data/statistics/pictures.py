"""Statistics as pictures: histograms, bars and a cloud of words, as PNG; and a contact sheet of some pairs.

The sheet (`write_preview`) is to see that image and caption belong together before training.
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.data.pairs import ImageOf, Pairs
from biomedclip_jax.data.statistics._fonts import fonts_for
from biomedclip_jax.data.statistics._summary import Numbers, Statistics
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_file

_BLUE, _ORANGE, _GRAY = "#2f6690", "#d1603d", "#555555"
_DPI = 120
_SHOWN = 32  # bars at most; the rest is summed up
_COLUMNS = 4  # of the contact sheet
_CELL = (3.2, 3.4)  # inches
_LINES, _WIDTH = 6, 58  # of a caption: lines, and characters in each
_SIDE = 512  # longer side of an image on the sheet


def draw(statistics: Statistics, folder: Path) -> dict[str, Path]:
    """Draw what there are numbers for, as PNGs in `folder`; returns title -> file, in the order of the page."""
    figures: dict[str, Any] = {}
    lengths = {unit: numbers for unit, numbers in statistics.caption.items() if statistics.tokens is None or unit != "words"}
    figures["Length of captions"] = _histograms({f"{unit} of a caption": numbers for unit, numbers in lengths.items()})
    if statistics.image:
        figures["Size of images"] = _histograms({f"{side} in pixels": numbers for side, numbers in statistics.image.items()})
    figures["Types of figures, by the words of their captions"] = _bars(statistics.figure_types)
    if statistics.frequent_words and (cloud := _cloud(statistics.frequent_words)):
        figures["Words of captions"] = cloud
    if statistics.articles is not None:
        figures["Articles by year"] = _columns(statistics.articles)
    if statistics.references is not None:
        figures["Paragraphs that mention a figure"] = _histograms({"paragraphs that mention a figure": statistics.references})
    if statistics.licenses is not None:
        figures["Licences of figures"] = _bars(statistics.licenses)
    if statistics.left_out is not None and any(statistics.left_out.values()):
        left_out = {
            f"{kind.removesuffix('s')}: {reason}": n
            for kind, reasons in statistics.left_out.items()
            for reason, n in reasons.items()
        }
        figures["Left out of the build"] = _bars(left_out, shares=False)
    written = {}
    for number, (title, figure) in enumerate(figures.items(), 1):
        name = "-".join(word for word in title.lower().replace(",", "").split()[:3])
        written[title] = folder / f"{number}-{name}.png"
        figure.savefig(written[title], dpi=_DPI, format="png", metadata={"Software": None})
    return written


def _figure(width: float, height: float) -> Any:
    # the object interface needs no display and leaves pyplot's global state alone
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _clean(axis: Any) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.tick_params(labelsize=8, color=_GRAY)


def _histograms(panels: Mapping[str, Numbers]) -> Any:
    """Histograms side by side; dashed lines at the limits, with the share beyond."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    figure = _figure(9.0 if len(panels) > 1 else 5.0, 3.2)
    for axis, (name, numbers) in zip(np.ravel(figure.subplots(1, len(panels))), panels.items(), strict=True):
        step, counts = numbers.histogram.step, numbers.histogram.counts
        left = numbers.histogram.start - 0.5 + step * np.arange(len(counts))
        axis.bar(left, counts, step, align="edge", color=_BLUE, edgecolor="white", linewidth=0.4)
        right = float(left[-1] + step)
        if numbers.max > right:
            axis.bar(left[-1:], counts[-1:], step, align="edge", color=_ORANGE)
            axis.annotate(
                f"and above,\nto {numbers.max:,}", (right, counts[-1]), (0, 6), textcoords="offset points",
                ha="right", va="bottom", fontsize=7, color=_ORANGE,
            )  # fmt: skip
        top = max(counts)
        shown = [limit for limit in numbers.share_over if left[0] < limit < right]
        for level, limit in enumerate(shown):
            axis.axvline(limit + 0.5, color=_GRAY, linestyle="--", linewidth=0.9)
            share = numbers.share_over[limit]
            axis.text(
                limit + 0.5, top * (1.22 - 0.09 * level), f" {share:.1%} over {limit}", fontsize=7.5, color=_GRAY, va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
            )  # fmt: skip
        axis.set_ylim(0, top * (1.3 if shown else 1.08))
        axis.set_xlim(min(0.0, float(left[0])) if left[0] < 0.3 * right else float(left[0]), right + 0.02 * (right - left[0]))
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.set_title(f"{name}: median {numbers.median:,}, mean {numbers.mean:,.0f}", fontsize=9, loc="left")
        _clean(axis)
    return figure


def _bars(counts: Mapping[str, int], *, shares: bool = True) -> Any:
    """Horizontal bars in this order, with numbers, and shares of their sum."""
    entries = [(name, n) for name, n in counts.items() if n]
    total = sum(n for _, n in entries)
    if len(entries) > _SHOWN:
        rest = entries[_SHOWN - 1 :]
        entries = [*entries[: _SHOWN - 1], (f"{len(rest)} others", sum(n for _, n in rest))]
    figure = _figure(7.0, 0.7 + 0.26 * max(len(entries), 2))
    axis = figure.subplots()
    names, values = [name for name, _ in entries], [n for _, n in entries]
    drawn = axis.barh(range(len(entries)), values, 0.72, color=_BLUE)
    axis.set_yticks(range(len(entries)), names, fontsize=8.5, parse_math=False)
    axis.bar_label(drawn, [f" {n:,}  ({n / total:.1%})" if shares else f" {n:,}" for n in values], fontsize=8, color=_GRAY)
    axis.set_ylim(len(entries) - 0.4, -0.6)
    axis.set_xlim(0, max(values) * 1.2)
    axis.xaxis.set_visible(False)
    _clean(axis)
    axis.spines["bottom"].set_visible(False)
    return figure


def _columns(counts: Mapping[str, int]) -> Any:
    """A column a year, gaps included; what has no year stands at the right."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    years = [int(year) for year in counts if year.isdecimal()]
    names = [str(year) for year in range(min(years), max(years) + 1)] if years else []
    names += [name for name in counts if not name.isdecimal()]
    figure = _figure(min(9.0, max(4.0, 1.0 + 0.45 * len(names))), 3.0)
    axis = figure.subplots()
    drawn = axis.bar(range(len(names)), [counts.get(name, 0) for name in names], 0.75, color=_BLUE)
    every = -(-len(names) // 16)
    axis.set_xticks(range(0, len(names), every), names[::every])
    if len(names) <= 16:
        axis.bar_label(drawn, [f"{counts[name]:,}" if name in counts else "" for name in names], fontsize=8, color=_GRAY)
    axis.set_xlim(-0.8, len(names) - 0.2)
    axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _clean(axis)
    return figure


def _cloud(words: Mapping[str, int]) -> Any:
    """None without the package `wordcloud`."""
    try:
        from wordcloud import WordCloud
    except ImportError:
        return None
    fonts = fonts_for(words)
    if len(fonts.families) > 2:  # a cloud has one font: the base alone, without the words that it lacks
        fonts = fonts_for(words, [])
    words = {word: n for word, n in words.items() if fonts.fit(word) == word}
    if not words:
        return None
    cloud = WordCloud(
        font_path=str(fonts.path),
        width=1400,
        height=640,
        background_color="white",
        colormap="viridis",
        random_state=0,
        prefer_horizontal=1.0,
        margin=4,
    )
    figure = _figure(9.0, 4.2)
    axis = figure.subplots()
    axis.imshow(cloud.generate_from_frequencies(dict(words)).to_array())
    axis.axis("off")
    return figure


def write_preview(pairs: Pairs, path: Path, count: int = 16, seed: int = 0) -> list[int]:
    """Draw `count` pairs at random, and write them to `path` (.png); returns their positions.

    The same seed gives the same file. A pair that cannot be read is shown as the reason for it. UserError for a path
    that does not end in .png or cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"--out {path}: expected a name that ends in .png")
    from matplotlib.figure import Figure

    chosen = np.sort(np.random.default_rng(seed).permutation(len(pairs))[:count]).tolist()
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(_CELL[0] * columns, _CELL[1] * rows), dpi=100, layout="constrained")
    for cell, index in enumerate(chosen, 1):
        axes = figure.add_subplot(rows, columns, cell)
        axes.axis("off")
        axes.set_anchor("NW")  # pictures of any shape begin where their captions do
        try:
            image = ImageOf(pairs, index).load()
            texts = pairs.texts(index)
        except UserError as error:
            axes.text(
                0.5, 0.5, _wrapped(str(error), 12), ha="center", va="center", fontsize=7, color="firebrick", parse_math=False
            )
            axes.set_title(f"{index + 1}: cannot be used", fontsize=7, color="firebrick")
            continue
        image.thumbnail((_SIDE, _SIDE))
        axes.imshow(np.asarray(image.convert("RGB")))
        more = len(texts.captions) - 1
        caption = texts.captions[0] + (f" (+ {more} more)" if more else "") + (f" [{texts.label}]" if texts.label else "")
        title = _wrapped(f"{index + 1}: {caption}", _LINES)
        fonts = fonts_for([title])
        axes.set_title(fonts.fit(title), fontsize=7, loc="left", parse_math=False, fontfamily=fonts.families)
    write_file(path, lambda partial: figure.savefig(partial, format="png", metadata={"Software": None}))
    return chosen


def _wrapped(text: str, lines: int) -> str:
    return "\n".join(textwrap.wrap(text, _WIDTH, max_lines=lines, placeholder=" ..."))
