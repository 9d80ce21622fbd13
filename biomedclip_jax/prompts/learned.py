"""Prompts that were learned: to classify with, to keep in a file, to use for other classes.

Class embeddings from learned prompts: the text tower's forward pass, a bounded number of tokens at a time.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from biomedclip_jax.config import CLIPConfig, GPTConfig, TextConfig
from biomedclip_jax.data.processor import Processor
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.files import write_file
from biomedclip_jax.interop.formats.cleft.checkpoint import read_context
from biomedclip_jax.interop.tensor_files import write_safetensors
from biomedclip_jax.models.clip import CLIP, Params, logits
from biomedclip_jax.prompts.layout import ContextConfig, Layout, make_layout, prompt_words

Graph = nnx.GraphDef[CLIP]

_HEADER = "biomedclip_prompts"

PromptMethod = Literal["coop", "cocoop", "biomedcoop", "kgcoop", "prograd", "context-prompts"]


class TrainedClip(Protocol):
    """What learned prompts need of the model that they were learned on; `biomedclip_jax.Pretrained` is one."""

    config: CLIPConfig
    params: Params
    processor: Processor

    @property
    def graph(self) -> Graph:
        """The model's structure in float32, for `nnx.merge(graph, params)`."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digits that stand for the parameters; a file of prompts names them."""
        ...


@dataclass(frozen=True, eq=False)
class LearnedPrompts:
    """What a method learned for these classes, to be used with the model that it was learned on.

    arrays: float32: "context" [n, D], or [C, n, D] if class-specific; CoCoOp's network besides, "hidden_kernel",
    "hidden_bias", "out_kernel", "out_bias".
    """

    method: PromptMethod
    classes: tuple[str, ...]
    context: ContextConfig
    arrays: dict[str, np.ndarray]

    def scores(self, clip: TrainedClip, images: np.ndarray) -> np.ndarray:
        """Logits float32 [n, C] of unit image embeddings [n, E]: exp(logit_scale) times the cosine similarities."""
        layout = layout_for(clip, self.classes, self.context)
        if self.method != "cocoop":
            return np.asarray(_scores(clip.graph, clip.params, layout, self.arrays, np.asarray(images)))
        # each image has prompts of its own: as many images at a time as keep the tower busy
        images, size = np.asarray(images), max(1, TOKENS_AT_ONCE // layout.tokens.size)
        parts = np.split(images, range(size, len(images), size))
        filled = [np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)]) for part in parts]
        found = [np.asarray(_conditioned_scores(clip.graph, clip.params, layout, self.arrays, part)) for part in filled]
        return np.concatenate(found)[: len(images)]

    def text_embeddings(self, clip: TrainedClip) -> np.ndarray:
        """Zero-shot weights: unit embeddings float32 [C, E]. UserError for CoCoOp, whose prompts depend on the image."""
        if self.method == "cocoop":
            raise UserError("prompts of CoCoOp are another for each image; they have scores, but no text embeddings")
        layout = layout_for(clip, self.classes, self.context)
        return np.asarray(_encode(clip.graph, clip.params, layout, self.arrays))

    def with_classes(self, classes: Sequence[str]) -> "LearnedPrompts":
        """These learned vectors before other names, or some of the same names in another order.

        UserError for other names where each class has vectors of its own.
        """
        if not self.context.class_specific:
            return dataclasses.replace(self, classes=tuple(classes))
        if other := [name for name in classes if name not in self.classes]:
            raise UserError(
                f"class-specific prompts are learned for their own classes ({', '.join(self.classes)}), not for {other[0]!r}; "
                "learn shared ones to use them for others"
            )
        own = self.arrays["context"][[self.classes.index(name) for name in classes]]
        return dataclasses.replace(self, classes=tuple(classes), arrays=self.arrays | {"context": own})

    def save(self, path: Path, clip: TrainedClip) -> None:
        """One safetensors file; its header names the method, the classes and the model `clip` that they were learned on."""
        header = {
            "method": self.method,
            "classes": list(self.classes),
            "context": dataclasses.asdict(self.context),
            "model": clip.fingerprint,
        }
        write_file(path, lambda partial: write_safetensors(partial, self.arrays, **{_HEADER: json.dumps(header)}))


def load_prompts(path: str | Path, clip: TrainedClip) -> LearnedPrompts:
    """Prompts from the file that `LearnedPrompts.save` wrote, or a checkpoint (.ckpt) of CLEFT's second stage.

    A checkpoint says neither its classes nor which model its prompts are for, which is the model in it. Raises
    UserError if the file is missing or no such file, was learned on a model with other weights than `clip`, or on
    one of another width.
    """
    if Path(path).suffix == ".ckpt":
        return _of_cleft(Path(path), clip)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})[_HEADER])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        learned = LearnedPrompts(header["method"], tuple(header["classes"]), ContextConfig(**header["context"]), arrays)
        known = header["model"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not a file of learned prompts ({first_line(error)}); "
            "give one of a run or of `biomedclip evaluate`, or one that LearnedPrompts.save wrote"
        ) from error
    if known != (here := clip.fingerprint):
        raise UserError(
            f"{path}: learned on a model with other weights ({known[:12]}, this one is {here[:12]}); "
            "give the model that they were learned on, or learn them again"
        )
    return learned


def _of_cleft(path: Path, clip: TrainedClip) -> LearnedPrompts:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected learned prompts (.safetensors), or a .ckpt of CLEFT's second stage")
    vectors = read_context(path)
    if vectors.shape[1] != clip.config.text.width:
        raise UserError(
            f"{path}: learned vectors of width {vectors.shape[1]}; the text tower of this model has {clip.config.text.width}"
        )
    return LearnedPrompts("context-prompts", (), ContextConfig(start=len(vectors)), {"context": vectors})


def layout_for(clip: TrainedClip, classes: Sequence[str], context: ContextConfig) -> Layout:
    """The prompts of these classes as this model's text tower takes them."""
    return layout_of(clip.config.text, clip.processor.tokenizer, classes, context)


def layout_of(text: TextConfig, tokenizer: Tokenizer, classes: Sequence[str], context: ContextConfig) -> Layout:
    """The prompts of these classes as a text tower takes them. UserError where they are too long for it."""
    layout = make_layout(classes, context, tokenizer)
    if isinstance(text, GPTConfig) and layout.tokens.shape[1] > text.positions:
        raise UserError(f"prompts of {layout.tokens.shape[1]} tokens: this text tower has {text.positions} positions")
    return layout


@functools.partial(jax.jit, static_argnames="graph")
def _encode(graph: Graph, params: Params, layout: Layout, arrays: Params) -> Array:
    return encode_prompts(graph, params, layout, arrays["context"])


@functools.partial(jax.jit, static_argnames="graph")
def _scores(graph: Graph, params: Params, layout: Layout, arrays: Params, images: Array) -> Array:
    return logits(images, encode_prompts(graph, params, layout, arrays["context"]), params["logit_scale"])


@functools.partial(jax.jit, static_argnames="graph")
def _conditioned_scores(graph: Graph, params: Params, layout: Layout, arrays: Params, images: Array) -> Array:
    texts = encode_conditioned(graph, params, layout, arrays, images)
    return conditioned_logits(images, texts, params["logit_scale"])


def conditioned_logits(images: Array, texts: Array, logit_scale: Array) -> Array:
    """float32 [B, C] of images [B, E] and the texts that belong to each, [B, C, E]."""
    return jnp.exp(logit_scale) * jnp.einsum("be,bce->bc", images, texts, precision=lax.Precision.HIGHEST)


# Activations that the backward pass keeps are about 0.5 MB a token with BERT base.
TOKENS_AT_ONCE = 1_024


def encode_prompts(graph: Graph, params: Params, layout: Layout, context: Array, tokens_at_once: int = TOKENS_AT_ONCE) -> Array:
    """Unit embeddings float32 [C, E] of the prompts. context: learned vectors [n, D], or [C, n, D] for each prompt its own.

    With more than `tokens_at_once` tokens, prompts go through the tower in groups whose activations are computed
    again in the backward pass: memory is that of one group.
    """

    def encode(tokens: Array, slots: Array, context: Array) -> Array:
        clip = nnx.merge(graph, params)
        return clip.encode_words(prompt_words(tokens, slots, context, clip.text.word[...]), tokens)

    tokens, slots = jnp.asarray(layout.tokens), jnp.asarray(layout.slots)
    count, length = tokens.shape
    size = max(1, tokens_at_once // length)
    if count <= size:
        return encode(tokens, slots, context)
    groups = -(-count // size)
    size = -(-count // groups)  # the same number of groups, as even as can be
    chosen = jnp.minimum(jnp.arange(groups * size), count - 1).reshape(groups, size)

    def group(members: Array) -> Array:
        return encode(tokens[members], slots[members], context if context.ndim == 2 else context[members])

    return lax.map(jax.checkpoint(group), chosen).reshape(groups * size, -1)[:count]


def meta_net(trained: Params, images: Array) -> Array:
    """CoCoOp's network: unit image embeddings [B, E] -> what is added to the learned vectors, [B, D]."""
    precise = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    hidden = jax.nn.relu(precise(images, trained["hidden_kernel"]) + trained["hidden_bias"])
    return precise(hidden, trained["out_kernel"]) + trained["out_bias"]


def encode_conditioned(graph: Graph, params: Params, layout: Layout, trained: Params, images: Array) -> Array:
    """Unit embeddings float32 [B, C, E]: of each class, as seen by each image (CoCoOp). images: unit embeddings [B, E]."""
    count = len(images)
    context = trained["context"][None] + meta_net(trained, images)[:, None]  # [B, n, D]
    tokens, slots = (jnp.tile(jnp.asarray(part), (count, 1)) for part in layout)
    each = jnp.repeat(context, layout.tokens.shape[0], axis=0)
    return encode_prompts(graph, params, Layout(tokens, slots), each).reshape(count, layout.tokens.shape[0], -1)  # type: ignore[arg-type]
