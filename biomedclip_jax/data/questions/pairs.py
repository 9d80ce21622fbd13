"""A part of a data set of questions as pairs that a run learns from: image and question, with the answer as label."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from biomedclip_jax.data.identity import Identity, digest, image_mark, spread, table_step
from biomedclip_jax.data.names import SPLITS
from biomedclip_jax.data.pairs import Pair, Reject, Texts, file_state, fingerprint, first_reject
from biomedclip_jax.data.questions._parquet import RowImage, contents
from biomedclip_jax.data.questions.answers import normalised
from biomedclip_jax.data.questions.open import KNOWN, open_questions
from biomedclip_jax.data.questions.table import QuestionColumns, read_question_table
from biomedclip_jax.data.questions.types import PARTS, Part, Question, QuestionSet
from biomedclip_jax.errors import UserError

_FORMS = (
    "NAME=DIR:PART or NAME/SPLIT=DIR:PART, such as vqa-rad/clean=data/vqa-rad:train or slake=data/Slake1.0:validation, "
    "or a table, questions.csv or questions.csv:train"
)


@dataclass(frozen=True)
class QuestionPairs:
    """Questions with the image that each is about; see `data.pairs.Pairs`.

    The caption of a pair is its question, its label the `normalised` answer. images: files, or the bytes of pictures that
    are in a Parquet file, all of which are held in memory. typed: labels say the type of the question, too (`label_of`).
    notes: what has to be said of the data, a line each.
    """

    questions: tuple[Question, ...]
    images: Mapping[str, Path | bytes]
    rejects: list[Reject]
    typed: bool = False
    notes: tuple[str, ...] = ()

    def without_answers(self, known: Sequence[bool]) -> "QuestionPairs":
        """These questions without those whose answer is not known, which are listed in `rejects`."""
        rows = list(zip(self.questions, known, strict=True))
        left = [
            Reject(each.id, each.image, f"{normalised(each.answer)!r} is no answer that the model has")
            for each, is_known in rows
            if not is_known
        ]
        kept = tuple(each for each, is_known in rows if is_known)
        return replace(self, questions=kept, rejects=[*self.rejects, *left])

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> Pair:
        image = self.images[self.questions[index].image]
        return Pair(image=image, name=self.name(index), **vars(self.texts(index)))

    def texts(self, index: int) -> Texts:
        """The texts of a pair; see `Pairs.texts`."""
        question = self.questions[index]
        answer = normalised(question.answer)
        return Texts(captions=(question.question,), label=label_of(answer, question.closed) if self.typed else answer)

    def name(self, index: int) -> str:
        """The name that messages give to an image."""
        name = self.questions[index].image
        image = self.images[name]
        return str(image) if isinstance(image, Path) else name

    def image_versions(self) -> Iterator[str]:
        """Strings that change when an image, or the order of the images, does; no image is read for them."""
        yield f"QuestionPairs {len(self)}"
        yield fingerprint(_version(each.image, self.images[each.image]) for each in self.questions)

    def identities(self) -> tuple[Identity, ...]:
        """What the pairs are, wherever they lie: of every row the text, of a sample the image."""
        step = table_step(len(self))
        rows = [
            "\0".join((each.image, each.question, normalised(each.answer), str(each.closed))).encode("utf-8", "surrogatepass")
            for each in self.questions
        ]
        marks = tuple(digest(rows[first : first + step]) for first in range(0, len(rows), step))
        images = tuple(image_mark(self.images[self.questions[index].image]) for index in spread(len(self)))
        return (Identity(len(self), step, marks, images),)


def label_of(answer: str, closed: bool) -> str:
    """An answer together with the type of its question: "yes" to a closed one is another label than to an open one."""
    return f"{'closed' if closed else 'open'}: {answer}"


def _version(name: str, image: Path | bytes) -> str:
    return file_state(str(image)) if isinstance(image, Path) else name  # pictures in files are named by their content


def open_question_pairs(source: str, columns: QuestionColumns) -> QuestionPairs:
    """The questions of a source whose images are there, in their order; the others are in `rejects`.

    source: `NAME=DIR:PART` or `NAME/SPLIT=DIR:PART` with vqa-rad, slake, slake-zh, slake-both or pathvqa, or a table,
    all of it or the rows whose column `split` says PART. columns: of a table. UserError for anything else.
    """
    data, kept, rejects = open_usable(source, columns)
    whole = data.train == data.test  # a table without parts, of which what the parts share says nothing
    notes = () if whole else (*data.caveats, *data.notes)
    return QuestionPairs(kept, _contents(data, {each.image for each in kept}), rejects, notes=notes)


def open_usable(source: str, columns: QuestionColumns) -> tuple[QuestionSet, tuple[Question, ...], list[Reject]]:
    """The data set that a source is a part of, the questions of that part whose images are there, and the others.

    No picture is read. source, columns and errors: as of `open_question_pairs`.
    """
    data, part = open_part(source, columns)
    questions = data.part(part)
    missing = [Reject(each.id, each.image, "its image is not there") for each in questions if each.image not in data.images]
    kept = tuple(each for each in questions if each.image in data.images)
    rejects = [*data.left_out(part), *missing]
    if not kept:
        raise UserError(f"{source}: no question whose image is there{first_reject(rejects)}")
    return data, kept, rejects


def open_part(source: str, columns: QuestionColumns) -> tuple[QuestionSet, Part]:
    """The data set that a source is a part of, and which; a table without parts is both to learn from and to test."""
    place, part = _divided(source)
    name, named, folder = place.partition("=")
    called, _, split = name.partition("/")
    base, _, language = called.partition("-") if called.startswith("slake-") else (called, "", "en")
    if named and base in KNOWN:
        if part is None:
            raise UserError(f"{source}: which part? {' or '.join(f'{place}:{each}' for each in PARTS)}")
        if language not in ("en", "zh", "both"):
            raise UserError(f"{source}: {called} is none of slake, slake-zh and slake-both")
        data = open_questions(f"{base}={folder}", split=split or None, language=language)  # type: ignore[arg-type]
        if not data.part(part):
            there = ", ".join(f"{len(data.part(each)):,} {each}" for each in PARTS)
            raise UserError(f"{source}: no {part} questions; there are: {there}")
        return data, part
    where = Path(place)
    if not where.is_file():
        raise UserError(f"{source}: no such table; expected {_FORMS}")
    if part is not None:
        return read_question_table(where.stem, where, columns=columns), part
    data = read_question_table(where.stem, where, where, columns=columns)
    if data.train != data.test:
        raise UserError(f"{source}: its column 'split' divides it; say which part: {where}:train")
    return data, "test"


def _divided(source: str) -> tuple[str, Part | None]:
    """A source without the part behind it, and the part, under any of its names."""
    place, colon, last = source.rpartition(":")
    part: Part | None = next((each for each in PARTS if last.lower() in SPLITS[each]), None)
    return (place, part) if colon and part is not None else (source, None)


def _contents(data: QuestionSet, names: set[str]) -> dict[str, Path | bytes]:
    """The files of some images, and the bytes of those that are in Parquet."""
    files: dict[str, Path | bytes] = {}
    rows: dict[str, RowImage] = {}
    for name in sorted(names):
        image = data.images[name]
        if isinstance(image, RowImage):
            rows[name] = image
        else:
            assert isinstance(image, Path), "questions are about files and about pictures in Parquet"
            files[name] = image
    return files | contents(rows)
