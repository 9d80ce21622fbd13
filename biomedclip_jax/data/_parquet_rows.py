"""Rows of Parquet and Arrow files, with the names of their classes where the schema has them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.data._picture_files import PictureFile, class_names, named_class
from biomedclip_jax.data._table_header import check_columns, check_twice, spelled
from biomedclip_jax.errors import UserError, first_line


def parquet_rows(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file; each has `columns`, and those of `optional` that exist. UserError as of `table_rows`."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{path}: reading Parquet needs pyarrow: pip install 'biomedclip_jax[tfds]'") from None
    try:
        with path.open("rb") as content, ParquetFile(content) as file:
            own = file.schema_arrow.names
            names = spelled(own, columns)
            check_twice(path, names)
            check_columns(path, columns, names)
            asked = {name: called for name, called in zip(own, names, strict=True) if called in (*columns, *optional)}
            classes = class_names(file.schema_arrow)
            for batch in file.iter_batches(columns=list(asked)):
                for row in batch.to_pylist():
                    for name in classes.keys() & row.keys():
                        row[name] = named_class(row[name], classes[name])
                    yield {asked[name]: value for name, value in row.items()}
    except ArrowException as error:
        raise UserError(f"{path}: not readable as Parquet ({first_line(error)}); write it again") from error


def arrow_rows(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The same of an Arrow file."""
    file = PictureFile(path)
    own, classes = file.schema.names, class_names(file.schema)
    names = spelled(own, columns)
    check_twice(path, names)
    check_columns(path, columns, names)
    asked = {name: called for name, called in zip(own, names, strict=True) if called in (*columns, *optional)}
    for group in range(len(file.group_sizes)):
        for row in file.rows(group, list(asked)):
            for name in classes.keys() & row.keys():
                row[name] = named_class(row[name], classes[name])
            yield {asked[name]: value for name, value in row.items()}
