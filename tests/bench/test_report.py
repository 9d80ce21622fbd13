"""The figures of the report follow from the times; the command prints and writes them."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_bench import CONFIG

from biomedclip_jax.bench import report
from biomedclip_jax.bench._alternate import OPEN_CLIP, OURS, Counted, Facts, Times
from biomedclip_jax.bench.report import Ratios, Result, as_json, bench, describe, ratios, summarise
from biomedclip_jax.bench.task import Task, task_config
from biomedclip_jax.cli import main
from biomedclip_jax.errors import UserError

TASK = Task(task_config(CONFIG, 1), ("step", "forward"))
COUNTED = Counted(
    temporary_bytes={"step": 1 << 30},
    captions=[[16, 4], [16, 8]],
    flops_per_pair=75e9,
    padded_flops_per_pair=100e9,
    peak_flops=1e12,
)
FACTS = Facts(
    platform="gpu",
    devices="1 x NVIDIA H200",
    versions={"jax": "0.10.2"},
    parameters=52_865,
    compile_seconds={"step": 30.0},
    counted=COUNTED,
)
THEIRS = dataclasses.replace(FACTS, counted=None, notes={"step": "torch.compile"})


def turn(step: list[float], forward: list[float], peak: int = 1 << 30) -> Times:
    times = {"step": step, "forward": forward}
    return Times(times, {name: [2 * t for t in v] for name, v in times.items()}, peak)


def results() -> dict:
    ours = Result(FACTS, [turn([4.0, 5.0, 6.0], [1.0]), turn([8.0, 10.0, 12.0], [2.0], 3 << 30)])
    return {
        OURS: ours,
        OPEN_CLIP: Result(THEIRS, [turn([10.0], [2.0]), turn([10.0], [8.0])]),
    }


def test_summary() -> None:
    ours = summarise(TASK, results(), OURS, "step")
    assert (ours.median, ours.low, ours.high, ours.cpu_seconds) == (7.0, 4.0, 12.0, 14.0)
    assert ours.pairs_per_second == pytest.approx(32 / 7)
    assert ours.mfu == pytest.approx(32 / 7 * 75e9 / 1e12)
    theirs = summarise(TASK, results(), OPEN_CLIP, "step")
    assert theirs.mfu == pytest.approx(3.2 * 100e9 / 1e12), "they compute the padding, too"
    assert summarise(TASK, results(), OURS, "forward").pairs_per_second == pytest.approx(8 / 1.5)
    assert summarise(TASK, results(), OURS, "forward").mfu is None


def test_ratios_are_of_turns() -> None:
    assert ratios(results(), "step") == Ratios(median=0.75, low=0.5, high=1.0, cpu=0.75)


def test_the_report_says_what_matters() -> None:
    text = "\n".join(describe(TASK, results()))
    for part in (
        "32 pairs in microbatches of 8",
        "patch keep 0.5",
        "16 x 4, 16 x 8 tokens",
        "step: torch.compile",
        "0.75 x of open_clip's time, 0.5 to 1 by turn",
        "1.33 x its pairs/s",
        "34.3%",
        "peak memory 3.00 GiB",
        "step's temporaries 1.000 GiB",
    ):
        assert part in text, part
    assert json.loads(json.dumps(as_json(TASK, results())))["task"]["config"]["name"] == "tiny"


def test_models_that_differ_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(THEIRS, parameters=52_866)
    said = [(OURS, FACTS, turn([1.0], [1.0])), (OPEN_CLIP, other, turn([1.0], [1.0]))]
    monkeypatch.setattr(report, "alternate", lambda *_: iter(said))
    with pytest.raises(UserError, match="52,865 and 52,866 parameters"):
        bench(TASK, against=True, turns=1, json_file=None)


CONFIG_FILE = """
from helpers.tiny_bench import CONFIG as config
"""


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides in their processes, from a config file to the table and the JSON."""
    tests = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", tests)
    monkeypatch.setenv("XLA_FLAGS", "")
    (tmp_path / "tiny_config.py").write_text(CONFIG_FILE)
    command = ["bench", "--config", str(tmp_path / "tiny_config.py"), "--batch-size", "8", "--steps", "2", "--turns", "2"]
    command += ["--against", "open_clip", "--eager", "--json", str(tmp_path / "out.json"), "--what", "step"]
    assert main([*command, "--text_buckets", "1"]) == 2
    assert "--text_buckets" in capsys.readouterr().err
    assert main([*command, "--compute.text-buckets", "1"]) == 0
    printed = capsys.readouterr().out
    assert "8 pairs, 16 px, patch keep 1, 8 tokens" in printed
    assert printed.count("ratio") == 1
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["task"]["config"]["compute"]["text_buckets"] == 1
    assert [len(turn["seconds"]["step"]) for turn in written["sides"]["open_clip"]["turns"]] == [2, 2]
    assert written["ratios"]["step"]["median"] > 0


def test_a_folder_that_is_not_there_is_said_before_measuring(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        bench(TASK, against=False, turns=1, json_file=tmp_path / "absent" / "out.json")


def test_a_missing_peer_is_said_before_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(UserError, match=r"^--against open_clip: torch not installed: pip install"):
        bench(TASK, against=True, turns=1, json_file=None)


def test_it_imports_neither_data_libraries_nor_torch() -> None:
    code = """
import sys
import biomedclip_jax.bench.report, biomedclip_jax.bench.ours
print(*{name.split(".")[0] for name in sys.modules})
"""
    found = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert {"jax", "flax", "optax"} <= found
    unwanted = {"torch", "open_clip", "grain", "tensorflow", "tensorflow_datasets", "transformers", "tokenizers", "PIL"}
    assert not found & (unwanted | {"tqdm", "safetensors", "huggingface_hub"})
