"""What `--data` names: a benchmark, or data of the user's own; its pairs, labels and prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from biomedclip_jax.data.labelled.groups import Data, each_of, groups_of, with_groups
from biomedclip_jax.data.labelled.multi_label import Empty, MultiLabelled, Policy, Uncertain
from biomedclip_jax.data.labelled.multi_label_pictures import open_multi_label
from biomedclip_jax.data.labelled.multi_label_table import Declared
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.names import NoSplits
from biomedclip_jax.data.pairs import ImageOf, Pairs, with_readable_texts
from biomedclip_jax.data.sources import is_folder_of_pairs, open_labelled, open_pairs
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.benchmarks import Benchmark, benchmark, benchmarks, load_benchmark, load_findings
from biomedclip_jax.prompts.findings import FindingPrompts, check_finding_words, read_finding_prompts
from biomedclip_jax.prompts.templates import Prompts, read_prompts


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns of a table, or of the features of builds and TFDS data sets.

    group: what images belong to, see `with_groups`; None: each stands for itself.
    findings: how a table says which findings an image has, where images may have several; None where each has one class.
    uncertain, empty: see `Policy`; None: what the data or benchmark usually have.
    """

    image: str = "image"
    caption: str = "caption"
    label: str = "label"
    group: str | None = None
    findings: Declared | None = None
    uncertain: Uncertain | None = None
    empty: Empty | None = None


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

    def groups_of_pairs(self, pairs: Pairs) -> tuple[str, ...] | None:
        """What the image of each pair belongs to, where that is asked for; see `groups_of`."""
        if self.columns.group is None:
            return None
        images = [ImageOf(pairs, index) for index in range(len(pairs))]
        return each_of(groups_of(images, self.where, self.columns.group, self.columns.image))

    def labelled(self, split: str, classes: Sequence[str] | None = None) -> Labelled:
        """The images of a split ("train", "test") with their classes, and groups where these are asked for.

        UserError if there are none, or if they have several classes.
        """
        return self._with_groups(self._labelled(split, classes), split)

    def _with_groups(self, found: Data, split: str) -> Data:
        if self.columns.group is None or found.groups is not None:  # a benchmark's own
            return found
        where = self.train if split == "train" and self.train is not None else self.where
        return with_groups(found, where, self.columns.group, self.columns.image)

    def _labelled(self, split: str, classes: Sequence[str] | None) -> Labelled:
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
            if f"no column {self.columns.label!r}" in str(error):
                raise UserError(f"{error}; name it with --label-column, or columns of 0 and 1 with --label-columns") from None
            if split == "test":
                raise
            raise UserError(f"nothing to learn from ({error}); expected labelled images apart from these as --train") from None

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several findings."""
        return self.known.multi_label if self.known is not None else self.columns.findings is not None

    def findings(self, split: str, known: Sequence[str] | None = None) -> MultiLabelled:
        """The images of a split with their findings, and groups where these are asked for.

        known: the findings of the test data, which those to learn from have. UserError if there are none.
        """
        return self._with_groups(self._findings(split, known), split)

    def _findings(self, split: str, known: Sequence[str] | None) -> MultiLabelled:
        if self.known is not None:
            return load_findings(self.known.name, Path(self.where), split, self.columns.uncertain, self.columns.empty)
        declared, image = self.columns.findings, self.columns.image
        assert declared is not None
        usual = declared.policy
        policy = Policy(self.columns.uncertain or usual.uncertain, self.columns.empty or usual.empty)
        declared = replace(declared, policy=policy)
        if split == "train" and self.train is not None:
            try:
                return open_multi_label(self.train, "train", image, declared, known)
            except NoSplits:  # one whole, all of it to learn from
                return open_multi_label(self.train, "test", image, declared, known)
        try:
            return open_multi_label(self.where, split, image, declared, known)
        except UserError as error:
            if split == "test":
                raise
            raise UserError(f"nothing to learn from ({error}); give other images with these findings as --train") from None

    def finding_prompts(self, findings: Sequence[str]) -> FindingPrompts:
        """Sentences for each finding and for its absence: from `prompts_file`, else the benchmark's, else general ones."""
        if self.prompts_file is not None:
            return read_finding_prompts(self.prompts_file, findings)
        if self.known is not None:
            return self.known.finding_prompts
        check_finding_words(self.name, findings)
        return FindingPrompts.default(findings)

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
        return Source(name=name, where=where, known=known, columns=columns or Columns(), prompts_file=prompts)
    if not named:
        if not set(text) & set("/.:") and not Path(text).exists():
            benchmark(text)  # raises, with the nearest name
        name, where = _name_of(text), text
    return Source(name=name, where=where, train=train, columns=columns or Columns(), prompts_file=prompts)


def _name_of(where: str) -> str:
    """The name in tables: "held_out" for data/held_out.csv, "pmc:test" for pmc:test."""
    path = Path(where)
    return path.name if path.is_dir() or ":" in path.name else path.stem
