"""Types of figures by a model's look at their pictures: against the captions' words, with pictures that cannot be read."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.few_shot_task import make_candidate
from PIL import Image

from biomedclip_jax.cli import main
from biomedclip_jax.data.images.load import LazyImage
from biomedclip_jax.data.pmc.figure_types import all_types
from biomedclip_jax.data.statistics._counts import parts_of
from biomedclip_jax.data.statistics.captioned import CaptionedPicture, TypesSeen, captioned_pictures
from biomedclip_jax.data.statistics.report import write_statistics
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation import figure_types

NAMES = [entry.name for entry in all_types()]
SHADES = {"CT": 10, "chart": 20, "gel": 30, None: 40}  # what the model below sees in a picture of one shade


class Seer:
    """Sees the type that a picture's shade stands for; is undecided where it stands for none."""

    fingerprint = "f" * 32

    def __init__(self) -> None:
        self.asked: list[int] = []

    def classify(
        self, images: Sequence[LazyImage], labels: Sequence[str], template: str, *, on_error: Callable[[int, UserError], Any]
    ) -> np.ndarray:
        assert labels == [entry.prompt for entry in all_types()] and template == "{}"
        self.asked.append(len(images))
        rows = []
        for position, image in enumerate(images):
            try:
                shade = np.asarray(image.load().convert("L"))[0, 0]
            except UserError as error:
                on_error(position, error)
                continue
            seen = next(name for name, value in SHADES.items() if value == shade)
            rows.append([1.0 if name == seen else 0.0 for name in NAMES] if seen else [1 / len(NAMES)] * len(NAMES))
        return np.array(rows, np.float32).reshape(-1, len(NAMES))


def table(folder: Path, rows: Sequence[tuple[int | None, str]]) -> Path:
    """A table of pictures of one shade, or of a file that is no picture, with captions."""
    lines = []
    for i, (shade, caption) in enumerate(rows):
        path = folder / f"{i}.png"
        if shade is None:
            path.write_bytes(b"no picture")
        else:
            Image.new("L", (40, 30), shade).save(path)
        lines.append(json.dumps({"image": path.name, "caption": caption}))
    (folder / "t.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "t.jsonl"


ROWS = [
    (SHADES["CT"], "Axial CT scan."),
    (SHADES["chart"], "Chest CT scan of a man."),  # seen otherwise
    (SHADES["gel"], "Western blot."),
    (SHADES["chart"], "Western blot. Bar chart of its bands."),
    (SHADES[None], "Photograph of the ward."),  # the model is not sure
    (SHADES["chart"], "What was seen."),  # the words say nothing
    (None, "Axial CT scan."),
]


def look(path: Path, seer: Any) -> TypesSeen:
    [part] = parts_of(str(path))
    return figure_types.types_seen(captioned_pictures(part), seer, "seer")


def test_what_the_model_sees_stands_beside_the_words(tmp_path: Path) -> None:
    seen = look(table(tmp_path, ROWS), Seer())
    assert seen.by_words() == {
        "CT": {"CT": 1, "chart": 1},
        "gel": {"gel": 1},
        "mixed": {"chart": 1},
        "photo": {"unknown": 1},
        "unknown": {"chart": 1},
    }
    assert seen.by_picture() == {"chart": 3, "CT": 1, "gel": 1, "unknown": 1}
    assert seen.agreement() == (2, 3), "mixed and unknown are no types to agree on"
    assert seen.unreadable == 1 and "6.png" in seen.first_unreadable
    found = seen.to_json()
    assert found["pictures"] + found["unreadable"] == len(ROWS)
    assert found["model"] == "seer" and found["fingerprint"] == "f" * 32


def test_pictures_go_to_the_model_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = look(table(tmp_path, ROWS), Seer())
    monkeypatch.setattr(figure_types, "_AT_ONCE", 3)
    seer = Seer()
    assert look(tmp_path / "t.jsonl", seer) == whole and seer.asked == [3, 3, 1]


def test_no_picture_at_all_is_no_end(tmp_path: Path) -> None:
    seen = look(table(tmp_path, [(None, "A CT scan."), (None, "A chart.")]), Seer())
    assert seen.unreadable == 2 and not seen.pairs and seen.agreement() == (0, 0)


def test_a_model_to_which_two_types_are_one_text_is_an_error_that_names_it(tmp_path: Path) -> None:
    class Blind(Seer):
        def classify(self, *given: object, **more: object) -> np.ndarray:
            raise UserError("labels: 'a' and 'b' are one text to this model")

    with pytest.raises(UserError, match=r"seer: cannot tell the types of figures apart; .* \(labels: 'a' and 'b'"):
        look(table(tmp_path, ROWS), Blind())


def test_the_report_has_both(tmp_path: Path) -> None:
    path = table(tmp_path, ROWS[:-1])

    def see(pictures: Iterable[CaptionedPicture], count: int) -> TypesSeen:
        assert count == 6
        seer: Any = Seer()
        return figure_types.types_seen(pictures, seer, "<seer>")

    statistics = write_statistics(str(path), tmp_path / "s", see=see)
    found = json.loads((tmp_path / "s" / "statistics.json").read_text())
    assert found == statistics.to_json()
    assert found["figure types by picture"]["by picture"] == {"chart": 3, "CT": 1, "gel": 1, "unknown": 1}
    assert sum(found["figure types"].values()) == found["figure types by picture"]["pictures"] == 6
    page = (tmp_path / "s" / "index.html").read_text()
    assert "&lt;seer&gt; saw 6 pictures" in page and "in 66.7% the same" in page
    assert "<tr><th>mixed</th><td>1</td><td>1</td><td></td>" in page
    assert "A mixed figure&#x27;s caption names several types: chart 1, gel 1." in page


def test_without_a_model_nothing_is_said_of_pictures(tmp_path: Path) -> None:
    write_statistics(str(table(tmp_path, ROWS[:-1])), tmp_path / "s")
    assert "figure types by picture" not in json.loads((tmp_path / "s" / "statistics.json").read_text())
    assert "by their pictures" not in (tmp_path / "s" / "index.html").read_text()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_candidate(tmp_path / "model")
    source = str(table(tmp_path, ROWS[:-1]))
    flags = ["--out", str(tmp_path / "s"), "--workers", "1", "--model", str(tmp_path / "model")]
    assert main(["data", "statistics", source, *flags]) == 0
    printed = capsys.readouterr().out
    assert "types by words               CT 2, photo 1, gel 1, mixed 1, others 1\n" in printed
    assert "  types by pictures            " in printed and "  both tell one type           " in printed
    found = json.loads((tmp_path / "s" / "statistics.json").read_text())["figure types by picture"]
    assert found["pictures"] == 6 and found["model"] == str(tmp_path / "model") and len(found["fingerprint"]) == 32


def test_a_model_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(table(tmp_path, ROWS[:-1]))
    assert main(["data", "statistics", source, "--out", str(tmp_path / "s"), "--model", str(tmp_path / "nothing")]) == 2
    said = capsys.readouterr()
    assert "nothing" in said.err and said.err.count("\n") == 1 and not (tmp_path / "s").exists()
