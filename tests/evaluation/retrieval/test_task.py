"""Retrieval against counting by hand, on a model small enough to see, and against clip_benchmark as a real peer."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.clip_benchmark_peer import clip_benchmark, png, write_retrieval
from helpers.reference import open_clip_model
from PIL import Image

from biomedclip_jax import from_pretrained
from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.pairs import ImageOf
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._evaluation import Evaluation
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.report.results import Result, read_results, write_results
from biomedclip_jax.evaluation.retrieval.task import recall, retrieval

KS = (1, 3, 5)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def counted(image: np.ndarray, text: np.ndarray, captions: list[str], ks: tuple[int, ...]) -> dict[str, float]:
    """The definition, one query at a time: sort, take the k best, look for a right one. For scores without ties."""
    unique = sorted(set(captions))
    texts = {caption: text[captions.index(caption)] for caption in unique}
    found = {}
    for k in ks:
        hits = 0
        for i, caption in enumerate(captions):
            best = sorted(unique, key=lambda c: -float(image[i] @ texts[c]))[:k]
            hits += caption in best
        found[f"image_to_text_recall_at_{k}"] = hits / len(captions)
        hits = 0
        for caption in unique:
            best = sorted(range(len(captions)), key=lambda i: -float(image[i] @ texts[caption]))[:k]
            hits += any(captions[i] == caption for i in best)
        found[f"text_to_image_recall_at_{k}"] = hits / len(unique)
    return found


def test_against_counting() -> None:
    """Forty pairs, a caption of which stands for several images."""
    rng = np.random.default_rng(0)
    captions = [f"caption {n}" for n in rng.integers(0, 25, 40)]
    embedded = {caption: rng.normal(size=6) for caption in sorted(set(captions))}
    text = unit(np.stack([embedded[caption] for caption in captions]))
    image = unit(text + 0.7 * rng.normal(size=text.shape))
    expected = counted(image, text, captions, KS)
    found = recall(image, text, captions, KS)
    assert found == pytest.approx(expected) and found.keys() == expected.keys()
    assert len(set(captions)) < 30 and 0.1 < expected["image_to_text_recall_at_1"] < 0.9
    assert expected["image_to_text_recall_at_1"] != expected["text_to_image_recall_at_1"]


def test_perfect_and_reversed() -> None:
    eye = np.eye(20, dtype=np.float32)
    captions = [str(i) for i in range(20)]
    assert set(recall(eye, eye, captions).values()) == {1.0}
    assert set(recall(eye, eye[::-1], captions).values()) == {0.0}


def test_ties_give_no_credit() -> None:
    """A model that maps everything to one point must not look like one that finds what it is asked for."""
    same = np.tile(np.array([[1.0, 0.0]], np.float32), (20, 1))
    captions = [str(i) for i in range(20)]
    assert set(recall(same, same, captions).values()) == {0.0}
    assert set(recall(same, same, captions, ks=(20,)).values()) == {1.0}, "among all 20 the right one is found"


def test_pairs_with_one_caption_are_one_text() -> None:
    """Each of three images is right for the caption they share, which is ranked once."""
    image = np.eye(4, dtype=np.float32)
    text = np.stack([image[0], image[0], image[0], image[3]])
    found = recall(image, text, ["lung", "lung", "lung", "brain"], ks=(1,))
    assert found["text_to_image_recall_at_1"] == 1.0
    # images 1 and 2 lie at right angles to both texts: a tie, no credit
    assert found["image_to_text_recall_at_1"] == 0.5


# --- the task: a model for which an image is its colour, and a caption the three numbers in it ------------------------


class Colours:
    """What `Candidate` and its `clip` are, for the task. confused: sees other colours. broken: names it cannot read."""

    processor = SimpleNamespace(config=PreprocessConfig())

    def __init__(
        self, name: str = "colours", broken: Sequence[str] = (), see: Callable[[np.ndarray], np.ndarray] = lambda x: x
    ):
        self.name, self.fingerprint, self.clip, self.source, self.adapter = name, name, self, f"models/{name}", ""
        self._broken, self._see = broken, see
        self.params = {"logit_scale": np.float32(0)}
        self.encoded = 0

    def encode_images(self, images: Sequence[Any], batch_size: int, progress: Any, on_error: Any, normalize: bool) -> Any:
        assert not normalize
        rows = []
        for position, image in enumerate(images):
            try:
                pair = image._source  # what the evaluation was given of it
                if any(name in pair.pairs.name(pair.index) for name in self._broken):
                    raise UserError("not for me")
                rows.append(np.asarray(image.load().convert("RGB"), np.float32).mean(axis=(0, 1)) + 1)
            except UserError as error:
                on_error(position, error)
        self.encoded += len(images)
        return self._see(np.array(rows, np.float32))

    def unread_texts(self, texts: Sequence[str]) -> list[str]:
        return [f"1 of {len(texts)} is cut"]

    def encode_texts(self, texts: Sequence[str], progress: Any) -> np.ndarray:
        self.encoded += len(texts)
        return unit(np.array([[float(word) + 1 for word in text.split()[:3]] for text in texts]))


def table(folder: Path, captions: Sequence[Sequence[str]], colours: Sequence[tuple[int, int, int]] | None = None) -> Path:
    """Image i has the colour that its first caption names, if no other is given."""
    lines = []
    for i, own in enumerate(captions):
        colour = colours[i] if colours else tuple(int(word) for word in own[0].split()[:3])
        Image.new("RGB", (12, 9), colour).save(folder / f"{i}.png")
        lines.append(json.dumps({"image": f"{i}.png", "caption": list(own)}))
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "data.jsonl"


def run(
    path: Path,
    out: Path,
    *candidates: Colours,
    cache: Path | None = None,
    approximate: Any = None,
    gallery_rows: int = 0,
    **about: Any,
) -> list[Result]:
    """Without galleries, which take longer than all the rest, unless they are asked for."""
    chosen: Any = candidates or [Colours()]
    named: dict[str, Any] = {"dataset": "toy"} | about
    evaluation = Evaluation(**named, candidates=chosen, embeddings=Embeddings(cache), out=out)
    return retrieval(evaluation, open_pairs(str(path)), approximate=approximate, gallery_rows=gallery_rows)


RED, GREEN, BLUE, PINK = "200 0 0", "0 200 0", "0 0 200", "200 100 100"


def test_several_captions_and_images_that_share_one(tmp_path: Path) -> None:
    """Five images; "0 200 0" belongs to two of them, and what image 3 shows belongs to others only."""
    captions = [[RED], [BLUE, GREEN], [GREEN], [PINK, PINK, RED], [GREEN + " c", "0 100 200"]]
    colours = [(200, 0, 0), (0, 200, 0), (0, 200, 0), (0, 0, 200), (0, 120, 200)]
    (found,) = run(table(tmp_path, captions, colours), tmp_path / "out")
    assert (found.model, found.task, found.dataset, found.n) == ("colours", "retrieval", "toy", 5)
    assert found.settings["images"] == 5 and found.settings["texts"] == 6 and found.settings["search"] == "exact"
    # image 0: red first; 1 and 2: green, and "green c", which scores the same and is wrong, before it; 3: blue, "0 100 200" and
    # then its own pink; 4: "0 100 200" first
    expected = [1, 2, 2, 3, 1]
    assert found.metrics["image_to_text_recall_at_1"] == 2 / 5 and found.metrics["image_to_text_recall_at_5"] == 1
    assert found.metrics["image_to_text_median_rank"] == np.median(expected) == 2
    assert found.metrics["image_to_text_mean_reciprocal_rank"] == pytest.approx(np.mean(1 / np.array(expected)))
    # red finds image 0, green both of its own, "0 100 200" image 4; "green c" images 1 and 2 before its own 4; blue and pink
    # have one image each, the green and the blue one, with all others before them or as near
    assert found.metrics["text_to_image_recall_at_1"] == 3 / 6
    assert found.metrics["text_to_image_recall_at_5"] == 1
    write_results(tmp_path / "out", [found])
    assert read_results(tmp_path / "out") == [found]


def random_captions(count: int, seed: int = 0) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[" ".join(map(str, rng.integers(0, 256, 3))) for _ in range(rng.integers(1, 4))] for _ in range(count)]


def noisy(x: np.ndarray) -> np.ndarray:
    return x + np.random.default_rng(1).normal(size=x.shape).astype(np.float32) * 60


def test_a_perfect_a_noisy_and_a_constant_model(tmp_path: Path) -> None:
    """All on the same pairs; the quick recall says the same where each image has one caption."""
    captions = [own[:1] for own in random_captions(40)]
    path = table(tmp_path, captions)
    models = [Colours(), Colours("noisy", see=noisy), Colours("constant", see=np.ones_like)]
    good, middle, bad = run(path, tmp_path / "out", *models)
    assert good.metrics["image_to_text_recall_at_1"] == good.metrics["text_to_image_mean_reciprocal_rank"] == 1
    low, high = good.intervals["image_to_text_recall_at_1"]
    assert low == pytest.approx(0.912, abs=1e-3) and high == 1, "of forty, all right: some of a million may be wrong"
    assert good.metrics["text_to_image_median_rank"] == 1
    assert 0 < middle.metrics["image_to_text_recall_at_1"] < 1
    assert bad.metrics["text_to_image_recall_at_10"] == 0 and bad.metrics["text_to_image_median_rank"] == 40
    pairs = open_pairs(str(path))
    embedded = Embeddings(None).images(models[1], [ImageOf(pairs, i) for i in range(40)], "x").rows  # type: ignore[arg-type]
    texts = [own[0] for own in captions]
    quick = recall(embedded, models[1].encode_texts(texts, None), texts)
    assert quick.items() <= middle.metrics.items() and len(quick) == 6


def test_intervals_are_those_of_resampled_queries(tmp_path: Path) -> None:
    path = table(tmp_path, [own[:1] for own in random_captions(60)])
    (found,) = run(path, tmp_path / "out", Colours(see=noisy), resamples=4_000)
    share = found.metrics["image_to_text_recall_at_5"]
    hits = np.arange(60) < round(60 * share)
    rng = np.random.default_rng(9)
    again = [rng.choice(hits, 60).mean() for _ in range(4_000)]
    low, high = found.intervals["image_to_text_recall_at_5"]
    assert (low, high) == pytest.approx(np.percentile(again, [2.5, 97.5]), abs=1.5 / 60)
    assert low < share < high and found.intervals.keys() == {name for name in found.metrics if "recall" in name}
    assert set(found.outcomes) == {"image_to_text", "text_to_image"} and len(found.outcomes["text_to_image"]) == 60
    assert (found.outcomes["image_to_text"] < 5).mean() == share
    (same,) = run(path, tmp_path / "out", Colours(see=noisy), resamples=4_000)
    assert same.intervals == found.intervals


def test_what_one_model_cannot_read_counts_for_none(tmp_path: Path) -> None:
    """Left out with its captions, for all, and listed, as is what was no pair when the data were opened."""
    captions = random_captions(30)
    path = table(tmp_path, captions)
    (tmp_path / "4.png").write_bytes(b"no image")
    (tmp_path / "9.png").unlink()
    picky, other = Colours("picky", broken=["/2.png"], see=noisy), Colours("other", see=lambda x: noisy(x)[::-1])
    first, second = run(path, tmp_path / "out", picky, other)
    assert first.n == second.n == 27 and first.details["left_out"] == second.details["left_out"]
    assert [Path(each["image"]).name for each in first.details["left_out"]] == ["9.png", "2.png", "4.png"]
    assert first.details["left_out"][1]["reason"] == "not for me"
    for _ in range(2):  # kept on disk, and read from there
        assert run(path, tmp_path / "out", picky, other, cache=tmp_path / "cache") == [first, second]

    rest = [i for i in range(30) if i not in (2, 4, 9)]
    (tmp_path / "rest").mkdir()
    (expected,) = run(table(tmp_path / "rest", [captions[i] for i in rest]), tmp_path / "out", Colours(see=noisy))
    assert first.settings["texts"] == expected.settings["texts"] == sum(len(captions[i]) for i in rest)
    perfect, _ = run(path, tmp_path / "out", Colours("a"), picky)
    (alone,) = run(tmp_path / "rest" / "data.jsonl", tmp_path / "out", Colours("a"))
    assert perfect.metrics == alone.metrics and alone.details == {}


def test_nothing_that_all_can_read(tmp_path: Path) -> None:
    path = table(tmp_path, [[RED], [BLUE]])
    with pytest.raises(UserError, match="toy: no pair"):
        run(path, tmp_path / "out", Colours("a", broken=["/0.png"]), Colours("b", broken=["/1.png"]))
    with pytest.raises(UserError, match="none of the 2 images"):
        run(path, tmp_path / "out", Colours(broken=["png"]))


@pytest.mark.parametrize("method", ["faiss", "approx_max_k"])
def test_approximate(tmp_path: Path, method: Any) -> None:
    """So few keys are searched exactly: the same recalls, and the measure says so. Later ranks are not known."""
    path = table(tmp_path, random_captions(50))
    (exact,) = run(path, tmp_path / "out", Colours(see=noisy))
    (found,) = run(path, tmp_path / "out", Colours(see=noisy), approximate=method)
    assert found.metrics == {name: value for name, value in exact.metrics.items() if "recall_at" in name}
    assert found.intervals == exact.intervals and found.settings["search"] == method
    measured = found.details["recall_against_exact"]
    assert measured["image_to_text"] == {"queries": 50, "recall_at_1": 1, "recall_at_10": 1}
    assert measured["text_to_image"]["recall_at_10"] == 1 and measured["text_to_image"]["queries"] == found.settings["texts"]


def test_embeddings_are_made_once(tmp_path: Path) -> None:
    path = table(tmp_path, random_captions(20))
    (first,) = run(path, tmp_path / "out", Colours(see=noisy), cache=tmp_path / "cache")
    again = Colours(see=noisy)
    (second,) = run(path, tmp_path / "out", again, cache=tmp_path / "cache", approximate="approx_max_k", dataset="other")
    assert again.encoded == 0 and second.metrics.items() <= first.metrics.items()
    Image.new("RGB", (5, 5), "red").save(tmp_path / "3.png")
    third = Colours(see=noisy)
    run(path, tmp_path / "out", third, cache=tmp_path / "cache")
    assert third.encoded == 20, "the images, of which one has changed, and not the texts"


def test_galleries(tmp_path: Path) -> None:
    """Five models: four in one pair of pictures, the fifth in another; the same for any order of the models."""
    path = table(tmp_path, random_captions(12))
    models = [Colours(f"model {i}", see=noisy) for i in range(5)]
    results = run(path, tmp_path / "out", *models, gallery_rows=2)
    files = [sorted(result.pictures) for result in results]
    assert files[0] == files[3] != files[4] and len({*files[0], *files[4]}) == 4
    for result in results:
        assert all((tmp_path / "out" / file).is_file() for file in result.pictures)
        assert any("captions" in title for title in result.pictures.values())
    run(path, tmp_path / "alone", models[0], gallery_rows=2)
    run(path, tmp_path / "again", models[0], gallery_rows=2)
    run(path, tmp_path / "seed", models[0], gallery_rows=2, seed=1)
    alone, again, seed = ([p.read_bytes() for p in sorted((tmp_path / each).iterdir())] for each in ("alone", "again", "seed"))
    assert alone == again and alone != seed and len(alone) == 2
    assert run(path, tmp_path / "none")[0].pictures == {} and not (tmp_path / "none").exists()


# --- a real peer ------------------------------------------------------------------------------------------------------


def test_clip_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LAION's clip_benchmark finds the same in the same WebDataset, to the last digit; one to three captions an image."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tmp_path / "model"
    vision = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
    open_clip_model(model, vision, {"context_length": 16, "hf_proj_type": "linear"}, bert={"num_hidden_layers": 1})
    rng = np.random.default_rng(0)
    images = [png(Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize((40, 36))) for _ in range(90)]
    letters = [" ".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz0123456789"), 8)) for _ in range(900)]
    clip = from_pretrained(model)
    scores = clip.encode_images(images) @ clip.encode_texts(letters).T
    # captions are those that find the image early, or the model would be right by chance only
    order = np.argsort(np.argsort(np.argsort(-scores, axis=0), axis=0), axis=1, kind="stable")
    free, captions = set(range(900)), []
    for i in range(90):
        near = [j for j in order[i].tolist() if j in free][: rng.integers(1, 4)]
        free -= set(near)
        captions.append(near)
    kept = _clear(scores, captions)
    assert len(kept) > 50 and len({len(captions[i]) for i in kept}) == 3

    own = [[letters[j] for j in captions[i]] for i in kept]
    write_retrieval(tmp_path / "peer", [images[i] for i in kept], own)
    pairs = open_pairs(str(tmp_path / "peer" / "test" / "*.tar"))
    assert [pairs.texts(i).captions for i in range(len(pairs))] == [tuple(each) for each in own]
    candidates = [Candidate(str(model))]
    evaluation = Evaluation(candidates=candidates, dataset="peer", embeddings=Embeddings(None), out=tmp_path)
    (ours,) = retrieval(evaluation, pairs, gallery_rows=0)
    theirs = clip_benchmark(model, tmp_path / "peer", "zeroshot_retrieval", "--recall_k", "1", "5", "10")
    names = {"image_retrieval": "text_to_image", "text_retrieval": "image_to_text"}
    expected = {
        f"{t}_recall@{k}": float(np.float32(ours.metrics[f"{o}_recall_at_{k}"])) for t, o in names.items() for k in (1, 5, 10)
    }
    assert theirs == expected  # theirs are float32
    assert len(set(theirs.values())) == 6 and 0.01 < min(theirs.values()) < max(theirs.values()) < 1


def _clear(scores: np.ndarray, captions: Sequence[Sequence[int]]) -> list[int]:
    """Images for which no rounding of two frameworks can change a rank, neither theirs nor one of their captions'."""
    columns = [j for own in captions for j in own]
    owner = np.array([i for i, own in enumerate(captions) for _ in own])
    scores = scores[:, columns]
    right = owner[None] == np.arange(len(captions))[:, None]
    best = np.where(right, scores, -np.inf)
    of_image = np.where(right, np.inf, np.abs(scores - best.max(axis=1, keepdims=True))).min(axis=1)
    of_text = np.where(right, np.inf, np.abs(scores - best.max(axis=0))).min(axis=0)
    return [i for i in range(len(captions)) if of_image[i] > 1e-5 and of_text[owner == i].min() > 1e-5]
