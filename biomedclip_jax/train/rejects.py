"""`rejects.jsonl`: records that could not be used, each once, with the reason."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.data.pairs import Reject


class Rejects:
    """The list of a run folder. What an interrupted run listed stays."""

    def __init__(self, path: Path, known: Sequence[Reject]):
        """Open the list at `path`, and put the rejects that are known at the start on it."""
        self._path = path
        self._seen: set[str] = set()
        self._lock = threading.Lock()  # the loader's threads may meet the same record at once
        before = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        path.write_text("", encoding="utf-8")
        # a killed run may have left half a line
        for reject in [*(Reject(**json.loads(line)) for line in before if line.endswith("}\n")), *known]:
            self.add(reject)

    def add(self, reject: Reject) -> None:
        """List a record, unless one with the same image is on the list."""
        with self._lock:
            if reject.image not in self._seen:
                self._seen.add(reject.image)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(vars(reject)) + "\n")
