"""A run folder behind an address (s3://, gs://, ...): worked on as a copy here, which is written back as the run goes on.

Behind the address lie the same files under the same names. A checkpoint counts once its `commit_success.txt` is there,
which is written last and removed first (Orbax' own convention on object stores).
"""

import contextlib
import getpass
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from biomedclip_jax.errors import UserError
from biomedclip_jax.support.owner import LOCK, owned
from biomedclip_jax.support.storage import Storage

COMMITTED = "commit_success.txt"

_CHECKPOINTS = "checkpoints"
_RESULTS = "results.json"  # of a finished run: written last
_MADE_AGAIN = ("data", "words")  # folders of the demos, which a run makes itself
_EVERY = 15.0  # seconds between two looks for what is new
_TRIES = 3  # to write the last files, or to read a folder that is being written
_KNOWN = ".fetched.json"  # in a reader's copy: the versions of its files


class _Copy:
    """The files behind an address, and their copy in a folder here."""

    def __init__(self, address: str, folder: Path):
        self.storage = Storage(address.rstrip("/"))
        self.folder = folder
        self._written: dict[str, tuple[int, int]] = {}  # size and time of the files here that are as those behind the address
        self._steps: set[str] = set()  # checkpoints that are both here and there

    def fetch(self) -> None:
        """Bring all here that a run goes on with; of a finished one no checkpoints."""
        there = self.storage.files()
        committed = _committed(there)
        for name in sorted(there):
            step = _step_of(name)
            wanted = step in committed and _RESULTS not in there if step else _first(name) not in (LOCK, *_MADE_AGAIN)
            if not wanted or name.endswith(COMMITTED):
                continue
            self.storage.download(name, self.folder / name)
            if step:
                self._steps.add(step)
            else:
                self._written[name] = _mark(self.folder / name)

    def write_back(self) -> None:
        """Write what is new or changed behind the address, and remove there what is gone here.

        Metrics come before the checkpoint whose steps they tell of, and results come last.
        """
        steps = {path.name for path in (self.folder / _CHECKPOINTS).glob("*") if path.name.isdecimal()}  # complete: renamed
        names = {str(path.relative_to(self.folder)) for path in self._other_files()}
        whole = all([self._upload(name) for name in sorted(names - {_RESULTS})])
        for step in sorted(steps - self._steps, key=int):
            self._upload_checkpoint(step)
        if _RESULTS in names and whole:
            self._upload(_RESULTS)
        for step in self._steps - steps:
            self._remove_checkpoint(step)
        for name in self._written.keys() - names:
            self.storage.remove(name)
            del self._written[name]

    def _other_files(self) -> Iterator[Path]:
        for folder, folders, names in os.walk(self.folder):
            top = Path(folder) == self.folder
            folders[:] = [
                name for name in folders if not name.endswith(".partial") and not (top and name in (_CHECKPOINTS, *_MADE_AGAIN))
            ]
            yield from (Path(folder) / name for name in names if not name.endswith(".partial") and not (top and name == LOCK))

    def _upload(self, name: str) -> bool:
        """Write a file if it has changed; False if it went meanwhile."""
        path = self.folder / name
        try:
            if self._written.get(name) != (mark := _mark(path)):
                self.storage.upload(path, name)
                self._written[name] = mark
        except FileNotFoundError:
            return False
        return True

    def _upload_checkpoint(self, step: str) -> None:
        folder = self.folder / _CHECKPOINTS / step
        with contextlib.suppress(FileNotFoundError):  # a newer one has taken its place meanwhile
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                self.storage.upload(path, str(path.relative_to(self.folder)))
            if folder.is_dir():
                self.storage.write(f"{_CHECKPOINTS}/{step}/{COMMITTED}", b"")
                self._steps.add(step)

    def _remove_checkpoint(self, step: str) -> None:
        self.storage.remove(f"{_CHECKPOINTS}/{step}/{COMMITTED}")
        for name in self.storage.files():
            if _step_of(name) == step:
                self.storage.remove(name)
        self._steps.discard(step)


def _committed(names: Iterable[str]) -> set[str]:
    """The steps of the checkpoints that are whole."""
    return {step for name in names if name.endswith(f"/{COMMITTED}") and (step := _step_of(name))}


def _step_of(name: str) -> str:
    """ "100" of "checkpoints/100/state/x", "" of the files that belong to no checkpoint."""
    parts = name.split("/")
    return parts[1] if parts[0] == _CHECKPOINTS and len(parts) > 2 else ""


def _first(name: str) -> str:
    return name.split("/", 1)[0]


def _mark(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _scratch(address: str, use: str) -> Path:
    """The folder for a copy, always the same: what a killed process left there does not add up."""
    base = Path(tempfile.gettempdir()) / f"biomedclip_jax-{getpass.getuser()}"
    base.mkdir(mode=0o700, exist_ok=True)
    return base / use / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]


@contextlib.contextmanager
def working_copy(address: str, say: Callable[[str], object]) -> Iterator[Path]:
    """A folder here with the run that lies behind an address, held for this process; what is written goes to the address.

    That happens every 15 seconds and at the end, also after an error. The copy lies in the folder for temporary files
    (`TMPDIR`) and goes at the end. UserError if another run holds the address, if it cannot be reached, and, with the copy
    kept, if the last files cannot be written to it.
    """
    storage = Storage(address.rstrip("/"))
    with owned(storage, LOCK, writer="run", instead="another --workdir", watch=40):
        folder = _scratch(address, "runs")
        shutil.rmtree(folder, ignore_errors=True)  # of a killed run; the truth lies behind the address
        folder.mkdir(parents=True)
        copy = _Copy(address, folder)
        copy.fetch()
        say(f"{storage.root}: worked on in {folder}, and written every {_EVERY:.0f} s")
        over = threading.Event()
        writer = threading.Thread(target=_keep_writing, args=(copy, over), name="write back", daemon=True)
        writer.start()
        try:
            yield folder
        except UserError as error:
            if str(folder) in str(error):
                raise type(error)(f"{str(error).replace(str(folder), storage.root)} (its copy here is {folder})") from error
            raise
        finally:
            over.set()
            writer.join()
            _write_last(copy, over)
            shutil.rmtree(folder, ignore_errors=True)


def _keep_writing(copy: _Copy, over: threading.Event) -> None:
    said = False
    while not over.wait(_EVERY):
        try:
            copy.write_back()
            said = False
        except UserError as error:
            if not said:  # once for each interruption
                print(f"{error}; the run goes on, and it is tried again every {_EVERY:.0f} s", file=sys.stderr, flush=True)
            said = True


def _write_last(copy: _Copy, over: threading.Event) -> None:
    for left in reversed(range(_TRIES)):
        try:
            copy.write_back()
            return
        except UserError as error:
            if not left:
                raise UserError(
                    f"{error}; all that the run has written is in {copy.folder}: copy it to {copy.storage.root} before the "
                    "same command is run again"
                ) from error
            threading.Event().wait(2)


def fetched(address: str) -> Path:
    """A folder here with the model that lies behind an address: a model folder, or what a reader of a run needs.

    Of a finished run that is all but its checkpoints, of another one the newest checkpoint. Files that are here from
    before, and have not changed, are not fetched again. UserError if there is nothing, or it cannot be reached.
    """
    storage = Storage(address.rstrip("/"))
    folder = _scratch(address, "models")
    for left in reversed(range(_TRIES)):
        there = storage.files()
        newest = max(_committed(there), key=int, default="") if _RESULTS not in there else ""
        wanted = {
            name: about
            for name, about in there.items()
            if (_step_of(name) == newest if _step_of(name) else _first(name) not in (LOCK, *_MADE_AGAIN))
        }
        if not wanted:
            raise UserError(f"{address}: nothing is there; expected a model folder or a run folder")
        known = folder / _KNOWN
        before = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
        have = {name: version for name, version in before.items() if (folder / name).is_file()}
        for path in [path for path in folder.rglob("*") if path.is_file() and str(path.relative_to(folder)) not in wanted]:
            path.unlink()
        for step in (folder / _CHECKPOINTS).glob("*"):
            if step.name != newest:
                shutil.rmtree(step)
        versions = {name: f"{about.size} {about.version}" for name, about in wanted.items()}
        try:
            for name in sorted(wanted):
                if have.get(name) != versions[name]:
                    storage.download(name, folder / name)
        except FileNotFoundError as error:  # the run went on meanwhile
            if not left:
                raise UserError(f"{address}: changes faster than it can be read; try again") from error
            continue
        known.write_text(json.dumps(versions), encoding="utf-8")
        return folder
    raise AssertionError("unreachable")
