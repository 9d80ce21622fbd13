"""What `--data` names: a benchmark, or data of the user's own; its pairs, labels and prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.pairs import Pairs, with_readable_texts
from biomedclip_jax.data.sources import open_labelled, open_pairs
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.benchmarks import Benchmark, benchmark, benchmarks, load_benchmark
from biomedclip_jax.prompts.templates import Prompts, read_prompts


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Columns of a table; of builds and TFDS data sets, features."""

    image: str = "image"
    caption: str = "caption"
    label: str = "label"


@dataclass(frozen=True, kw_only=True)
class Source:
    """name: what tables call it. where: a path, or what `open_pairs` and `open_labelled` take.

    train: labels to learn from, where they lie elsewhere. prompts_file: see `read_prompts`.
    """

    name: str
    where: str
    known: Benchmark | None = None
    train: str | None = None
    columns: Columns = Columns()
    prompts_file: Path | None = None

    def pairs(self) -> Pairs:
        """Images with captions. UserError if there are no captions."""
        if self.known is not None:
            raise UserError(f"{self.name}: labelled images, no captions; retrieval needs pairs, such as a table with both")
        if Path(self.where).is_dir() and not (Path(self.where) / "features.json").is_file():
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
            return open_labelled(self.train, "train" if Path(self.train).is_dir() else "test", *columns, classes)
        try:
            return open_labelled(self.where, split, *columns, classes)
        except UserError as error:
            if split == "test":
                raise
            raise UserError(f"nothing to learn from ({error}); expected labelled images apart from these as --train") from None

    def prompts(self, classes: Sequence[str]) -> Prompts:
        """Sentences for each class: of the file, else those that were published with the benchmark, else general ones."""
        if self.prompts_file is not None:
            return read_prompts(self.prompts_file, classes)
        if self.known is not None:
            return self.known.prompts
        return Prompts.default(classes)


def parse_source(
    text: str, root: Path | None = None, train: str | None = None, columns: Columns | None = None, prompts: Path | None = None
) -> Source:
    """NAME (a benchmark, in root/its folder), NAME=PLACE (a benchmark there; or data of one's own, under this name) or PLACE.

    UserError for a name that is neither a benchmark nor anything on this machine.
    """
    name, named, place = text.partition("=")
    if (known := benchmarks().get(name)) is not None:
        if not named:
            if root is None:
                raise UserError(f"{name}: where is it? Say --data {name}=FOLDER, or --data-root DIR with {known.folder}/ in it")
            place = str(root)
        return Source(name=name, where=place, known=known, prompts_file=prompts)
    if not named:
        if not set(text) & set("/.:") and not Path(text).exists():
            benchmark(text)  # raises, with the nearest name
        name, place = _name_of(text), text
    return Source(name=name, where=place, train=train, columns=columns or Columns(), prompts_file=prompts)


def _name_of(place: str) -> str:
    """Of data/held_out.csv "held_out"; of pmc:test "pmc:test"."""
    path = Path(place)
    return path.name if path.is_dir() or ":" in path.name else path.stem
