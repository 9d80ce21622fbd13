"""Beam: runs a function once for each shard, on this machine's processes or on Dataflow, Flink or Spark."""

import contextlib
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from biomedclip_jax.errors import UserError
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


@dataclass(frozen=True)
class Runner:
    """Where the work is done. options: Beam's own flags, passed through ("--project=x", "--flink_master=host:8081")."""

    name: str = "direct"
    workers: int | None = None  # processes of the direct runner; None: one a core
    options: tuple[str, ...] = ()

    def for_each(self, items: Sequence[Any], do: Callable[[Any], None], done: Callable[[], int], label: str) -> None:
        """`do(item)` for all items; both are pickled. done: how many are finished by now, for the progress bar.

        Raises UserError for the error of a worker that the user can mend.
        """
        if not items:
            return
        beam, options = self._options(len(items))
        # Beam's own worker processes say much of their coming and going
        quiet = quiet_stderr(_TAIL) if self.name == "direct" else contextlib.nullcontext(sys.stderr)
        with quiet as stderr, _progress(len(items), done, label, stderr):
            try:
                with beam.Pipeline(options=options) as pipeline:
                    # without the reshuffle all items would be one bundle, and one process would do everything
                    _ = pipeline | beam.Create(items) | beam.Reshuffle() | beam.Map(do)
            except Exception as error:
                found = re.findall(r"UserError: (.+?)(?: \[while running|\\n|$)", str(error), re.MULTILINE)
                if isinstance(error, UserError) or not found:
                    raise
                raise UserError(found[-1]) from error

    def _options(self, items: int) -> tuple[Any, Any]:
        logging.disable(logging.WARNING)  # Beam warns on import of Google's libraries that are not there
        try:
            import apache_beam as beam
            from apache_beam.options.pipeline_options import PipelineOptions
        except ModuleNotFoundError as error:
            raise UserError(f"a build runs on Apache Beam ({error}): pip install 'biomedclip_jax[beam]'") from error
        finally:
            logging.disable(logging.NOTSET)
        flags = [f"--runner={RUNNERS[self.name]}", "--no_save_main_session", *self.options]
        if self.name == "direct":
            workers = min(self.workers or core_count(), items)
            if workers > 1:
                flags += ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
                flags += ["--default_sdk_harness_log_level=ERROR"]
        return beam, PipelineOptions(flags)


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
