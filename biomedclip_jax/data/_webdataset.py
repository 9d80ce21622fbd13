"""Pairs in WebDataset tars, with random access: `key.jpg|jpeg|png|webp`, `key.txt`, and perhaps `key.json` and
`key.cls`.

That is open_clip's layout, and BIOMEDICA's; CLIP_benchmark's has the number of the class in `key.cls`, or a caption a
line in `key.txt`. Each tar is read through once; the positions of its members are kept in a cache file, which counts
as long as the tar has the same size and date.
"""

import glob
import hashlib
import json
import re
import socket
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.data._table_rows import absent, object_of, text_of, texts_of
from biomedclip_jax.data._tar_index import (
    CLASS,
    FAULT,
    FAULTS,
    IMAGE,
    JSON,
    NOTHING,
    OTHER,
    PARTS,
    TEXT,
    Tar,
    cache_file,
    index_tar,
    save_index,
)
from biomedclip_jax.data.identity import Identity, digest, sampled_identity
from biomedclip_jax.data.pairs import Pair, Reject, Texts, first_reject
from biomedclip_jax.data.tables import REFERENCES
from biomedclip_jax.errors import UserError

_THREADS = 16  # tars that are indexed at once
_FROM_TXT = "caption"  # any other name: that field of the .json
FROM_CLS = "cls"  # a label; any other name: that field of the .json
_KIND_OF_DATA = "dataset_type.txt"
_KINDS = {IMAGE: "image (.jpg, .png ...)", TEXT: "caption (.txt)", JSON: "fields (.json)", CLASS: "class (.cls)"}

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class TarPairs:
    """The complete samples of some tars as pairs."""

    def __init__(
        self,
        tars: Sequence[Tar],
        counts: Sequence[int],
        parts: np.ndarray,
        file: Path | None,
        rejects: list[Reject],
        fields: tuple[str | None, str | None],
        by_lines: bool = False,
    ):
        self.rejects = rejects
        self._tars = list(tars)
        self._starts = [0, *accumulate(counts)]
        self._parts = parts
        self._file = file
        self._caption_field, self._label_field = fields
        self._by_lines = by_lines

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) if self._file is None else vars(self) | {"_parts": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self._file is not None:
            self._parts = np.load(self._file, mmap_mode="r")

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Pair:
        return Pair(image=self._read(index, IMAGE), name=self.name(index), **vars(self.texts(index)))

    def texts(self, index: int) -> Texts:
        """The texts of a pair; see `Pairs.texts`."""
        fields = self._fields(index)
        captions: tuple[str, ...] = ()
        if self._caption_field is not None:
            from_txt = self._caption_field == _FROM_TXT
            value = self._caption_file(index) if from_txt else fields.get(self._caption_field)
            captions = texts_of(value)
            if not captions:
                raise UserError(f"{self.name(index)}: {absent('caption', value)}")
        label = None
        if self._label_field is not None:
            from_cls = self._label_field == FROM_CLS
            value = self._decoded(index, CLASS) if from_cls else fields.get(self._label_field)
            label = text_of(value)
            if not label:
                none = "its .cls is empty" if from_cls else f"no {self._label_field!r} in its .json"
                raise UserError(f"{self.name(index)}: {none if value in (None, '') else absent('label', value)}")
        references = fields.get(REFERENCES)
        return Texts(captions=captions, references=texts_of(references if isinstance(references, list) else []), label=label)

    def fields(self, index: int) -> dict[str, Any]:
        """All that a sample says: the fields of its .json, its .txt as `caption`, its .cls as `label`."""
        said = {
            name: self._decoded(index, part) for name, part in (("caption", TEXT), ("label", CLASS)) if self._has(index, part)
        }
        return self._fields(index) | said

    def _has(self, index: int, part: int) -> bool:
        return bool(self._parts[index, part, 1] > 0)

    def name(self, index: int) -> str:
        """The name that messages give to an image."""
        return self._tar(index).name(int(self._parts[index, IMAGE, 0]))

    @property
    def versions(self) -> list[str]:
        """For each tar its path or address, and a string that changes when the tar does."""
        return [f"{tar.path} {tar.version}" for tar in self._tars]

    def image_versions(self) -> Iterator[str]:
        """Strings that change when an image, or the order of the images, does; no image is read for them."""
        yield f"TarPairs {len(self)}"
        yield from self.versions
        # which samples were kept depends on the fields that were asked for
        yield hashlib.sha256(np.ascontiguousarray(self._parts[:, IMAGE]).tobytes()).hexdigest()

    def identities(self) -> tuple[Identity, ...]:
        """What the pairs are, wherever they lie: the tars by name and the positions in them, and a sample of the pairs."""
        tars = [f"{tar.path.rpartition('/')[2]} {first}" for tar, first in zip(self._tars, self._starts, strict=False)]
        positions = np.ascontiguousarray(self._parts[:, IMAGE], "<i8").data
        return (sampled_identity(self, digest([*(tar.encode() for tar in tars), positions.cast("B")])),)

    def _tar(self, index: int) -> Tar:
        return self._tars[bisect_right(self._starts, index) - 1]

    def _read(self, index: int, part: int) -> bytes:
        position, size = self._parts[index, part].tolist()
        return self._tar(index).read(position, size)

    def _decoded(self, index: int, part: int) -> str:
        try:
            return self._read(index, part).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            kind = "caption" if part == TEXT else "class"
            raise UserError(f"{self.name(index)}: its {kind} is not UTF-8 ({error})") from error

    def _caption_file(self, index: int) -> str | list[str]:
        text = self._decoded(index, TEXT)
        return re.split("\r\n|\n|\r", text) if self._by_lines else text

    def _fields(self, index: int) -> dict[str, Any]:
        if self._parts[index, JSON, 0] == NOTHING:
            return {}
        try:
            fields = json.loads(self._read(index, JSON), object_pairs_hook=object_of)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.name(index)}: its .json is not JSON ({error})") from error
        return fields if isinstance(fields, dict) else {}


def find_shards(pattern: str, kind: str = "tar") -> list[str]:
    """The paths or addresses that a pattern means: `{000..012}` and `{a,b}`, then `*` and `?` of a local path.

    UserError, naming the host, for a local pattern that matches no file. kind: of file, for this message.
    """
    found: list[str] = []
    for path in _expand(pattern):
        if "://" in path:
            found.append(path)
        elif glob.has_magic(path) and not Path(path).is_file():  # case[1].tar may be the name of one
            matches = sorted(glob.glob(path))
            if not matches:
                raise UserError(f"{path} on host {socket.gethostname()}: no such {kind}; check the pattern, or copy them there")
            found += matches
        else:
            found.append(path)
    return found


def _expand(pattern: str) -> Iterator[str]:
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    span = _RANGE.fullmatch(braces[1])
    if span is not None:
        first, last = int(span[1]), int(span[2])
        if first > last:
            raise UserError(f"{pattern}: {braces[0]} counts down; expected the smaller number first")
        choices = [str(number).zfill(len(span[1])) for number in range(first, last + 1)]
    else:
        choices = braces[1].split(",")
    for choice in choices:
        yield from _expand(pattern[: braces.start()] + choice + pattern[braces.end() :])


def open_shards(paths: Sequence[str], caption_field: str | None = _FROM_TXT, label_field: str | None = None) -> TarPairs:
    """Open the samples in some tars as pairs.

    caption_field: "caption" means the .txt; any other name that field of the .json, a text or a list of texts; None
    asks for no captions. label_field: "cls" means the .cls; any other name that field of the .json. Samples without
    what is asked for are left out and listed. Raises UserError for tars that are missing, cut short or no tars, naming
    the first, how many more, and the host; and if nothing is left.
    """
    with ThreadPoolExecutor(min(_THREADS, max(len(paths), 1))) as pool:
        results = list(pool.map(_indexed, paths))
    if errors := [result for result in results if isinstance(result, UserError)]:
        more = f" (and {len(errors) - 1} more of {len(paths)} shards)" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{more}")
    opened = [result for result in results if not isinstance(result, UserError)]
    needed = _needed(caption_field, label_field)
    complete = [(parts[:, needed, 1] > 0).all(axis=1) & np.isin(parts[:, FAULT, 1], (0, OTHER)) for _, parts in opened]
    rejects = [
        _reject(tar, parts, row, needed)
        for (tar, parts), mask in zip(opened, complete, strict=True)
        for row in np.flatnonzero(~mask).tolist()
    ]
    tars, counts = [tar for tar, _ in opened], [int(mask.sum()) for mask in complete]
    if sum(counts) == 0:
        shown = f"{paths[0]}{' ...' if len(paths) > 1 else ''}"
        raise UserError(f"{shown}: no usable pair in {len(rejects)} samples{first_reject(rejects)}")
    by_lines = _by_lines(paths[0])
    file = cache_file(*tars, kind=f"all, with parts {needed}")
    if not file.is_file():
        whole = np.concatenate([parts[mask][:, :PARTS] for (_, parts), mask in zip(opened, complete, strict=True)])
        if not save_index(file, whole):
            return TarPairs(tars, counts, whole, None, rejects, (caption_field, label_field), by_lines)
    whole = np.load(file, mmap_mode="r")
    return TarPairs(tars, counts, whole, file, rejects, (caption_field, label_field), by_lines)


def _by_lines(path: str) -> bool:
    """Whether a .txt holds a caption a line: CLIP_benchmark says so in a file, beside the tars or a folder up."""
    folder = Path(path).parent
    for file in (folder / _KIND_OF_DATA, folder.parent / _KIND_OF_DATA):
        if "://" not in path and file.is_file():
            return file.read_text(encoding="utf-8", errors="replace").strip().lower() == "retrieval"
    return False


def have_classes(path: str) -> bool:
    """Whether the samples of this tar have a .cls. UserError as of `open_shards`."""
    return bool((index_tar(path)[1][:, CLASS, 1] > 0).any())


def _needed(caption_field: str | None, label_field: str | None) -> list[int]:
    """The parts without which a sample is of no use."""
    parts = [IMAGE]
    if caption_field is not None:
        parts.append(TEXT if caption_field == _FROM_TXT else JSON)
    if label_field == FROM_CLS:
        parts.append(CLASS)
    return parts


def _indexed(path: str) -> tuple[Tar, np.ndarray] | UserError:
    try:
        return index_tar(path)
    except UserError as error:
        return error


def _reject(tar: Tar, parts: np.ndarray, row: int, needed: list[int]) -> Reject:
    position, fault = parts[row, FAULT].tolist()
    if fault not in (0, OTHER):
        return Reject(str(row + 1), tar.name(position), FAULTS[fault])
    missing = next(part for part in needed if parts[row, part, 1] <= 0)
    empty = parts[row, missing, 0] != NOTHING
    first = next((place for place, _ in parts[row, :PARTS].tolist() if place != NOTHING), position)
    reason = f"{_KINDS[missing]} is empty" if empty else f"no {_KINDS[missing]} in this sample"
    if fault == OTHER and not empty:
        reason += f"; {tar.member(position)!r} has an ending that is no part of a sample"
    return Reject(str(row + 1), tar.name(first), reason)
