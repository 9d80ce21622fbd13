"""`biomedclip evaluate`: which tasks fit which data, one after the other, and everything written after each of them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from biomedclip_jax.data.pairs import pairs_fingerprint
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.benchmarks import published
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.probe.methods import Method
from biomedclip_jax.evaluation.probe.sampling import Budget
from biomedclip_jax.evaluation.probe.task import few_labels
from biomedclip_jax.evaluation.prompt_learning.base_to_novel import PromptLearner, base_to_novel_results
from biomedclip_jax.evaluation.report.clip_benchmark import write_clip_benchmark
from biomedclip_jax.evaluation.report.page import write_results_page
from biomedclip_jax.evaluation.report.results import Result, merged, read_results, write_results
from biomedclip_jax.evaluation.report.tables import markdown, tables
from biomedclip_jax.evaluation.retrieval.approximate import Method as Approximate
from biomedclip_jax.evaluation.retrieval.task import retrieval
from biomedclip_jax.evaluation.sources import Source
from biomedclip_jax.evaluation.zero_shot.task import zero_shot
from biomedclip_jax.files import write_text
from biomedclip_jax.prompts.templates import Aggregation

Task = Literal["retrieval", "zero-shot", "probe", "finetune", "base-to-novel"]
TASKS: tuple[Task, ...] = ("retrieval", "zero-shot", "probe", "finetune")  # of "all"
_PCAM_SEARCH_SHOTS = 10_000  # ELEVATER searches on so many images of each class where PCam is learned whole
_HEADLINES = (
    *("accuracy", "balanced_accuracy", "auroc", "majority_accuracy"),
    *("base_accuracy", "novel_accuracy", "harmonic_mean"),
    *(f"{way}_recall_at_{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """approximate: None is exact. prompts: a file of learned ones, for "zero-shot".

    probes: the methods of "probe"; finetune: that of "finetune"; learners: those of "base-to-novel".
    """

    aggregate: Aggregation
    prompts: Path | None
    approximate: Approximate | None
    probes: Sequence[Method]
    finetune: Method
    learners: Sequence[PromptLearner]
    budgets: Sequence[Budget]
    seeds: Sequence[int]
    resamples: int
    seed: int


def evaluate(
    tasks: Sequence[Task],
    candidates: Sequence[Candidate],
    sources: Sequence[Source],
    options: Options,
    embeddings: Embeddings,
    out: Path,
) -> list[Result]:
    """Every task on every source, and what is written of it in `out`, after each: results.json, results.md, report.html,
    pictures and, under clip_benchmark/, CLIP_benchmark's JSON. Rows of earlier evaluations there are kept.

    Data that cannot be had, or do not fit a task, are named on stderr and the others go on. In the end they are a UserError,
    unless they were only asked whether they fit (several tasks, of which one did).
    """
    found = read_results(out)
    new: list[Result] = []
    failed: list[str] = []
    for source in sources:
        for task in tasks:
            try:
                results = _run(task, candidates, source, options, embeddings, out)
            except UserError as error:
                if len(tasks) == len(sources) == 1:
                    raise
                print(f"{source.name}: no {task}: {error}", file=sys.stderr)
                failed.append(source.name)
                continue
            found, new = merged(found, results), new + results
            _write(out, found)
            for result in results:
                print(_line(result))
    done = {result.dataset for result in new}
    missing = [name for name in dict.fromkeys(failed) if len(tasks) == 1 or name not in done]
    if missing:
        raise UserError(f"{len(missing)} of {len(sources)} data sets could not be evaluated: {', '.join(missing)}; see above")
    return new


def _run(
    task: Task, candidates: Sequence[Candidate], source: Source, options: Options, embeddings: Embeddings, out: Path
) -> list[Result]:
    if task == "retrieval":
        pairs = source.pairs()
        return retrieval(
            candidates,
            pairs,
            pairs_fingerprint(pairs),
            embeddings,
            out,
            dataset=source.name,
            approximate=options.approximate,
            resamples=options.resamples,
            seed=options.seed,
        )
    test = source.labelled("test")
    prompts = source.prompts(test.classes)
    if task == "zero-shot":
        return zero_shot(
            candidates,
            test,
            prompts,
            embeddings,
            out,
            dataset=source.name,
            aggregate=options.aggregate,
            learned=options.prompts,
            resamples=options.resamples,
            seed=options.seed,
        )
    train = source.labelled("train", test.classes)
    budgets = {"dataset": source.name, "budgets": options.budgets, "seeds": options.seeds}
    if task == "base-to-novel":
        return base_to_novel_results(candidates, train, test, prompts, options.learners, embeddings, **budgets)
    methods = options.probes if task == "probe" else [options.finetune]
    search_shots = _PCAM_SEARCH_SHOTS if source.known is not None and source.known.reader == "pcam" else None
    return few_labels(candidates, train, test, prompts, methods, embeddings, out, search_shots=search_shots, **budgets)


def _write(out: Path, results: Sequence[Result]) -> None:
    shown = tables(results, published)
    write_results(out, results)
    write_text(out / "results.md", markdown(shown))
    write_clip_benchmark(out / "clip_benchmark", results)
    write_results_page(out, results, shown)


def _line(result: Result) -> str:
    shown = [f"{name} {result.metrics[name]:.4f}" for name in _HEADLINES if name in result.metrics]
    about = "".join(f", {result.settings[name]}" for name in ("budget", "search") if name in result.settings)
    return f"{result.task} {result.dataset}{about} ({result.n:,}): {result.who}: {'  '.join(shown)}"
