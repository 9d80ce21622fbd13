"""What `--data` names: a benchmark, or data of the user's own; its pairs, labels and prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.names import NoSplits
from biomedclip_jax.data.pairs import Pairs, with_readable_texts
from biomedclip_jax.data.sources import is_folder_of_pairs, open_labelled, open_pairs
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.benchmarks import Benchmark, benchmark, benchmarks, load_benchmark
from biomedclip_jax.prompts.templates import Prompts, read_prompts


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns of a table, or of the features of builds and TFDS data sets."""

    image: str = "image"
    caption: str = "caption"
    label: str = "label"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Data to evaluate on, as the user named them.

    name: what tables call them. where: a path, or what `open_pairs` and `open_labelled` take. known: the benchmark, if it
    is one. train: labelled images to learn from, where they are not part of `where`. prompts_file: see `read_prompts`.
    """

    name: str
    where: str
    known: Benchmark | None = None
    train: str | None = None
    columns: Columns = Columns()
    prompts_file: Path | None = None

    def pairs(self) -> Pairs:
        """The images with their captions. UserError if the data have no captions."""
        if self.known is not None:
            raise UserError(f"{self.name}: labelled images, no captions; retrieval needs pairs, such as a table with both")
        if Path(self.where).is_dir() and not is_folder_of_pairs(Path(self.where)):
            raise UserError(
                f"{self.where}: a folder of images has no captions; retrieval needs pairs, such as a table with both"
            )
        return with_readable_texts(open_pairs(self.where, self.columns.image, self.columns.caption))

    def labelled(self, split: str, classes: Sequence[str] | None = None) -> Labelled:
        """The images of a split ("train", "test") with their classes. UserError if there are none."""
        if self.known is not None:
            return load_benchmark(self.known.name, Path(self.where), split)
        columns = self.columns.image, self.columns.label
        if split == "train" and self.train is not None:
            try:
                return open_labelled(self.train, "train", *columns, classes)
            except NoSplits:  # one whole, all of it to learn from
                return open_labelled(self.train, "test", *columns, classes)
        try:
            return open_labelled(self.where, split, *columns, classes)
        except UserError as error:
            if split == "test":
                raise
            raise UserError(f"nothing to learn from ({error}); expected labelled images apart from these as --train") from None

    def prompts(self, classes: Sequence[str]) -> Prompts:
        """Sentences for each class: from `prompts_file`, else those published with the benchmark, else general ones."""
        if self.prompts_file is not None:
            return read_prompts(self.prompts_file, classes)
        if self.known is not None:
            return self.known.prompts
        return Prompts.default(classes)


def parse_source(
    text: str, root: Path | None = None, train: str | None = None, columns: Columns | None = None, prompts: Path | None = None
) -> Source:
    """What the user means by NAME, NAME=PATH or PATH.

    NAME is a benchmark in its folder below `root`; NAME=PATH a benchmark at this path, or own data to be called NAME.
    train, columns, prompts: of own data, see `Source`. UserError for a name that is neither a benchmark nor a file or
    folder.
    """
    name, named, where = text.partition("=")
    if (known := benchmarks().get(name)) is not None:
        if not named:
            if root is None:
                raise UserError(f"{name}: where is it? Say --data {name}=FOLDER, or --data-root DIR with {known.folder}/ in it")
            where = str(root)
        return Source(name=name, where=where, known=known, prompts_file=prompts)
    if not named:
        if not set(text) & set("/.:") and not Path(text).exists():
            benchmark(text)  # raises, with the nearest name
        name, where = _name_of(text), text
    return Source(name=name, where=where, train=train, columns=columns or Columns(), prompts_file=prompts)


def _name_of(where: str) -> str:
    """The name in tables: "held_out" for data/held_out.csv, "pmc:test" for pmc:test."""
    path = Path(where)
    return path.name if path.is_dir() or ":" in path.name else path.stem
