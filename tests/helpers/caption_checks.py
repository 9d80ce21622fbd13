"""What holds for the parts of any caption, of written articles and of real ones."""

import random
import re
from collections.abc import Iterable

from biomedclip_jax.data.pmc.panels._caption_parts import pieces_of


def _cut_up(caption: str, seed: int) -> str:
    """Pieces of a caption in disorder: markers where no author would put them."""
    draw = random.Random(seed)
    words = caption.split(" ")
    start = draw.randrange(len(words))
    extra = draw.choice(["(A)", "(b, c)", "B:", "(A–D)", "and (C)", ". a ", "Left:", "((", "[A"])  # noqa: RUF001
    return " ".join([*words[start:], extra, *words[: draw.randrange(len(words))]])


def assert_no_character_is_lost(captions: Iterable[str], seed: int) -> None:
    """Every character is in one piece, or in a marker between two. seed: 0 for the captions as they are, else cut up."""
    for caption in captions:
        text = caption if seed == 0 else _cut_up(caption, seed)
        position = 0
        for piece in pieces_of(text):
            between = text[position : piece.start]
            assert piece.start >= position and (not between or len(re.sub(r"\W|and|[Pp]anels?", "", between)) <= 12), between
            position = max(position, piece.end)
        assert position == len(text)
