"""What papers report, for the tables: beside each result of ours the numbers of others on the same data."""

from collections.abc import Mapping, Sequence

from biomedclip_jax.evaluation.benchmarks import benchmarks

_RETRIEVAL_ON = "paper: {}, PMC-15M test, 725,739 pairs"
# Recall at 1, 5, 10, image to text, then text to image: labels of figure 2A of arXiv 2303.00915v3 (its text has v1's numbers).
_RETRIEVAL = {
    "BiomedCLIP": (0.7010, 0.8640, 0.9020, 0.6960, 0.8630, 0.9020),
    "OpenAI CLIP": (0.0791, 0.1550, 0.1950, 0.0848, 0.1620, 0.2010),
    "PubMedCLIP": (0.0079, 0.0213, 0.0308, 0.0100, 0.0251, 0.0359),
}


def published(task: str, dataset: str) -> Sequence[tuple[str, Mapping[str, float]]]:
    """Rows for a table: whose and where, and metrics by name as fractions.

    Of retrieval always those of the paper's own test set, which nobody else has: a smaller set is easier.
    """
    if task == "retrieval":
        names = [f"{way}_recall_at_{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
        return [(_RETRIEVAL_ON.format(whose), dict(zip(names, values, strict=True))) for whose, values in _RETRIEVAL.items()]
    known = benchmarks().get(dataset)
    rows = []
    for value in known.paper if known is not None else ():
        if value.task == task:
            about = [value.source, value.setting, "read off a bar" if value.approximate else ""]
            rows.append((f"paper: {value.model} ({', '.join(filter(None, about))})", {value.metric: value.value}))
    return rows
