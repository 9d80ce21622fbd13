"""What papers report on medical visual question answering, in percent: Zhang et al. 2023 (BiomedCLIP), figure 4."""

from collections.abc import Mapping, Sequence

_NAMES = ("accuracy_open", "accuracy_closed", "accuracy", "token_f1")
_ROWS: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "vqa-rad": {
        "MAML (QCR)": (56.0, 77.9, 69.2),
        "CLIP (QCR)": (59.9, 79.4, 71.3),
        "PubMedCLIP (QCR)": (60.1, 80.0, 72.1),
        "BiomedCLIP (METER)": (67.0, 76.5, 72.7, 73.13),
    },
    "slake": {
        "MAML (QCR)": (76.8, 80.6, 78.3),
        "CLIP (QCR)": (78.6, 81.0, 79.5),
        "PubMedCLIP (QCR)": (78.4, 82.5, 80.1),
        "BiomedCLIP (METER)": (84.3, 88.9, 86.1, 88.6),
    },
}


def published_answers(dataset: str) -> Sequence[tuple[str, Mapping[str, float]]]:
    """The rows of papers for a data set: whose, and its metrics as fractions; none for data that papers do not know."""
    return [
        (f"paper: {whose}", {name: value / 100 for name, value in zip(_NAMES, values, strict=False)})
        for whose, values in _ROWS.get(dataset, {}).items()
    ]
