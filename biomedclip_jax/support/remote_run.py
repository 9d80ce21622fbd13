"""A run folder behind an address (s3://, gs://, ...): worked on as a copy here, which is written back as the run goes on.

Behind the address lie the same files under the same names. A checkpoint counts once its `commit_success.txt` is there,
which is written last and removed first (Orbax' own convention on object stores).
"""

import contextlib
import fcntl
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from biomedclip_jax.errors import UserError
from biomedclip_jax.support._remote_files import (
    CHECKPOINTS,
    COMMITTED,
    METRICS,
    RESULTS,
    check_place,
    check_room,
    committed,
    is_carried,
    scratch,
    step_of,
)
from biomedclip_jax.support.owner import LOCK, owned
from biomedclip_jax.support.storage import Storage, Stored

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

    def fetch(self, say: Callable[[str], object]) -> None:
        """Bring all here that a run goes on with; of a finished one no checkpoints. UserError if it is no place for one run."""
        there = self.storage.files()
        check_place(self.storage.root, there)
        whole = set() if RESULTS in there else committed(there)
        if half := RESULTS not in there and {step for name in there if (step := step_of(name))} - whole:
            say(
                f"{self.storage.root}: checkpoints without {COMMITTED} are not used, as half an upload leaves them: "
                f"{', '.join(sorted(half, key=int))}"
            )
        wanted = {
            name: about
            for name, about in there.items()
            if (step_of(name) in whole or is_carried(name)) and not name.endswith(f"/{COMMITTED}")
        }
        check_room(self.storage.root, wanted, self.folder)
        for name in sorted(wanted):
            self.storage.download(name, self.folder / name)
            step = step_of(name)
            if step:
                self._steps.add(step)
            else:
                self._written[name] = _mark(self.folder / name)

    def take_up(self) -> bool:
        """Go on with the copy that is here already; False unless what lies behind the address is an earlier state of it."""
        there = self.storage.files()
        metrics = self.folder / METRICS
        earlier = self.storage.read(METRICS) if METRICS in there else b""
        if not (metrics.read_bytes() if metrics.is_file() else b"").startswith(earlier) or (committed(there) and not earlier):
            return False
        self._steps = committed(there) & {path.name for path in (self.folder / CHECKPOINTS).glob("*")}
        return True

    def write_back(self) -> None:
        """Write what is new or changed behind the address, and remove there what is gone here.

        Metrics come before the checkpoint whose steps they tell of, and results come last.
        """
        steps = {path.name for path in (self.folder / CHECKPOINTS).glob("*") if path.name.isdecimal()}  # complete: renamed
        names = self._other_files()
        whole = all([self._upload(name) for name in sorted(names - {RESULTS})])
        for step in sorted(steps - self._steps, key=int):
            self._upload_checkpoint(step)
        if RESULTS in names and whole:
            self._upload(RESULTS)
        for step in self._steps - steps:
            self._remove_checkpoint(step)
        for name in self._written.keys() - names:
            self.storage.remove(name)
            del self._written[name]

    def _other_files(self) -> set[str]:
        found: set[str] = set()
        for folder, folders, names in os.walk(self.folder):
            inside = Path(folder).relative_to(self.folder)
            folders[:] = [name for name in folders if is_carried(str(inside / name))]
            found |= {str(inside / name) for name in names if is_carried(str(inside / name))}
        return found

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
        folder = self.folder / CHECKPOINTS / step
        with contextlib.suppress(FileNotFoundError):  # a newer one has taken its place meanwhile
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                self.storage.upload(path, str(path.relative_to(self.folder)))
            if folder.is_dir():
                self.storage.write(f"{CHECKPOINTS}/{step}/{COMMITTED}", b"")
                self._steps.add(step)

    def _remove_checkpoint(self, step: str) -> None:
        self.storage.remove(f"{CHECKPOINTS}/{step}/{COMMITTED}")
        for name in self.storage.files():
            if step_of(name) == step:
                self.storage.remove(name)
        self._steps.discard(step)


def _mark(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def working_copy(address: str, say: Callable[[str], object]) -> Iterator[Path]:
    """A folder here with the run that lies behind an address, held for this process; what is written goes to the address.

    That happens every 15 seconds and at the end, also after an error. The copy lies in the folder for temporary files
    (`TMPDIR`) and goes at the end. UserError if another run holds the address, if it cannot be reached, and, with the copy
    kept, if the last files cannot be written to it: the next call here writes them first.
    """
    storage = Storage(address.rstrip("/"))
    with owned(storage, LOCK, writer="run", instead="another --workdir", watch=40) as taken_over:
        folder = scratch(address, "runs")
        copy = _Copy(address, folder)
        if not _taken_up(copy, say):
            shutil.rmtree(folder, ignore_errors=True)  # of a killed run; the truth lies behind the address
            folder.mkdir()
            copy.fetch(say)
        say(f"{storage.root}: worked on in {folder}, and written every {_EVERY:.0f} s")
        over = threading.Event()
        writer = threading.Thread(target=_keep_writing, args=(copy, over, taken_over), name="write back", daemon=True)
        writer.start()
        try:
            yield folder
        except UserError as error:
            if str(folder) in str(error):
                raise type(error)(
                    f"{str(error).replace(str(folder), storage.root)} (its copy here is {folder}, in TMPDIR)"
                ) from error
            raise
        finally:
            over.set()
            writer.join()
            _write_last(copy, taken_over)
            shutil.rmtree(folder, ignore_errors=True)


def _unwritten(folder: Path) -> Path:
    """The mark of a copy that holds what could not be written: beside it."""
    return folder.with_name(f"{folder.name}.unwritten")


def _taken_up(copy: _Copy, say: Callable[[str], object]) -> bool:
    """Write behind the address what a run before could not, so that it goes on from there; False where there is nothing.

    Where the run behind the address went on without it, or is another one, the copy is moved aside, which is said.
    """
    mark = _unwritten(copy.folder)
    if not (mark.exists() and copy.folder.is_dir()):
        return False
    if going_on := copy.take_up():
        copy.write_back()
        say(f"{copy.storage.root}: what the run before could not write is written now")
    else:
        say(f"{copy.storage.root}: has gone on without what the run before could not write, which is now in {_aside(copy)}")
    mark.unlink()
    return going_on


def _aside(copy: _Copy) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"{copy.folder.name}-", dir=copy.folder.parent))
    copy.folder.rename(folder)
    return folder


def _keep_writing(copy: _Copy, over: threading.Event, taken_over: Callable[[], bool]) -> None:
    said = False
    while not over.wait(_EVERY):
        try:
            if taken_over():
                print(
                    f"{copy.storage.root}: another process has taken it over, because for ten minutes nothing could be written "
                    "there; this run goes on, and no more of it is written there",
                    file=sys.stderr,
                    flush=True,
                )
                return
            copy.write_back()
            said = False
        except (UserError, OSError) as error:
            if not said:  # once for each interruption
                print(f"{error}; the run goes on, and it is tried again every {_EVERY:.0f} s", file=sys.stderr, flush=True)
            said = True


def _write_last(copy: _Copy, taken_over: Callable[[], bool]) -> None:
    for left in reversed(range(_TRIES)):
        try:
            if taken_over():
                raise UserError(f"{copy.storage.root}: another process has taken it over; this run is now in {_aside(copy)}")
            copy.write_back()
            return
        except (UserError, OSError) as error:
            if not copy.folder.is_dir():
                raise
            if not left:
                _unwritten(copy.folder).touch()
                raise UserError(
                    f"{error}; all that the run has written is in {copy.folder}: the same command, on this machine, writes it "
                    f"to {copy.storage.root} and goes on"
                ) from error
            threading.Event().wait(2)


def fetched(address: str) -> Path:
    """A folder here with the model that lies behind an address: a model folder, or what a reader of a run needs.

    Of a finished run that is all but its checkpoints, of another one the newest checkpoint. Files that are here from
    before, and have not changed, are not fetched again. UserError if there is nothing, or it cannot be reached.
    """
    storage = Storage(address.rstrip("/"))
    folder = scratch(address, "models")
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:  # several processes here may read one model
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in reversed(range(_TRIES)):
            there = storage.files()
            wanted = _for_readers(address, there)
            try:
                _update(storage, folder, wanted)
                return folder
            except FileNotFoundError as error:  # the run went on meanwhile
                if not left:
                    raise UserError(f"{address}: changes faster than it can be read; try again") from error
    raise AssertionError("unreachable")


def _for_readers(address: str, there: Mapping[str, Stored]) -> dict[str, Stored]:
    """The files of a model folder, or of a run those that a reader needs. UserError if there are none."""
    check_place(address, there)
    finished = RESULTS in there
    newest = "" if finished else max(committed(there), key=int, default="")
    of_a_run = METRICS in there or newest != ""
    half = () if finished or not of_a_run else ("model", "adapter")  # the results are written last
    wanted = {
        name: about
        for name, about in there.items()
        if (step_of(name) == newest if step_of(name) else is_carried(name) and name.split("/", 1)[0] not in half)
    }
    if not wanted:
        raise UserError(f"{address}: nothing is there; expected a model folder or a run folder")
    return wanted


def _update(storage: Storage, folder: Path, wanted: Mapping[str, Stored]) -> None:
    """Make a folder hold these files and no others. FileNotFoundError if one went meanwhile."""
    known = folder / _KNOWN
    try:
        before = json.loads(known.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none, or a process was killed while it wrote it
        before = {}
    versions = {name: f"{about.size} {about.version}" for name, about in wanted.items()}
    have = {name for name, version in before.items() if versions.get(name) == version and (folder / name).is_file()}
    known.parent.mkdir(exist_ok=True)
    known.write_text(json.dumps({name: versions[name] for name in have}), encoding="utf-8")
    for path in [path for path in folder.rglob("*") if path.is_file() and path != known]:
        if str(path.relative_to(folder)) not in wanted:
            path.unlink()
    for step in (folder / CHECKPOINTS).glob("*"):
        if not any(step_of(name) == step.name for name in wanted):
            shutil.rmtree(step)
    missing = {name: about for name, about in wanted.items() if name not in have}
    check_room(storage.root, missing, folder)
    for name in sorted(missing):
        storage.download(name, folder / name)
    known.write_text(json.dumps(versions), encoding="utf-8")
