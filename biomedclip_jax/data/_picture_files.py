"""Files that hold pictures in their rows, as the Hugging Face hub has them: Parquet, and the Arrow files of `datasets`.

A picture is a struct {bytes, path}, or bytes alone; where bytes are null, path names a file beside the table. Rows
come in groups (of Parquet: row groups; of Arrow: record batches), and a group is what can be read at once.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.errors import UserError, first_line

if TYPE_CHECKING:
    import pyarrow

_NEEDS = "needs pyarrow: pip install 'biomedclip_jax[tfds]'"


class PictureFile:
    """A Parquet or Arrow file that is read a group at a time. A copy in another process opens it itself."""

    def __init__(self, path: Path):
        self.path = path
        self._is_arrow = path.suffix.lower() == ".arrow"

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_is_arrow": self._is_arrow}

    @cached_property
    def _footer(self) -> Any:
        """The metadata of a Parquet file. UserError for what is none."""
        from pyarrow.parquet import ParquetFile

        with readable(self.path, "Parquet"), self.path.open("rb") as content, ParquetFile(content) as file:
            return file.metadata

    @cached_property
    def _batches(self) -> "list[pyarrow.RecordBatch]":
        """The record batches of an Arrow file, which stay on disk until they are looked at."""
        from pyarrow import ArrowException, ipc, memory_map

        with readable(self.path, "Arrow"):
            try:
                return ipc.open_stream(memory_map(str(self.path))).read_all().to_batches()
            except ArrowException:  # the other of the two kinds of Arrow file
                return ipc.open_file(memory_map(str(self.path))).read_all().to_batches()

    @cached_property
    def schema(self) -> "pyarrow.Schema":
        """Names and types of the columns."""
        if not self._is_arrow:
            return self._footer.schema.to_arrow_schema()
        from pyarrow import ArrowException, ipc, memory_map

        with readable(self.path, "Arrow"):
            try:
                return ipc.open_stream(memory_map(str(self.path))).schema
            except ArrowException:
                return ipc.open_file(memory_map(str(self.path))).schema

    @cached_property
    def group_sizes(self) -> list[int]:
        """How many rows each group has."""
        if self._is_arrow:
            return [batch.num_rows for batch in self._batches]
        return [self._footer.row_group(group).num_rows for group in range(self._footer.num_row_groups)]

    def largest_group(self, column: str) -> int:
        """Bytes that are read for one row of a column, where that is most; 0 of Arrow, where any row is read alone."""
        return (
            0 if self._is_arrow else max((self._chunk_size(group, column) for group in range(len(self.group_sizes))), default=0)
        )

    def _chunk_size(self, group: int, column: str) -> int:
        return sum(chunk.total_uncompressed_size for chunk in self._chunks(group, column))

    def _chunks(self, group: int, column: str) -> list[Any]:
        found = self._footer.row_group(group)
        chunks = [found.column(number) for number in range(found.num_columns)]
        return [chunk for chunk in chunks if chunk.path_in_schema == column or chunk.path_in_schema.startswith(f"{column}.")]

    def rows(self, group: int, columns: Sequence[str]) -> list[dict[str, Any]]:
        """The cells of some columns, a row each. Not for pictures."""
        return self._read(group, columns).to_pylist()

    def paths(self, group: int, column: str) -> list[str | None]:
        """For each picture of a group the path that stands beside its bytes."""
        if not _has_field(self.schema.field(column).type, "path"):
            return [None] * self.group_sizes[group]
        if self._is_arrow:
            return _field(self._batches[group].column(column), "path").to_pylist()
        structs = self._read(group, [f"{column}.path"]).column(column).to_pylist()
        return [None if struct is None else struct["path"] for struct in structs]

    def have_bytes(self, group: int, column: str) -> list[bool]:
        """Which rows of a group hold the bytes of a picture; they are not read where the file says that all do."""
        name = f"{column}.bytes" if _has_field(self.schema.field(column).type, "bytes") else column
        if not self._is_arrow:
            chunk = next(chunk for chunk in self._chunks(group, column) if chunk.path_in_schema == name)
            statistics = chunk.statistics
            if statistics is not None and statistics.has_null_count and statistics.null_count == 0:
                return [True] * self.group_sizes[group]
        return [found for part in self.pictures(group, column).chunks for found in part.is_valid().to_pylist()]

    def pictures(self, group: int, column: str) -> "pyarrow.ChunkedArray":
        """The bytes of the pictures of a group; null where there are none."""
        from pyarrow import chunked_array

        struct = _has_field(self.schema.field(column).type, "bytes")
        if self._is_arrow:
            found = chunked_array([self._batches[group].column(column)])
        else:
            found = self._read(group, [f"{column}.bytes" if struct else column]).column(column)
        return _field(found, "bytes") if struct else found

    def _read(self, group: int, columns: Sequence[str]) -> "pyarrow.Table | pyarrow.RecordBatch":
        from pyarrow.parquet import ParquetFile

        if self._is_arrow:
            return self._batches[group].select(list(columns))
        footer = self._footer
        with (
            readable(self.path, "Parquet"),
            self.path.open("rb") as content,
            ParquetFile(content, metadata=footer) as file,
        ):
            return file.read_row_group(group, columns=list(columns), use_threads=False)


class readable:
    """Makes one line of what pyarrow and the system say of a file that cannot be read, and of pyarrow that is missing."""

    def __init__(self, path: Path, kind: str):
        self._path, self._kind = path, kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ImportError):
            raise UserError(f"{self._path}: reading {self._kind} {_NEEDS}") from None
        if error is None:
            return
        from pyarrow import ArrowException

        if isinstance(error, ArrowException) and isinstance(error, Exception):
            raise UserError(f"{self._path}: not readable as {self._kind} ({first_line(error)}); write it again") from error
        if isinstance(error, OSError):
            raise UserError(f"{self._path}: not readable ({error.strerror or error}); copy it again") from error


def holds_pictures(path: Path, column: str | None = None) -> bool:
    """Whether a column of a Parquet or Arrow file holds pictures; None: whether any does. False for what cannot be read."""
    try:
        schema = PictureFile(path).schema
    except (UserError, ImportError):
        return False
    names = [column] if column is not None else schema.names
    return any(name in schema.names and is_picture(schema.field(name).type) for name in names)


def is_picture(kind: "pyarrow.DataType") -> bool:
    """Whether a column of this type holds pictures: {bytes, path}, or bytes."""
    from pyarrow import types

    if _has_field(kind, "bytes"):
        kind = kind.field("bytes").type
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def _field(structs: Any, name: str) -> Any:
    """A field of structs, null where the struct itself is."""
    from pyarrow import compute

    return compute.call_function("struct_field", [structs], compute.StructFieldOptions([name]))


def _has_field(kind: "pyarrow.DataType", name: str) -> bool:
    from pyarrow import types

    return types.is_struct(kind) and kind.get_field_index(name) >= 0


def class_names(schema: "pyarrow.Schema") -> dict[str, tuple[str, ...]]:
    """For each column of class numbers, or of lists of them, the names that `datasets` writes into the schema (ClassLabel)."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        kinds = {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
    each = {name: inner if isinstance(inner := kind.get("feature"), dict) else kind for name, kind in kinds.items()}  # of lists
    named = {name: kind.get("names") for name, kind in each.items() if kind.get("_type") == "ClassLabel"}
    return {name: tuple(map(str, names)) for name, names in named.items() if isinstance(names, list) and names}


def named_class(value: object, names: Sequence[str]) -> object:
    """The name of a class number, or of each in a list; None for -1, which `datasets` writes where there is no label.

    Any other value is returned as it is.
    """
    if isinstance(value, list):
        return [named_class(each, names) for each in value]
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    return None if value == -1 else names[value] if 0 <= value < len(names) else value
