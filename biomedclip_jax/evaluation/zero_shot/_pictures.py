"""What a classifier does, to look at: its confusion matrix, its calibration and its most confident mistakes, as PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.evaluation._metrics import BINS, Calibration, confusion_counts, softmax
from biomedclip_jax.evaluation.report.drawing import new_figure, picture_file, save, small, words

_MISTAKES = 12
_WITH_NUMBERS = 20  # classes; of more the cells are too many to read


@dataclass(frozen=True, eq=False)
class Answers:
    """What a classifier answers for the n images of `data`, as logits, float64 [n, C]."""

    data: Labelled
    logits: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The class index of each answer, int64 [n]."""
        return self.logits.argmax(axis=1)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """The softmax of the logits, float64 [n, C]."""
        return softmax(self.logits)


def draw(folder: Path, dataset: str, model: str, answers: Answers, row: str) -> dict[str, str]:
    """Write the pictures of one model into `folder`: the title of each file. Without mistakes there is no picture of them.

    row: `Result.id`, in the names of the files: another row has pictures of its own.
    """
    title = f"{dataset}: {model}"
    labels, classes = answers.data.labels, answers.data.classes
    counts = confusion_counts(labels, answers.predicted, len(classes))
    titles = {"confusion": "confusion matrix", "calibration": "reliability diagram", "mistakes": "most confident mistakes"}
    files = {kind: picture_file("zero-shot", dataset, model, kind, row) for kind in titles}
    confusion_matrix(folder / files["confusion"], counts, classes, title)
    reliability_diagram(folder / files["calibration"], Calibration.of(labels, answers.probabilities), title)
    if not confident_mistakes(folder / files["mistakes"], answers, title):
        del titles["mistakes"]
    return {files[kind]: f"{title}, {name}" for kind, name in titles.items()}


def confusion_matrix(path: Path, counts: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Draw counts of answers, int [C, C], rows are true classes.

    A cell's colour, and its second number, is its share of the row.
    """
    size, many = len(classes), len(classes) > _WITH_NUMBERS
    upright = size <= 3  # names below the matrix
    cell = (0.3, 0.3) if many else (1.5, 0.8) if upright else (0.85, 0.62)
    figure = new_figure(4.2 + cell[0] * size, 3.0 + cell[1] * size, layout="constrained")
    axis = figure.subplots()
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    shown = axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if not many:
        for (row, column), count in np.ndenumerate(counts):
            text = f"{count:,}\n{share[row, column]:.0%}" if count else "0"
            colour = "white" if share[row, column] > 0.55 else "black" if count else "silver"
            axis.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    letters = {"fontsize": 7 if many else 9, "parse_math": False}
    axis.set_yticks(range(size), [words(name, 30, 3 if upright else 2) for name in classes], **letters)
    if upright:
        axis.set_xticks(range(size), [words(name, 18, 5) for name in classes], **letters)
    else:
        turned = {"rotation": 90} if many else {"rotation": 50, "ha": "right", "rotation_mode": "anchor"}
        axis.set_xticks(range(size), [words(name, 30, 2) for name in classes], **letters, **turned)
    axis.set_ylabel("true class")
    axis.set_xlabel("answered class")
    figure.colorbar(shown, ax=axis, label="share of the true class", shrink=0.8)
    _title(figure, f"{title} · confusion matrix, {counts.sum():,} images")
    save(figure, path)


def reliability_diagram(path: Path, calibration: Calibration, title: str) -> None:
    """Draw accuracy over confidence, in bins of equal width, above the share of the images in each bin."""
    figure = new_figure(6, 6.8, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    used = calibration.counts > 0
    middle, width = (np.flatnonzero(used) + 0.5) / BINS, 0.94 / BINS
    accuracy, confidence = calibration.accuracy[used], calibration.confidence[used]
    above.bar(middle, accuracy, width, color="lightsteelblue", label="accuracy of the bin")
    gap, bottom = np.abs(accuracy - confidence), np.minimum(accuracy, confidence)
    above.bar(middle, gap, width, bottom, color="none", edgecolor="tab:red", hatch="//", label="gap to its confidence")
    above.plot([0, 1], [0, 1], "--", color="grey", label="perfectly calibrated")
    above.set_ylim(0, 1.02)
    above.set_ylabel("share of right answers")
    above.legend(loc="best", title=f"expected calibration error {calibration.expected_error:.3f}")
    below.bar(middle, calibration.counts[used] / calibration.counts.sum(), width, color="grey")
    below.set_xlim(0, 1)
    below.set_ylabel("share of images")
    below.set_xlabel(f"confidence: probability of the answer ({BINS} bins)")
    for axis in (above, below):
        axis.grid(alpha=0.3)
    _title(figure, f"{title} · calibration, {calibration.counts.sum():,} images")
    save(figure, path)


def confident_mistakes(path: Path, answers: Answers, title: str) -> bool:
    """Draw the wrong answers of the highest probability, most confident first; False, and no file, without a wrong answer."""
    data, labels, classes = answers.data, answers.data.labels, answers.data.classes
    predicted, confidence = answers.predicted, answers.probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    if not len(wrong):
        return False
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]
    columns = min(4, len(worst))
    rows = -(-len(worst) // columns)
    figure = new_figure(max(5.0, 2.9 * columns), 0.5 + 4.1 * rows, layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=(2.8, 1.2) * rows)
    for axis in axes.flat:
        axis.axis("off")
    for k, i in enumerate(map(int, worst)):
        row, column = divmod(k, columns)
        above, below = axes[2 * row][column], axes[2 * row + 1][column]
        above.imshow(small(load_image(data.images[i], data.names[i])))
        above.set_anchor("S")  # on the words below, whatever its shape
        above.set_title(_end(data.names[i], 34), fontsize=7, color="grey", parse_math=False)
        is_ = words(f"is {classes[int(labels[i])]}", 34, 3)
        answered = words(f"answered {classes[int(predicted[i])]}", 34, 3)
        blank = "\n" * (is_.count("\n") + 1)
        style = {"ha": "center", "va": "top", "fontsize": 9, "parse_math": False}
        below.text(0.5, 1, is_, color="tab:green", **style)
        below.text(0.5, 1, f"{blank}{answered}\nwith probability {_probability(confidence[i])}", color="tab:red", **style)
    _title(figure, f"{title} · the most confident of {len(wrong):,} mistakes in {len(labels):,} images")
    save(figure, path)
    return True


def _title(figure: Any, text: str) -> None:
    width = int(figure.get_figwidth() * 11)  # letters of this size that fit
    figure.suptitle(words(text, width, 3), fontsize=11, parse_math=False)


def _end(name: str, letters: int) -> str:
    printable = name.encode("utf-8", "replace").decode()
    return printable if len(printable) <= letters else "..." + printable[3 - letters :]


def _probability(value: float) -> str:
    return f"{value:.3f}" if value < 0.9995 else "above 0.999"
