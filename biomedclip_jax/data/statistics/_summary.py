"""From counts to statistics: means, quantiles, histograms and the most frequent words."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biomedclip_jax.data.pmc.figure_types import MIXED, UNKNOWN, all_types
from biomedclip_jax.data.statistics._counts import Counts
from biomedclip_jax.data.statistics.captioned import TypesSeen

LIMITS = (77, 256, 512)  # tokens: CLIP's context, BiomedCLIP's, BERT's positions
SIDES = (224, 336, 512)  # pixels
_WORDS = 200  # that are kept for the cloud
_BINS = 60
_STOP_WORDS = Path(__file__).with_name("stop_words.txt")  # of English, and of captions


@dataclass(frozen=True)
class Histogram:
    """Equal bins: `counts[i]` values are from start + i * step on; the last bin holds all above, too."""

    start: int
    step: int
    counts: list[int]


@dataclass(frozen=True)
class Numbers:
    """How some whole numbers are distributed. share_over: for some limits the share of the numbers above."""

    mean: float
    min: int
    median: float
    p90: int
    p99: int
    max: int
    histogram: Histogram  # to the 99.5th percentile
    share_over: dict[int, float] = field(default_factory=dict)

    @staticmethod
    def of(values: Counter[int], limits: tuple[int, ...] = ()) -> "Numbers":
        """The distribution of values, each with how often it occurs; there must be one at least."""
        total = values.total()
        return Numbers(
            mean=round(sum(value * n for value, n in values.items()) / total, 2),
            min=min(values),
            median=_median(values),
            p90=_quantile(values, 0.9),
            p99=_quantile(values, 0.99),
            max=_quantile(values, 1.0),
            histogram=_histogram(values),
            share_over={limit: _share_over(values, limit) for limit in limits},
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON object of the numbers."""
        plain = vars(self) | {"histogram": vars(self.histogram)}
        shares = plain.pop("share_over")
        return plain | ({"share over": {str(limit): share for limit, share in shares.items()}} if shares else {})


@dataclass(frozen=True)
class Statistics:
    """What a data set holds. Of whole pictures, except `pairs` and `panels`; None where the source says nothing of it."""

    source: str
    pairs: dict[str, int]  # of each split, panels included
    panels: int
    characters: Numbers  # of a caption, as words and tokens are
    words: Numbers
    tokens: Numbers | None
    tokenizer: str  # the name of the folder of the tokenizer
    width: Numbers | None  # of images, in pixels
    height: Numbers | None
    figure_types: dict[str, int]  # by the words of captions
    in_mixed_figures: dict[str, int]  # types in figures of several, which are "mixed" above
    references: Numbers | None  # paragraphs that mention a figure
    licenses: dict[str, int] | None
    articles: dict[str, int] | None  # by year, or "unknown"
    in_sub_articles: int | None
    captions_read: int  # for the frequent words
    articles_read: int  # that these are of; as many as captions where the source has no articles
    frequent_words: dict[str, int]  # in how many of them each is
    left_out: dict[str, dict[str, int]] | None = None  # of a build: reasons for "articles" and "pictures"
    types_seen: TypesSeen | None = None  # by a model's look at the pictures

    @property
    def caption(self) -> dict[str, Numbers]:
        """The lengths of captions, by unit."""
        numbers = {"characters": self.characters, "words": self.words}
        return numbers if self.tokens is None else {**numbers, "tokens": self.tokens}

    @property
    def image(self) -> dict[str, Numbers]:
        """The sizes of images by side; empty where they are unknown."""
        sides = {"width": self.width, "height": self.height}
        return {side: numbers for side, numbers in sides.items() if numbers is not None}

    def to_json(self) -> dict[str, Any]:
        """What `statistics.json` holds; a part is missing where the source says nothing of it."""
        caption = {unit: numbers.to_json() for unit, numbers in self.caption.items()}
        if self.tokens is not None:
            caption["tokens"]["tokenizer"] = self.tokenizer
        image = {side: numbers.to_json() for side, numbers in self.image.items()}
        articles = None if self.articles is None else {"all": sum(self.articles.values()), "by year": self.articles}
        parts = {
            "source": self.source,
            "pairs": {"all": sum(self.pairs.values()), **self.pairs} if self.has_splits else self.pairs,
            "of which panels": self.panels,
            "caption": caption,
            "image": image or None,
            "figure types": self.figure_types,
            "in mixed figures": self.in_mixed_figures,
            "figure types by picture": None if self.types_seen is None else self.types_seen.to_json(),
            "references of a figure": None if self.references is None else self.references.to_json(),
            "licenses": self.licenses,
            "articles": articles,
            "in sub-articles": self.in_sub_articles,
            "words": {
                "captions read": self.captions_read,
                "articles read": self.articles_read,
                "most frequent": self.frequent_words,
            },
            "left out": self.left_out,
        }
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def has_splits(self) -> bool:
        """Whether the source has splits; the pairs of one without are those of "all"."""
        return set(self.pairs) != {"all"}


def summarize(
    counts: Counts, source: str, tokenizer: Path | None, left_out: dict[str, dict[str, int]] | None = None
) -> Statistics:
    """The statistics of some counts, of which there must be one pair at least."""
    names = [*(entry.name for entry in all_types() if entry.in_captions), MIXED, UNKNOWN]
    names.sort(key=lambda name: -counts.types[name])
    articles = None
    if counts.articles.total() and (set(counts.articles) != {0} or counts.licenses):
        articles = {str(year) if year else "unknown": n for year, n in sorted(counts.articles.items())}
    return Statistics(
        source=source,
        pairs=dict(sorted(counts.pairs.items())),
        panels=counts.panels.total(),
        characters=Numbers.of(counts.characters),
        words=Numbers.of(counts.words),
        tokens=Numbers.of(counts.tokens, LIMITS) if counts.tokens else None,
        tokenizer=tokenizer.name if tokenizer else "",
        width=Numbers.of(counts.widths, SIDES) if counts.widths else None,
        height=Numbers.of(counts.heights, SIDES) if counts.heights else None,
        figure_types={name: counts.types[name] for name in names},
        in_mixed_figures=dict(counts.in_mixed.most_common()),
        references=Numbers.of(counts.references) if counts.references else None,
        licenses=dict(counts.licenses.most_common()) if counts.licenses else None,
        articles=articles,
        in_sub_articles=counts.in_sub_articles[True] if counts.in_sub_articles else None,
        captions_read=counts.sampled[True],
        articles_read=counts.sources[True],
        frequent_words=_frequent(counts.vocabulary),
        left_out=left_out,
    )


def _histogram(values: Counter[int]) -> Histogram:
    high = _quantile(values, 0.995)
    span = high - min(values) + 1
    step = 1 if span <= _BINS / 2 else _round_up(span / min(_BINS, max(8, 2 * round(values.total() ** 0.5))))
    low = min(values) // step * step
    bins = [0] * ((high - low) // step + 1)
    for value, n in values.items():
        bins[min((value - low) // step, len(bins) - 1)] += n
    return Histogram(low, step, bins)


def _round_up(width: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50 ..."""
    power = 10 ** max(0, len(str(int(width))) - 1)
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width)


def _median(values: Counter[int]) -> float:
    """The value in the middle; of an even number of values the mean of the two in the middle, whole where that is whole."""
    below, above = _quantile(values, 0.5), -_quantile(Counter({-value: n for value, n in values.items()}), 0.5)
    return below if below == above else (below + above) // 2 if (below + above) % 2 == 0 else (below + above) / 2


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
