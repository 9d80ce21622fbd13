"""Images that may have several findings at once: the contract between their readers and the tasks that need them.

A label is one of four: the finding is present, absent, uncertain (CheXpert's -1), or nothing is said of it. A `Policy`
says what the last two count as; `MultiLabelled.answers` is what is left to measure against.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from biomedclip_jax.data.images.load import ImageSource
from biomedclip_jax.data.pairs import Reject, fingerprint

PRESENT, ABSENT, UNCERTAIN, NOTHING_SAID = 1, 0, -1, -2
NOT_COUNTED = -1  # in `answers`

Uncertain = Literal["ignore", "positive", "negative"]
Empty = Literal["ignore", "negative"]


@dataclass(frozen=True)
class Policy:
    """What a label counts as that is neither present nor absent.

    uncertain: of -1; "ignore" leaves the image out of this finding's numbers, and of no other's. empty: of a cell with
    nothing in it.
    """

    uncertain: Uncertain = "ignore"
    empty: Empty = "ignore"

    def answers(self, labels: np.ndarray) -> np.ndarray:
        """1 present, 0 absent, `NOT_COUNTED` left out; int8 of the shape of the labels."""
        found = labels.copy()
        found[labels == UNCERTAIN] = {"ignore": NOT_COUNTED, "positive": PRESENT, "negative": ABSENT}[self.uncertain]
        found[labels == NOTHING_SAID] = {"ignore": NOT_COUNTED, "negative": ABSENT}[self.empty]
        return found


@dataclass(frozen=True, eq=False)
class MultiLabelled:
    """n images, of each of which F findings are known.

    name: of the data, for messages and tables. findings: F names as the data have them.
    images: decoded only when asked for. names: what messages call each image.
    labels: int8 [n, F]; PRESENT, ABSENT, UNCERTAIN or NOTHING_SAID. policy: what the last two count as.
    fingerprint: changes when an image, or their order, does.
    rejects, whole, caveats, groups, grouped_by: as of `Labelled`.
    """

    name: str
    findings: tuple[str, ...]
    images: Sequence[ImageSource]
    names: Sequence[str]
    labels: np.ndarray
    fingerprint: str
    policy: Policy = Policy()
    rejects: tuple[Reject, ...] = ()
    whole: int | None = None
    caveats: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    grouped_by: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def answers(self) -> np.ndarray:
        """What each label counts as under the policy: int8 [n, F], 1, 0 or `NOT_COUNTED`."""
        return self.policy.answers(self.labels)

    @property
    def policy_said(self) -> list[str]:
        """How many labels the policy decided, in words, for beside every number; [] where it decided none."""
        counts = int((self.labels == UNCERTAIN).sum()), int((self.labels == NOTHING_SAID).sum())
        kinds = (("uncertain labels", self.policy.uncertain), ("empty labels", self.policy.empty))
        return [
            f"{count:,} of {self.labels.size:,} are {kind}, {'left out' if policy == 'ignore' else f'counted as {policy}'}"
            for count, (kind, policy) in zip(counts, kinds, strict=True)
            if count
        ]

    def subset(self, positions: np.ndarray) -> "MultiLabelled":
        """The images at these positions (int [m]), in this order; without rejects, caveats and the whole's number."""
        chosen = [int(i) for i in positions]
        return replace(
            self,
            images=[self.images[i] for i in chosen],
            names=[self.names[i] for i in chosen],
            labels=self.labels[chosen],
            fingerprint=fingerprint([self.fingerprint, *map(str, chosen)]),
            rejects=(),
            whole=None,
            caveats=(),
            groups=None if self.groups is None else tuple(self.groups[i] for i in chosen),
        )


def answers_fingerprint(data: MultiLabelled) -> str:
    """A hash that changes when an image, an answer, the findings or the order of one of these does."""
    return fingerprint([data.fingerprint, *data.findings, data.answers.tobytes().hex()])
