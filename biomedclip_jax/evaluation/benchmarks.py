"""Public benchmarks: `benchmarks.yaml` as objects, their images, and the numbers that papers report on them."""

import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.data.benchmarks import NotOnDisk, check_split
from biomedclip_jax.data.benchmarks.chestmnist import read_chestmnist
from biomedclip_jax.data.benchmarks.chexpert import read_chexpert
from biomedclip_jax.data.benchmarks.chexpert_findings import read_chexpert_findings
from biomedclip_jax.data.benchmarks.embed import read_embed
from biomedclip_jax.data.benchmarks.histology import read_lc25000, read_tcga_til
from biomedclip_jax.data.benchmarks.medmnist import read_medmnist
from biomedclip_jax.data.benchmarks.nih import read_nih
from biomedclip_jax.data.benchmarks.pcam import read_pcam
from biomedclip_jax.data.benchmarks.rsna import read_rsna
from biomedclip_jax.data.labelled.multi_label import Empty, MultiLabelled, Policy, Uncertain
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.vqa.published import published_answers
from biomedclip_jax.prompts.findings import FindingPrompts
from biomedclip_jax.prompts.templates import Prompts, load_yaml, write_prompts

_TABLE = "benchmarks.yaml"
_READERS: dict[str, Callable[..., Labelled]] = {
    "chexpert": read_chexpert,
    "embed": read_embed,
    "lc25000": read_lc25000,
    "medmnist": read_medmnist,
    "pcam": read_pcam,
    "rsna": read_rsna,
    "tcga_til": read_tcga_til,
}
_FINDING_READERS: dict[str, Callable[..., MultiLabelled]] = {
    "chestmnist": read_chestmnist,
    "chexpert_findings": read_chexpert_findings,
    "nih": read_nih,
}


@dataclass(frozen=True)
class PaperValue:
    """A number that a paper reports, as a fraction.

    source: the paper, and its table or figure. setting: what else the number depends on. labels: of few labels, the budget
    as `str(Budget)` has it, "10 %".
    """

    model: str
    task: str
    metric: str
    value: float
    source: str
    setting: str = ""
    approximate: bool = False  # read off a bar
    labels: str = ""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A public data set with its classes, its prompts and what papers report on it: a row of `benchmarks.yaml`.

    classes: phrases, in the order of the labels; of a benchmark whose images may have several findings, these.
    templates: with {} for the class, or for the finding and for "no" and the finding. sentences: of each class, where the
    published prompts are no templates. prompts_source: whose words these are. metric: the published one, a name as in
    results.json. splits: images of each, None where not known. paper: published values. notes: what readers must know.
    fetch, terms: where the files come from, and under which conditions. layout: the files expected in a folder `folder`.
    """

    name: str
    title: str
    reader: str
    folder: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    prompts_source: str
    metric: str
    splits: Mapping[str, int | None]
    fetch: str
    terms: str
    layout: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...] | None = None
    paper: tuple[PaperValue, ...] = ()
    notes: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompts(self) -> Prompts:
        """The published prompts, or those that stand for them (`prompts_source`)."""
        return Prompts(self.sentences) if self.sentences else Prompts.from_templates(self.classes, self.templates)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several findings."""
        return self.reader in _FINDING_READERS

    @property
    def finding_prompts(self) -> FindingPrompts:
        """The sentences for each finding, and for its absence."""
        return FindingPrompts.from_templates(self.classes, self.templates)

    def write_prompts(self, path: Path) -> None:
        """The prompts as a file to edit, for `read_prompts`. UserError if it cannot be written."""
        write_prompts(path, self.classes, self.templates, self.prompts if self.sentences else None)


def benchmark(name: str) -> Benchmark:
    """The benchmark of this name. UserError, which says the nearest name, if there is none."""
    table = benchmarks()
    if name not in table:
        nearest = [known for known in table if known.startswith(name)] or difflib.get_close_matches(name, table, n=1)
        hint = f", did you mean {nearest[0]!r}?" if nearest else ""
        shown = ", ".join(known for known in table if not known.rpartition("-")[2].isdecimal())
        raise UserError(f"{name}: no benchmark of this name{hint}; there are {shown}")
    return table[name]


def load_benchmark(name: str, where: Path, split: str = "test", **options: Any) -> Labelled:
    """The images of a benchmark, decoded only when asked for.

    where: its folder, or one that holds the folders of several (`Benchmark.folder`).
    options: for the reader in data/benchmarks/, instead of those of `benchmarks.yaml`.
    Raises UserError: for missing files one that says what to fetch from where, under which terms, and the layout expected;
    else what is wrong with which file.
    """
    known = benchmark(name)
    if known.multi_label:
        raise UserError(f"{name}: an image may have several findings there; zero-shot and probe measure it")
    with _on_disk(known, where, split) as folder:
        found = _READERS[known.reader](name, folder, split, known.classes, **{**known.options, **options})
        return found if options else replace(found, whole=known.splits[split])


def load_findings(
    name: str, where: Path, split: str = "test", uncertain: Uncertain | None = None, empty: Empty | None = None
) -> MultiLabelled:
    """The images of a benchmark that may have several findings, decoded only when asked for; see `load_benchmark`.

    uncertain, empty: see `Policy`; None: as `benchmarks.yaml` has it.
    """
    known = benchmark(name)
    with _on_disk(known, where, split) as folder:
        options = dict(known.options)
        usual = options.pop("uncertain", "ignore"), options.pop("empty", "ignore")
        policy = Policy(uncertain or usual[0], empty or usual[1])
        found = _FINDING_READERS[known.reader](name, folder, split, policy, **options)
        return replace(found, whole=known.splits[split])


@contextmanager
def _on_disk(known: Benchmark, where: Path, split: str) -> Iterator[Path]:
    """The folder of a benchmark; inside, what is missing on the disk becomes an error that says what to fetch."""
    inside = where / known.folder
    check_split(known.name, split, tuple(known.splits))
    try:
        yield inside if inside.is_dir() else where
    except NotOnDisk as error:
        fetch = f"{known.title} is to be fetched by hand: {known.fetch} (terms: {known.terms})"
        raise UserError(f"{error}. {fetch}; expected in {where} or {inside}: {', '.join(known.layout)}") from None


@cache
def benchmarks() -> Mapping[str, Benchmark]:
    """All benchmarks of `benchmarks.yaml` by name; one that comes in several image sizes is one for each size."""
    source = files("biomedclip_jax.evaluation") / _TABLE
    rows: dict[str, dict[str, Any]] = load_yaml(_TABLE, source.read_text(encoding="utf-8"))
    found: dict[str, Benchmark] = {}
    for name, row in rows.items():
        if name.startswith("."):
            continue
        row = dict(row)
        for size in row.pop("sizes", [None]):
            own = name if size in (None, 28) else f"{name}-{size}"
            found[own] = _row(own, row, size)
    return found


def _row(name: str, row: dict[str, Any], size: int | None) -> Benchmark:
    values: dict[str, Any] = dict(row, name=name, prompts_source=row["prompts"])
    del values["prompts"]
    sample, sentences = values.pop("sample", None), values.get("sentences")
    if sentences is not None:
        values["sentences"] = tuple(_combined(parts, sample) for parts in sentences)
    if size is not None:
        file = {"{flag}": row["options"]["flag"], "{_size}": "" if size == 28 else f"_{size}"}
        values["options"] = {**row["options"], "size": size}
        values["title"] += f", {size} pixels"
        values["fetch"] = _filled(row["fetch"], file)
        values["layout"] = [_filled(line, file) for line in row["layout"]]
    values["paper"] = tuple(PaperValue(**each) for each in values.get("paper", ()))
    for key in ("classes", "templates", "layout"):
        values[key] = tuple(values[key])
    return Benchmark(**values)


def _combined(parts: Sequence[Sequence[str]], sample: int | None) -> tuple[str, ...]:
    """Sentences of each first part with each second and so on; `sample` of them, drawn with seed 0."""
    whole = [" ".join(filter(None, words)) for words in itertools.product(*parts)]
    if sample is None or sample >= len(whole):
        return tuple(whole)
    return tuple(whole[i] for i in np.sort(np.random.default_rng(0).choice(len(whole), sample, replace=False)))


def _filled(text: str, values: Mapping[str, str]) -> str:
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


_RETRIEVAL_ON = "paper: {}, PMC-15M test, 725,739 pairs"
# Recall at 1, 5, 10, image to text, then text to image: labels of figure 2A of arXiv 2303.00915v3 (its text has v1's numbers).
_RETRIEVAL = {
    "BiomedCLIP": (0.7010, 0.8640, 0.9020, 0.6960, 0.8630, 0.9020),
    "OpenAI CLIP": (0.0791, 0.1550, 0.1950, 0.0848, 0.1620, 0.2010),
    "PubMedCLIP": (0.0079, 0.0213, 0.0308, 0.0100, 0.0251, 0.0359),
}


def published(task: str, dataset: str) -> Sequence[tuple[str, Mapping[str, float]]]:
    """What papers report on a data set, as rows of a table: whose number it is, and metrics by name as fractions.

    For retrieval these are always those on the paper's own test set, which was not published: a smaller set is easier.
    For "few-labels" the numbers of a row are accuracies, by budget: {"10 %": 0.83}.
    """
    if task == "vqa":
        return published_answers(dataset)
    if task == "retrieval":
        names = [f"{way}_recall_at_{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
        return [(_RETRIEVAL_ON.format(whose), dict(zip(names, values, strict=True))) for whose, values in _RETRIEVAL.items()]
    known = benchmarks().get(dataset)
    found: list[tuple[str, dict[str, float]]] = []
    for value in known.paper if known is not None else ():
        about = [value.source, value.setting, "read off a bar" if value.approximate else ""]
        whose = f"paper: {value.model} ({', '.join(filter(None, about))})"
        if task == "few-labels" and value.labels and value.metric == "accuracy":
            same = next((numbers for name, numbers in found if name == whose and value.labels not in numbers), None)
            if same is not None:
                same[value.labels] = value.value
            else:
                found.append((whose, {value.labels: value.value}))
        elif value.task == task:
            found.append((whose, {value.metric: value.value}))
    return found
