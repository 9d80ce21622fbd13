"""Beam: runs a function once for each shard, on this machine's processes or on Dataflow, Flink or Spark."""

import contextlib
import functools
import logging
import multiprocessing
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, TextIO

from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.support.parallel import core_count
from biomedclip_jax.support.terminal import quiet_stderr

_TAIL = 4_000  # bytes

RUNNERS = {
    "direct": "DirectRunner",
    "dataflow": "DataflowRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "portable": "PortableRunner",
}


_pools: dict[int, ProcessPoolExecutor] = {}  # of the direct runner, by what its Beam threads know of them


class WorkerDied(UserError):
    """A process of the direct runner was ended from outside, for want of memory as a rule."""


@dataclass(frozen=True)
class Runner:
    """Where the work is done. options: Beam's own flags, passed through ("--project=x", "--flink_master=host:8081")."""

    name: str = "direct"
    workers: int | None = None  # processes of the direct runner; None: one a core
    options: tuple[str, ...] = ()

    def for_each(self, items: Sequence[Any], do: Callable[[Any], None], done: Callable[[], int], label: str) -> None:
        """`do(item)` for all items; both are pickled. done: how many are finished by now, for the progress bar.

        Raises UserError for the error of a worker that the user can mend, WorkerDied where a process of this machine died.
        """
        if not items:
            return
        workers = min(self.workers or core_count(), len(items)) if self.name == "direct" else 1
        beam, options = self._options(workers)
        quiet = quiet_stderr(_TAIL) if self.name == "direct" else contextlib.nullcontext(sys.stderr)
        with quiet as stderr, _progress(len(items), done, label, stderr), _in_processes(do, workers) as run:
            try:
                with beam.Pipeline(options=options) as pipeline:
                    # without the reshuffle all items would be one bundle, and one process would do everything
                    _ = pipeline | beam.Create(items) | beam.Reshuffle() | beam.Map(run)
            except Exception as error:
                raise _of_user(error) from error

    def _options(self, workers: int) -> tuple[Any, Any]:
        logging.disable(logging.WARNING)  # Beam warns on import of Google's libraries that are not there
        try:
            import apache_beam as beam
            from apache_beam.options.pipeline_options import PipelineOptions
        except ModuleNotFoundError as error:
            raise UserError(f"a build runs on Apache Beam ({error}): pip install 'biomedclip_jax[beam]'") from error
        finally:
            logging.disable(logging.NOTSET)
        flags = [f"--runner={RUNNERS[self.name]}", "--no_save_main_session", *self.options]
        if workers > 1:
            flags += ["--direct_running_mode=multi_threading", f"--direct_num_workers={workers}"]
        return beam, PipelineOptions(flags)


def _of_user(error: Exception) -> Exception:
    """What Beam wraps and quotes as the error that a worker had; other errors as they are."""
    if "BrokenProcessPool" in f"{type(error).__name__} {error}":
        return WorkerDied("a worker process died, for want of memory perhaps; run the same again, it goes on where it was")
    found = re.findall(r"(?:UserError: )?(.+?)(?: \[while running|\\n|$)", first_line(error))
    if isinstance(error, UserError):
        return UserError(found[0])
    found = re.findall(r"UserError: (.+?)(?: \[while running|\\n|$)", str(error), re.MULTILINE)
    return UserError(found[-1]) if found else error


@contextlib.contextmanager
def _in_processes(do: Callable[[Any], None], workers: int) -> Iterator[Callable[[Any], None]]:
    """`do` as Beam's threads call it: in one of `workers` processes, or here if that is 1.

    Beam's own processes are not used: when one of them dies, Beam waits for it for ever.
    """
    if workers == 1:
        yield do
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        _pools[id(pool)] = pool
        try:
            yield functools.partial(_in_pool, id(pool), do)
        finally:
            del _pools[id(pool)]
            pool.shutdown(cancel_futures=True)


def _in_pool(pool: int, do: Callable[[Any], None], item: Any) -> None:
    _pools[pool].submit(do, item).result()


def end_with_parent() -> None:
    """A worker must not go on writing when its build was killed: the next build may have begun."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only worker processes call this"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _progress(total: int, done: Callable[[], int], label: str, stderr: TextIO) -> Iterator[None]:
    """A bar that looks now and then at what is finished: the same for any runner, wherever it works."""
    from tqdm import tqdm

    stop = threading.Event()

    def watch(bar: Any) -> None:
        while not stop.wait(2.0):
            bar.n = min(done(), total)
            bar.refresh()

    with tqdm(total=total, desc=label, unit="shard", disable=None, file=stderr) as bar:
        watcher = threading.Thread(target=watch, args=(bar,), daemon=True)
        watcher.start()
        try:
            yield
            bar.n = total
        finally:
            stop.set()
            watcher.join()
