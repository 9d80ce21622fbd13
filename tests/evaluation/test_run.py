"""`biomedclip evaluate` as its users meet it: files that it writes, what it says of data that do not fit, a second run."""

import csv
import importlib.metadata
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.reference import open_clip_model
from helpers.tiny_adapter import make_adapter
from PIL import Image

from biomedclip_jax.cli import main
from biomedclip_jax.evaluation import candidates

Captured = pytest.CaptureFixture[str]

KINDS = {"chest ray": (200, 60, 60), "brain": (60, 200, 60), "lung": (60, 60, 200)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    vision = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
    open_clip_model(folder, vision, {"context_length": 32}, bert={"num_hidden_layers": 1})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables train.csv and test.csv with captions and labels, and the same images in class folders."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 6)):
        rows = []
        for label, color in KINDS.items():
            (folder / "folders" / part / label).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(np.array(color) + rng.normal(0, 30, (20, 20, 3)), 0, 255).astype(np.uint8)
                name = f"folders/{part}/{label}/{i}.png"
                Image.fromarray(pixels).save(folder / name)
                rows.append([name, f"image of the {label} {'abcdefgh'[i]}", label])
        with (folder / f"{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["image", "caption", "label"], *rows])
    return folder


def run(*words: object) -> int:
    return main(["evaluate", *map(str, words)])


def failure(capsys: Captured, *words: object) -> str:
    assert run(*words) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("biomedclip evaluate: ") and "\n" not in said, said
    return said


def rows(out: Path) -> list[dict]:
    return json.loads((out / "results.json").read_text())


def test_all_tasks(model: Path, data: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["all", model, "--data", data / "test.csv", "--train", data / "train.csv", "--out", tmp_path]
    words += ["--labels", "2", "100%", "--seeds", "0", "1", "--search", "none", "--resamples", "50"]
    assert run(*words) == 0
    said = capsys.readouterr()
    assert "zero-shot test (18): small: accuracy 0." in said.out and said.err == ""
    found = rows(tmp_path)
    assert [(row["task"], row["settings"].get("budget")) for row in found] == [
        ("retrieval", None),
        ("zero-shot", None),
        ("probe", "2 per class"),
        ("probe", "100 %"),
        ("finetune", "2 per class"),
        ("finetune", "100 %"),
    ]
    assert {row["n"] for row in found} == {18} and {row["dataset"] for row in found} == {"test"}
    assert found[1]["majority_accuracy"] == pytest.approx(1 / 3)
    assert found[3]["accuracy"] == 1, "three colours are learned from eight images of each"
    for row in found:
        assert row["pictures"] and all((tmp_path / file).stat().st_size > 1_000 for file in row["pictures"])
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len({file for row in found for file in row["pictures"]})
    assert "## Few labels: test, 18 images" in (tmp_path / "results.md").read_text()
    assert len(list((tmp_path / "clip_benchmark").iterdir())) == 2

    # the second time costs nothing: the model is not even loaded, and the numbers are the same
    monkeypatch.setattr(candidates, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded"))
    before, files = rows(tmp_path), sorted(path.name for path in tmp_path.rglob("*"))
    for task in ("retrieval", "zero-shot"):
        assert run(task, *words[1:]) == 0
    again = rows(tmp_path)
    for row in (*before, *again):
        assert row["measured"].pop("command").startswith("biomedclip evaluate ") and row["measured"].pop("date")
    assert again == before and sorted(path.name for path in tmp_path.rglob("*")) == files
    assert before[0]["measured"] == {
        "model": str(model),
        "adapter": "",
        "model_fingerprint": candidates.Candidate(str(model)).fingerprint,
        "data": str(data / "test.csv"),
        "data_fingerprint": before[0]["measured"]["data_fingerprint"],
        "total": 18,
        "version": importlib.metadata.version("biomedclip_jax"),
    }


def test_class_folders_have_labels_and_no_captions(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    words = ["--data", f"mine={data / 'folders'}", "--out", tmp_path, "--labels", "2", "--seeds", "0", "--search", "none"]
    assert run("all", f"first={model}", f"second={model}", *words) == 0
    assert "mine: no retrieval: " in capsys.readouterr().err
    found = rows(tmp_path)
    assert {(row["model"], row["dataset"]) for row in found} == {("first", "mine"), ("second", "mine")}
    zero_shot = [row for row in found if row["task"] == "zero-shot"]
    assert len(zero_shot) == 2
    (difference,) = json.loads((tmp_path / "differences.json").read_text())
    assert (difference["after_model"], difference["before_model"]) == ("second", "first")
    assert difference["metrics"]["accuracy"][:3] == [0, 0, 0], "a model does not differ from itself"
    assert "a folder of images has no captions" in failure(capsys, "retrieval", model, *words)


def test_prompts_are_written_edited_and_used(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    prompts = tmp_path / "prompts.yaml"
    assert run("zero-shot", "--data", data / "folders", "--write-prompts", prompts) == 0
    prompts.write_text(prompts.read_text().replace("a photo of {}", "an image of the {}"))
    assert run("zero-shot", model, "--data", data / "folders", "--prompts", prompts, "--out", tmp_path / "out") == 0
    assert rows(tmp_path / "out")[0]["settings"]["prompts"][0][0] == "an image of the brain"
    prompts.write_text("classes: {brain: head}")
    assert "class 'chest ray': missing" in failure(
        capsys, "zero-shot", model, "--data", data / "folders", "--prompts", prompts, "--out", tmp_path / "b"
    )


def test_prompts_that_a_probe_learned_are_kept_and_used(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    few = ["--train", data / "train.csv", "--labels", "2", "--seeds", "0", "1", "--methods", "linear-probe", "coop"]
    words = ["--data", data / "test.csv", "--out", tmp_path, "--resamples", "10"]
    assert run("probe", model, *words, *few) == 0
    plain, coop = rows(tmp_path)
    assert "prompts" not in plain["details"]["runs"][0]
    runs = coop["details"]["runs"]
    files = [tmp_path / each["prompts"] for each in runs]
    assert [file.name[:-25] for file in files] == [f"test.small.coop.2-per-class.seed-{seed}" for seed in (0, 1)]
    assert len({file.name[-24:] for file in files}) == 1, "a mark of the model, the data and the recipe"

    # beside the hand-written prompts, with the accuracy that the probe had; asked twice they are one row
    for prompts in ([], ["--prompts", files[0]], ["--prompts", files[0]]):
        assert run("zero-shot", model, *words, *prompts) == 0
    found = [row for row in rows(tmp_path) if row["task"] == "zero-shot"]
    assert found[1]["accuracy"] == pytest.approx(runs[0]["metrics"]["accuracy"])
    assert [row["settings"].get("prompts_file") for row in found] == [None, str(files[0])]
    assert found[1]["settings"]["prompts"] == "learned" and found[1]["settings"]["prompts_method"] == "coop"
    assert not found[0]["pictures"].keys() & found[1]["pictures"].keys()
    page = (tmp_path / "results.md").read_text()
    assert "\n| small | " in page and f"\n| small, coop prompts ({files[0].with_suffix('')}) | " in page
    assert len(list((tmp_path / "clip_benchmark").iterdir())) == 2

    capsys.readouterr()
    assert "learned prompts are for zero-shot" in failure(capsys, "all", model, *words, "--prompts", files[0])
    assert "leave it out" in failure(capsys, "zero-shot", model, *words, "--prompts", files[0], "--aggregate", "max")
    gone = failure(capsys, "zero-shot", model, *words, "--prompts", tmp_path / "gone.safetensors")
    assert "gone.safetensors: not a file of learned prompts" in gone


def test_blended_classifiers_in_one_table(model: Path, data: Path, tmp_path: Path) -> None:
    methods = ["clip-adapter", "lp++", "lp+text"]
    few = ["--train", data / "train.csv", "--labels", "1", "3", "--seeds", "0", "1", "--methods", *methods]
    few += ["--adapter-ratio", "0.5", "--epochs", "3"]
    assert run("probe", model, "--data", data / "test.csv", "--out", tmp_path, "--resamples", "10", *few) == 0
    found = rows(tmp_path)
    assert [(row["task"], row["settings"]["budget"]) for row in found] == [
        (name, budget) for name in methods for budget in ("1 per class", "3 per class")
    ]
    assert [found[0]["settings"][name] for name in ("ratio", "epochs", "batch_size", "learning_rate")] == [0.5, 3, 32, 2e-3]
    assert all(row["settings"]["selection"] == "validation" for row in found[2:])
    assert all(
        1 <= run["chosen"]["epochs"] <= (300, 200)[row["task"] == "lp+text"]
        for row in found[2:]
        for run in row["details"]["runs"]
    )
    page = (tmp_path / "results.md").read_text()
    assert "| lp++ |" in page and "| lp+text |" in page and (tmp_path / "report.html").is_file()


def test_a_model_with_an_adapter_is_another_model(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    adapter = make_adapter(model, tmp_path / "run7" / "adapter")
    words = ["--data", data / "test.csv", "--out", tmp_path / "out", "--resamples", "10"]
    assert run("zero-shot", model, f"{model}::{adapter}", *words) == 0
    found = rows(tmp_path / "out")
    assert [row["model"] for row in found] == ["small", "small+run7"]
    assert found[0]["auroc"] != found[1]["auroc"], "it sees otherwise"
    assert len(list((tmp_path / "out" / "embeddings").glob("image-*"))) == 2, "embeddings are kept apart"
    other = make_adapter(model, tmp_path / "run8" / "adapter", seed=1)
    named = [candidates.Candidate(str(model), adapter=str(each)) for each in (adapter, other)]
    assert named[0].fingerprint != named[1].fingerprint
    for cut in (f"{model}::", f"::{adapter}", f"mine=::{adapter}"):
        assert "expected a model before the two colons" in failure(capsys, "zero-shot", cut, *words)
    assert "expected the adapter/ folder of a run" in failure(capsys, "zero-shot", f"{model}::{tmp_path}", *words)


def test_base_to_novel(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    words = ["base-to-novel", model, "--out", tmp_path, "--labels", "2", "--seeds", "0", "1"]
    three = ["--data", data / "test.csv", "--train", data / "train.csv"]
    assert "3 classes; expected four at least" in failure(capsys, *words, *three)
    assert "--methods tip-adapter: expected" in failure(capsys, *words, *three, "--methods", "tip-adapter")
    four = []
    for part in ("test", "train"):
        table = list(csv.DictReader((data / f"{part}.csv").read_text().splitlines()))
        for i, row in enumerate(table):
            row["image"] = str(data / row["image"])
            row["label"] = "lung cells" if row["label"] == "lung" and i % 2 else row["label"]
        four.append(tmp_path / f"{part}.csv")
        with four[-1].open("w", newline="") as file:
            written = csv.DictWriter(file, table[0])
            written.writeheader()
            written.writerows(table)
    assert run(*words, "--data", four[0], "--train", four[1]) == 0
    [row] = rows(tmp_path)
    assert (row["task"], row["settings"]["budget"], row["settings"]["images"]) == ("coop base-to-novel", "2 per class", 4)
    assert (row["settings"]["context"], row["settings"]["epochs"]) == ("a photo of a", 50), "as published for this protocol"
    base, novel = row["base_accuracy"], row["novel_accuracy"]
    assert row["harmonic_mean"] == pytest.approx(2 * base * novel / (base + novel))
    each = [one["metrics"]["base_accuracy"] for one in row["details"]["runs"]]
    assert row["base_accuracy"] == pytest.approx(np.mean(each)) and len(each) == 2
    page = (tmp_path / "results.md").read_text()
    assert "## Base to novel classes: test, 18 images" in page and "| small | coop | 2 per class | " in page
    assert "Few labels" not in page
    given = ["--context", "2", "--epochs", "3", "--learning-rate", "0.01", "--images-per-update", "4"]
    assert run(*words, "--data", four[0], "--train", four[1], *given) == 0
    settings = rows(tmp_path)[-1]["settings"]
    assert [settings[name] for name in ("context", "epochs", "learning_rate", "batch_size")] == [2, 3, 0.01, 4]
    few = [model, "--out", tmp_path, "--data", four[0], "--train", four[1]]
    assert "--epochs: of methods that learn prompts" in failure(capsys, "probe", *few, "--epochs", "3")
    assert "and of clip-adapter; --methods coop" in failure(capsys, "probe", *few, "--methods", "lp++", "--epochs", "3")
    assert "ratio = 2.0: expected" in failure(capsys, "probe", *few, "--methods", "clip-adapter", "--adapter-ratio", "2")
    assert "--methods lp++: expected some that learn prompts" in failure(capsys, "base-to-novel", *few, "--methods", "lp++")
    assert "--sccm: of biomedcoop alone" in failure(capsys, "base-to-novel", *few, "--sccm", "3")
    assert "--kg-weight: of kgcoop alone" in failure(capsys, "probe", *few, "--methods", "prograd", "--kg-weight", "3")
    assert "expected --epochs, too" in failure(capsys, "probe", *few, "--methods", "coop", "--learning-rate", "1")
    two = ["--methods", "kgcoop", "prograd", "--kg-weight", "4", "--prograd-lambda", "0.8", "--prograd-temperature", "2"]
    assert run(*words, "--data", four[0], "--train", four[1], *two, "--epochs", "1") == 0
    kgcoop, prograd = (row["settings"] for row in rows(tmp_path)[-2:])
    assert [kgcoop[name] for name in ("weight", "epochs", "batch_size", "context")] == [4, 1, 128, "a photo of a"]
    assert [prograd[name] for name in ("weight", "temperature", "batch_size")] == [0.8, 2, 32]


def test_list(capsys: Captured) -> None:
    assert run("--list") == 0
    said = capsys.readouterr().out
    assert "pcam " in said and "73.41 accuracy, BiomedCLIP" in said and "rsna" in said


def test_what_is_missing_is_said(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    csv = data / "test.csv"
    out = ["--out", tmp_path / "out"]
    assert "TASK: expected one of" in failure(capsys)
    assert "--data: expected" in failure(capsys, "zero-shot", model, *out)
    assert "MODEL: expected" in failure(capsys, "zero-shot", "--data", csv, *out)
    assert "--out DIR: expected" in failure(capsys, "zero-shot", model, "--data", csv)
    assert "nothing to learn from (" in failure(capsys, "probe", model, "--data", csv, *out)
    assert "did you mean 'pcam'" in failure(capsys, "zero-shot", model, "--data", "pcan", *out)
    assert "where is it? Say --data pcam=FOLDER" in failure(capsys, "zero-shot", model, "--data", "pcam", *out)
    assert "to be fetched by hand" in failure(capsys, "zero-shot", model, "--data", f"pcam={tmp_path}", *out)
    assert "two sources are called 'test'" in failure(capsys, "zero-shot", model, "--data", csv, csv, *out)
    assert "two models are called 'small'" in failure(capsys, "zero-shot", model, model, "--data", csv, *out)
    assert "no column 'kind'" in failure(capsys, "zero-shot", model, "--data", csv, "--label-column", "kind", *out)
    assert "expected --sentences FILE" in failure(capsys, "probe", model, "--data", csv, "--methods", "biomedcoop", *out)
    assert "labels = 'x'" in failure(capsys, "probe", model, "--data", csv, "--labels", "x", *out)
    assert "no such model" in failure(capsys, "zero-shot", tmp_path / "nowhere", "--data", csv, *out)
    assert not (tmp_path / "out" / "results.json").exists()


def test_what_is_there_is_measured_where_something_is_missing(
    model: Path, data: Path, tmp_path: Path, capsys: Captured
) -> None:
    sources = [f"pcam={tmp_path}", data / "test.csv", f"gone={data / 'gone.csv'}"]
    assert run("zero-shot", model, "--data", *sources, "--out", tmp_path / "out", "--resamples", 10) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("pcam: no zero-shot: ") and said[1].startswith("gone: no zero-shot: ")
    assert said[2] == "biomedclip evaluate: 2 of 3 data sets could not be evaluated: pcam, gone; see above"
    assert [row["dataset"] for row in rows(tmp_path / "out")] == ["test"]


def test_what_is_tested_is_not_learned_from(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    words = [model, "--data", data / "test.csv", "--train", data / "test.csv", "--out", tmp_path / "out", "--labels", "2"]
    words += ["--seeds", "0", "--resamples", "20"]
    said = failure(capsys, "probe", *words)
    assert "18 of 18 test images are in the training data, too" in said and "--allow-overlap" in said
    assert run("probe", *words, "--allow-overlap") == 0
    assert "18 of 18 test images are in the training data, too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("0", "1"), "'0' is a number, and no name of a class in words; give words with --prompts FILE.yaml"),
        (("Brain", "brain"), "'Brain' and 'brain' are one text to small: they differ in case"),
        (("brain " * 40 + "chest", "brain " * 40 + "lung"), "are one text to small"),
    ],
    ids=["numbers", "case", "cut"],
)
def test_classes_that_the_model_cannot_tell(
    model: Path, data: Path, tmp_path: Path, capsys: Captured, names: tuple[str, str], said: str
) -> None:
    """Numbers, and names that are one text after the tokenizer or after the cut: an error, not an accuracy."""
    rows = "".join(f"{data}/folders/test/brain/{n}.png,{names[n % 2]}\n" for n in range(6))
    (tmp_path / "t.csv").write_text(f"image,label\n{rows}")
    assert run("zero-shot", model, "--data", tmp_path / "t.csv", "--out", tmp_path / "out") == 2
    *warnings, error = capsys.readouterr().err.splitlines()
    assert error.startswith("biomedclip evaluate: ") and said in error
    assert len(warnings) == len(names[0]) // 200, "of sentences that are cut, where they are"


def test_what_is_left_out_stands_on_the_terminal(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    content = "".join(f"{data}/folders/test/{label}/{n}.png,{label} {n},{label}\n" for label in KINDS for n in range(4))
    content += "none.png,one,brain\nnone.png,two,lung\n" + f"{data}/folders/test/lung/5.png,,N/A\n"
    (tmp_path / "t.csv").write_text(f"image,caption,label\n{content}")
    assert run("all", model, "--data", tmp_path / "t.csv", "--out", tmp_path / "out", "--resamples", "20") == 0
    said = capsys.readouterr().out
    missing = "image file is not there 2"
    assert f"zero-shot t (12, left out: 3 ({missing}, label is missing ('N/A') 1)): small" in said
    assert f"retrieval t, exact (12, left out: 3 ({missing}, caption is empty 1)): small" in said
    report = (tmp_path / "out" / "results.md").read_text()
    assert f"Of the data left out: 3 ({missing}, caption is empty 1)." in report
    assert "725,739 pairs; among 12 the right one is easier to find, so they cannot be compared" in report


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with other weights, under the same folder name."""
    folder = tmp_path_factory.mktemp("others") / "small"
    vision = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
    open_clip_model(folder, vision, {"context_length": 32}, bert={"num_hidden_layers": 1}, seed=5)
    return folder


def differences(out: Path) -> dict[tuple[str, str, str], dict]:
    found = json.loads((out / "differences.json").read_text())
    return {(each["task"], each["after_model"], each["before_model"]): each for each in found}


def test_a_report_never_contradicts_itself(
    model: Path, other_model: Path, data: Path, tmp_path: Path, capsys: Captured
) -> None:
    """A row that is measured again leads to new differences of its pairs, in the same direction, and to no others."""
    base, tuned = f"base={tmp_path / 'a'}", f"tuned={other_model}"
    shutil.copytree(model, tmp_path / "a")
    words = ["--data", data / "test.csv", "--out", tmp_path / "out", "--resamples", "50"]
    for task in ("zero-shot", "retrieval"):
        assert run(task, base, tuned, *words) == 0
    first = differences(tmp_path / "out")
    assert set(first) == {(task, "tuned", "base") for task in ("zero-shot", "retrieval")}
    found = {(row["task"], row["model"]): row for row in rows(tmp_path / "out")}
    for (task, after, before), each in first.items():
        assert (each["after"], each["before"]) == (found[task, after]["id"], found[task, before]["id"])
        for metric, (difference, low, high, _) in each["metrics"].items():
            assert difference == found[task, after][metric] - found[task, before][metric]
            assert low <= high
    ways = ("image_to_text", "text_to_image")
    names = {f"{way}_{name}" for way in ways for name in ("recall_at_1", "recall_at_10", "median_rank")}
    assert names <= first["retrieval", "tuned", "base"]["metrics"].keys()
    assert {"auroc", "balanced_accuracy", "macro_f1"} <= first["zero-shot", "tuned", "base"]["metrics"].keys()

    # the base alone, again: nothing is different, and the direction is the same
    assert run("zero-shot", base, *words) == 0
    assert differences(tmp_path / "out") == first and len(rows(tmp_path / "out")) == 4
    # of another model in its folder: a row of its own, with a difference to each of the others
    shutil.rmtree(tmp_path / "a")
    shutil.copytree(other_model, tmp_path / "a")
    assert run("zero-shot", base, *words) == 0
    everything = json.loads((tmp_path / "out" / "differences.json").read_text())
    same = [each for each in everything if (each["task"], each["after_model"]) == ("zero-shot", "base")]
    assert len(rows(tmp_path / "out")) == 5 and len(same) == 2 and len(everything) == 4
    assert [each["metrics"]["accuracy"] for each in same if each["before_model"] == "tuned"] == [[0, 0, 0, 0]]
    page = (tmp_path / "out" / "results.md").read_text()
    assert "\n| base (weights " in page and "\n| base (weights " in page.split("Differences, zero-shot")[1]
    assert "Differences, retrieval: test, 18 images" in page


def test_an_adapted_model_less_its_base(model: Path, data: Path, tmp_path: Path) -> None:
    """In whatever order they are named."""
    adapter = make_adapter(model, tmp_path / "run7" / "adapter")
    words = ["--data", data / "test.csv", "--out", tmp_path / "out", "--resamples", "10"]
    assert run("zero-shot", f"{model}::{adapter}", model, *words) == 0
    assert list(differences(tmp_path / "out")) == [("zero-shot", "small+run7", "small")]
    (_, after) = sorted(rows(tmp_path / "out"), key=lambda row: row["model"])
    assert after["measured"]["adapter"] == str(adapter)


def test_tables_of_one_name_are_told_apart(model: Path, data: Path, tmp_path: Path) -> None:
    """Two files called test.csv, of which one has fewer rows; and other words for the same classes."""
    lines = (data / "test.csv").read_text().splitlines()
    (tmp_path / "test.csv").write_text("\n".join([lines[0], *(f"{data}/{line}" for line in lines[1:16])]))
    (tmp_path / "words.yaml").write_text('templates: ["an image of {}"]')
    words = ["--out", tmp_path / "out", "--resamples", "10"]
    for table, more in (
        (data / "test.csv", ["zero-shot"]),
        (tmp_path / "test.csv", ["zero-shot"]),
        (data / "test.csv", ["zero-shot", "--prompts", tmp_path / "words.yaml"]),
        (data / "test.csv", ["retrieval"]),
        (data / "test.csv", ["retrieval", "--approximate", "approx_max_k"]),
    ):
        assert run(more[0], model, "--data", table, *more[1:], *words) == 0
    found = rows(tmp_path / "out")
    assert [row["n"] for row in found] == [18, 15, 18, 18, 18] and len({row["id"] for row in found}) == 5
    assert len(list((tmp_path / "out" / "clip_benchmark").iterdir())) == 5
    pictures = [file for row in found if row["task"] == "zero-shot" for file in row["pictures"]]
    assert len(pictures) == len(set(pictures))
    titles = [line for line in (tmp_path / "out" / "results.md").read_text().splitlines() if line.startswith("## Zero-shot")]
    assert sorted(titles) == [
        "## Zero-shot classification: test, 15 images",
        '## Zero-shot classification: test, 18 images ("a photo of brain" (2 sentences a class, mean))',
        '## Zero-shot classification: test, 18 images ("an image of brain" (1 sentence a class, mean))',
    ]


def test_results_of_an_earlier_version(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    """Rows without weights and data are kept, and said; a file that cannot be read is one line, before any work."""
    old = {
        "model": "small",
        "task": "zero-shot",
        "dataset": "test",
        "n": 18,
        "accuracy": 0.5,
        "settings": {"aggregate": "mean"},
    }
    (tmp_path / "results.json").write_text(json.dumps([old]))
    words = ["zero-shot", model, "--data", data / "test.csv", "--out", tmp_path, "--resamples", "10"]
    assert run(*words) == 0
    assert "1 of 1 rows are of an earlier version" in capsys.readouterr().err
    assert [row.get("measured") is None for row in rows(tmp_path)] == [True, False]
    (tmp_path / "results.json").write_text('{"held_out_pairs": 8}')
    assert "results.json: not a table of results" in failure(capsys, *words)
    (tmp_path / "results.json").write_text(json.dumps([old | {"details": {"left_out": [{}]}}]))  # changed by hand
    assert "no tables can be made of it (KeyError: " in failure(capsys, *words)
    assert json.loads((tmp_path / "results.json").read_text())[0]["details"] == {"left_out": [{}]}
    words[5] = tmp_path / "results.json"
    assert "results.json: a file; expected a folder" in failure(capsys, *words)


def test_groups(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    """Intervals over patients, which also the differences of two rows heed; and no patient in training and test data."""
    lines = (data / "test.csv").read_text().splitlines()
    (data / "patients.csv").write_text(
        "\n".join([f"{lines[0]},patient", *(f"{line},p{i % 12}" for i, line in enumerate(lines[1:]))])
    )
    words = ["zero-shot", model, f"again={model}", "--data", data / "patients.csv", "--resamples", "50", "--group", "patient"]
    assert run(*words, "--out", tmp_path) == 0
    assert "intervals over 12 groups (patient) of 18 images" in capsys.readouterr().out
    assert {row["dataset"] for row in rows(tmp_path)} == {"patients"}
    train = data / "train_patients.csv"
    lines = (data / "train.csv").read_text().splitlines()
    train.write_text("\n".join([f"{lines[0]},patient", *(f"{line},P{i + 11}" for i, line in enumerate(lines[1:]))]))
    few = [
        "probe",
        model,
        "--data",
        data / "patients.csv",
        "--train",
        train,
        "--group",
        "patient",
        "--labels",
        "2",
        "--seeds",
        "0",
    ]
    assert "1 groups, such as 'p11', have images in the training data" in failure(capsys, *few, "--out", tmp_path / "few")
    assert run("retrieval", model, "--data", data / "patients.csv", "--group", "patient", "--out", tmp_path) == 0
    assert "intervals over 12 groups (patient) of 18 images" in capsys.readouterr().out
    said = failure(capsys, "zero-shot", model, "--data", f"pcam={tmp_path}", "--group", "patient", "--out", tmp_path)
    assert "pcam is a benchmark" in said
