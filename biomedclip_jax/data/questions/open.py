"""A data set of questions by what the user calls it: vqa-rad, slake, pathvqa, or a table of one's own."""

from pathlib import Path

from biomedclip_jax.data.questions._pathvqa import read_pathvqa
from biomedclip_jax.data.questions._slake import Language, read_slake
from biomedclip_jax.data.questions._vqa_rad import read_vqa_rad
from biomedclip_jax.data.questions.table import OWN, QuestionColumns, read_question_table
from biomedclip_jax.data.questions.types import QuestionSet
from biomedclip_jax.errors import UserError

KNOWN = ("vqa-rad", "slake", "pathvqa")


def open_questions(
    text: str,
    *,
    split: str | None = None,
    language: Language = "en",
    train: Path | None = None,
    columns: QuestionColumns | None = None,
) -> QuestionSet:
    """Open what the user names as `vqa-rad=DIR`, `slake=DIR`, `pathvqa=DIR`, `NAME=TABLE` or `TABLE`.

    split: of VQA-RAD "official", "clean", "mevf" or "ours"; of SLAKE and PathVQA "official" or "ours"; of a table "own" or
    "ours"; None is the first of these. language: of SLAKE alone. train, columns: of a table
    alone. UserError for anything else.
    """
    name, named, place = text.partition("=")
    if not named:
        if text in KNOWN:
            raise UserError(f"{text}: where is it? Say --data {text}=DIR")
        name, place = Path(text).stem, text
    if not name or not place:
        raise UserError(f"--data {text}: expected NAME=PATH, or a path alone")
    where = Path(place)
    if not where.exists():
        raise UserError(f"{place}: no such file or folder; expected {', '.join(f'{known}=DIR' for known in KNOWN)} or a table")
    if name not in KNOWN:
        if where.is_dir():
            raise UserError(
                f"{text}: a folder; say which it is: {', '.join(f'{known}=DIR' for known in KNOWN)}, or give a table"
            )
        return read_question_table(name, where, train, split or OWN, columns)
    if name == "slake":
        return read_slake(where, split or "official", language)
    return read_vqa_rad(where, split or "official") if name == "vqa-rad" else read_pathvqa(where, split or "official")
