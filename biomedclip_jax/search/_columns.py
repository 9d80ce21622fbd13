"""What is known of n images, a text in each column, on disk: read where it lies, and filtered without reading rows.

A column is three files: its different values as UTF-8 one after the other, where each of them ends, and for each row
the number of its value. Number 0 is "", nothing known.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

_VALUES, _ENDS, _CODES = "{:03d}.values", "{:03d}.ends", "{:03d}.codes"


class ColumnsWriter:
    """Rows of texts, kept small until they are written: each different text once."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, int]] = {}
        self._codes: dict[str, array[int]] = {}
        self.count = 0

    def add(self, cells: Mapping[str, str]) -> None:
        """A row; a column that it lacks has nothing there."""
        for name, text in cells.items():
            if name not in self._values:
                self._values[name] = {"": 0}
                self._codes[name] = array("i", bytes(4 * self.count))
            values = self._values[name]
            self._codes[name].append(values.setdefault(text, len(values)))
        self.count += 1
        for codes in self._codes.values():
            if len(codes) < self.count:
                codes.append(0)

    def write(self, folder: Path) -> list[str]:
        """Write the columns into a folder and return their names in order."""
        for number, (values, codes) in enumerate(zip(self._values.values(), self._codes.values(), strict=True)):
            encoded = [text.encode("utf-8", "surrogatepass") for text in values]  # names of files may be no UTF-8
            (folder / _VALUES.format(number)).write_bytes(b"".join(encoded))
            np.cumsum([len(text) for text in encoded], dtype="<i8").tofile(folder / _ENDS.format(number))
            np.array(codes, "<i4").tofile(folder / _CODES.format(number))
        return list(self._values)


class Columns:
    """The columns of a folder, as `ColumnsWriter` wrote them."""

    def __init__(self, folder: Path, names: Sequence[str]):
        """names: in their order."""
        self.names = list(names)
        self._columns = {name: _Column(folder, number) for number, name in enumerate(names)}

    def codes(self, name: str) -> np.ndarray:
        """For each row the number of its value, int32 [n]; 0 where there is none."""
        return self._columns[name].codes

    def values(self, name: str) -> list[str]:
        """The different values by their numbers."""
        return self._columns[name].all()

    def where(self, name: str, wanted: Callable[[str], bool]) -> np.ndarray:
        """In which rows the text of a column is wanted, bool [n]; it is asked once for each different text."""
        return np.array([wanted(text) for text in self.values(name)], bool)[self.codes(name)]

    def row(self, position: int) -> dict[str, str]:
        """The texts of a row, without those that are empty."""
        found = {name: column.text(int(column.codes[position])) for name, column in self._columns.items()}
        return {name: text for name, text in found.items() if text}

    def text(self, name: str, position: int) -> str:
        """The text of a column in a row."""
        column = self._columns[name]
        return column.text(int(column.codes[position]))


class _Column:
    def __init__(self, folder: Path, number: int):
        self._bytes = _mapped(folder / _VALUES.format(number), np.uint8)
        self._ends = _mapped(folder / _ENDS.format(number), "<i8")
        self.codes = _mapped(folder / _CODES.format(number), "<i4")

    def text(self, code: int) -> str:
        start = int(self._ends[code - 1]) if code else 0
        return self._bytes[start : int(self._ends[code])].tobytes().decode("utf-8", "surrogatepass")

    def all(self) -> list[str]:
        data, ends = self._bytes.tobytes(), self._ends.tolist()
        return [data[a:b].decode("utf-8", "surrogatepass") for a, b in zip([0, *ends], ends, strict=False)]


def _mapped(path: Path, dtype: object) -> np.ndarray:
    """A file's numbers, which stay on disk until they are looked at."""
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.empty(0, dtype)  # type: ignore[call-overload]
