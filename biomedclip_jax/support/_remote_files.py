"""Which files behind an address belong to a run or a model, whether there is room for them here, and where they go."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from biomedclip_jax.errors import UserError
from biomedclip_jax.support.owner import LOCK
from biomedclip_jax.support.storage import Stored

COMMITTED = "commit_success.txt"

CHECKPOINTS = "checkpoints"
RESULTS = "results.json"  # of a finished run: written last
METRICS = "metrics.jsonl"  # only ever added to
MADE_AGAIN = ("data", "words", "questions")  # folders of the demos, which a run makes itself


def committed(names: Iterable[str]) -> set[str]:
    """The steps of the checkpoints that are whole."""
    return {step for name in names if name.endswith(f"/{COMMITTED}") and (step := step_of(name))}


def step_of(name: str) -> str:
    """ "100" of "checkpoints/100/state/x", "" of the files that belong to no checkpoint."""
    parts = name.split("/")
    return parts[1] if parts[0] == CHECKPOINTS and len(parts) > 2 and parts[1].isdecimal() else ""


def is_carried(name: str) -> bool:
    """Whether a file, or folder, that is no checkpoint is fetched and written back. Others stay as they are on both sides."""
    parts = name.split("/")
    return parts[0] not in (LOCK, CHECKPOINTS, *MADE_AGAIN) and not any(part.endswith(".partial") for part in parts)


def check_place(address: str, names: Iterable[str]) -> None:
    """UserError for a file, and for a folder of runs or models: all of them would be fetched."""
    names = set(names)
    if "" in names:
        raise UserError(f"{address}: a file; expected a folder: give the address of the one that it is in")
    inside = {name.split("/", 1)[0] for name in names if "/" in name}
    runs = not names & {METRICS, "finetune.json"} and any(name.endswith(f"/{METRICS}") for name in names)
    only_folders = inside and names - {LOCK} and all("/" in name for name in names - {LOCK})
    if runs or (only_folders and not names & {"vision/config.json", "text/config.json"} and CHECKPOINTS not in inside):
        shown = ", ".join(sorted(inside)[:5])
        raise UserError(f"{address}: holds folders ({shown}), and is no run or model itself; give one of them, or a new one")


def check_room(address: str, files: Mapping[str, Stored], folder: Path) -> None:
    """UserError where the files do not fit on the disk of the copy."""
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    needed, free = sum(about.size for about in files.values()), shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"{address}: {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free for its copy in {folder}; make room, or "
            "name a folder on another disk with TMPDIR"
        )


def scratch(address: str, use: str) -> Path:
    """The folder for a copy, always the same: what a killed process left there does not add up."""
    base = Path(tempfile.gettempdir()) / f"biomedclip_jax-{os.getuid()}"  # in a container the user may have no name
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        (base / use).mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{base}: cannot be made for the copy of {address} ({error.strerror}); name another folder with TMPDIR"
        ) from error
    return base / use / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]
