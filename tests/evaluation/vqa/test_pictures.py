"""A page of right and wrong answers: which are shown, with what beside them, and that nothing else is needed."""

import base64
import dataclasses
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from biomedclip_jax.data.images.load import ImageSource
from biomedclip_jax.data.questions.types import Question, QuestionSet
from biomedclip_jax.evaluation.vqa._baselines import Answers
from biomedclip_jax.evaluation.vqa._pictures import SHOWN, write_answers_page


def question(number: int, image: str, text: str = "Is this a CT?", answer: str = "Yes.") -> Question:
    return Question(id=f"q{number}", image=image, question=text, answer=answer, closed=answer == "Yes.", types=("MODALITY",))


def data_of(test: list[Question], images: dict[str, ImageSource]) -> QuestionSet:
    return QuestionSet(name="mine", split="own", language="en", train=(), validation=(), test=tuple(test), images=images)


@pytest.fixture
def many() -> QuestionSet:
    """60 questions about 30 images; every second answer is no."""
    images: dict[str, ImageSource] = {f"i{n}.png": Image.new("L", (400, 200), 8 * n) for n in range(30)}
    return data_of([question(n, f"i{n % 30}.png", answer=("Yes.", "no")[n % 2]) for n in range(60)], images)


def figures(page: str, which: str) -> list[str]:
    section = next(part for part in page.split("<h2>")[1:] if re.match(rf"[^<]*\b{which} answer", part))
    return re.findall("<figure>.*?</figure>", section, re.DOTALL)


def test_right_and_wrong_ones_with_their_pictures(many: QuestionSet, tmp_path: Path) -> None:
    path = write_answers_page(tmp_path / "answers", many, Answers(model="a/b <c>", answers=("yes",) * 60))
    assert [file.name for file in (tmp_path / "answers").iterdir()] == [path.name]
    page = path.read_text(encoding="utf-8")
    assert "<h1>mine, own: a/b &lt;c&gt;</h1>" in page and "30 of 60 answers are right (50.0%)." in page
    assert "<h2>24 of 30 right answers, drawn at random (seed 0)</h2>" in page
    assert "http" not in page and page.count("data:image/jpeg") == 2 * SHOWN
    assert set(re.findall(r'src="(.{10})', page)) == {"data:image"}
    right, wrong = figures(page, "right"), figures(page, "wrong")
    assert len(right) == len(wrong) == SHOWN
    for figure in right:
        assert '<p class="good">yes</p>' in figure and 'class="bad"' not in figure
    for figure in wrong:
        assert '<p class="bad">answered yes</p><p class="good">is no</p>' in figure
        assert '<p class="title">Is this a CT?</p>' in figure and "open, MODALITY" in figure
        name, content = re.findall(r'alt="i(\d+)\.png" src="data:image/jpeg;base64,([^"]+)"', figure)[0]
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert image.size == (320, 160) and image.getpixel((9, 9)) == pytest.approx((8 * int(name),) * 3, abs=3)


def test_other_images_come_before_a_second_answer_about_one(tmp_path: Path) -> None:
    images: dict[str, ImageSource] = {f"i{n}": Image.new("L", (4, 4)) for n in range(20)}
    data = data_of([question(n, f"i{max(0, n - 40)}") for n in range(60)], images)
    page = write_answers_page(tmp_path, data, Answers(model="m", answers=("yes",) * 60)).read_text()
    shown = re.findall(r'alt="(i\d+)"', page)
    assert len(shown) == SHOWN and len(set(shown)) == 20
    assert "No wrong answer" in page and figures(page, "wrong") == []


def test_same_seed_same_page_and_a_page_for_each_model_and_split(many: QuestionSet, tmp_path: Path) -> None:
    found = Answers(model="m", answers=("yes",) * 60)
    first = write_answers_page(tmp_path, many, found)
    content = first.read_bytes()
    assert write_answers_page(tmp_path, many, found) == first and first.read_bytes() == content
    assert write_answers_page(tmp_path, many, found, seed=1).read_bytes() != content
    others = {
        write_answers_page(tmp_path, dataclasses.replace(many, split="ours"), found),
        write_answers_page(tmp_path, many, dataclasses.replace(found, model="n")),
        write_answers_page(tmp_path, dataclasses.replace(many, language="zh"), found),
    }
    assert len(others | {first}) == 4 == len(list(tmp_path.iterdir()))


def test_what_cannot_be_shown_is_said(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no more")
    images: dict[str, ImageSource] = {"broken.png": tmp_path / "broken.png", "clear.png": Image.new("RGBA", (2, 900))}
    texts = ["<b>what</b> & where?", "左肺在哪里", "何?"]
    test = [question(n, name, text, "lung") for n, (name, text) in enumerate(zip([*images, "gone.png"], texts, strict=True))]
    page = write_answers_page(tmp_path / "out", data_of(test, images), Answers(model="m", answers=("", "lung", "")))
    shown = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;what&lt;/b&gt; &amp; where?" in shown and "左肺在哪里" in shown and "<b>" not in shown
    broken, gone = figures(shown, "wrong")
    assert "<img" not in broken and "broken.png" in broken and "not answered" in broken
    assert '<p class="lacking">gone.png is not there</p>' in gone
    assert shown.count("<img") == 1 and "1 of 3 answers are right" in shown
