"""The card of a run's model: numbers of the run's own files, no path of this machine, and unknown where nothing is known."""

import dataclasses
import json
from pathlib import Path

from helpers.tiny_run import config, make_data

from biomedclip_jax.config import Stage
from biomedclip_jax.train import main as loop


def test_the_card_says_what_the_run_was_and_what_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data = make_data(tmp_path / "data")
    run = dataclasses.replace(config(data), stages=(Stage(steps=2, batch_size=8),))
    results = loop.train(run, tmp_path / "run")
    card, mark, below = (
        (tmp_path / "run/model/README.md").read_text(encoding="utf-8").partition("<!-- end of the model card -->")
    )
    assert mark and "open_clip" in below
    assert card.startswith("---\nlibrary_name: biomedclip_jax\nlicense: unknown\n")
    record = json.loads((tmp_path / "run/results.json").read_text())
    assert results is not None and f"{record['held_out_pairs']} pairs" in card
    assert f"| image to text recall at 1 | {record['image_to_text_recall_at_1']:.2%} |" in card
    assert f"| 0 | 2 updates | 8 | {run.image_size(run.stages[0])} px | 100% | Softmax |" in card
    assert f"weights after {record['exported_step']} updates" in card
    assert "licences: unknown" in card and "not for clinical use" in card
    assert str(tmp_path) not in card and "train.csv" in card
    # judged again on fewer pairs: one card, with the new figures
    lines = (data / "held_out.csv").read_text().splitlines(keepends=True)
    (data / "few.csv").write_text("".join(lines[:6]))
    again = dataclasses.replace(run, data=dataclasses.replace(run.data, held_out=str(data / "few.csv")))
    few = loop.train(again, tmp_path / "run")
    text = (tmp_path / "run/model/README.md").read_text(encoding="utf-8")
    assert few is not None and f"held out: `few.csv`, {few.held_out_pairs} pairs" in text
    assert text.count("# After this folder") == below.count("# After this folder") and text.count("## Limits") == 1
