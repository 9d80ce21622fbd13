"""The findings of one row to look at: AUROC of each with its interval, the best first."""

from pathlib import Path

from biomedclip_jax.evaluation.report.drawing import new_figure, picture_file, save, words
from biomedclip_jax.evaluation.report.results import Result


def draw_findings(folder: Path, row: Result) -> dict[str, str]:
    """Draw the AUROC of each finding of a row as a PNG in `folder`; findings without one are not drawn.

    Returns the title of the file.
    """
    numbers = {name: each for name, each in row.details["per_finding"].items() if "auroc" in each}
    order = sorted(numbers, key=lambda name: numbers[name]["auroc"])
    file = picture_file("multi-label", row.dataset, row.who, row.id)
    figure = new_figure(7.5, 1.6 + 0.3 * len(order), layout="constrained")
    axis = figure.subplots()
    for position, name in enumerate(order):
        own = numbers[name]
        if "auroc" in own.get("intervals", {}):
            axis.plot(own["intervals"]["auroc"], [position, position], color="C0", linewidth=2)
        axis.plot(own["auroc"], position, "o", color="C0", markerfacecolor="C0" if "intervals" in own else "white")
    axis.axvline(0.5, color="grey", linestyle="--", linewidth=1)
    axis.axvline(row.metrics["mean_auroc"], color="C1", linewidth=1, label=f"mean {row.metrics['mean_auroc']:.3f}")
    labels = [f"{words(name, 34, 1)} ({numbers[name]['positive']:,})" for name in order]
    axis.set_yticks(range(len(order)), labels, fontsize=8, parse_math=False)
    axis.set_ylim(-0.6, len(order) - 0.4)
    axis.set_xlabel("AUROC with its 95 % interval (hollow: too few images for one)\nin brackets: images with the finding")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3, axis="x")
    figure.suptitle(words(f"{row.dataset}: {row.who}", 80, 2), fontsize=11, parse_math=False)
    save(figure, folder / file)
    return {file: f"{row.dataset}: {row.who}, findings"}
