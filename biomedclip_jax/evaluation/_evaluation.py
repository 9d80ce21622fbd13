"""What every task of an evaluation is given beside its data, and how tasks leave out what a model cannot read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from biomedclip_jax.data.images.load import ImageSource
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings, ImageEmbeddings
from biomedclip_jax.evaluation.report.results import Measured


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Models measured side by side on one data set.

    candidates: the models. dataset: what tables and pictures call the data. embeddings: makes each embedding once.
    out: the folder of results.json; pictures, learned prompts and reports go into it, too.
    resamples: draws of the bootstrap behind each interval. seed: of these draws, and of the queries that a gallery shows.
    where: the data as the user named them. command: the command line. Both are only written down.
    cut_off: by model, what it does not see of the images; `embed` notes it.
    """

    candidates: Sequence[Candidate]
    dataset: str
    embeddings: Embeddings
    out: Path
    resamples: int = 1_000
    seed: int = 0
    where: str = ""
    command: str = ""
    cut_off: dict[str, str] = field(default_factory=dict)

    def measured(self, candidate: Candidate, data_fingerprint: str, total: int) -> Measured:
        """What a row of this model says of where its numbers are from. total: rows of the data, measured or left out."""
        return Measured(
            model=candidate.source,
            adapter=candidate.adapter,
            model_fingerprint=candidate.fingerprint,
            data=self.where,
            data_fingerprint=data_fingerprint,
            total=total,
            command=self.command,
        ).now()

    def embed(self, images: Sequence[ImageSource], fingerprint: str) -> tuple[list[ImageEmbeddings], dict[int, str]]:
        """The images' embeddings by each candidate, and why some images cannot be read, by position.

        An image that one candidate cannot read counts for none of them; the first such candidate gives the reason.
        fingerprint: of the images, see `Embeddings.images`. UserError if a candidate can read none of them.
        """
        found = [self.embeddings.images(candidate, images, fingerprint) for candidate in self.candidates]
        self.cut_off.update({each.name: own.cut_off for each, own in zip(self.candidates, found, strict=True)})
        return found, {position: reason for each in reversed(found) for position, reason in each.errors.items()}


def left_out(rejects: Sequence[Reject], errors: dict[int, str], name: Callable[[int], str]) -> list[dict[str, str]]:
    """The details of a result that say what was not measured: `image` and `reason` of each.

    rejects: what was left out when the data were opened. errors: why an image cannot be read, by position, and `name` what
    it is called.
    """
    opened = [{"image": reject.image, "reason": reject.reason} for reject in rejects]
    return opened + [{"image": name(position), "reason": errors[position]} for position in sorted(errors)]


def check_finite(candidate: Candidate, rows: np.ndarray, whose: Sequence[str]) -> None:
    """UserError for an embedding that is not finite, which names what it is of."""
    if not np.isfinite(rows).all():
        bad = whose[int((~np.isfinite(rows)).any(axis=1).argmax())]
        raise UserError(f"{candidate.name}: the embedding of {bad!r} is not finite; is the model, or its input, broken?")
