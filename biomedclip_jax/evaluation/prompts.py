"""What a class is called in words: the sentences whose embeddings stand for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from biomedclip_jax.errors import UserError

Aggregation = Literal["mean", "max", "single"]


@dataclass(frozen=True)
class Prompts:
    """sentences[j]: those of class j, in the order of the data set's classes; at least one for each."""

    sentences: tuple[tuple[str, ...], ...]

    @staticmethod
    def from_templates(classes: Sequence[str], templates: Sequence[str]) -> "Prompts":
        """Each template filled in with each class. UserError for a template without {}."""
        for template in templates:
            if "{}" not in template:
                raise UserError(f"template {template!r}: expected {{}} where the class goes, as in 'a photo of {{}}'")
        return Prompts(tuple(tuple(template.replace("{}", name) for template in templates) for name in classes))

    @property
    def flat(self) -> list[str]:
        """All sentences, class by class."""
        return [sentence for own in self.sentences for sentence in own]

    def by_class(self) -> list[slice]:
        """Where the sentences of each class are in `flat`."""
        ends = [0]
        for own in self.sentences:
            ends.append(ends[-1] + len(own))
        return [slice(a, b) for a, b in pairwise(ends)]
