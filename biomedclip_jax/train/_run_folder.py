"""A run folder: who writes it, whether a run has begun there, and what may change when it goes on."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax

from biomedclip_jax.config import TrainConfig, from_json, to_json
from biomedclip_jax.config.changes import refused_changes
from biomedclip_jax.data.pairs import Pairs
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text
from biomedclip_jax.sharding import make_mesh
from biomedclip_jax.support.owner import owned_folder
from biomedclip_jax.support.remote_run import working_copy
from biomedclip_jax.support.storage import is_address
from biomedclip_jax.train._checkpoint import DAMAGED, FOLDER, About
from biomedclip_jax.train._frozen import without_frozen
from biomedclip_jax.train._same_data import DataIdentity, check_still_same
from biomedclip_jax.train.export import CONFIG, read_config
from biomedclip_jax.train.multihost.hosts import is_first, say
from biomedclip_jax.train.state import abstract_state, optimizer_for

RESULTS = "results.json"
_SHOWN = 3  # changes in a message


@contextlib.contextmanager
def opened_run_folder(where: Path | str) -> Iterator[Path]:
    """A run folder to work in: the folder itself, or a copy of what lies behind an address, see `working_copy`.

    UserError where several processes would write behind an address.
    """
    if not is_address(where):
        yield Path(where)
        return
    if jax.process_count() > 1:
        raise UserError(
            f"{where}: {jax.process_count()} processes write one run, and an address serves one process; mount the bucket "
            "(gcsfuse, mountpoint-s3, JuiceFS) on every host and give that folder"
        )
    with working_copy(str(where), say) as folder:
        yield folder


@contextlib.contextmanager
def alone_in(workdir: Path) -> Iterator[None]:
    """Hold the run folder for this run, whose first process does it for all. UserError where another run is writing it.

    A start that fails before anything is written leaves no folder.
    """
    if not is_first():
        yield
        return
    with owned_folder(workdir, writer="run", instead="another --workdir"):
        yield


def has_begun(workdir: Path) -> bool:
    """Whether the folder holds what an update, or a whole run, has made.

    A start that failed before, also after the evaluation of the start, has left nothing that is worth keeping.
    """
    kept = [int(path.name) for path in (workdir / FOLDER).glob("*") if path.name.isdecimal()]
    return any(kept) or (workdir / DAMAGED).exists() or (workdir / RESULTS).is_file()


def check_owner(config: TrainConfig, workdir: Path) -> None:
    """UserError if the folder holds a run that has begun with another config; names the fields that differ, and values.

    What has no part in an update of the weights may change, and so may every config before the first update.
    """
    path = workdir / CONFIG
    if not path.is_file() or not has_begun(workdir):
        return
    try:
        stored = from_json(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, UserError) as error:
        raise UserError(f"{path}: not a readable run config ({error}); choose another --workdir, or remove it") from error
    if changed := refused_changes(config, stored):
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise UserError(
            f"{path}: this folder holds a run with another config ({', '.join(map(str, changed[:_SHOWN]))}{more}); "
            "choose another --workdir, or remove it"
        )


def check_room(config: TrainConfig, workdir: Path) -> None:
    """UserError if a new run's first checkpoint and its model folder do not fit on the disk; a word if the rest does not."""
    if not is_first() or has_begun(workdir):
        return
    optimizer = optimizer_for(config)
    state = abstract_state(config, config.image_size(config.stages[-1]), optimizer, make_mesh())
    kept = dataclasses.replace(state, params=without_frozen(state.params, config, optimizer))
    model, checkpoint = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) for tree in (state.params, kept)
    )
    there = next(folder for folder in (workdir, *workdir.absolute().parents) if folder.is_dir())
    free, needed = shutil.disk_usage(there).free, checkpoint + model
    all_of_them = (config.run.keep_checkpoints + 2) * checkpoint + model  # one more while it is written, and the best
    if free < needed:
        raise UserError(
            f"{workdir}: {free / 1e6:,.0f} MB are free, and a checkpoint and the model folder need {needed / 1e6:,.0f} MB; "
            "make room, or choose another --workdir"
        )
    if free < all_of_them:
        say(f"{workdir}: {free / 1e6:,.0f} MB are free; with run.keep_checkpoints this run needs {all_of_them / 1e6:,.0f} MB")


def make_ready(workdir: Path) -> None:
    """Take away what a start left that failed before the first update, where nothing else is."""
    if is_first() and not has_begun(workdir):
        shutil.rmtree(workdir / FOLDER, ignore_errors=True)
        for path in (workdir / CONFIG, workdir / "metrics.jsonl", *workdir.glob("rejects*.jsonl")):
            path.unlink(missing_ok=True)


def claim(config: TrainConfig, workdir: Path) -> None:
    """Write the config of the run whose folder this is: it may differ from that of before in what may change."""
    if is_first():
        write_text(workdir / CONFIG, to_json(config))


def with_these_data(about: About, data: DataIdentity, pairs: Pairs, config: TrainConfig, workdir: Path) -> About:
    """What a checkpoint's run knows, when it goes on with these data. UserError where the training pairs are others.

    Where the held-out pairs are others, no earlier loss counts any more. Checkpoints of before know the number of pairs
    alone: their data must lie where they lay.
    """
    if about.data is not None:
        check_still_same(config, data, about.data, pairs)
        same_held_out = data.held_out == about.data.held_out
    else:
        if about.pairs != len(pairs):
            raise UserError(
                f"{config.data.train}: {len(pairs)} usable pairs, but this run began with {about.pairs}; "
                "bring the data back as it was, or choose another --workdir"
            )
        stored = read_config(workdir).data
        for name in ("train", "tokenizer"):
            now, before = getattr(config.data, name), getattr(stored, name)
            if now != before:
                raise UserError(
                    f"data.{name} = {now!r}, there {before!r}: this run's checkpoints do not say what its data are, so that "
                    "they must stay where they are; choose another --workdir"
                )
        same_held_out = config.data.held_out == stored.held_out
    if same_held_out:
        return about
    if about.best_loss is not None:
        say(
            f"data.held_out: other pairs than before, so the lowest loss until now ({about.best_loss:.3f}) is not compared: "
            'export = "best" chooses among the evaluations from here on'
        )
    return dataclasses.replace(about, best_loss=None, stale=0, table=about.table + 1)
