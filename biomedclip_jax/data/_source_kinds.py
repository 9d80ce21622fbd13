"""What a kind of source is: how it is recognised, and who opens it. The kinds themselves are in `sources`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.names import split_of
from biomedclip_jax.data.pairs import Pairs


@dataclass(frozen=True)
class Found:
    """A source whose kind is known. source: as the user wrote it. name: without the split. split: None if none is
    written.
    """

    source: str
    name: str
    split: str | None = None

    @property
    def path(self) -> Path:
        """The name of the source as a path."""
        return Path(self.name)


@dataclass(frozen=True)
class Wanted:
    """What is asked of a source: names of columns (of builds: features) and, of labelled images, the split and the
    classes.
    """

    image: str
    caption: str = "caption"
    label: str | None = None
    split: str = "test"
    classes: Sequence[str] | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of source, such as tables or tars.

    find: recognises a source by its name or by what the folder of that name holds; None for a source of another kind.
    pairs, labelled: open it, and the forms in which users write such a source, for messages; None for what it cannot
    give.
    """

    find: Callable[[str], Found | None]
    pairs: Callable[[Found, Wanted], Pairs] | None = None
    labelled: Callable[[Found, Wanted], Labelled] | None = None
    pairs_form: str = ""
    labelled_form: str = ""


def find_folder(source: str) -> Found | None:
    """A source that is the name of a folder, with a split behind it or without."""
    for name, split in ((source, None), split_of(source)):
        if "://" not in name and Path(name).is_dir():
            return Found(source, name, split)
    return None
