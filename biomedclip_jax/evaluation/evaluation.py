"""What every task of an evaluation is given beside its data: the models, their embeddings, where results go, and a seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Models measured side by side on one data set.

    candidates: the models. dataset: what tables and pictures call the data. embeddings: makes each embedding once.
    out: the folder of results.json; pictures, learned prompts and reports go into it, too.
    resamples: draws of the bootstrap behind each interval. seed: of these draws, and of the queries that a gallery shows.
    """

    candidates: Sequence[Candidate]
    dataset: str
    embeddings: Embeddings
    out: Path
    resamples: int = 1_000
    seed: int = 0
