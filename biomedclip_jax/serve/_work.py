"""What the addresses and the page do: plain functions of a model, called on threads."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from biomedclip_jax.errors import UserError
from biomedclip_jax.heatmaps import Heatmap, heatmap
from biomedclip_jax.pretrained import Pretrained
from biomedclip_jax.prompts.findings import finding_sentences
from biomedclip_jax.prompts.templates import label_sentences
from biomedclip_jax.search import Hit, Index
from biomedclip_jax.search.hits import hits_record
from biomedclip_jax.serve._answers import Classified, ClassifiedImage, Embedded, EmbeddedImage, EmbeddedText, Found, Maps
from biomedclip_jax.serve._uploads import Upload
from biomedclip_jax.serve.settings import Limits


class NoIndex(Exception):
    """A search, and nothing to search in; the message is for the client."""


@dataclass(frozen=True)
class Work:
    """A model and what one request may ask of it. Each method raises UserError, one line, for what cannot be answered.

    index: to search in, made with this model; None: no search.
    """

    clip: Pretrained
    limits: Limits
    index: Index | None = None

    def upload(self, content: bytes, name: str | None) -> Upload:
        """A file of a client, not decoded yet."""
        return Upload(content, name, self.limits.pixels)

    def classify(
        self,
        images: Sequence[Upload],
        labels: Sequence[str],
        template: str | None = None,
        multi_label: bool = False,
        top: int | None = None,
    ) -> Classified:
        """Zero-shot probabilities, as `Pretrained.classify` gives them. An image that cannot be read costs its own row."""
        self._check_images(images)
        labels = self._checked_texts("labels", labels)
        self._check_template(template, labels)
        sentences = finding_sentences(labels, template).flat if multi_label else label_sentences(labels, template)
        classifier = self.clip.classifier(labels, template, multi_label=multi_label)
        bad: dict[int, UserError] = {}
        embeddings = self.clip.encode_images(images, on_error=bad.__setitem__)
        _check_any(images, bad)
        rows = iter(classifier(embeddings).tolist())
        found = []
        for position, image in enumerate(images):
            if position in bad:
                found.append(ClassifiedImage(image=image.name, error=str(bad[position])))
                continue
            best = sorted(zip(labels, next(rows), strict=True), key=lambda pair: -pair[1])
            found.append(ClassifiedImage(image=image.name, probabilities=dict(best[:top])))
        return Classified(images=found, warnings=self.clip.unread_texts(sentences))

    def embed(self, images: Sequence[Upload], texts: Sequence[str]) -> Embedded:
        """Unit embeddings of images and texts."""
        if not images and not texts:
            raise UserError("expected images, texts, or both; neither is given")
        if images:
            self._check_images(images)
        texts = self._checked_texts("texts", texts)
        bad: dict[int, UserError] = {}
        of_texts = self.clip.encode_texts(texts).tolist()
        rows = iter(self.clip.encode_images(images, on_error=bad.__setitem__).tolist())
        if not texts:
            _check_any(images, bad)
        found = [
            EmbeddedImage(image=image.name, error=str(bad[position]))
            if position in bad
            else EmbeddedImage(image=image.name, embedding=next(rows))
            for position, image in enumerate(images)
        ]
        return Embedded(
            model=self.clip.fingerprint,
            images=found,
            texts=[EmbeddedText(text=text, embedding=row) for text, row in zip(texts, of_texts, strict=True)],
            warnings=self.clip.unread_texts(texts) if texts else [],
        )

    def hits(
        self, text: str | None, image: Upload | None, filters: Sequence[str] = (), top: int = 10
    ) -> tuple[Index, int, list[Hit]]:
        """The index, how many images of it the filters leave, and those nearest to a text or to an image, best first."""
        if self.index is None:
            raise NoIndex("this server has no index; start it with --index INDEX, a folder that `biomedclip index` makes")
        if (text is None) == (image is None):
            raise UserError("expected a text or an image, one of the two")
        filters = self._checked_texts("filters", filters)
        words = self._words("text", text) if image is None else []
        vectors = self.clip.encode_texts(words) if image is None else self.clip.encode_images([image])
        return self.index, self.index.matching(filters), self.index.search(vectors, top, filters)[0]

    def search(self, text: str | None, image: Upload | None, filters: Sequence[str] = (), top: int = 10) -> Found:
        """What `hits` finds, for JSON."""
        _, searched, hits = self.hits(text, image, filters, top)
        warnings = [] if text is None else self.clip.unread_texts([text])
        query, kind = (text or "", "text") if image is None else (image.name, "image")
        return Found.model_validate(hits_record(query, kind, searched, hits) | {"warnings": warnings})

    def heatmap(self, image: Upload, phrase: str, against: str | None = None) -> Heatmap:
        """Which regions of an image answer a phrase."""
        others = self._words("against", against) if against is not None else ()
        return heatmap(self.clip, image, self._words("phrase", phrase), against=others)

    def maps(self, image: Upload, phrase: str, against: str | None = None) -> Maps:
        """What `heatmap` finds, for JSON."""
        return Maps.model_validate(self.heatmap(image, phrase, against).numbers() | {"image": image.name})

    def maps_png(self, image: Upload, phrase: str, against: str | None = None) -> bytes:
        """What `heatmap` finds, as the picture of all maps, a PNG file."""
        file = io.BytesIO()
        self.heatmap(image, phrase, against).picture().save(file, "PNG")
        return file.getvalue()

    def _words(self, name: str, text: str | None) -> list[str]:
        if text is None or not text.strip():
            raise UserError(f"{name}: expected words, such as 'pleural effusion'")
        return self._checked_texts(name, [text])

    def _check_images(self, images: Sequence[Upload]) -> None:
        if not images:
            raise UserError("images: none given; expected one file or more")
        if len(images) > self.limits.images:
            raise UserError(f"images: {len(images)} given; expected {self.limits.images} at most in one request")

    def _checked_texts(self, name: str, texts: Sequence[str]) -> list[str]:
        if len(texts) > self.limits.texts:
            raise UserError(f"{name}: {len(texts)} given; expected {self.limits.texts} at most in one request")
        for text in texts:
            if len(text) > self.limits.characters:
                raise UserError(
                    f"{name}: {text[:30]!r}... has {len(text):,} characters; expected {self.limits.characters:,} at most"
                )
        return list(texts)

    def _check_template(self, template: str | None, labels: Sequence[str]) -> None:
        """A template may say its label a thousand times over."""
        longest = 0 if template is None else len(template) + template.count("{}") * max(map(len, labels), default=0)
        if longest > self.limits.characters:
            raise UserError(
                f"template: with the longest label a sentence of {longest:,} characters; expected {self.limits.characters:,} "
                "at most"
            )


def _check_any(images: Sequence[Upload], bad: dict[int, UserError]) -> None:
    if images and len(bad) == len(images):
        first = next(iter(bad.values()))
        raise UserError(str(first) if len(bad) == 1 else f"none of the {len(bad)} images can be read; the first: {first}")
