"""The gallery of a finished run: captions whose image is found and captions whose image is not, and words that say so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_run import make_data

from biomedclip_jax.data.pairs import Texts
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.evaluation.retrieval.gallery import Found
from biomedclip_jax.train import _final_evaluation as final_evaluation

KINDS = ("chest", "brain", "bone")
RESULTS = {"text_to_image_recall_at_1": 0.25, "text_to_image_recall_at_5": 0.5}


def drawn(monkeypatch: pytest.MonkeyPatch, found_first: list[bool], seed: int) -> tuple[list[str], Found, list[set[int]], str]:
    """What `_gallery` draws of a model that puts the image of caption i first or among the last. Captions come twice each."""
    caught: list[Any] = []
    monkeypatch.setattr(final_evaluation, "images_of_captions", lambda *arguments: caught.extend(arguments))
    text = np.eye(len(found_first), dtype=np.float32).repeat(2, axis=0)
    image = np.where(np.array(found_first).repeat(2)[:, None], text, -text)
    texts = [Texts(captions=(f"caption {i // 2}",), label=KINDS[i // 2 % 3]) for i in range(len(text))]
    images: Any = [None] * len(text)
    final_evaluation._gallery(Path("x.png"), images, texts, image, text, RESULTS, seed)
    _, captions, (found,), _, right, title = caught
    return captions, found, right, title


def test_the_gallery_shows_what_the_model_can_and_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [i % 4 == 0 for i in range(24)]
    captions, found, right, title = drawn(monkeypatch, known, seed=0)
    numbers = [int(caption.split()[1]) for caption in captions]
    assert [known[i] for i in numbers] == [True] * 3 + [False] * 3
    assert {KINDS[i % 3] for i in numbers} == set(KINDS)
    assert right == [{2 * i, 2 * i + 1} for i in numbers], "every image with this caption is right"
    framed = [not right[row].isdisjoint(found.positions[row].tolist()) for row in range(6)]
    assert framed == [True] * 3 + [False] * 3
    assert "3 captions whose image is among the four, then 3 whose image is not" in title
    assert "seed 0" in title and "all 48 pairs" in title and "first for 25%" in title and "five for 50%" in title
    assert captions == drawn(monkeypatch, known, seed=0)[0] != drawn(monkeypatch, known, seed=1)[0]


def test_the_gallery_of_a_model_that_finds_all_or_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "6 captions whose image is among the four, then 0 " in drawn(monkeypatch, [True] * 12, seed=0)[3]
    assert "0 captions whose image is among the four, then 6 " in drawn(monkeypatch, [False] * 12, seed=0)[3]


def test_what_is_proposed_is_of_this_runs_own_data(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    pairs = open_pairs(str(data / "held_out.csv"), label_column="label")
    caution, command = final_evaluation.proposals(Path("runs/x"), pairs)
    assert "not for clinical use" in caution
    assert command == f"  biomedclip classify runs/x {data / '24.png'} --labels chest brain"
    for line in (final_evaluation.proposals(Path("r"), pairs, "|")[1], final_evaluation.proposals(Path("r"), None)[1]):
        assert line.startswith("  biomedclip embed r --images ")
