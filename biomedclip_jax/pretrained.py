"""A trained model in the hands of its user: images and sentences in, unit embeddings and probabilities out."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict
from jaxtyping import Float

from biomedclip_jax.answering import best_answers, checked_questions, scored
from biomedclip_jax.config import CLIPConfig, ComputeConfig
from biomedclip_jax.data.processor import ImageSource, Processor, as_list
from biomedclip_jax.data.unread_texts import unread_lines
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop import fingerprint
from biomedclip_jax.interop.detect import UNFINISHED_RUN, detect, read_adapter
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.model_files import local_folder
from biomedclip_jax.models import CLIP, abstract_model
from biomedclip_jax.models.answering.qcr.model import QCR
from biomedclip_jax.prompts.findings import FindingPrompts, finding_sentences, log_odds_of_both, probabilities_of
from biomedclip_jax.prompts.learned import LearnedPrompts
from biomedclip_jax.prompts.templates import check_labels, check_told_apart, label_sentences
from biomedclip_jax.sharding import make_mesh, replicated, rows
from biomedclip_jax.support.parallel import Running
from biomedclip_jax.support.xla_cache import enable_compilation_cache
from biomedclip_jax.support.xla_cpu import Program

_WORK = 3_000_000_000  # parameters times inputs (15 of BiomedCLIP): for less, a program that is kept between runs is faster


class Pretrained:
    """A model ready for use. Make one with `from_pretrained`.

    model: the Flax module (`biomedclip_jax.models.CLIP`) with its parameters
    processor: images to pixels, texts to token ids
    config: sizes of the towers; adaptation: what its parameters have beside them, such as a prefix
    """

    def __init__(self, loaded: Model, compute: ComputeConfig, every_device: bool = False):
        self.config: CLIPConfig = loaded.config
        self.processor = Processor(loaded.preprocess, loaded.config.text, loaded.tokenizer, loaded.config.answering)
        self._mesh = make_mesh(jax.local_devices()) if every_device else None
        self.params = jax.device_put(loaded.params, replicated(self._mesh)) if self._mesh else loaded.params
        self.adaptation = loaded.adaptation
        self._graph, _ = abstract_model(loaded.config, compute, adaptation=loaded.adaptation)
        graph, _ = abstract_model(loaded.config, compute, adaptation=loaded.adaptation, inference=True)

        def program(method: str) -> Program:
            def run(params: dict[str, Any], batch: jax.Array) -> jax.Array:
                return getattr(nnx.merge(graph, params), method)(batch)

            run.__name__ = method
            return Program(run)

        def answer_scores(params: dict[str, Any], images: jax.Array, tokens: jax.Array) -> jax.Array:
            clip = nnx.merge(self._graph, params)
            return clip.answering.scores(clip, images, tokens)

        # parameters cross `jit` as an argument: closed over they would be baked into the program
        self._encode_image, self._image_features, self._encode_text = map(
            program, ("encode_image", "image_features", "encode_text")
        )
        self._image_tokens, self._image_token_embeddings = map(program, ("image_tokens", "image_token_embeddings"))
        self._few = _WORK // sum(leaf.size for leaf in jax.tree.leaves(loaded.params))
        self._answer_scores = jax.jit(answer_scores)

    @cached_property
    def model(self) -> CLIP:
        """The Flax NNX module with the parameters in it."""
        return nnx.merge(self._graph, self.params)

    @property
    def graph(self) -> nnx.GraphDef[CLIP]:
        """The model's structure in float32, whatever it computes in here, for `nnx.merge(graph, params)`."""
        return abstract_model(self.config, adaptation=self.adaptation)[0]

    @property
    def logit_scale(self) -> float:
        """exp of the learned temperature: 85.2323 for the public BiomedCLIP weights."""
        return float(np.exp(np.float64(self.params["logit_scale"])))

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits of the parameters: other weights have others."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint.fingerprint(flatten_dict(self.params, sep="/"))

    def encode_images(
        self,
        images: Sequence[ImageSource],
        batch_size: int = 32,
        progress: Callable[[int], object] | None = None,
        on_error: Callable[[int, UserError], object] | None = None,
        normalize: bool = True,
    ) -> Float[np.ndarray, "n E"]:
        """Unit embeddings of images, float32 [n, E]. Images are decoded on threads while the device works on those before.

        images: paths (JPEG, PNG, TIFF, WebP, GIF, BMP, DICOM), PIL images, or arrays (uint8 or float in [0, 1]).
        batch_size: images that a device works on at once.
        progress: called with a number of images that are done.
        on_error: called with position and error of an image that cannot be read, which then has no row in the result.
        normalize: False gives the embeddings before they are made unit length.
        Raises UserError that names the first file that cannot be read, unless `on_error` is given.
        """
        program = self._encode_image if normalize else self._image_features
        return self._of_images(program, (self.config.embed_width,), images, batch_size, progress, on_error)

    def image_tokens(
        self,
        images: Sequence[ImageSource],
        batch_size: int = 32,
        *,
        projected: bool = False,
        on_error: Callable[[int, UserError], object] | None = None,
    ) -> Float[np.ndarray, "n P D"]:
        """The states of the image tower's patches, float32 [n, P, D], row by row from the upper left; a square grid.

        BiomedCLIP: [n, 196, 768], 600 KB an image. They are what open_clip (`output_tokens`) and timm (`forward_features`
        without its prefix) give: after the last norm, which transformers' CLIP applies to the pooled token alone. Of a
        ResNet or Swin: the positions of the last stage.
        projected: unit embeddings [n, P, E] in the joint space, to be compared with texts, of what each patch gives to the
        image's features: with a class token the value path of the last block (`models.vit.ViT.patch_features`).
        on_error: as in `encode_images`.
        """
        program = self._image_token_embeddings if projected else self._image_tokens
        one = jax.ShapeDtypeStruct((1, *[self.config.image.image_size] * 2, 3), jnp.float32)
        shape = jax.eval_shape(program.of(False), self.params, one).shape[1:]
        return self._of_images(program, shape, images, batch_size, on_error=on_error)

    def _of_images(
        self,
        program: Program,
        shape: tuple[int, ...],
        images: Sequence[ImageSource],
        batch_size: int,
        progress: Callable[[int], object] | None = None,
        on_error: Callable[[int, UserError], object] | None = None,
    ) -> np.ndarray:
        """What the program makes of images, a row of that shape for each."""
        _check_batch_size(batch_size)
        images = as_list(images, "images")
        run = program.of(len(images) > self._few)
        at_once = batch_size * self._devices
        found = np.empty((len(images), *shape), np.float32)
        running, taken = Running(found), 0
        for pixels in self.processor.batches(images, at_once, progress, on_error):
            batch = self._put(pixels, at_once if len(images) > at_once else len(pixels))
            running.add(run(self.params, batch), np.arange(taken, taken + len(pixels)))
            taken += len(pixels)
        running.finish()
        return found[:taken]

    def encode_texts(
        self, texts: Sequence[str], batch_size: int = 64, progress: Callable[[int], object] | None = None
    ) -> Float[np.ndarray, "n E"]:
        """Unit embeddings of texts, float32 [n, E].

        Captions are cut at the tower's context length (256 tokens for BiomedCLIP). Padding is not computed: captions are
        sorted by length, and each batch is as wide as its longest caption, rounded up to 16, 32, 64, ... tokens.
        batch_size: texts that a device works on at once.
        """
        _check_batch_size(batch_size)
        texts = as_list(texts, "texts")
        for text in texts:
            if not isinstance(text, str):
                raise UserError(f"texts: expected sentences, found {type(text).__name__} ({text!r})")
        at_once = batch_size * self._devices
        encode_batch = self._encode_text.of(len(texts) > self._few)
        embeddings = np.empty((len(texts), self.config.embed_width), np.float32)
        running = Running(embeddings)
        for chosen, tokens in self.processor.text_batches(texts, at_once):
            batch = self._put(tokens, at_once if len(texts) > at_once else len(tokens))
            running.add(encode_batch(self.params, batch), chosen)
            if progress is not None:
                progress(len(chosen))
        running.finish()
        return embeddings

    def unread_texts(self, texts: Sequence[str], names: Sequence[str] | None = None) -> list[str]:
        """Lines about texts that the model does not see as they are written: cut at its context, or mostly unknown signs.

        names: what the texts are called there; by default their own first words. [] where all are seen as they are.
        """
        return unread_lines(self.processor.tokenizer, texts, names)

    def taken_as_closed(self, questions: Sequence[str]) -> np.ndarray | None:
        """Which questions the model takes to be closed, bool [n]; None for a model that has no types of questions (METER)."""
        head = self.model.answering if self.config.answering is not None else None
        return np.asarray(head.predicted_closed(self.processor.questions(questions))) if isinstance(head, QCR) else None

    def unread_questions(self, questions: Sequence[str]) -> list[str]:
        """As `unread_texts`, of questions, which are cut at `question_length`."""
        return unread_lines(self.processor.question_tokenizer, questions)

    def classify(
        self,
        images: Sequence[ImageSource],
        labels: Sequence[str] | None = None,
        template: str | None = None,
        *,
        prompts: LearnedPrompts | None = None,
        multi_label: bool = False,
        on_error: Callable[[int, UserError], object] | None = None,
    ) -> Float[np.ndarray, "n C"]:
        """Zero-shot probabilities, float32; each row sums to 1.

        labels: at least two. template: a sentence with {} where the label goes, `DEFAULT_TEMPLATE` if there are no `prompts`.
        multi_label: each label is a question of its own, "edema" against "no edema" (template: by default "{}"), and rows do
        not sum to 1; one label is enough.
        prompts: learned ones, from `load_prompts`, in place of a template; labels: theirs, unless others are given.
        on_error: as in `encode_images`. Wrong labels raise UserError, class-specific prompts with other labels too.
        """
        score = self.classifier(labels, template, prompts=prompts, multi_label=multi_label)
        return score(self.encode_images(images, on_error=on_error))

    def classifier(
        self,
        labels: Sequence[str] | None = None,
        template: str | None = None,
        *,
        prompts: LearnedPrompts | None = None,
        multi_label: bool = False,
    ) -> Callable[[Float[np.ndarray, "n E"]], Float[np.ndarray, "n C"]]:
        """What turns unit embeddings of images into zero-shot probabilities; the arguments are those of `classify`.

        For images that are embedded elsewhere, or a part at a time. Wrong labels raise UserError at once.
        """
        if multi_label:
            if prompts is not None:
                raise UserError("multi_label: learned prompts choose one of their classes; leave them out")
            return self._finding_classifier(finding_sentences(labels, template), as_list(labels or (), "labels"))
        if prompts is None:
            text = self.encode_texts(label_sentences(labels, template))
            check_told_apart("labels", as_list(labels or (), "labels"), text)
            return lambda image: _shares(self.logit_scale * (image @ text.T).astype(np.float64))
        if template is not None:
            raise UserError(f"template {template!r}: learned prompts stand in its place; give one of the two")
        if labels is not None:
            prompts = prompts.with_classes(check_labels(labels))
        elif not prompts.classes:
            raise UserError("labels: expected two or more names, because these prompts have none of their own")
        learned = prompts
        return lambda image: _shares(learned.scores(self, image).astype(np.float64))

    def _finding_classifier(
        self, prompts: FindingPrompts, labels: Sequence[str]
    ) -> Callable[[Float[np.ndarray, "n E"]], Float[np.ndarray, "n C"]]:
        """Of each label for itself the softmax over it and its absence."""
        text = self.encode_texts(prompts.flat)
        prompts.check_told_apart("labels", labels, text)
        positive, negative = prompts.divided(text)

        def probabilities(image: np.ndarray) -> np.ndarray:
            log_odds = log_odds_of_both(image @ positive.T, image @ negative.T, self.logit_scale)
            return probabilities_of(log_odds).astype(np.float32)

        return probabilities

    def answer(
        self,
        images: Sequence[ImageSource],
        questions: Sequence[str],
        top: int | None = 5,
        *,
        batch_size: int = 32,
        on_error: Callable[[int, UserError], object] | None = None,
    ) -> list[list[tuple[str, float]]]:
        """Answers to questions, each about the image at its position: the `top` most probable ones (None: all), best first.

        The model gives one of the answers that it knows (`config.answering.answers`). A probability says how likely an
        answer is right, each judged for itself: they need not sum to 1. Questions are cut at `question_length` tokens.
        on_error: as in `encode_images`; such an image has no answers, []. UserError where the model answers no questions.
        """
        if self.config.answering is None:
            raise UserError("this model answers no questions; expected one that was trained to (configs/vqa_quickstart.py)")
        _check_batch_size(batch_size)
        asked = checked_questions(as_list(images, "images"), as_list(questions, "questions"))
        at_once = batch_size * self._devices

        def scores(pixels: np.ndarray, tokens: np.ndarray) -> np.ndarray:
            count = at_once if len(asked) > at_once else len(pixels)
            return np.asarray(self._answer_scores(self.params, self._put(pixels, count), self._put(tokens, count)))[
                : len(pixels)
            ]

        found = scored(self.processor, asked, scores, at_once, on_error)
        return [[] if row is None else best_answers(self.config.answering.answers, row, top) for row in found]

    @property
    def _devices(self) -> int:
        return 1 if self._mesh is None else self._mesh.size

    def _put(self, array: np.ndarray, count: int) -> jax.Array:
        """Onto the device, or split over all; filled up to `count` rows or more, as one shape is one program."""
        missing = -(-count // self._devices) * self._devices - len(array)
        if missing:
            array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
        return jnp.asarray(array) if self._mesh is None else jax.device_put(array, rows(self._mesh))


def from_pretrained(
    source: str | Path, *, dtype: str = "float32", every_device: bool = False, adapter: str | Path | None = None
) -> Pretrained:
    """Load a model from a folder, a weight file or the Hugging Face hub.

    source: a model folder (open_clip's layout, transformers' CLIP, our ViT + BERT pair, or one of the releases that
        `interop/detect.py` names), such a release's weight file, a run folder, or "hf-hub:org/name" (the only form
        that uses the network).
    dtype: "float32", or "bfloat16" on accelerators.
    every_device: split batches over all devices of this process; by default one does the work.
    adapter: the `adapter/` folder of a run that fine-tuned this model; it is merged into the weights. Such a folder is
        also a source itself, as long as the model that it names is still where it was.
    Raises UserError, one line, naming the file or key that is wrong.
    """
    enable_compilation_cache()
    return Pretrained(load(source, adapter), ComputeConfig(dtype=dtype), every_device)  # type: ignore[arg-type]


def load(source: str | Path, adapter: str | Path | None = None) -> Model:
    """The model behind a name: hub address, run folder or model folder; with an adapter merged into it, if one is given."""
    if adapter is not None:
        put_on = read_adapter(local_folder(adapter))  # before the base: it is small, and may be no adapter
        return put_on(load(source), source)
    found = detect(local_folder(source))
    if found.kind == UNFINISHED_RUN:
        from biomedclip_jax.train.export import read_run

        return read_run(found.path)
    return found.read()


def _shares(scores: np.ndarray) -> np.ndarray:
    """Softmax over the classes, float64 [n, C], as float32."""
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise UserError(f"batch_size = {batch_size}: expected a whole number above 0")
