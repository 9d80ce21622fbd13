"""Cross-modal retrieval: does the right caption come back for an image, and the right image for a caption?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.data.pairs import ImageOf, Pairs
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.report.drawing import picture_file
from biomedclip_jax.evaluation.report.results import Result
from biomedclip_jax.evaluation.retrieval.approximate import Method, first_right, nearest, recall_against_exact
from biomedclip_jax.evaluation.retrieval.gallery import SHOWN, Found, captions_of_images, images_of_captions
from biomedclip_jax.evaluation.retrieval.ranks import ranks

_KS = (1, 5, 10)
_DIRECTIONS = ("image_to_text", "text_to_image")
_SIDE_BY_SIDE = 4  # models in a picture


def recall(image: np.ndarray, text: np.ndarray, caption: Sequence[str], ks: Sequence[int] = _KS) -> dict[str, float]:
    """Recall at k in both directions, as fractions: a quick look, during and after training.

    image, text: unit embeddings [n, E], row i of both from pair i. caption: the n captions; pairs with the same caption are
    the same text, so each different caption is ranked once, and any of its images is right.
    Keys: image_to_text_recall_at_k, text_to_image_recall_at_k.
    """
    place: dict[str, int] = {}
    group = np.array([place.setdefault(each, len(place)) for each in caption])
    first = np.unique(group, return_index=True)[1]
    own = np.stack([np.arange(len(image)), group], axis=1)
    found = {}
    for direction, rank in zip(_DIRECTIONS, ranks(image, text[first], own), strict=True):
        found |= {f"{direction}_recall_at_{k}": float((rank < k).mean()) for k in ks}
    return found


def retrieval(
    candidates: Sequence[Candidate],
    pairs: Pairs,
    fingerprint: str,
    embeddings: Embeddings,
    folder: Path,
    *,
    dataset: str,
    approximate: Method | None = None,
    gallery_rows: int = 6,
    seed: int = 0,
    resamples: int = 1_000,
) -> list[Result]:
    """One result for each candidate, all on the same images and captions, with galleries in `folder` (that of results.json).

    Every caption of an image is a text of its own; the same caption under several images is one text. Any of its captions is
    right for an image, and any of its images for a caption. Metrics, each for image_to_text and text_to_image: recall_at_1,
    recall_at_5 and recall_at_10, and of exact ranks also median_rank (1 is the best) and mean_reciprocal_rank. Intervals of the
    recalls: 95 %, from the bootstrap over queries. Details: left_out, what one of the candidates cannot read, which counts for
    none of them, and what was no pair at all; of an approximate search recall_against_exact, each way.
    fingerprint: of `pairs`, as `pairs_fingerprint` gives it; images are embedded once for each.
    approximate: see `approximate.nearest`; None is exact.
    Raises UserError where nothing can be read, or an embedding is not finite.
    """
    texts = _Texts.of(pairs)
    images = [ImageOf(pairs, index) for index in range(len(pairs))]
    of_images = [embeddings.images(candidate, images, fingerprint) for candidate in candidates]
    errors = texts.errors | {place: reason for each in reversed(of_images) for place, reason in each.errors.items()}
    asked = _Asked.without(texts.own, sorted(errors), len(images))
    if not len(asked.images):
        raise UserError(f"{dataset}: no pair can be read by all of the models")
    left_out = [{"image": reject.image, "reason": reject.reason} for reject in pairs.rejects]
    left_out += [{"image": pairs.name(place), "reason": errors[place]} for place in sorted(errors)]

    generator = np.random.default_rng(seed)
    drawn = [generator.choice(n, min(gallery_rows, n), replace=False) for n in (len(asked.texts), len(asked.images))]
    results, found = [], []
    for candidate, each in zip(candidates, of_images, strict=True):
        image = _rows(each.rows, np.searchsorted(each.kept, asked.images))
        text = _rows(embeddings.texts(candidate, texts.captions), asked.texts)
        sides, settings, details = _search(image, text, asked.own, approximate, seed)
        metrics, intervals = _metrics(sides, approximate is None, resamples, seed)
        found.append((Found.by(candidate.name, text[drawn[0]], image), Found.by(candidate.name, image[drawn[1]], text)))
        settings |= {"images": len(image), "texts": len(text), "resamples": resamples, "seed": seed}
        details |= {"left_out": left_out} if left_out else {}
        results.append(Result(candidate.name, "retrieval", dataset, len(image), metrics, intervals, settings, details))

    for start in range(0, len(results), _SIDE_BY_SIDE) if gallery_rows else ():
        part = slice(start, start + _SIDE_BY_SIDE)
        pictures = _galleries(folder, dataset, start // _SIDE_BY_SIDE, found[part], drawn, asked, images, texts.captions)
        for result in results[part]:
            result.pictures.update(pictures)
    return results


@dataclass(frozen=True, eq=False)
class _Texts:
    """captions: the different ones, in the order in which they appear. own: int64 [P, 2], (pair, caption). errors: by pair."""

    captions: list[str]
    own: np.ndarray
    errors: dict[int, str]

    @staticmethod
    def of(pairs: Pairs) -> "_Texts":
        place: dict[str, int] = {}
        own: list[tuple[int, int]] = []
        errors: dict[int, str] = {}
        for index in range(len(pairs)):
            try:
                captions = pairs.texts(index).captions
            except UserError as error:
                errors[index] = str(error)
                continue
            own += [(index, place.setdefault(caption, len(place))) for caption in dict.fromkeys(captions)]
        return _Texts(list(place), np.array(own, np.int64).reshape(-1, 2), errors)


@dataclass(frozen=True, eq=False)
class _Asked:
    """images, texts: int64, the positions of what is searched. own: int64 [P, 2], positions in these."""

    images: np.ndarray
    texts: np.ndarray
    own: np.ndarray

    @staticmethod
    def without(own: np.ndarray, left_out: Sequence[int], count: int) -> "_Asked":
        images = np.setdiff1d(np.arange(count), left_out)
        own = own[np.isin(own[:, 0], images)]
        texts = np.unique(own[:, 1])
        return _Asked(images, texts, np.stack([np.searchsorted(images, own[:, 0]), np.searchsorted(texts, own[:, 1])], axis=1))


def _rows(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    """array[places], which copies nothing where it is all of them."""
    return array if len(places) == len(array) else array[places]


def _search(
    image: np.ndarray, text: np.ndarray, own: np.ndarray, approximate: Method | None, seed: int
) -> tuple[tuple[np.ndarray, ...], dict[str, Any], dict[str, Any]]:
    """Ranks each way, from 0; settings; details."""
    if approximate is None:
        return ranks(image, text, own), {"search": "exact"}, {}
    sides, measured, settings = [], {}, {}
    ways = ((image, text, own), (text, image, own[:, ::-1]))
    for direction, (queries, keys, pairs) in zip(_DIRECTIONS, ways, strict=True):
        places, scores, settings[direction] = nearest(queries, keys, approximate)
        sides.append(first_right(places, scores, pairs, len(keys)))
        measured[direction] = recall_against_exact(queries, keys, places, seed=seed)
    return tuple(sides), {"search": approximate} | settings, {"recall_against_exact": measured}


def _metrics(
    sides: Sequence[np.ndarray], exact: bool, resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    generator = np.random.default_rng(seed)
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for direction, rank in zip(_DIRECTIONS, sides, strict=True):
        for k in _KS:
            name, share = f"{direction}_recall_at_{k}", float((rank < k).mean())
            metrics[name] = share
            if resamples:
                # hits among n queries drawn from these with replacement: what the bootstrap would count
                again = generator.binomial(len(rank), share, resamples) / len(rank)
                low, high = np.percentile(again, [2.5, 97.5])
                intervals[name] = float(low), float(high)
        if exact:
            metrics[f"{direction}_median_rank"] = float(np.median(rank) + 1)
            metrics[f"{direction}_mean_reciprocal_rank"] = float((1 / (1 + rank)).mean())
    return metrics, intervals


def _galleries(
    folder: Path,
    dataset: str,
    number: int,
    found: Sequence[tuple[Found, Found]],
    drawn: Sequence[np.ndarray],
    asked: _Asked,
    images: Sequence[ImageOf],
    captions: Sequence[str],
) -> dict[str, str]:
    """Titles by file. drawn: the texts and the images that are asked for."""
    more = [str(number + 1)] if number else []
    of_captions = picture_file("retrieval", dataset, "images_of_captions", *more)
    of_images = picture_file("retrieval", dataset, "captions_of_images", *more)
    titles = {
        of_captions: f"{dataset}: random captions, and the {SHOWN} images found first for each; the right one framed in yellow",
        of_images: f"{dataset}: random images, and the {SHOWN} captions found first for each; the right one on yellow",
    }

    def partners(side: int) -> list[set[int]]:
        return [set(asked.own[asked.own[:, side] == i, 1 - side].tolist()) for i in drawn[1 - side]]

    def image(place: int) -> Any:
        return images[int(asked.images[place])].load()

    def caption(place: int) -> str:
        return captions[int(asked.texts[place])]

    wanted = [caption(int(i)) for i in drawn[0]]
    images_of_captions(folder / of_captions, wanted, [each[0] for each in found], image, partners(1), titles[of_captions])
    places = drawn[1].tolist()
    captions_of_images(folder / of_images, places, [each[1] for each in found], image, caption, partners(0), titles[of_images])
    return titles
