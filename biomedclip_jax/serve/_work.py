"""What the addresses and the page do: plain functions of a model, called on threads."""

from collections.abc import Sequence
from dataclasses import dataclass

from biomedclip_jax.errors import UserError
from biomedclip_jax.pretrained import Pretrained
from biomedclip_jax.prompts.findings import finding_sentences
from biomedclip_jax.prompts.templates import label_sentences
from biomedclip_jax.serve._answers import Classified, ClassifiedImage, Embedded, EmbeddedImage, EmbeddedText
from biomedclip_jax.serve._uploads import Upload
from biomedclip_jax.serve.settings import Limits


@dataclass(frozen=True)
class Work:
    """A model and what one request may ask of it. Each method raises UserError, one line, for what cannot be answered."""

    clip: Pretrained
    limits: Limits

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
