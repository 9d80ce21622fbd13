"""`rejects.jsonl`: records that could not be used, each once, with the reason."""

import json
import threading
from pathlib import Path


class Rejects:
    """The list of a run folder. What an interrupted run listed stays."""

    def __init__(self, path: Path, known: list[dict[str, str]]):
        self._path = path
        self._seen: set[str] = set()
        self._lock = threading.Lock()  # the loader's threads may meet the same record at once
        before = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        path.write_text("", encoding="utf-8")
        # a killed run may have left half a line
        for record in [*(json.loads(line) for line in before if line.endswith("}\n")), *known]:
            self.add(record)

    def add(self, record: dict[str, str]) -> None:
        """List a record; the key `image` tells records apart."""
        with self._lock:
            if record["image"] not in self._seen:
                self._seen.add(record["image"])
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
