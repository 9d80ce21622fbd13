"""A fine-tuning from somebody's data to a model that is better by it, or to the start and the word that it is not.

The steps, in `finetune`: look at the data and divide them; find the microbatch and the rate; train; choose the mixture
with the start; measure both on held-out pairs and on the forgetting check; hand over the better one.
"""

import dataclasses
import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.config.files import to_python
from biomedclip_jax.data.names import split_of
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text
from biomedclip_jax.finetune._besides import Keep, check_place, kept, replay
from biomedclip_jax.finetune._judge import Judge, judged_data
from biomedclip_jax.finetune._memory import fitting_microbatch
from biomedclip_jax.finetune._mixture import Tried, chosen, mixed, tried_mixtures
from biomedclip_jax.finetune._model_card import model_card
from biomedclip_jax.finetune._parts import HELD_OUT, TRAIN, VALIDATION, Parts, divided, write_rows
from biomedclip_jax.finetune._plan import METHOD_RATES, Sizes, check_fits, planned, sizes
from biomedclip_jax.finetune._rates import TriedRate, best_rate, swept_steps, tried_rate
from biomedclip_jax.finetune._report import Comparison, compare, table
from biomedclip_jax.finetune.request import Request
from biomedclip_jax.interop.detect import UNFINISHED_RUN, detect
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.model_files import local_folder
from biomedclip_jax.interop.write import export_format, write_model
from biomedclip_jax.pretrained import load
from biomedclip_jax.support.owner import LOCK, owned_folder
from biomedclip_jax.train.main import train
from biomedclip_jax.train.model_card import put_on_top

Exported = Literal["best", "last", "start"]

RESULTS, REQUEST, CONFIG = "results.json", "finetune.json", "config.py"
# what a start that was refused may leave
_BEFORE = (LOCK, "images", "data", "demo", "rejects.jsonl", "start", "report", "embeddings")


def finetune(request: Request, out: Path) -> dict[str, Any]:
    """Fine-tune a model as a request says, in the folder `out`, and return what stands in its `results.json`.

    The folder holds `model/` (what is handed over), `config.py` (the run, to be edited and run again), `run/` (its run
    folder), `data/` (the tables that it learned from and was judged on), `report/` (tables and galleries, before and
    after). The same call goes on where an interrupted one stopped. UserError for input that cannot work, before
    anything is trained.
    """
    if jax.process_count() > 1:
        raise UserError("finetune: works in one process; take its config.py to several with `biomedclip train`")
    check_place(request, out)
    with owned_folder(out, writer="fine-tuning", instead="another --out"):
        _check_owner(request, out)
        if (out / RESULTS).is_file():
            print(f"{out}: this fine-tuning is done already")
            results = json.loads((out / RESULTS).read_text(encoding="utf-8"))
            print("\n".join(results["lines"]))
            return results
        return _finetune(request, out)


def _finetune(request: Request, out: Path) -> dict[str, Any]:
    began, asked = time.monotonic(), request
    model = load(request.model)
    check_fits(request, model)
    export_format(model.config, model.preprocess)
    parts = divided(request, out)
    print("\n".join(parts.lines))
    keep = kept(request, parts, out)
    replayed = replay(request, parts, keep, out)
    if not replayed:
        request = dataclasses.replace(request, replay=None)
    for part in (TRAIN, VALIDATION, HELD_OUT):
        write_rows(parts.rows(part), out / "data" / f"{part}.jsonl")
    if parts.rejects:
        rejects = "".join(json.dumps(vars(each), ensure_ascii=False) + "\n" for each in parts.rejects)
        write_text(out / "rejects.jsonl", rejects)
        print(
            f"{len(parts.rejects)} rows were left out, such as {parts.rejects[0].image}: {parts.rejects[0].reason}; "
            f"all of them in {out / 'rejects.jsonl'}"
        )
    source = _start(request, model, out)
    held_out = judged_data(parts.held_out, not parts.labelled)
    before = compare(request, held_out, keep.judged if keep else None, None, out)  # what the end needs fails here

    config, size = _with_microbatch(request, model, source, parts, replayed, out)
    write_text(out / REQUEST, json.dumps(_asked(asked), indent=2) + "\n")
    rate, tried_rates = _rate(request, config, size, out)
    optimizer = dataclasses.replace(config.optimizer, learning_rate=rate)
    config = dataclasses.replace(config, optimizer=optimizer)
    _write_config(config, request, out)
    print(f"training: {size.steps} updates of {size.batch_size} pairs at a rate of {rate:g}, --method {request.method}")
    trained = train(config, out / "run")
    assert trained is not None
    mixture, tried = _mixture(request, model, parts, keep, out, trained.exported_step or 0)
    after = out / "model" if mixture.share else None
    comparison = before if after is None else compare(request, held_out, keep.judged if keep else None, after, out)
    exported: Exported = "last" if request.export == "last" else "start" if after is None else "best"
    if exported == "best" and comparison.gain < 0:
        _write(model, out)
        exported, comparison = "start", comparison.rejected()

    step = {"start": 0, "last": size.steps}.get(exported, trained.exported_step)
    about = {"weights": exported, "step": step, "share_of_trained_weights": mixture.share if exported != "start" else 0.0}
    results = comparison.record() | {
        "exported": about,
        "method": request.method,
        "rate": rate,
        "rates_tried": [vars(each) for each in tried_rates],
        "mixtures_tried": [vars(each) for each in tried],
        "seconds": round(time.monotonic() - began, 1),
    }
    lines = [*table(comparison), *_verdict(comparison, exported, about, out, tried), *_next(out, parts)]
    results["lines"] = lines
    # before the file that says that it is finished
    put_on_top(model_card(request, config, parts, replayed, results), out / "model")
    write_text(out / RESULTS, json.dumps(results, indent=2) + "\n")
    print("\n".join(lines))
    return results


def _check_owner(request: Request, out: Path) -> None:
    """UserError if the folder holds another fine-tuning, or something else."""
    path = out / REQUEST
    if not path.is_file():
        if any(each.name not in _BEFORE for each in out.iterdir()):
            raise UserError(f"{out}: is there already and holds no fine-tuning; choose another --out, or remove it")
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(stored, dict)
    except (ValueError, AssertionError):
        raise UserError(f"{path}: not readable; choose another --out, or remove {out}") from None
    ours = _asked(request)
    if changed := [path for path, digest in ours.pop("files").items() if stored.get("files", {}).get(path, digest) != digest]:
        raise UserError(f"{changed[0]}: has changed since {out} began with it; choose another --out, or remove {out}")
    if differ := [
        f"{name} = {stored.get(name)!r} there, {ours[name]!r} here" for name in ours if stored.get(name) != ours[name]
    ]:
        raise UserError(f"{out}: holds another fine-tuning ({'; '.join(differ)}); choose another --out, or remove it")


def _asked(request: Request) -> dict[str, Any]:
    """The request as JSON has it, and in `files` a digest of each file of data that it names."""
    found = json.loads(json.dumps(dataclasses.asdict(request))) | {"files": {}}
    for source in filter(None, (request.data, request.held_out)):
        path = Path(source if Path(source).exists() else split_of(source)[0])
        if path.is_file():
            with path.open("rb") as file:
                found["files"][str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


# --- what goes in ---------------------------------------------------------------------------------------------------


def _start(request: Request, model: Model, out: Path) -> str:
    """Where the run reads the starting weights: the user's model, or a copy of what is in no model folder."""
    if request.model.startswith("hf-hub:"):
        return request.model
    found = detect(local_folder(request.model))
    if found.kind != UNFINISHED_RUN:
        return str(found.path.resolve())
    start = out / "start"
    if not (out / REQUEST).is_file() or not start.is_dir():  # one of a start that was refused is of another model
        shutil.rmtree(start, ignore_errors=True)
        write_model(model, start, export_format(model.config, model.preprocess))
    return str(start)


# --- how it is trained ----------------------------------------------------------------------------------------------


def _with_microbatch(
    request: Request, model: Model, source: str, parts: Parts, replayed: int, out: Path
) -> tuple[TrainConfig, Sizes]:
    size = sizes(request, len(parts.train), jax.device_count())
    config = planned(request, model, source, size, METHOD_RATES[request.method][0], out)
    if request.microbatch is None:
        microbatch, line = fitting_microbatch(config, len(parts.train) + replayed)
        print(line)
        size = dataclasses.replace(size, microbatch=microbatch)
        config = planned(request, model, source, size, METHOD_RATES[request.method][0], out)
    return config, size


def _rate(request: Request, config: TrainConfig, size: Sizes, out: Path) -> tuple[float, list[TriedRate]]:
    if request.rate is not None:
        return request.rate, []
    rates = METHOD_RATES[request.method]
    print(f"rates: {', '.join(f'{rate:g}' for rate in rates)} are tried for {swept_steps(size)} of {size.steps} updates each")
    tried, start = [], 0.0
    for rate in rates:
        start, found = tried_rate(config, rate, size, out / "rates" / f"{rate:g}")
        tried.append(found)
    shown = ", ".join(f"{each.rate:g}: {'no number' if each.loss is None else f'{each.loss:.4f}'}" for each in tried)
    rate = best_rate(start, tried, print)
    print(f"rates: held-out loss {start:.4f} at the start; {shown}; taken: {rate:g}")
    return rate, tried


def _write_config(config: TrainConfig, request: Request, out: Path) -> None:
    about = f'"""A fine-tuning of {request.model} that `biomedclip finetune` planned; to run it again, or otherwise:\n\n'
    write_text(out / CONFIG, f'{about}    biomedclip train {out / CONFIG} --workdir RUN\n"""\n\n{to_python(config)}')


# --- what comes out -------------------------------------------------------------------------------------------------


def _mixture(
    request: Request, model: Model, parts: Parts, keep: Keep | None, out: Path, step: int
) -> tuple[Tried, list[Tried]]:
    """The mixture of trained and starting weights that is handed over if it is better; its model is in `model/`."""
    trained = load(out / "run" / "model")
    if request.export == "last":
        picked, tried = Tried(1.0, float("nan"), float("nan")), list[Tried]()
    elif step == 0:
        picked, tried = Tried(0.0, float("nan"), float("nan")), []
    else:
        validation = judged_data(parts.validation, not parts.labelled)
        judge = Judge(model)

        def judged(share: float) -> Tried:
            params = mixed(model.params, trained.params, share)
            score, loss = judge.score(params, validation)
            return Tried(share, loss, score, judge.score(params, keep.choice)[0] if keep else None)

        tried = tried_mixtures(judged)
        picked = chosen(tried, request.max_forgetting)
        for each in tried:
            kept = "" if each.keep is None else f", forgetting check {each.keep:.1%}"
            mark = "  <- taken" if each.share == picked.share else ""
            print(f"mixture: {each.share:.0%} trained: held-out loss {each.loss:.4f}, score {each.score:.1%}{kept}{mark}")
    params = mixed(model.params, trained.params, picked.share)
    _write(dataclasses.replace(model, params=params), out)
    return picked, tried


def _write(model: Model, out: Path) -> None:
    write_model(model, out / "model", export_format(model.config, model.preprocess), replace=True)


def _verdict(comparison: Comparison, exported: str, about: dict[str, Any], out: Path, tried: Sequence[Tried]) -> list[str]:
    where = out / "model"
    if exported == "start":
        why, advice = "no evaluation found a lower held-out loss", "more pairs, or another --method, may help"
        if comparison.tried:
            why = "what was trained did worse on the held-out pairs"
        elif any(each.loss < tried[0].loss for each in tried):
            why = "what was trained did better on the data for choices, but was worse on the forgetting check"
            advice = "--replay PAIRS trains on what must not be forgotten, too; --max-forgetting allows more"
        return [f"It did not get better ({why}): {where} holds the weights of the START; {advice}."]
    if exported == "last":
        word = "better" if comparison.gain > 0 else "NOT better"
        return [f"{where} holds the weights after the last update, as asked for: {word} than the start on the held-out pairs."]
    share = about["share_of_trained_weights"]
    of_start = "" if share == 1 else f", {share:.0%} of them mixed with {1 - share:.0%} of the start"
    certain = "" if comparison.certain else " (but with so few pairs the gain could be chance)"
    better = (
        f"It got better{certain}" if comparison.gain > 0 else "Its scores are the same, its held-out loss for choices is lower"
    )
    return [f"{better}: {where} holds the weights after update {about['step']}{of_start}."]


def _next(out: Path, parts: Parts) -> Sequence[str]:
    image = parts.held_out[0].image
    report = f"report: {out / 'report' / 'report.html'}; config to edit and run again: {out / CONFIG}"
    if len(parts.classes) < 2:
        return [report, "use it:", f"  biomedclip embed {out} --images FOLDER --out embeddings.npz"]
    command = shlex.join(["biomedclip", "classify", str(out), image, "--labels", *parts.classes[:8]])
    return [report, "use it (research only, not for clinical use):", f"  {command}"]
