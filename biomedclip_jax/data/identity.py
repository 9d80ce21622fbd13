"""What some pairs are, wherever they lie: by this the hosts of a run see that they read the same data, and a run that
goes on that its data are still those it began with.

An `Identity` is small (a few kilobytes) for any number of pairs. Of a table every row counts; of shards their names,
sizes and numbers of records, and a sample of the records. Of the images a sample is read. Paths are those that the
data themselves have, never those of a machine: data that were moved as they are stay the same data.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from biomedclip_jax.errors import UserError

_MARKS = 1_024  # of a table, at most
_SAMPLE = 64  # images, and records of shards
ENDS = 128 * 1024  # bytes of each end of an image that are read
_THREADS = 16
UNREADABLE = "unreadable"  # the mark of a file that cannot be read, and of a record
_DIGITS = 12  # hexadecimal, of a mark


@dataclass(frozen=True)
class Identity:
    """What the pairs of one source are.

    count: of the pairs. step: mark i stands for the pairs from i * step up to the next mark, or, where `sampled`, for
    the pair at i * step alone. marks: hashes of image names and texts. images: hashes of the encoded images at
    `spread(count)`. files: a hash of the shards; "" of what is in no shards.
    """

    count: int
    step: int
    marks: tuple[str, ...]
    images: tuple[str, ...]
    sampled: bool = False
    files: str = ""

    def record(self) -> dict[str, Any]:
        """The fields as JSON keeps them."""
        return asdict(self)


def identity_from(record: Mapping[str, Any]) -> Identity:
    """The inverse of `Identity.record`, also after JSON has made lists of the tuples."""
    return Identity(**{**record, "marks": tuple(record["marks"]), "images": tuple(record["images"])})


def spread(count: int, most: int = _SAMPLE) -> list[int]:
    """At most `most` positions, evenly spread over `count`, with the first and the last."""
    if count <= most:
        return list(range(count))
    return [i * (count - 1) // (most - 1) for i in range(most)]


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """A short hash of some contents in their order; [b"ab", b"c"] and [b"a", b"bc"] differ."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()[:_DIGITS]


def table_step(count: int) -> int:
    """How many rows of a table a mark stands for: 1 up to `_MARKS` rows, then powers of two."""
    step = 1
    while -(-count // step) > _MARKS:
        step *= 2
    return step


class Sampled(Protocol):
    """Pairs of which some are read; see `data.pairs.Pairs`, which is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any:
        """The pair at a position. UserError if the record cannot be read."""
        ...


def sampled_identity(pairs: Sampled, files: str) -> Identity:
    """The identity of pairs in shards, of which a sample is read. files: a hash of the shards."""
    count = len(pairs)
    step = max(1, -(-count // _SAMPLE))
    with ThreadPoolExecutor(_THREADS) as pool:  # shards may be far away
        marks = tuple(pool.map(lambda index: _pair_mark(pairs, index), range(0, count, step)))
    return Identity(count, step, marks, (), sampled=True, files=files)


def _pair_mark(pairs: Sampled, index: int) -> str:
    try:
        pair = pairs[index]
    except UserError:  # its message has the path of a machine
        return UNREADABLE
    texts = [len(pair.captions), *pair.captions, len(pair.references), *pair.references, pair.label]
    return digest([image_mark(pair.image).encode(), *(str(text).encode("utf-8", "surrogatepass") for text in texts)])


def image_mark(image: Path | bytes) -> str:
    """A hash of the size and the ends of an encoded image; of a file that cannot be read one that says so."""
    if isinstance(image, bytes):
        return digest([str(len(image)).encode(), image[:ENDS], image[-ENDS:]])
    try:
        with image.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(ENDS)
            file.seek(max(0, size - ENDS))
            return digest([str(size).encode(), head, file.read(ENDS)])
    except OSError:
        return UNREADABLE


def without_common_folder(names: Sequence[str]) -> list[str]:
    """The names, of which the absolute ones have lost the folder that they share: data may be moved."""
    absolute = [name for name in names if os.path.isabs(name)]
    if not absolute:
        return list(names)
    common = os.path.commonpath([os.path.dirname(name) for name in absolute])
    return [os.path.relpath(name, common) if os.path.isabs(name) else name for name in names]


def difference(ours: Identity, theirs: Identity, whose: str, name: Callable[[int], str]) -> str:
    """How our pairs differ from others, in words that end with `whose`, such as "this run began with"; "" if they do not.

    name: of the image at a position of ours.
    """
    if ours == theirs:
        return ""

    def called(position: int) -> str:
        return f"{position + 1:,} ({name(position)})" if position < ours.count else f"{position + 1:,}"

    first = _first_mark(ours, theirs)
    if ours.count != theirs.count:
        counts = f"{ours.count} usable pairs, but {whose} {theirs.count}"
        if first is None or ours.step != 1 or theirs.step != 1 or ours.sampled or theirs.sampled:
            return counts
        if first == min(ours.count, theirs.count):
            return f"{counts}, of which the first {first} are the same"
        return f"{counts}; the first that differs is pair {called(first)}"
    if ours.files != theirs.files:
        return f"its shards (their names, sizes or numbers of records) are not those that {whose}"
    if first is not None:
        begin, end = first * ours.step, min((first + 1) * ours.step, ours.count)
        if ours.step == 1 or ours.sampled:
            return f"pair {called(begin)} has another text or image than the one that {whose}"
        return f"among the pairs {begin + 1:,} to {end:,} is one with another text or image than that {whose}"
    for position, mine, other in zip(spread(ours.count), ours.images, theirs.images, strict=False):
        if mine != other:
            return f"the image of pair {called(position)} has another content than the one that {whose}"
    return f"it is another kind of data than that {whose}"


def _first_mark(ours: Identity, theirs: Identity) -> int | None:
    pairs = zip(ours.marks, theirs.marks, strict=False)
    differs = next((i for i, (mine, other) in enumerate(pairs) if mine != other), None)
    if differs is None and len(ours.marks) != len(theirs.marks):
        return min(len(ours.marks), len(theirs.marks))
    return differs
