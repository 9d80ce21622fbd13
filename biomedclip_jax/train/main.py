"""A training run from its config to its results: input checked, updates made, model folder written, evaluated."""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax

from biomedclip_jax.config import BertConfig, DataConfig, Mix, TrainConfig, check_stage
from biomedclip_jax.config.changes import changes
from biomedclip_jax.data.demo.sources import make_demo_of
from biomedclip_jax.data.loader import TrainLoader
from biomedclip_jax.data.names import classes_in
from biomedclip_jax.data.pairs import Pairs
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.data.text import TokenMaker, check_padding
from biomedclip_jax.errors import Ended, UserError
from biomedclip_jax.files import write_text
from biomedclip_jax.interop.formats.adapter_folder import write_adapter
from biomedclip_jax.interop.model_files import check_cleaning
from biomedclip_jax.interop.write import export_format, write_model
from biomedclip_jax.pretrained import from_pretrained
from biomedclip_jax.prompts.learned import load_prompts
from biomedclip_jax.sharding import make_mesh
from biomedclip_jax.support.storage import is_address
from biomedclip_jax.support.xla_cache import enable_compilation_cache
from biomedclip_jax.train._final_evaluation import PROMPTS, Results, evaluate, proposals
from biomedclip_jax.train._held_out import HeldOut, Inputs, check_held_out, held_out_pairs
from biomedclip_jax.train._loop import Run
from biomedclip_jax.train._metrics import HeldOutLine, MetricsFile, Rejects, of_table
from biomedclip_jax.train._prompt_stage import learned_prompts
from biomedclip_jax.train._questions import (
    answer_labels,
    answer_names,
    check_types_are_learned,
    question_pairs,
    tokenizer_of,
    with_answers,
)
from biomedclip_jax.train._run_folder import RESULTS, alone_in, check_owner, check_room, claim, make_ready, opened_run_folder
from biomedclip_jax.train._same_data import check_hosts, data_identity, pairs_mark
from biomedclip_jax.train._start import Asked, announce
from biomedclip_jax.train._writers import check_writers
from biomedclip_jax.train.export import adapter_of, in_workdir, model_of, read_config, tokenizer_folder
from biomedclip_jax.train.model_card import write_model_card
from biomedclip_jax.train.multihost import hosts
from biomedclip_jax.train.multihost.hosts import is_first, say
from biomedclip_jax.train.multihost.stopping import StopListener
from biomedclip_jax.train.state import optimizer_for

_EVALUATION_SECONDS = 24 * 3600  # the first process alone evaluates at the end: the others wait so long


class Terminated(Ended):
    """A signal asked the run to end. Its state is saved: the same call goes on."""

    code = hosts.SAVED


@dataclass(frozen=True)
class _Data:
    """What a run learns from and is judged on. classes: of the labels, () where no stage learns of them."""

    pairs: Pairs
    held_out: Pairs | None
    tokenizer_folder: Path
    tokenizer: TokenMaker
    classes: tuple[str, ...]


def train(config: TrainConfig, workdir: Path | str, max_steps: int | None = None, profile: int | None = None) -> Results | None:
    """Run, or go on with, the training that `config` describes, in the run folder `workdir`, here or at an address (s3://).

    Stops after `max_steps` updates in total where that is given. Returns the results when the run is finished, else
    None. The same call goes on where an interrupted run stopped. With several processes (`hosts.start`) each makes
    the same call, and the first one writes. UserError for input that cannot work, before anything is computed;
    `Terminated` after SIGTERM. profile: how many updates are traced for xprof, see `profile.Profile`.
    """
    # from the first moment: a signal while the data is read is heeded at the first step
    with _told_to_others(), StopListener() as stop, opened_run_folder(workdir) as folder:
        enable_compilation_cache(None if is_address(workdir) else folder.resolve().parent / ".compiled")
        config = with_answers(config, folder)
        check_owner(config, folder)
        if (folder / RESULTS).is_file():
            return _finished(config, folder)
        _check(config)
        with alone_in(folder):
            check_owner(config, folder)  # again: another run may have begun here since
            return _train(config, folder, max_steps, stop, profile)


@contextlib.contextmanager
def _told_to_others() -> Iterator[None]:
    """The other processes are told what a user must mend, or has."""
    try:
        yield
    except UserError as error:
        hosts.because(str(error))
        raise


def _train(
    config: TrainConfig, workdir: Path, max_steps: int | None, stop: StopListener, profile: int | None
) -> Results | None:
    start = time.perf_counter()
    data = _open_data(config, workdir)
    announce(Asked(config, data.pairs, data.held_out, data.tokenizer))
    inputs = _open_folder(config, workdir, data)
    with Run(config, workdir, inputs, stop, profile) as run:
        claim(config, workdir)
        outcome = run.train(max_steps)
        step = run.take_up_exported() if outcome == "finished" else run.step
    if outcome == "terminated":
        saved = f"stopped by a signal after step {run.step} of {run.total}, which is saved"
        raise Terminated(f"{saved}; the same command goes on")
    if outcome == "stopped":
        say(f"stopped after {run.step} of {run.total} steps; the same command without --max-steps goes on")
        return None
    _export(run, data, step, start)
    return read_results(workdir)


def _finished(config: TrainConfig, workdir: Path) -> Results:
    """The results of a finished run; where it is asked for other held-out pairs than it was judged on, those on them.

    UserError for changes that the model of a finished run cannot follow.
    """
    results, stored = read_results(workdir), read_config(workdir)
    if handed_over := [change for change in changes(config, stored) if change.path in ("export", "interpolate", "patience")]:
        raise UserError(
            f"{workdir}: this run is finished, and its model/ was made otherwise ({', '.join(map(str, handed_over))}); "
            "choose another --workdir"
        )
    others = [change for change in changes(config, stored) if change.path in ("data.held_out", "data.template")]
    try:
        pairs = held_out_pairs(config, workdir)
    except UserError:
        if others:
            raise
        return results  # of data that may be gone since
    if pairs is None:
        if others:
            say(f"{workdir}: the figures are those on {stored.data.held_out}, which this run was judged on")
        return results
    known = results.held_out_data is not None or not others
    same = known and results.held_out_data in (None, pairs_mark(pairs)) and config.data.template == stored.data.template
    if same and not others:
        return results
    with alone_in(workdir):
        if is_first() and not same:
            say(f"{workdir}: judged again, on {config.data.held_out}; its weights stay those of step {results.exported_step}")
            lines = MetricsFile(workdir / "metrics.jsonl", sys.maxsize, write=False).lines
            prompts = workdir / PROMPTS
            learned = load_prompts(prompts, from_pretrained(workdir / "model")) if prompts.is_file() else None
            found = evaluate(config, workdir, pairs, of_table(lines, -1), learned)
            size = from_pretrained(workdir / "model").processor.config.image_size
            _write_results(config, workdir, found, pairs, results.exported_step, results.seconds, size)
        claim(config, workdir)
        hosts.barrier("the results", _EVALUATION_SECONDS)
    return read_results(workdir)


def _write_results(
    config: TrainConfig,
    workdir: Path,
    found: Results,
    pairs: Pairs | None,
    step: int | None,
    seconds: float | None,
    image_size: int,
) -> None:
    mark = None if pairs is None else pairs_mark(pairs)
    found = dataclasses.replace(found, exported_step=step, held_out_data=mark, seconds=seconds)
    write_model_card(config, workdir, image_size, found.record())  # before the file that says that the run is finished
    write_text(workdir / RESULTS, json.dumps(found.record(), indent=2) + "\n")


def read_results(workdir: Path) -> Results:
    """The results of a finished run. UserError where the file is none of a run of this version."""
    path = workdir / RESULTS
    try:
        return Results(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:  # other names, or no object
        raise UserError(
            f"{path}: not the results of a run of this version ({error}); remove the file, and the same command goes on "
            "from the last checkpoint"
        ) from error


def try_next(config: TrainConfig, workdir: Path) -> list[str]:
    """Lines that propose what to do with a finished run's model, on its own held-out data."""
    try:
        pairs = held_out_pairs(config, workdir)
    except UserError:  # they may be gone since
        pairs = None
    return proposals(workdir, pairs, config.data.label_separator)


def _check(config: TrainConfig) -> None:
    """UserError for what would fail only after hours: patterns, batches that cannot be split, a model without a format."""
    optimizer_for(config)
    check_types_are_learned(config)
    if is_first():
        check_writers(config.run.writers)
    if config.patience is not None and config.run.evaluate_every is None:
        raise UserError(f"patience = {config.patience}: needs run.evaluate_every, the updates between two evaluations")
    for stage in config.stages:
        check_stage(stage, jax.device_count())
        export_format(config.model_in(stage), config.preprocess_in(stage), config.adaptation.unmergeable)


def _open_data(config: TrainConfig, workdir: Path) -> _Data:
    """The data and the tokenizer. UserError if they cannot be used; nothing is written before this is known."""
    if is_first():
        make_ready(workdir)
        check_room(config, workdir)
        _make_demos(config.data, workdir)
    hosts.barrier("the data", 60 * config.run.stall_minutes)
    data, text = config.data, config.model.text
    prompted = config.prompted
    if config.model.answering is not None:
        pairs, classes = _questions(config, workdir)
    else:
        label_column = data.label_column if prompted else None
        pairs = open_pairs(_source(data.train, workdir), data.image_column, data.caption_column, label_column)
        classes = classes_in(pairs, data.label_separator) if prompted else ()
    held_out = held_out_pairs(config, workdir)
    if held_out is not None:
        check_held_out(config, held_out)
    folder = tokenizer_folder(config, workdir)
    for stage in config.stages:
        format = export_format(config.model_in(stage), config.preprocess_in(stage), config.adaptation.unmergeable)
        check_cleaning(folder, format)
    if isinstance(text, BertConfig):
        check_padding(folder, text.pad_id)
    return _Data(pairs, held_out, folder, tokenizer_of(config, folder), classes)


def _questions(config: TrainConfig, workdir: Path) -> tuple[Pairs, tuple[str, ...]]:
    """The questions to learn from whose answers the model knows, and these answers. UserError where it knows none of theirs."""
    pairs = question_pairs(config, str(config.data.train), workdir)
    for note in pairs.notes:
        say(f"{config.data.train}: {note}")
    known = [bool(row.any()) for row in answer_labels(config, pairs)]
    if not any(known):
        raise UserError(f"{config.data.train}: none of the answers is among model.answering.answers")
    assert config.model.answering is not None
    return (pairs if all(known) else pairs.without_answers(known)), answer_names(config.model.answering)


def _make_demos(data: DataConfig, workdir: Path) -> None:
    """What the config takes from a demo is made in the run folder, once."""
    trained = [data.train] if isinstance(data.train, str) else [part for part, _ in data.train]
    for source in (*trained, data.held_out, data.tokenizer):
        if source is not None:
            make_demo_of(source, workdir)


def _source(source: str | Mix, workdir: Path) -> str | Mix:
    if isinstance(source, str):
        return in_workdir(source, workdir)
    return tuple((in_workdir(part, workdir), weight) for part, weight in source)


def _open_folder(config: TrainConfig, workdir: Path, data: _Data) -> Inputs:
    """The list of rejects begun; what feeds the run, and what evaluates it. UserError where a host sees other data."""
    identity = data_identity(data.pairs, data.held_out, data.tokenizer)
    check_hosts(config, identity, data.pairs, data.held_out, 60 * config.run.stall_minutes)
    own = "" if is_first() else f".{jax.process_index()}"
    rejects = Rejects(workdir / f"rejects{own}.jsonl", data.pairs.rejects if is_first() else [])
    loader = TrainLoader(data.pairs, data.tokenizer, config.preprocess, config.data, config.seed, rejects.add, data.classes)
    if data.held_out is None:
        return Inputs(loader, None, identity)
    mesh = make_mesh(fsdp=config.sharding.fsdp)
    return Inputs(loader, HeldOut(config, data.held_out, data.tokenizer_folder, mesh, data.classes), identity)


def _say_what_is_exported(run: Run, step: int) -> None:
    lines = of_table(run.metrics.lines, run.checkpoints.table)
    losses = {line.step: line.scores["loss"] for line in lines if isinstance(line, HeldOutLine)}
    moments = {0: "at the start", step: f"after step {step}", run.step: "at the end"}
    shown = ", ".join(f"{losses[each]:.3f} {when}" for each, when in moments.items() if each in losses)
    if losses and step == 0:
        say(f"exported: the weights of the START, as no evaluation found a lower held-out loss ({shown}); try a lower rate")
    elif losses:
        say(f"exported: the weights after step {step} of {run.step} (held-out loss {shown})")


def _export(run: Run, data: _Data, step: int, start: float) -> None:
    """Write `model/`, `adapter/` where there is one, and the results of the final evaluation.

    step: of the state that is handed over, which `run` has taken up. start: when `train` began.
    """
    config, workdir = run.config, run.workdir
    _say_what_is_exported(run, step)
    trained = model_of(run.state, config, workdir, run.image_size)
    adapter = adapter_of(run.state, config, workdir, run.image_size)
    learned = learned_prompts(run.state, config, data.classes)
    if is_first():
        if adapter is not None:
            write_adapter(adapter, workdir / "adapter", replace=True)
        form = export_format(trained.config, trained.preprocess, trained.adaptation)
        write_model(trained, workdir / "model", form, replace=True)
        lines = of_table(run.metrics.lines, run.checkpoints.table)
        results = evaluate(config, workdir, data.held_out, lines, learned)
        seconds = run.seconds_before + time.perf_counter() - start
        size = trained.preprocess.image_size
        _write_results(config, workdir, results, data.held_out, step, round(seconds, 1), size)
    hosts.barrier("the results", _EVALUATION_SECONDS)
