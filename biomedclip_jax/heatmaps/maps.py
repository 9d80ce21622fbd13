"""`heatmap`: which regions of an image answer a phrase, by two methods, always beside other texts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from biomedclip_jax.data.images.load import ImageSource, load_image
from biomedclip_jax.data.images.placement import SeenBox, laid_over, seen_box
from biomedclip_jax.data.images.preprocess import to_rgb
from biomedclip_jax.errors import UserError
from biomedclip_jax.heatmaps._words import HARDLY, dependence

if TYPE_CHECKING:
    from biomedclip_jax.pretrained import Pretrained

Method = Literal["attention", "similarity"]
METHODS: dict[str, str] = {"attention": "gradient-weighted attention", "similarity": "patch-text similarity"}
NONSENSE = ("zorple fendle quib", "blick dax wug")
FINDINGS = ("pleural effusion", "a fracture of the bone", "tumor cells")
_SAID_OTHERWISE = ("a photo of {}", "{} presented in image")
_LAST_BLOCKS = 2  # of 1, 2 and all four, on composed images: docs/measurements.md


@dataclass(frozen=True)
class Heatmap:
    """The maps of one image by phrases, and what they are compared with.

    Texts are `phrases` (what was asked), then `findings`, then `nonsense`, in this order everywhere.

    image: as it was decoded, RGB. box: the part of it that the model sees and the maps cover, in its pixels.
    maps: for each method float32 [texts, g, g], row 0 at the top; only comparable within a method.
    cosines: of the image and each text, float32 [texts].
    word_dependence: for each method and phrase, how much its map differs from those of findings and nonsense: from 0
    (it is the map of any words) to 1. 1 minus the mean of Spearman's rank correlations of the patches, below 0 as 0.
    rewording: the same number between a phrase and the same phrase in other words ("a photo of ..."), to compare.
    """

    image: Image.Image
    box: SeenBox
    phrases: tuple[str, ...]
    findings: tuple[str, ...]
    nonsense: tuple[str, ...]
    maps: dict[str, np.ndarray]
    cosines: np.ndarray
    word_dependence: dict[str, tuple[float, ...]]
    rewording: dict[str, tuple[float, ...]]

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts that there are maps of."""
        return (*self.phrases, *self.findings, *self.nonsense)

    def over_image(self, method: str, text: str) -> np.ndarray:
        """The map of a text, float32 [height, width] over `image`; NaN where the model does not see the image."""
        return laid_over(self.maps[method][self.texts.index(text)], self.box, self.image.size)

    @property
    def warnings(self) -> list[str]:
        """A line for each map that hardly depends on the words, or no more than on how the same thing is said."""
        lines = []
        for method, values in self.word_dependence.items():
            for phrase, value, rewording in zip(self.phrases, values, self.rewording[method], strict=True):
                what = f"the map of {phrase!r} by {METHODS[method]}"
                if value < HARDLY:
                    lines.append(f"{what} hardly depends on the words ({value:.2f} of 1): nonsense gets the same one")
                elif value <= rewording:
                    lines.append(
                        f"{what} differs from those of other texts ({value:.2f}) no more than from its own in other words "
                        f"({rewording:.2f}): do not read it as an answer"
                    )
        return lines

    def picture(self, side: int = 320) -> Image.Image:
        """All maps over the image, in RGB: a row for each method, in one scale of colours. side: pixels of a map."""
        from biomedclip_jax.heatmaps._picture import draw

        return draw(self, side)

    def numbers(self) -> dict[str, Any]:
        """All numbers, for JSON: maps as nested lists."""
        by_method = {
            method: {
                "word_dependence": dict(zip(self.phrases, self.word_dependence[method], strict=True)),
                "rewording": dict(zip(self.phrases, self.rewording[method], strict=True)),
                "maps": {text: map_.tolist() for text, map_ in zip(self.texts, self.maps[method], strict=True)},
            }
            for method in self.maps
        }
        box = self.box
        return {
            "image_size": list(self.image.size),
            "box": [box.left, box.top, box.right, box.bottom],
            "phrases": list(self.phrases),
            "findings": list(self.findings),
            "nonsense": list(self.nonsense),
            "cosines": dict(zip(self.texts, self.cosines.tolist(), strict=True)),
            "methods": by_method,
            "warnings": self.warnings,
        }


def heatmap(
    clip: "Pretrained",
    image: ImageSource,
    phrase: str | Sequence[str],
    *,
    against: Sequence[str] = (),
    methods: Sequence[Method] | None = None,
) -> Heatmap:
    """Which regions of an image answer a phrase, or each of several; beside the maps of another finding and of nonsense.

    image: as in `Pretrained.encode_images`, one of them. against: other findings to compare with; by default a common
    one. methods: "attention" (gradient-weighted, of a ViT's last two blocks; Chefer et al., arXiv 2103.15679) and
    "similarity" of projected patches with the text (`Pretrained.image_tokens`); None: all that the tower has.
    UserError for an image that cannot be read, texts that are none, and a method that the tower has not.
    """
    phrases = _texts([phrase] if isinstance(phrase, str) else phrase, "phrase")
    if not phrases:
        raise UserError("phrase: expected one or more, such as 'pleural effusion'")
    findings = _texts(against, "against") or _another(phrases)
    if both := [text for text in findings if text in phrases]:
        raise UserError(f"against {both[0]!r}: is a phrase itself; expected another finding")
    chosen = _methods(clip, methods)
    decoded = load_image(image)
    texts = (*phrases, *findings, *NONSENSE)
    _told_apart(clip, texts)
    reworded = [form.replace("{}", phrase) for phrase in phrases for form in _SAID_OTHERWISE]
    embeddings = clip.encode_texts([*texts, *reworded])
    found = {method: _maps(clip, method, decoded, embeddings) for method in chosen}
    box = seen_box(decoded, clip.processor.config).upper_left(_covered(clip, found))
    cosines = (clip.encode_images([decoded]) @ embeddings[: len(texts)].T)[0]
    maps = {method: all_[: len(texts)] for method, all_ in found.items()}
    words = {
        method: tuple(dependence(own, all_[len(phrases) :]) for own in all_[: len(phrases)]) for method, all_ in maps.items()
    }
    rewording = {
        method: tuple(map(dependence, all_, all_[len(texts) :].reshape(len(phrases), -1, *all_.shape[1:])))
        for method, all_ in found.items()
    }
    return Heatmap(to_rgb(decoded.copy()), box, phrases, findings, NONSENSE, maps, cosines, words, rewording)


def _texts(texts: Sequence[str], name: str) -> tuple[str, ...]:
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{name} {text!r}: expected words, such as 'pleural effusion'")
    if len(set(texts)) < len(texts):
        raise UserError(f"{name}: {next(text for text in texts if list(texts).count(text) > 1)!r} is given twice")
    return tuple(texts)


def _told_apart(clip: "Pretrained", texts: tuple[str, ...]) -> None:
    """UserError for two texts of the same tokens: their maps are one, and word dependence would compare it with itself."""
    first: dict[bytes, str] = {}
    for text, tokens in zip(texts, clip.processor.tokens(texts), strict=True):
        if (mark := tokens.tobytes()) in first:
            raise UserError(
                f"{first[mark]!r} and {text!r} are one text to this model: they differ at most in case, accents or blanks, in "
                "signs that it does not know, or after the last token that it reads; use other words"
            )
        first[mark] = text


def _another(phrases: Sequence[str]) -> tuple[str, ...]:
    """A finding that shares no word with the phrases."""
    asked = {word for phrase in phrases for word in re.findall(r"\w+", phrase.lower()) if len(word) > 3}
    free = [finding for finding in FINDINGS if not asked & set(finding.split())]
    return (free[0] if free else FINDINGS[0],)


def _methods(clip: "Pretrained", methods: Sequence[Method] | None) -> tuple[str, ...]:
    from biomedclip_jax.heatmaps._attention import has_attention

    there = tuple(METHODS) if has_attention(clip.model) else ("similarity",)
    if methods is None:
        return there
    for method in methods:
        if method not in METHODS:
            raise UserError(f"method {method!r}: expected {' or '.join(METHODS)}")
        if method not in there:
            kind = type(clip.config.image).__name__.removesuffix("Config")
            raise UserError(f"method {method!r}: the image tower of this model is a {kind}, whose attention it does not know")
    return tuple(dict.fromkeys(methods))


def _maps(clip: "Pretrained", method: str, image: Image.Image, texts: np.ndarray) -> np.ndarray:
    """float32 [T, g, g] of unit text embeddings [T, E] and one image."""
    if method == "attention":
        from biomedclip_jax.heatmaps._attention import relevance

        flat = np.asarray(relevance(clip.graph, _LAST_BLOCKS)(clip.params, clip.processor.image(image)[None], texts))
    else:
        flat = texts @ clip.image_tokens([image], projected=True)[0].T
    side = round(flat.shape[1] ** 0.5)
    return flat.reshape(len(flat), side, side)


def _covered(clip: "Pretrained", found: dict[str, np.ndarray]) -> float:
    """The share of a side of the square of pixels that is cut into patches: the rest is no whole patch."""
    side = next(iter(found.values())).shape[1]
    patch = getattr(clip.config.image, "patch_size", None)
    size = clip.config.image.image_size
    return side * patch / size if patch is not None and side == size // patch else 1.0
