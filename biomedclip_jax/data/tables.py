"""Pairs from a table: CSV, TSV, JSON lines or Parquet, with image paths relative to the file."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from biomedclip_jax.data._table_rows import absent, image_file, image_name, not_there, table_rows, text_of, texts_of
from biomedclip_jax.data.identity import Identity, digest, image_mark, spread, table_step, without_common_folder
from biomedclip_jax.data.names import names_of, no_known_split
from biomedclip_jax.data.pairs import Pair, Reject, Texts, file_state, fingerprint, first_reject
from biomedclip_jax.errors import UserError

SPLIT_COLUMN = "split"
REFERENCES = "references"  # the column, if there is one, of paragraphs that mention the figure


class TextBlock:
    """Some texts for each of n rows, in one piece of memory: worker processes get it as fast as it can be copied."""

    def __init__(self, rows: Iterable[Sequence[str]]):
        parts: list[bytes] = []
        ends, counts = [0], [0]
        for row in rows:
            for text in row:
                parts.append(text.encode("utf-8", "surrogatepass"))  # JSON may hold half a character
                ends.append(ends[-1] + len(parts[-1]))
            counts.append(len(parts))
        self._bytes = b"".join(parts)
        self._ends = np.array(ends, np.int64)
        self._counts = np.array(counts, np.int64)

    def __getitem__(self, index: int) -> tuple[str, ...]:
        first, last = self._counts[index], self._counts[index + 1]
        ends = self._ends[first : last + 1].tolist()
        return tuple(self._bytes[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(ends))

    def parts(self, first: int, last: int) -> list[bytes]:
        """What the rows from `first` to before `last` hold, as bytes: other bytes for other rows."""
        counts = self._counts[first : last + 1]
        ends = self._ends[counts[0] : counts[-1] + 1]
        return [self._bytes[ends[0] : ends[-1]], (ends - ends[0]).tobytes(), (counts - counts[0]).tobytes()]


class TablePairs:
    """The usable rows of a table as pairs."""

    def __init__(self, folder: Path, images: Sequence[str], texts: Sequence[Texts], rejects: list[Reject]):
        self.rejects = rejects
        self._folder = folder
        self._count = len(images)
        self._images = TextBlock([image] for image in images)
        self._captions = TextBlock(text.captions for text in texts)
        self._references = TextBlock(text.references for text in texts)
        self._labels = TextBlock([] if text.label is None else [text.label] for text in texts)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Pair:
        path = self._folder / self._images[index][0]
        return Pair(image=path, name=str(path), **vars(self.texts(index)))

    def texts(self, index: int) -> Texts:
        """The texts of a pair; see `Pairs.texts`."""
        label = self._labels[index]
        return Texts(captions=self._captions[index], references=self._references[index], label=label[0] if label else None)

    def name(self, index: int) -> str:
        """The name that messages give to an image."""
        return str(self._folder / self._images[index][0])

    def image_versions(self) -> Iterator[str]:
        """Strings that change when an image, or the order of the images, does; no image is read for them."""
        yield f"TablePairs {len(self)}"
        yield fingerprint(file_state(self.name(index)) for index in range(len(self)))

    def identities(self) -> tuple[Identity, ...]:
        """What the pairs are, wherever they lie: of every row the text, of a sample the image."""
        names = without_common_folder([self._images[index][0] for index in range(len(self))])
        columns = (TextBlock([name] for name in names), self._captions, self._references, self._labels)
        step = table_step(len(self))
        blocks = [(first, min(first + step, len(self))) for first in range(0, len(self), step)]
        marks = tuple(digest(part for column in columns for part in column.parts(*block)) for block in blocks)
        images = tuple(image_mark(self._folder / self._images[index][0]) for index in spread(len(self)))
        return (Identity(len(self), step, marks, images),)


def read_table(
    path: Path, image_column: str, caption_column: str, label_column: str | None = None, split: str | None = None
) -> TablePairs:
    """Read a table of images and captions.

    Rows without a caption, a label or an existing image file, and rows that do not fit the header, are left out and listed
    in `rejects`; so are those whose `split` is empty or no split at all.
    A caption may be a text or, in JSON lines and Parquet, a list of texts. A column `references` that holds lists is
    read too.
    split: only the rows whose column `split` says so, under any of its names; without it all rows.
    Raises UserError for a missing file, a missing column (naming those that exist), an encoding other than UTF-8, and
    a table of which nothing is left.
    """
    columns = [image_column, caption_column, *([label_column] if label_column else []), *([SPLIT_COLUMN] if split else [])]
    wanted, others = names_of(split) if split else (), dict[str, None]()
    of_split = 0
    images: list[str] = []
    texts: list[Texts] = []
    rejects: list[Reject] = []
    for number, row in table_rows(path, columns, [REFERENCES], rejects):
        if split and (own := text_of(row[SPLIT_COLUMN])).lower() not in wanted:
            others[own] = None
            if reason := no_known_split(own, split):
                rejects.append(Reject(str(number), str(image_file(path, row, image_column)), reason))
            continue
        of_split += 1
        name = image_name(path, row, image_column)
        image = path.parent / name
        captions = texts_of(row[caption_column])
        label = text_of(row[label_column]) if label_column else None
        if not captions:
            reason = absent("caption", row[caption_column])
        elif not os.path.isfile(image):  # unlike Path.is_file, False for a name too long for the system
            reason = not_there(image)
        else:
            reason = absent("label", row[label_column]) if label_column and not label else None
        if reason:
            rejects.append(Reject(str(number), str(image), reason))
            continue
        references = row.get(REFERENCES)
        images.append(name)
        more = texts_of(references) if isinstance(references, list) else ()
        texts.append(Texts(captions=captions, references=more, label=label))
    if not images:
        if split and not of_split:
            raise UserError(f"{path}: no split {split!r}; there are: {', '.join(filter(None, others)) or 'none'}")
        raise UserError(f"{path}: no usable pair in {len(rejects)} rows{first_reject(rejects)}")
    return TablePairs(path.parent, images, texts, rejects)
