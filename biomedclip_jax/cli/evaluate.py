"""`biomedclip evaluate`: tables of the paper, and the same numbers for models and data of one's own."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.cli._findings import add_finding_options, check_finding_options, columns_of
from biomedclip_jax.cli._prompt_learners import (
    LEARNERS,
    add_learner_options,
    check_learner_options,
    make_clip_adapter,
    make_learner,
)
from biomedclip_jax.cli._questions import VQA, add_question_options, check_no_question_options, evaluate_questions
from biomedclip_jax.cli.arguments import add_verb, count, local_path
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.evaluation.candidates import Candidate
    from biomedclip_jax.evaluation.probe.methods import Method
    from biomedclip_jax.evaluation.run import Options

_TASKS = ("retrieval", "zero-shot", "probe", "finetune", "base-to-novel", "vqa", "all")
_PROBES = (
    "linear-probe",
    "logistic-regression",
    "tip-adapter",
    "tip-adapter-f",
    "clip-adapter",
    "lp++",
    "lp+text",
    *LEARNERS,
)
_DATA_HELP = (
    "a benchmark by name (--list shows them), where --data-root says or as NAME=FOLDER; or your own: a folder of class "
    "folders, a table (.csv, .tsv, .jsonl, .parquet) with image and caption or label columns, tars, a build and its split "
    "(FOLDER:test), tfds:NAME:test; as NAME=PATH, it gets that name in the tables"
)
_MODEL_HELP = (
    "a model folder, a file of weights, a run folder, hf-hub:org/name; as NAME=MODEL, named so in the tables; "
    "MODEL::ADAPTER, with the adapter/ folder of a run that fine-tuned it"
)
_DESCRIPTION = """Measure models on data, side by side: results.json, results.md, pictures and one report.html in OUT.

  retrieval      image to text and text to image recall at 1, 5, 10 and median rank, exact, over all pairs
  zero-shot      classification by sentences: accuracy, balanced accuracy, macro F1, AUROC, average precision, calibration
  probe          learning from few labels on frozen towers: ELEVATER's linear probe and others (--methods)
  finetune       the same budgets of labels, the whole image tower trained
  base-to-novel  prompts learned on half of the classes, tested on either half; only when asked for
  vqa            answers to questions about images, beside four baselines that see no image (--blind: these alone)
  all            each of the first four that fits the data

Prompts that `probe` learns (coop, cocoop, biomedcoop, kgcoop, prograd, context-prompts) are kept in OUT/prompts/, to be
given as --prompts, here and to `biomedclip classify`."""


def add_evaluate(verbs: Any) -> None:
    """Add `evaluate` to the verbs of the command."""
    verb = add_verb(
        verbs,
        "evaluate",
        _evaluate,
        "Measure models on retrieval, zero-shot and few labels: tables, pictures, a report.",
        "biomedclip evaluate all runs/quickstart --data runs/quickstart/data/held_out.csv"
        " --train runs/quickstart/data/train.csv --out report\n"
        "  biomedclip evaluate zero-shot biomedclip/ ViT-B-32.pt --data pcam lc25000-lung --data-root /data --out table\n"
        "  biomedclip evaluate vqa --blind --data vqa-rad=VQA_RAD --out blind",
    )
    verb.description = _DESCRIPTION
    verb.add_argument("task", nargs="?", choices=_TASKS, metavar="TASK", help=" | ".join(_TASKS))
    verb.add_argument("models", nargs="*", metavar="MODEL", help=_MODEL_HELP)
    verb.add_argument("--data", nargs="+", metavar="SOURCE", help=_DATA_HELP)
    verb.add_argument(
        "--out", type=local_path, metavar="DIR", help="gets the results; those of earlier evaluations in it are kept"
    )
    verb.add_argument(
        "--list", action="store_true", help="list the benchmarks by name: images, classes, published number; then end"
    )
    verb.add_argument(
        "--cache", type=local_path, metavar="DIR", help="keeps embeddings, so that each is made once (default: OUT/embeddings)"
    )
    verb.add_argument("--batch-size", type=count, default=32, metavar="N", help="images at once (default: %(default)s)")
    verb.add_argument("--seed", type=int, default=0, help="of resamples and galleries (default: %(default)s)")
    verb.add_argument("--resamples", type=count, default=1_000, metavar="N", help="of the bootstrap (default: %(default)s)")

    data = verb.add_argument_group("data")
    data.add_argument("--data-root", type=Path, metavar="DIR", help="holds the folders of the benchmarks")
    data.add_argument("--image-column", default="image", metavar="NAME", help="default: %(default)s")
    data.add_argument("--caption-column", default="caption", metavar="NAME", help="default: %(default)s")
    data.add_argument("--label-column", default="label", metavar="NAME", help="default: %(default)s")

    data.add_argument(
        "--group",
        metavar="NAME",
        help="a column that says what images belong to, as TABLE:NAME of another table, or `patient` for DICOM's PatientID: "
        "intervals are over these, and none may be in training and test data",
    )

    retrieval = verb.add_argument_group("retrieval")
    retrieval.add_argument(
        "--approximate",
        choices=["faiss", "approx_max_k"],
        help="an approximate search instead, as the paper; how many of the exact neighbours it finds is measured",
    )

    add_finding_options(verb)

    words = verb.add_argument_group("zero-shot")
    words.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="FILE.yaml: templates, words for the classes; FILE.safetensors (CLEFT: .ckpt): learned ones, a row of their own",
    )
    words.add_argument(
        "--write-prompts", type=local_path, metavar="FILE.yaml", help="write the prompts in use there, to be edited; then end"
    )
    words.add_argument(
        "--aggregate",
        choices=["mean", "max", "single", "gloria"],
        default="mean",
        help="how sentences become a class's score: their mean embedding, the best, the first, GLoRIA's rule (default: mean)",
    )

    words.add_argument(
        "--without",
        type=Path,
        metavar="overlap.csv",
        help="of `biomedclip data overlap`: rows without the pictures that are in training data, beside those of all",
    )

    few = verb.add_argument_group("probe, finetune and base-to-novel")
    few.add_argument(
        "--train",
        metavar="SOURCE",
        help="labelled images to learn from: its split train, or all of it if it has no splits; benchmarks, and data with a "
        "split train, have their own. For zero-shot of two classes a threshold is chosen on them",
    )
    few.add_argument(
        "--allow-overlap", action="store_true", help="learn also where an image of the test data is in the training data"
    )
    few.add_argument(
        "--methods",
        nargs="+",
        choices=_PROBES,
        metavar="METHOD",
        help=f"of probe: {', '.join(_PROBES)} (default: {_PROBES[0]}); of base-to-novel those from {LEARNERS[0]} on",
    )
    few.add_argument(
        "--labels",
        nargs="+",
        metavar="N|N%",
        help="shots per class, shares of all labels (default: 5 20 50 1%% 10%% 100%%; base-to-novel: 16)",
    )
    few.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    few.add_argument(
        "--selection",
        choices=["last", "best_test_epoch"],
        default="last",
        help="which epoch counts: the last, or, as ELEVATER publishes, the one best on the test set (default: %(default)s)",
    )
    few.add_argument(
        "--search",
        choices=["none", "small", "full"],
        default="small",
        help="of finetune: learning rates and weight decays tried: none (1e-3 and 1e-6), 8, or about 90 (default: %(default)s)",
    )
    few.add_argument("--microbatch", type=count, metavar="N", help="of finetune: images at once, where 64 do not fit")
    add_learner_options(verb)
    add_question_options(verb)


def _evaluate(arguments: argparse.Namespace) -> None:
    if arguments.list:
        _list()
        return
    from biomedclip_jax.evaluation.sources import parse_source

    if arguments.task is None:
        raise UserError(f"TASK: expected one of {', '.join(_TASKS)}")
    if arguments.task == VQA:
        evaluate_questions(arguments, _candidates)
        return
    check_no_question_options(arguments)
    if not arguments.data:
        raise UserError("--data: expected at least one source (biomedclip evaluate --help)")
    columns = columns_of(arguments)
    words = None if _is_learned(arguments) else arguments.prompts
    sources = [parse_source(text, arguments.data_root, arguments.train, columns, words) for text in arguments.data]
    check_finding_options(arguments, sources)
    if arguments.group is not None:
        _check_group(arguments, sources)
    if arguments.write_prompts is not None:
        _write_prompts(arguments.write_prompts, sources)
        return
    if not arguments.models:
        raise UserError("MODEL: expected at least one model folder, run folder or hf-hub:org/name")
    if arguments.out is None:
        raise UserError("--out DIR: expected a folder for the results")
    if arguments.without is not None and (arguments.task != "zero-shot" or len(sources) != 1):
        raise UserError(f"--without {arguments.without}: for zero-shot on one --data source")
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--data: two sources are called {name!r}; name one otherwise, as in other={name}")
    from biomedclip_jax.evaluation.embeddings import Embeddings
    from biomedclip_jax.evaluation.run import TASKS, evaluate

    tasks = TASKS if arguments.task == "all" else (arguments.task,)
    embeddings = Embeddings(arguments.cache or arguments.out / "embeddings", arguments.batch_size)
    evaluate(tasks, _candidates(arguments.models), sources, _options(arguments), embeddings, arguments.out)
    print(f"{arguments.out}: results.json, results.md, report.html")


def _check_group(arguments: argparse.Namespace, sources: Sequence[Any]) -> None:
    """UserError for a benchmark, whose reader knows its groups."""
    if known := next((source.name for source in sources if source.known is not None), None):
        raise UserError(f"--group {arguments.group}: {known} is a benchmark, which has groups of its own or none; leave it out")


def _candidates(models: Sequence[str]) -> "list[Candidate]":
    from biomedclip_jax.evaluation.candidates import Candidate

    found = []
    for text in models:
        model, colons, adapter = text.partition("::")
        name, _, source = model.partition("=") if "=" in model else ("", "", model)
        if colons and not (source and adapter):
            raise UserError(f"{text}: expected a model before the two colons, and the adapter/ folder of a run after them")
        found.append(Candidate(source, name or None, adapter or None))
    names = [candidate.name for candidate in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two models are called {name!r}; name them, as in first={found[names.index(name)].source}")
    return found


def _options(arguments: argparse.Namespace) -> "Options":
    from biomedclip_jax.evaluation.probe.finetune import FineTune
    from biomedclip_jax.evaluation.probe.sampling import BUDGETS, Budget
    from biomedclip_jax.evaluation.run import THRESHOLDS, Options

    methods, budgets = arguments.methods or [_PROBES[0]], BUDGETS
    if arguments.task == "base-to-novel":
        methods, budgets = arguments.methods or [LEARNERS[0]], [Budget(shots=16)]
        for name in methods:
            if name not in LEARNERS:
                raise UserError(f"--methods {name}: expected some that learn prompts for base-to-novel: {', '.join(LEARNERS)}")
    check_learner_options(arguments, methods)
    learners = {name: make_learner(name, arguments) for name in methods if name in LEARNERS}
    return Options(
        aggregate=arguments.aggregate,
        prompts=arguments.prompts if _is_learned(arguments) else None,
        approximate=arguments.approximate,
        probes=[learners[name] if name in learners else _probe(name, arguments) for name in methods],
        finetune=FineTune(search=arguments.search, microbatch=arguments.microbatch, selection=arguments.selection),
        learners=list(learners.values()),
        thresholds=arguments.thresholds or THRESHOLDS,
        finding_budgets=[Budget.parse(text) for text in arguments.labels or ("100%",)],
        budgets=[Budget.parse(text) for text in arguments.labels] if arguments.labels else budgets,
        seeds=arguments.seeds,
        allow_overlap=arguments.allow_overlap,
        without=arguments.without,
        resamples=arguments.resamples,
        seed=arguments.seed,
        command=arguments.command_line,
    )


def _is_learned(arguments: argparse.Namespace) -> bool:
    """Whether --prompts are learned ones. UserError where they cannot be used."""
    path = arguments.prompts
    if path is None or path.suffix not in (".safetensors", ".ckpt"):
        return False
    if arguments.task != "zero-shot":
        raise UserError(f"--prompts {path}: learned prompts are for zero-shot; expected a .yaml file with words")
    if arguments.aggregate != "mean":
        raise UserError(f"--aggregate {arguments.aggregate}: learned prompts are one for each class; leave it out")
    return True


def _probe(name: str, arguments: argparse.Namespace) -> "Method":
    """One that learns no prompts."""
    from biomedclip_jax.evaluation.probe.linear_probe import LinearProbe
    from biomedclip_jax.evaluation.probe.logistic_regression import LogisticRegressionProbe
    from biomedclip_jax.evaluation.probe.lp_plus_plus import LPPlusPlus, LPText
    from biomedclip_jax.evaluation.prompt_learning.tip_adapter import TipAdapter, TipAdapterF

    if name == "linear-probe":
        return LinearProbe(selection=arguments.selection)
    if name == "clip-adapter":
        return make_clip_adapter(arguments)
    others = {
        "logistic-regression": LogisticRegressionProbe,
        "tip-adapter": TipAdapter,
        "tip-adapter-f": TipAdapterF,
        "lp++": LPPlusPlus,
        "lp+text": LPText,
    }
    return others[name]()


def _list() -> None:
    from biomedclip_jax.evaluation.benchmarks import benchmarks

    for name, row in benchmarks().items():
        images = row.splits.get("test")
        paper = next((f"{100 * value.value:.2f} {value.metric}, {value.model}" for value in row.paper), "")
        print(
            f"{name:28s} {row.title:40s} {f'{images:,}' if images else '?':>8s} images  {len(row.classes):2d} classes  {paper}"
        )


def _write_prompts(path: Path, sources: Sequence[Any]) -> None:
    from biomedclip_jax.prompts.findings import write_finding_prompts
    from biomedclip_jax.prompts.templates import write_prompts

    if len(sources) != 1:
        raise UserError(f"--write-prompts: expected one --data source, not {len(sources)}; their classes differ")
    source = sources[0]
    if source.multi_label:
        findings = source.findings("test").findings
        write_finding_prompts(path, findings, None if source.known is None else source.known.finding_prompts)
    elif source.known is not None:
        source.known.write_prompts(path)
    else:
        write_prompts(path, source.labelled("test").classes)
    print(f"{path}: edit, and give it with --prompts")
