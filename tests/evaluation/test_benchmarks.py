"""The table of benchmarks: against MedMNIST's own, against the published prompts, and what is said when data are missing."""

import importlib.util
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.data.benchmarks.chexpert import FIVE
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.benchmarks import Benchmark, benchmark, benchmarks, load_benchmark, published
from biomedclip_jax.evaluation.probe.sampling import Budget
from biomedclip_jax.prompts.templates import Prompts, read_prompts

ALL = list(benchmarks().values())


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.name)
def test_every_row_is_whole(row: Benchmark, tmp_path: Path) -> None:
    """And its prompts survive being written to a file and read back."""
    assert len(row.classes) > 1 and len(set(row.classes)) == len(row.classes)
    assert "test" in row.splits and row.splits.keys() <= {"train", "validation", "test"}
    assert (
        row.metric in (("mean_auroc",) if row.multi_label else ("accuracy", "auroc"))
        and row.fetch
        and row.terms
        and row.layout
        and row.prompts_source
    )
    assert all(0 < each.value <= 1 and each.source for each in row.paper)
    prompts = row.prompts
    assert len(prompts.sentences) == len(row.classes) and all(own and all(own) for own in prompts.sentences)
    row.write_prompts(tmp_path / "p.yaml")
    assert read_prompts(tmp_path / "p.yaml", row.classes) == prompts


def test_the_published_prompts() -> None:
    """BiomedCLIP, supplementary table 10; LC25000 lung in the form that gives the published number."""
    a_photo, an_image = ("a photo of {}", "{} presented in image"), ("this is an image of {}", "{} presented in image")
    for name, templates, classes in (
        ("pcam", an_image, "normal lymph node; lymph node metastasis"),
        ("lc25000-lung", a_photo, "lung adenocarcinomas; normal lung tissue; lung squamous cell carcinomas"),
        ("lc25000-lung-printed", an_image, "lung adenocarcinomas; normal lung tissue; lung squamous cell carcinomas"),
        ("lc25000-colon", a_photo, "colon adenocarcinomas; normal colonic tissue"),
        ("tcga-til", a_photo, "none; tumor infiltrating lymphocytes"),
        ("rsna", a_photo, "normal lung; pneumonia"),
        ("rsna-boxes", a_photo, "normal lung; pneumonia"),
    ):
        assert benchmark(name).prompts == Prompts.from_templates(classes.split("; "), templates)


def test_the_words_of_cleft() -> None:
    """RSNA's pneumothorax is theirs, and stays in a row of its own."""
    start = "this is a chest x ray of a patient with"
    row = benchmark("chexpert-5x200-cleft")
    assert tuple(own[0] for own in row.prompts.sentences) == tuple(f"{start} {name}" for name in row.classes)
    assert row.classes == tuple(finding.lower() for finding in row.options["findings"])
    assert sorted(row.options["findings"]) == list(FIVE)
    assert benchmark("rsna-cleft-released").prompts.flat == [f"{start} no findings", f"{start} pneumothorax"]
    one_class = [each for each in ALL if not each.multi_label]
    assert [each.name for each in one_class if any("pneumothorax" in own for own in each.prompts.flat)] == [
        "rsna-cleft-released",
        *(each.name for each in one_class if each.options.get("flag") == "chestmnist"),
    ]


def test_the_published_values() -> None:
    found = {
        (row.name, each.model): each.value
        for row in ALL
        for each in row.paper
        if each.task == "zero-shot" and each.source.startswith("table")
    }
    for name, small, large in (
        ("pcam", 0.7341, 0.6715),
        ("lc25000-lung", 0.6523, 0.6180),
        ("lc25000-colon", 0.9298, 0.8742),
        ("tcga-til", 0.6704, 0.5700),
        ("rsna", 0.7895, 0.7849),
    ):
        assert found[name, "BiomedCLIP"] == small and found[name, "BiomedCLIP 384 px"] == large
    assert {name for name, _ in found} == {"pcam", "lc25000-lung", "lc25000-colon", "tcga-til", "rsna", "rsna-boxes"}
    assert round(np.mean([found[n, "BiomedCLIP"] for n, m in found if m == "BiomedCLIP" and n != "rsna-boxes"]), 4) == 0.7552


def test_medmnist_as_its_own_package_describes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where it makes a folder when it is read
    package = importlib.util.find_spec("medmnist")
    if package is None or not package.origin:
        pytest.skip("medmnist is not installed")
    info = runpy.run_path(str(Path(package.origin).with_name("info.py")))["INFO"]  # the package itself imports torch
    sets = {flag for flag in info if not flag.endswith("3d")}
    rows = [row for row in ALL if row.reader == "medmnist"]
    assert {row.options["flag"] for row in rows} == sets and len(sets) == 12
    for row in rows:
        own = info[row.options["flag"]]
        if not row.name.startswith("retinamnist-words"):
            assert row.classes == tuple(own["label"][str(i)] for i in range(len(own["label"])))
        if row.options["flag"] != "chestmnist":
            assert list(row.splits.values()) == [own["n_samples"][split] for split in ("train", "val", "test")]
        assert row.terms == own["license"] and row.fetch.split("/")[-1] in own["url"]
        size = row.options["size"]
        file = own["url" if size == 28 else f"url_{size}"].split("/")[-1].partition("?")[0]
        assert row.layout == (file,) and row.fetch.startswith(f"{file} from ") and row.name.endswith(str(size)) == (size > 28)


def test_chexperts_labels_are_those_of_its_reader() -> None:
    assert benchmark("chexpert-5x200").classes == tuple(finding.lower() for finding in FIVE)
    sentences = benchmark("chexpert-5x200-gloria").prompts.sentences
    assert [len(own) for own in sentences] == [10] * 5
    for words, own in zip(("atelectasis", "cardi heart", "consolidation", "edema", "effusion"), sentences, strict=True):
        assert all(any(word in each for word in words.split()) and "  " not in each for each in own)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pcam", ["no camelyonpatch_level_2_split_test_x.h5", "zenodo.org/records/2546921", "CC0"]),
        (
            "lc25000-colon",
            ["no folder colon_aca", "tampapath/lung_colon_image_set", "colon_image_sets/{colon_aca,colon_n}/*.jpeg"],
        ),
        ("tcga-til", ["for split 'test'", "zenodo.org/records/6604094", "labels.csv"]),
        ("rsna", ["no stage_2_train_images", "kaggle.com", "attribution", "stage_2_train_images/<patientId>.dcm"]),
        ("chexpert-5x200", ["no train.csv", "stanfordmlgroup", "Research Use Agreement", "chexpert_5x200.csv"]),
        ("pathmnist-224", ["no pathmnist_224.npz", "pathmnist_224.npz from https://zenodo.org", "CC BY 4.0"]),
    ],
)
def test_data_that_are_not_on_disk(tmp_path: Path, name: str, said: list[str]) -> None:
    """One line: what is missing, what to fetch from where, under which terms, and where to put it."""
    with pytest.raises(UserError) as caught:
        load_benchmark(name, tmp_path)
    message = str(caught.value)
    assert "\n" not in message and "(terms: " in message and str(tmp_path / benchmark(name).folder) in message
    for part in said:
        assert part in message


def test_names_that_are_not_known() -> None:
    with pytest.raises(
        UserError, match=r"chestmnist-one: no benchmark of this name, did you mean 'chestmnist-one-finding'\?; there are pcam,"
    ):
        benchmark("chestmnist-one")
    with pytest.raises(UserError, match="did you mean 'rsna-boxes'"):
        benchmark("rsna-box")
    with pytest.raises(UserError, match="lc25000-lung: no split 'train'; there are: test"):
        load_benchmark("lc25000-lung", Path(), "train")


def test_variants_share_their_images(tmp_path: Path) -> None:
    """Other words for the same images: the embeddings are those that are known. The folder may be given, or the one above."""
    for folder in ("lung_aca", "lung_n", "lung_scc"):
        path = tmp_path / "lc25000" / "lung_colon_image_set" / "lung_image_sets" / folder
        path.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(path / "1.jpeg")
    found = load_benchmark("lc25000-lung", tmp_path)
    other = load_benchmark("lc25000-lung-quilt", tmp_path / "lc25000")
    assert found.labels.tolist() == other.labels.tolist() == [0, 1, 2] and found.fingerprint == other.fingerprint
    assert found.name == "lc25000-lung" and other.classes[1] == "benign lung" and found.classes[1] == "normal lung tissue"


def test_options_of_a_reader(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="uncertain = 'maybe'"):
        load_benchmark("chexpert-5x200", tmp_path, uncertain="maybe")


def test_published_numbers_of_few_labels() -> None:
    """By the budget, as columns of our own tables are called; a data set without such numbers has no row."""
    assert published("few-labels", "rsna") == [
        ("paper: BiomedCLIP (figure, linear probe)", {str(Budget.parse("10%")): 0.83}),
        ("paper: BioViL (figure, linear probe)", {str(Budget.parse("100%")): 0.824}),
    ]
    assert published("few-labels", "pcam") == published("few-labels", "rsna-normal") == published("few-labels", "x") == []
    learned = [value for row in benchmarks().values() for value in row.paper if value.task not in ("zero-shot", "multi-label")]
    labels = {value.labels for value in learned}
    assert labels == {str(Budget.parse(text)) for text in ("10%", "100%")}


def test_published_numbers_of_several_findings() -> None:
    rows = published("multi-label", "chexpert-14")
    assert [(whose.split(" (")[0], numbers) for whose, numbers in rows] == [
        ("paper: MedSigLIP", {"mean_auroc": 0.844}),
        ("paper: ELIXR", {"mean_auroc": 0.824}),
    ]
    assert all("518 images" in whose for whose, _ in rows), "which are others than valid.csv's"
