"""What the details of a result say of data that are not all there, or not those that others measured on."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from biomedclip_jax.data.labelled.multi_label import MultiLabelled
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.evaluation._evaluation import left_out

_NAMED = 1_000  # images of one reason that are named; of a data set's tables hundreds of thousands may be left out


def completeness(data: Labelled | MultiLabelled, measured: int, errors: dict[int, str], of: str = "images") -> dict[str, Any]:
    """`left_out` and `caveats` of a result on `measured` images of the data; neither where all are there.

    of: what the images are called, "training images". errors: why images cannot be read, by position. `left_out` names
    images, and of one reason with very many the first ones; a last entry then has the `count` of the others.
    """
    found = {
        "left_out": _shortened(left_out(data.rejects, errors, data.names.__getitem__)),
        "caveats": [*_missing_of_benchmark(data.whole, measured, of), *data.caveats],
    }
    return {name: value for name, value in found.items() if value}


def total(data: Labelled | MultiLabelled) -> int:
    """How many images there are, measured or left out: as many as the benchmark has, where that is known."""
    return len(data) + len(data.rejects) if data.whole is None else data.whole


def _missing_of_benchmark(whole: int | None, measured: int, of: str) -> list[str]:
    """What to say where a known benchmark has another number of images than were measured."""
    if whole is None or whole == measured:
        return []
    if measured < whole:
        return [f"{measured:,} of the benchmark's {whole:,} {of}: not its number"]
    return [f"{measured:,} {of} where the benchmark has {whole:,}: not its number"]


def _shortened(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    counts = Counter(each["reason"] for each in entries)
    named: Counter[str] = Counter()
    kept = []
    for each in entries:
        named[each["reason"]] += 1
        if counts[each["reason"]] <= _NAMED or named[each["reason"]] < _NAMED:
            kept.append(each)
    more = {reason: count - _NAMED + 1 for reason, count in counts.items() if count > _NAMED}
    return kept + [{"image": f"and {count:,} more", "reason": reason, "count": count} for reason, count in more.items()]
