"""Cross-modal retrieval: does the right caption come back for an image, and the right image for a caption?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from biomedclip_jax.data.pairs import ImageOf, Pairs, fingerprint, pairs_fingerprint
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._evaluation import Evaluation, left_out
from biomedclip_jax.evaluation._intervals import wilson
from biomedclip_jax.evaluation.report.drawing import picture_file
from biomedclip_jax.evaluation.report.results import GROUPS_OF, Result, digest
from biomedclip_jax.evaluation.retrieval._ranks import ranks
from biomedclip_jax.evaluation.retrieval.approximate import Method, first_right, nearest, recall_against_exact
from biomedclip_jax.evaluation.retrieval.gallery import SHOWN, Found, captions_of_images, images_of_captions
from biomedclip_jax.evaluation.retrieval.groups import QueryGroups, over_groups

_KS = (1, 5, 10)
_DIRECTIONS = ("image_to_text", "text_to_image")
_SIDE_BY_SIDE = 4  # models in a picture


def recall(image: np.ndarray, text: np.ndarray, caption: Sequence[str], ks: Sequence[int] = _KS) -> dict[str, float]:
    """Recall at k in both directions, as fractions: a quick look, during and after training.

    image, text: unit embeddings [n, E], row i of both from pair i. caption: the n captions; pairs with the same caption
    are the same text, so each different caption is ranked once, and any of its images is right.
    Keys: image_to_text_recall_at_k, text_to_image_recall_at_k.
    """
    position: dict[str, int] = {}
    group = np.array([position.setdefault(each, len(position)) for each in caption])
    first = np.unique(group, return_index=True)[1]
    own = np.stack([np.arange(len(image)), group], axis=1)
    found = {}
    for direction, rank in zip(_DIRECTIONS, ranks(image, text[first], own), strict=True):
        found |= {f"{direction}_recall_at_{k}": float((rank < k).mean()) for k in ks}
    return found


def retrieval(
    evaluation: Evaluation,
    pairs: Pairs,
    *,
    approximate: Method | None = None,
    gallery_rows: int = 6,
    groups: QueryGroups | None = None,
) -> list[Result]:
    """One result for each candidate, all on the same images and captions, with galleries in `evaluation.out`.

    Every caption of an image is a text of its own; the same caption under several images is one text. Any of its captions
    is right for an image, and any of its images for a caption. Metrics, each for image_to_text and text_to_image:
    recall_at_1, recall_at_5 and recall_at_10, and of exact ranks also median_rank (1 is the best) and
    mean_reciprocal_rank. Intervals of the recalls: Wilson's, 95 %, over queries, or the bootstrap's over their `groups`.
    Details: left_out, what one of the candidates cannot read, which counts for none of them, and what was no pair at all;
    of an approximate search recall_against_exact, each way. Outcomes: the rank of each query, 0 is the best.
    approximate: see `approximate.nearest`; None is exact. gallery_rows: queries in each picture; 0 draws none.
    Raises UserError where nothing can be read, or an embedding is not finite.
    """
    texts = _Texts.of(pairs)
    images = [ImageOf(pairs, index) for index in range(len(pairs))]
    data = pairs_fingerprint(pairs)
    embedded, errors = evaluation.embed(images, data)
    errors = texts.errors | errors
    asked = _Asked.without(texts.own, sorted(errors), len(images))
    if not len(asked.images):
        raise UserError(f"{evaluation.dataset}: no pair can be read by all of the models")
    measured_data = fingerprint([data, *map(str, asked.images.tolist())])

    drawn_together, caveats = (None, []) if groups is None else groups.of_queries(asked.images, asked.own)
    gallery = _Gallery.drawn(asked, images, texts.captions, gallery_rows, evaluation.seed)
    results, found = [], []
    for candidate, each in zip(evaluation.candidates, embedded, strict=True):
        image = _rows(each.rows, np.searchsorted(each.kept, asked.images))
        text = _rows(evaluation.embeddings.texts(candidate, texts.captions, f"{evaluation.dataset}: captions"), asked.texts)
        sides, settings, details = _search(image, text, asked.own, approximate, evaluation.seed)
        metrics, intervals = _metrics(sides, approximate is None)
        outcomes: dict[str, np.ndarray] = dict(zip(_DIRECTIONS, sides, strict=True))
        if drawn_together is not None:
            details["caveats"] = caveats
            intervals, details["no_interval"] = over_groups(evaluation, outcomes, drawn_together, list(intervals))
            outcomes |= {f"{way}{GROUPS_OF}": own for way, own in drawn_together.items()}
        by_text = Found.by(candidate.name, text[gallery.texts], image)
        found.append((by_text, Found.by(candidate.name, image[gallery.images], text)))
        settings |= {"images": len(image), "texts": len(text), "seed": evaluation.seed}
        if missing := left_out(pairs.rejects, errors, pairs.name):
            details["left_out"] = missing
        results.append(
            Result(
                model=candidate.name,
                task="retrieval",
                dataset=evaluation.dataset,
                n=len(image),
                metrics=metrics,
                intervals=intervals,
                settings=settings,
                details={name: value for name, value in details.items() if value},
                measured=evaluation.measured(candidate, measured_data, len(pairs) + len(pairs.rejects)),
                outcomes=outcomes,
            )
        )

    for start in range(0, len(results), _SIDE_BY_SIDE) if gallery_rows else ():
        part = slice(start, start + _SIDE_BY_SIDE)
        # of these models and data alone: another evaluation has pictures of its own
        mark = digest([measured_data, gallery_rows, evaluation.seed, *(each.id for each in results[part])])
        pictures = _galleries(evaluation, mark, found[part], gallery)
        for result in results[part]:
            result.pictures.update(pictures)
    return results


@dataclass(frozen=True, eq=False)
class _Texts:
    """The texts of some pairs, and which belong to which.

    captions: the different ones, in the order in which they appear. own: int64 [P, 2], (pair, caption). errors: why the
    captions of a pair cannot be read.
    """

    captions: list[str]
    own: np.ndarray
    errors: dict[int, str]

    @staticmethod
    def of(pairs: Pairs) -> "_Texts":
        position: dict[str, int] = {}
        own: list[tuple[int, int]] = []
        errors: dict[int, str] = {}
        for index in range(len(pairs)):
            try:
                captions = pairs.texts(index).captions
            except UserError as error:
                errors[index] = str(error)
                continue
            own += [(index, position.setdefault(caption, len(position))) for caption in dict.fromkeys(captions)]
        return _Texts(list(position), np.array(own, np.int64).reshape(-1, 2), errors)


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is searched: positions of images and texts, int64, and in `own`, int64 [P, 2], which two belong together.

    The numbers in `own` are positions in `images` and in `texts`.
    """

    images: np.ndarray
    texts: np.ndarray
    own: np.ndarray

    @staticmethod
    def without(own: np.ndarray, left_out: Sequence[int], count: int) -> "_Asked":
        images = np.setdiff1d(np.arange(count), left_out)
        own = own[np.isin(own[:, 0], images)]
        texts = np.unique(own[:, 1])
        return _Asked(images, texts, np.stack([np.searchsorted(images, own[:, 0]), np.searchsorted(texts, own[:, 1])], axis=1))


def _rows(array: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """array[positions], without a copy where these are all rows."""
    return array if len(positions) == len(array) else array[positions]


def _search(
    image: np.ndarray, text: np.ndarray, own: np.ndarray, approximate: Method | None, seed: int
) -> tuple[tuple[np.ndarray, ...], dict[str, Any], dict[str, Any]]:
    """The ranks each way, 0 is the best; the settings and details of the search."""
    if approximate is None:
        return ranks(image, text, own), {"search": "exact"}, {}
    sides, measured, settings = [], {}, {}
    ways = ((image, text, own), (text, image, own[:, ::-1]))
    for direction, (queries, keys, pairs) in zip(_DIRECTIONS, ways, strict=True):
        positions, scores, settings[direction] = nearest(queries, keys, approximate)
        sides.append(first_right(positions, scores, pairs, len(keys)))
        measured[direction] = recall_against_exact(queries, keys, positions, seed=seed)
    return tuple(sides), {"search": approximate} | settings, {"recall_against_exact": measured}


def _metrics(sides: Sequence[np.ndarray], exact: bool) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for direction, rank in zip(_DIRECTIONS, sides, strict=True):
        for k in _KS:
            name, found = f"{direction}_recall_at_{k}", rank < k
            metrics[name], intervals[name] = float(found.mean()), wilson(int(found.sum()), len(found))
        if exact:
            metrics[f"{direction}_median_rank"] = float(np.median(rank) + 1)
            metrics[f"{direction}_mean_reciprocal_rank"] = float((1 / (1 + rank)).mean())
    return metrics, intervals


@dataclass(frozen=True, eq=False)
class _Gallery:
    """Random queries to show, and what they are shown with. texts, images: int64, positions in those of `asked`."""

    asked: _Asked
    texts: np.ndarray
    images: np.ndarray
    all_images: Sequence[ImageOf]
    all_captions: Sequence[str]

    @staticmethod
    def drawn(asked: _Asked, all_images: Sequence[ImageOf], all_captions: Sequence[str], rows: int, seed: int) -> "_Gallery":
        generator = np.random.default_rng(seed)
        texts, images = (generator.choice(n, min(rows, n), replace=False) for n in (len(asked.texts), len(asked.images)))
        return _Gallery(asked, texts, images, all_images, all_captions)

    def image(self, position: int) -> Image.Image:
        return self.all_images[int(self.asked.images[position])].load()

    def caption(self, position: int) -> str:
        return self.all_captions[int(self.asked.texts[position])]

    def right_images(self) -> list[set[int]]:
        """For each text that is asked for, the positions of its images."""
        own = self.asked.own
        return [set(own[own[:, 1] == text, 0].tolist()) for text in self.texts]

    def right_texts(self) -> list[set[int]]:
        """For each image that is asked for, the positions of its texts."""
        own = self.asked.own
        return [set(own[own[:, 0] == image, 1].tolist()) for image in self.images]


def _galleries(evaluation: Evaluation, mark: str, found: Sequence[tuple[Found, Found]], gallery: _Gallery) -> dict[str, str]:
    """Draw what some models found, images of captions and captions of images: the title of each file. mark: in its name."""
    dataset, out = evaluation.dataset, evaluation.out
    of_captions = picture_file("retrieval", dataset, "images_of_captions", mark)
    of_images = picture_file("retrieval", dataset, "captions_of_images", mark)
    titles = {
        of_captions: f"{dataset}: random captions, and the {SHOWN} images found first for each; the right one framed in yellow",
        of_images: f"{dataset}: random images, and the {SHOWN} captions found first for each; the right one on yellow",
    }
    by_text, by_image = zip(*found, strict=True)
    captions = [gallery.caption(int(text)) for text in gallery.texts]
    images_of_captions(out / of_captions, captions, by_text, gallery.image, gallery.right_images(), titles[of_captions])
    captions_of_images(
        out / of_images,
        gallery.images.tolist(),
        by_image,
        gallery.image,
        gallery.caption,
        gallery.right_texts(),
        titles[of_images],
    )
    return titles
