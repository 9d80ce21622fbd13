"""Some right and some wrong answers, each beside its picture, on one HTML page: what a model can see, and where it fails."""

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.questions.answers import normalised
from biomedclip_jax.data.questions.types import Question, QuestionSet
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.report.drawing import file_stem, small
from biomedclip_jax.evaluation.vqa._baselines import Answers
from biomedclip_jax.evaluation.vqa._task import dataset_name
from biomedclip_jax.files import write_file
from biomedclip_jax.support import html as html_page

SHOWN = 24  # right answers, and as many wrong ones


def write_answers_page(folder: Path, data: QuestionSet, found: Answers, seed: int = 0) -> Path:
    """Write a page into `folder` that shows right and wrong answers to the test questions; its path.

    They are drawn at random, with as many different images as there are. An image that is not there, or cannot be read, is
    said in its place. Another model, data set or split has a page of its own; the page needs no other file.
    """
    dataset = f"{dataset_name(data)}, {data.split}"
    asked = list(zip(data.test, found.answers, strict=True))
    right = np.array([normalised(answer) == normalised(each.answer) for each, answer in asked], bool)
    parts = [html_page.paragraph(f"{int(right.sum()):,} of {len(asked):,} answers are right ({right.mean():.1%}).")]
    for which, own in (("right", np.flatnonzero(right)), ("wrong", np.flatnonzero(~right))):
        drawn = _drawn([data.test[position].image for position in own], seed)
        how = "" if len(drawn) == len(own) else f", drawn at random (seed {seed})"
        parts.append(
            html_page.heading(f"{len(drawn):,} of {len(own):,} {which} answers{how}" if drawn else f"No {which} answer")
        )
        parts.append(html_page.gallery([_card(data, *asked[int(own[position])], which == "right") for position in drawn]))
    path = folder / f"{file_stem(dataset_name(data), data.split, found.model)}.html"
    write_file(path, lambda partial: html_page.write_page(partial, f"{dataset}: {found.model}", parts))
    return path


def _drawn(images: Sequence[str], seed: int) -> list[int]:
    """Positions of up to 24 answers in the order of the test questions: a second one about an image where all have one."""
    seen: Counter[str] = Counter()
    order = list[tuple[int, int]]()
    shuffled: list[int] = np.random.default_rng(seed).permutation(len(images)).tolist()
    for position in shuffled:
        order.append((seen[images[position]], position))
        seen[images[position]] += 1
    return sorted(position for _, position in sorted(order, key=lambda each: each[0])[:SHOWN])


def _card(data: QuestionSet, question: Question, answer: str, is_right: bool) -> html_page.Card:
    picture, reason = _thumbnail(data, question.image)
    about = ", ".join(["closed" if question.closed else "open", *question.types])
    return html_page.Card(
        title=question.question,
        picture=picture,
        alternative=reason or question.image,
        good=answer if is_right else f"is {question.answer}",
        bad="" if is_right else f"answered {answer}" if answer else "not answered",
        small=f"{about} · {question.image} · {question.id}",
    )


def _thumbnail(data: QuestionSet, name: str) -> tuple[bytes | None, str]:
    """A JPEG of at most 320 pixels a side, or None and why there is none."""
    if name not in data.images:
        return None, f"{name} is not there"
    try:
        pixels = small(load_image(data.images[name], name))
    except UserError as error:
        return None, str(error)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=85)
    return content.getvalue(), ""
