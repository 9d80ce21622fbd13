"""The picture of learning from few labels: a metric over the number of labels, with the zero-shot line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.evaluation.drawing import new_figure, save

_STYLES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)), (0, (5, 1)), (0, (1, 1)))
_BESIDE = 1.015  # curves stand a little beside each other, or their error bars would lie on one another
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Curve:
    """points: (labels, mean, standard deviation over the seeds), by labels. zero_shot: of the model without labels."""

    model: str
    method: str
    points: tuple[tuple[int, float, float], ...]
    zero_shot: float


def draw_learning_curves(path: Path, dataset: str, metric: str, curves: Sequence[Curve], constant: float | None = None) -> None:
    """A colour for each model, a line style for each method; a dotted line is zero-shot, with no label at all.

    constant: what always answering the most frequent class reaches: in the legend, and a grey line where it is in sight.
    """
    figure = new_figure(8, 5, layout="constrained")
    axis = figure.subplots()
    models, methods = (list(dict.fromkeys(getattr(curve, name) for curve in curves)) for name in ("model", "method"))
    for model in models:
        color = f"C{models.index(model) % 10}"
        own = [curve for curve in curves if curve.model == model]
        axis.axhline(own[0].zero_shot, color=color, linestyle=(0, (1, 2)), linewidth=2, label=f"zero-shot, {model}")
        for curve in own:
            style = methods.index(curve.method) % len(_STYLES)
            labels, mean, spread = zip(*curve.points, strict=True)
            beside = _BESIDE ** (curves.index(curve) - (len(curves) - 1) / 2)
            axis.errorbar(
                [each * beside for each in labels],
                mean,
                yerr=spread,
                color=color,
                linestyle=_STYLES[style],
                marker=_MARKERS[style],
                markersize=5,
                capsize=3,
                label=f"{curve.method}, {model}",
            )
    if constant is not None:
        sight = axis.get_ylim()  # with many classes, a line far below would press all curves together
        axis.axhline(constant, color="0.6", linewidth=1, label=f"always the most frequent class: {constant:.3f}")
        axis.set_ylim(sight)
    places = sorted({point[0] for curve in curves for point in curve.points})
    axis.set_xscale("log")
    axis.set_xlim(places[0] / 1.3, places[-1] * 1.3)
    axis.set_xticks(places, [f"{place:,}" for place in places], rotation=45 if len(places) > 6 else 0)
    axis.set_xticks([], minor=True)
    axis.set_xlabel("labelled images (mean and standard deviation over seeds)")
    axis.set_ylabel(metric.replace("_", " "))
    axis.set_title(dataset, parse_math=False)
    axis.grid(alpha=0.3)
    for text in axis.legend(fontsize=8).get_texts():
        text.set_parse_math(False)
    save(figure, path)
