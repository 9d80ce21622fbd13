"""Says which texts a model does not see as they were written: cut at its context, or in signs that it does not know."""

import sys
from collections.abc import Sequence

from biomedclip_jax.data.text import TokenMaker

_NAMED = 5  # in one line; the rest are counted
_SHOWN = 60  # characters of a text


def unread_lines(tokenizer: TokenMaker, texts: Sequence[str], names: Sequence[str] | None = None) -> list[str]:
    """A line for texts that are cut, and one for texts that are mostly unknown signs; [] where all are read as they are.

    names: what each text is called in the line; by default its own first words.
    """
    found = tokenizer.unread(texts)
    kinds = (
        (found.cut, f"longer than the {tokenizer.context_length} tokens that the model reads; the rest of them is not seen"),
        (found.unknown, "mostly in signs that the model's tokenizer does not know"),
    )
    lines = []
    for positions, what in kinds:
        if positions:
            named = [names[i] if names else _shortened(texts[i]) for i in positions[:_NAMED]]
            more = f" and {len(positions) - _NAMED:,} more" if len(positions) > _NAMED else ""
            verb = "is" if len(positions) == 1 else "are"
            lines.append(f"{len(positions):,} of {len(texts):,} {verb} {what}: {', '.join(named)}{more}")
    return lines


def say_unread(source: str, lines: Sequence[str]) -> None:
    """Print lines of `unread_lines` on stderr. source: what the texts are."""
    for line in lines:
        print(f"{source}: {line}", file=sys.stderr)


def _shortened(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
