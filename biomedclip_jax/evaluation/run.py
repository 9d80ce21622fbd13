"""What `biomedclip evaluate` runs: each task on each data set that fits it, with all results written after each of them."""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from biomedclip_jax.data.labelled.groups import shared_groups
from biomedclip_jax.data.labelled.multi_label import MultiLabelled
from biomedclip_jax.data.labelled.types import Labelled, labels_fingerprint
from biomedclip_jax.errors import UserError, as_given
from biomedclip_jax.evaluation._completeness import total
from biomedclip_jax.evaluation._evaluation import Evaluation
from biomedclip_jax.evaluation._results_folder import results_of_before, write_evaluation
from biomedclip_jax.evaluation._thresholds import THRESHOLDS
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings, PartOfImages
from biomedclip_jax.evaluation.multi_label.learning import FindingsToLearn, learn_findings
from biomedclip_jax.evaluation.multi_label.probe import FindingsProbe
from biomedclip_jax.evaluation.multi_label.zero_shot import zero_shot_findings
from biomedclip_jax.evaluation.overlap import images_in_both, read_overlap
from biomedclip_jax.evaluation.probe.finetune import FineTune
from biomedclip_jax.evaluation.probe.finetune_findings import FineTuneFindings
from biomedclip_jax.evaluation.probe.methods import FewLabels, Method
from biomedclip_jax.evaluation.probe.sampling import Budget
from biomedclip_jax.evaluation.probe.task import few_labels
from biomedclip_jax.evaluation.prompt_learning.base_to_novel import PromptLearner, base_to_novel_results
from biomedclip_jax.evaluation.report.results import MULTI_LABEL, Result, merged
from biomedclip_jax.evaluation.retrieval.approximate import Method as Approximate
from biomedclip_jax.evaluation.retrieval.groups import QueryGroups
from biomedclip_jax.evaluation.retrieval.task import retrieval
from biomedclip_jax.evaluation.sources import Source
from biomedclip_jax.evaluation.zero_shot.task import zero_shot
from biomedclip_jax.prompts.templates import Aggregation, check_words

Task = Literal["retrieval", "zero-shot", "probe", "finetune", "base-to-novel"]
TASKS: tuple[Task, ...] = ("retrieval", "zero-shot", "probe", "finetune")  # of "all"
_PCAM_SEARCH_SHOTS = 10_000  # ELEVATER searches on so many images of each class where PCam is learned whole
_HEADLINES = (
    *("accuracy", "balanced_accuracy", "auroc", "majority_accuracy"),
    *("mean_auroc", "mean_average_precision"),
    *("base_accuracy", "novel_accuracy", "harmonic_mean"),
    *(f"{way}_recall_at_{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user chose for the tasks of an evaluation.

    aggregate, prompts: of "zero-shot"; how sentences become a class's score (see `cosines`), and a file of learned
    prompts.
    approximate: of "retrieval"; None is the exact search. resamples, seed: see `Evaluation`.
    probes: the methods of "probe". finetune: the method of "finetune". learners: the methods of "base-to-novel".
    budgets, seeds: of these three; see `FewLabels`. allow_overlap: learn also where an image is tested, too.
    thresholds: of two classes and of findings, probabilities at which sensitivity and specificity are given.
    finding_budgets: shares of the training images that findings are learned from.
    without: of "zero-shot", a file of `data overlap`: the images in it are measured with the others, and left out again.
    command: the command line, which each row says; "" where there was none.
    """

    aggregate: Aggregation
    prompts: Path | None
    approximate: Approximate | None
    probes: Sequence[Method]
    finetune: FineTune
    learners: Sequence[PromptLearner]
    budgets: Sequence[Budget]
    seeds: Sequence[int]
    allow_overlap: bool
    resamples: int
    seed: int
    thresholds: Sequence[float] = THRESHOLDS
    finding_budgets: Sequence[Budget] = (Budget(fraction=1.0),)
    without: Path | None = None
    command: str = ""


def evaluate(
    tasks: Sequence[Task],
    candidates: Sequence[Candidate],
    sources: Sequence[Source],
    options: Options,
    embeddings: Embeddings,
    out: Path,
) -> list[Result]:
    """Run every task on every data set, and write the results so far into `out` after each.

    Written are results.json, differences.json, results.md, report.html, pictures and, under clip_benchmark/,
    CLIP_benchmark's JSON. Rows of earlier evaluations in that folder are kept, but for one of the very same evaluation.
    Returns the new results. A data set that cannot be read, or that a task cannot use, is named on stderr and the others
    go on; at the end a UserError names those for which the one task asked for, or all of several tasks, failed.
    """
    found = results_of_before(out)
    new: list[Result] = []
    failed: list[str] = []
    for source in sources:
        evaluation = Evaluation(
            candidates=candidates,
            dataset=source.name,
            embeddings=embeddings,
            out=out,
            resamples=options.resamples,
            seed=options.seed,
            where=source.where,
            command=options.command,
        )
        for task in tasks:
            try:
                results = [_with_cut_off(evaluation, result) for result in _run(task, evaluation, source, options)]
            except UserError as error:
                if len(tasks) == len(sources) == 1:
                    raise
                print(f"{source.name}: no {task}: {as_given(str(error))}", file=sys.stderr)
                failed.append(source.name)
                continue
            found, new = merged(found, results), new + results
            write_evaluation(out, found, results, options.resamples, options.seed)
            for result in results:
                print(_line(result))
    done = {result.dataset for result in new}
    missing = [name for name in dict.fromkeys(failed) if len(tasks) == 1 or name not in done]
    if missing:
        raise UserError(f"{len(missing)} of {len(sources)} data sets could not be evaluated: {', '.join(missing)}; see above")
    return new


def _with_cut_off(evaluation: Evaluation, result: Result) -> Result:
    """The result, which says what its model does not see of the images."""
    found = evaluation.cut_off.get(result.model)
    return dataclasses.replace(result, details=result.details | {"cut_off": found}) if found else result


def _run(task: Task, evaluation: Evaluation, source: Source, options: Options) -> list[Result]:
    """The results of one task on one data set."""
    if task == "retrieval":
        pairs = source.pairs()
        own = source.groups_of_pairs(pairs)
        groups = None if own is None else QueryGroups(own, source.columns.group or "")
        return retrieval(evaluation, pairs, approximate=options.approximate, groups=groups)
    if source.multi_label:
        return _findings(task, evaluation, source, options)
    test = source.labelled("test")
    if tuple(options.thresholds) != THRESHOLDS and len(test.classes) != 2:
        raise UserError(
            f"--thresholds: {source.name} has {len(test.classes)} classes; expected two, or several findings an image"
        )
    prompts = source.prompts(test.classes)
    if task == "zero-shot":
        if options.prompts is None and source.prompts_file is None and source.known is None:
            advice = "give words with --prompts FILE.yaml (--write-prompts begins one); beside tars, in classnames.txt"
            if {"0", "1"} <= set(test.classes) <= {"-1", "0", "1"}:
                advice += "; of a finding that images have or have not, say --label-columns with its name"
            check_words(source.name, test.classes, advice)
        words = {"prompts": prompts, "aggregate": options.aggregate, "learned": options.prompts}
        chooses = _to_choose_on(source, test, options)
        asked = functools.partial(zero_shot, **words, thresholds=options.thresholds, chooses=chooses)
        return _with_and_without(asked, evaluation, test, options.without)
    search_shots = _PCAM_SEARCH_SHOTS if source.known is not None and source.known.reader == "pcam" else None
    train = source.labelled("train", test.classes)
    if source.known is None:
        _check_overlap(train, test, options.allow_overlap)
    data = FewLabels(train, test, prompts, options.budgets, options.seeds, search_shots)
    if task == "base-to-novel":
        learners = options.learners
        return _with_sources(evaluation, data, learners, source, base_to_novel_results(evaluation, data, learners))
    methods = options.probes if task == "probe" else [options.finetune]
    return _with_sources(
        evaluation, data, methods, source, few_labels(evaluation, data, methods, thresholds=options.thresholds)
    )


def _findings(task: Task, evaluation: Evaluation, source: Source, options: Options) -> list[Result]:
    """The results of one task on images that may have several findings."""
    if task not in ("zero-shot", "probe", "finetune"):
        raise UserError(
            f"{source.name}: images with several findings are for zero-shot, probe and finetune; {task} needs one class each"
        )
    if options.prompts is not None:
        raise UserError(f"--prompts {options.prompts}: learned prompts choose one class; of several findings expected a .yaml")
    test = source.findings("test")
    if task == "zero-shot":
        prompts = source.finding_prompts(test.findings)
        words = {"prompts": prompts, "aggregate": options.aggregate, "thresholds": options.thresholds}
        return _with_and_without(functools.partial(zero_shot_findings, **words), evaluation, test, options.without)
    train = source.findings("train", test.findings)
    if source.known is None:
        _check_overlap(train, test, options.allow_overlap)
    data = FindingsToLearn(train, test, source.train or source.where, options.finding_budgets, options.seeds)
    if task == "probe":
        return learn_findings(evaluation, data, FindingsProbe(), options.thresholds)
    method = FineTuneFindings(options.finetune, source.finding_prompts(test.findings))
    return learn_findings(evaluation, data, method, options.thresholds)


def _with_and_without(
    measure: Callable[[Evaluation, Any], list[Result]], evaluation: Evaluation, data: Any, seen: Path | None
) -> list[Result]:
    """The results on all images and, where some of them are known from training, those on the others beside them."""
    if seen is None:
        return measure(evaluation, data)
    names = {os.path.abspath(name): name for name in read_overlap(seen)}  # as paths: they may be relative in one of the two
    own = list(map(os.path.abspath, data.names))
    others = np.array([i for i, name in enumerate(own) if name not in names], np.int64)
    if missing := names.keys() - set(own):
        raise UserError(
            f"{seen}: {len(missing):,} of its {len(names):,} test pictures are not in {evaluation.dataset}, such as "
            f"{min(map(names.__getitem__, missing))}; was it made with the same --data?"
        )
    if not len(others):
        raise UserError(f"{seen}: names every image of {evaluation.dataset}, so that none is left")
    results = measure(evaluation, data)
    if not names:
        print(f"{seen}: no test picture is in the training data, so there is no row without them", file=sys.stderr)
        return results
    count = len(data) - len(others)
    part = dataclasses.replace(
        data.subset(others), caveats=(*data.caveats, f"without {count:,} images that are in training data")
    )
    kept = PartOfImages(evaluation.embeddings, data.images, data.fingerprint, others)
    return results + measure(dataclasses.replace(evaluation, dataset=f"{evaluation.dataset} unseen", embeddings=kept), part)


def _with_sources(
    evaluation: Evaluation,
    data: FewLabels,
    methods: Sequence[Method | PromptLearner],
    source: Source,
    results: Sequence[Result],
) -> list[Result]:
    """The results, which say what they were learned from and how, and by what they were measured."""
    candidates = {each.name: each for each in evaluation.candidates}
    options = {each.name: repr(each) for each in methods}
    test, train = labels_fingerprint(data.test), labels_fingerprint(data.train)
    found = []
    for row in results:
        about = {"method": options[row.task.removesuffix(" base-to-novel")], "train": source.train or source.where}
        about |= {"train_fingerprint": train, "prompts": [list(own) for own in data.prompts.sentences]}
        known = evaluation.measured(candidates[row.model], test, total(data.test))
        found.append(dataclasses.replace(row, settings=about | row.settings, measured=known))
    return found


def _to_choose_on(source: Source, test: Labelled, options: Options) -> Labelled | None:
    """The images of `--train` on which a threshold of two classes is chosen; None, which is said, where they cannot be used."""
    if source.train is None or options.without is not None or len(test.classes) != 2:
        return None
    try:
        found = source.labelled("train", test.classes)
        _check_overlap(found, test, options.allow_overlap)
    except UserError as error:
        print(f"{source.name}: no threshold is chosen on --train: {error}", file=sys.stderr)
        return None
    return found


def _check_overlap(train: Labelled | MultiLabelled, test: Labelled | MultiLabelled, allowed: bool) -> None:
    """UserError for images that are in both, or a line on stderr where that is allowed."""
    if groups := shared_groups(train, test):
        said = f"{len(groups):,} groups, such as {groups[0]!r}, have images in the training data and in the test data"
        if not allowed:
            raise UserError(f"{said}; divide the data by group, or say --allow-overlap")
        print(f"{test.name}: {said}", file=sys.stderr)
    if not (both := images_in_both(train, test)):
        return
    name, other = both[0]
    found = f"{len(both)} of {len(test)} test images are in the training data, too, such as {name} (there {other})"
    if not allowed:
        raise UserError(f"{found}; take them out of one of the two, or say --allow-overlap")
    print(f"{test.name}: {found}", file=sys.stderr)


def _line(result: Result) -> str:
    shown = [f"{name} {result.metrics[name]:.4f}" for name in _HEADLINES if name in result.metrics]
    about = "".join(f", {result.settings[name]}" for name in ("budget", "search") if name in result.settings)
    measured = ", ".join(filter(None, (f"{result.n:,}", result.left_out)))
    asked = (
        f"  asked with {result.asked}"
        if result.task in ("zero-shot", MULTI_LABEL) and "prompts_file" not in result.settings
        else ""
    )
    return f"{result.task} {result.dataset}{about} ({measured}): {result.who}: {'  '.join(shown)}{asked}"
