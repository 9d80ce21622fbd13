"""The whole model: what is seen, what is asked, the type of the question, the two branches, and the loss."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from biomedclip_jax.config import CLIPConfig, ComputeConfig, QCRConfig
from biomedclip_jax.models._shapes import Features, Images, Keys, Tokens
from biomedclip_jax.models.answering.head import Counted, Labels, Scores, Terms
from biomedclip_jax.models.answering.qcr._branch import Branch
from biomedclip_jax.models.answering.qcr._layers import part_keys
from biomedclip_jax.models.answering.qcr._question import QuestionEncoder, QuestionNet
from biomedclip_jax.models.answering.qcr._vision import AUTOENCODER_SIDE, FEATURES, MAML, MAML_SIDE, AutoEncoder, gray

if TYPE_CHECKING:
    from biomedclip_jax.models.clip import CLIP

_RECONSTRUCTION = 0.001  # weight of the auto-encoder's loss
_IMAGE, _MODULATION, _CLOSED, _OPEN, _TYPES = range(5)  # parts with dropout of their own
_Seen = tuple[Features, Float[Array, " B"] | None]


class QCR(nnx.Module):
    """Logits for the answers of the config, of which the first `closed_answers` are closed and the others open.

    Tokens are word ids of the config's `words`, padded with their number. In training the type of a question is that
    of its right answer; in `scores` the type classifier decides, which drops nothing there and learns from `type_terms`
    alone. The rows of a batch do not depend on each other. Both branches are computed for each example.
    """

    def __init__(self, config: CLIPConfig, compute: ComputeConfig, rngs: nnx.Rngs):
        assert isinstance(config.answering, QCRConfig)
        c = self.config = config.answering
        d_image = sum(config.embed_width if kind == "clip" else FEATURES for kind in c.vision)
        if "maml" in c.vision:
            self.maml = MAML(compute, rngs)
        if "autoencoder" in c.vision:
            self.autoencoder = AutoEncoder(compute, rngs)
        self.question = QuestionEncoder(c, compute, rngs)
        self.modulation = QuestionNet(c, (2 * c.width, c.width, c.width), compute, rngs)
        self.types = QuestionNet(c, (c.width // 4, c.width // 16, 2), compute, rngs)
        self.closed = Branch(c, c.closed_answers, d_image, compute, rngs)
        self.open = Branch(c, len(c.answers) - c.closed_answers, d_image, compute, rngs)

    def scores(self, clip: "CLIP", images: Images, tokens: Tokens, keys: Keys | None = None) -> Scores:
        """A logit for each answer, float32; -inf for all of the type that the question is not predicted to be of.

        keys: turn dropout on, but never that of the type classifier.
        """
        seen, _ = self._see(clip, images, keys, reconstruct=False)
        closed, open_ = self._branches(seen, tokens, keys)
        is_closed = self.predicted_closed(tokens)[:, None]
        return jnp.concatenate([jnp.where(is_closed, closed, -jnp.inf), jnp.where(is_closed, -jnp.inf, open_)], axis=1)

    def terms(self, clip: "CLIP", images: Images, tokens: Tokens, labels: Labels, keys: Keys | None) -> Terms:
        """Binary cross-entropy over the closed answers, the same over the open ones, both means over the answers of the
        type, and 0.001 of the mean squared error of the auto-encoder's image, where there is one: float32 [B, 2 or 3]."""
        seen, error = self._see(clip, images, keys, reconstruct=True)
        closed, open_ = self._branches(seen, tokens, keys)
        right_closed, right_open = jnp.split(labels, [self.config.closed_answers], axis=1)
        parts = [_cross_entropy(closed, right_closed), _cross_entropy(open_, right_open)]
        return jnp.stack(parts if error is None else [*parts, _RECONSTRUCTION * error], axis=1)

    def counted(self, labels: Labels) -> Counted:
        """The first part is of questions with a right closed answer, the second of those with a right open one, the third of
        all. A question whose right answer is none of the config's has neither of the first two: its type is not known."""
        right = jnp.stack([part.any(axis=1) for part in jnp.split(labels, [self.config.closed_answers], axis=1)], axis=1)
        if "autoencoder" not in self.config.vision:
            return right
        return jnp.concatenate([right, jnp.ones_like(right[:, :1])], axis=1)

    # --- the type of a question ---

    def predicted_closed(self, tokens: Tokens) -> Bool[Array, " B"]:
        """Which questions are taken to have a closed answer."""
        if self.config.closed_answers in (0, len(self.config.answers)):  # there is but one type
            return jnp.full(len(tokens), self.config.closed_answers > 0)
        logits = self.types(tokens, self._always(tokens, _TYPES))
        return logits[:, 0] >= logits[:, 1]

    def type_terms(self, tokens: Tokens, labels: Labels, keys: Keys | None) -> Terms:
        """Cross-entropy of the type classifier, [B, 1], of the type that the right answer has."""
        logits = self.types(tokens, part_keys(keys, _TYPES))
        is_open = labels[:, self.config.closed_answers :].any(axis=1).astype(jnp.int32)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), is_open[:, None], axis=1)

    def type_counted(self, labels: Labels) -> Counted:
        """The questions that `type_terms` is of: those with a right answer."""
        return labels.any(axis=1, keepdims=True)

    # --- parts ---

    def maml_statistics(self, images: Images) -> dict[str, dict[str, Array]]:
        """Mean and variance that the normalisations of `maml` would have over these images, by their names: their values to
        start from, {"norm1": {"mean": ..., "variance": ...}, ...}. Without them they start as 0 and 1."""
        return self.maml.statistics(gray(self.config, images, MAML_SIDE))

    def _see(self, clip: "CLIP", images: Images, keys: Keys | None, *, reconstruct: bool) -> _Seen:
        """What is seen of the images, and the squared error of the auto-encoder's if asked for and if there is one."""
        seen, error = [], None
        for kind in self.config.vision:
            if kind == "clip":
                seen.append(clip.image_features(images, part_keys(keys, _IMAGE)))
            elif kind == "maml":
                seen.append(self.maml(gray(self.config, images, MAML_SIDE)))
            else:
                pixels = gray(self.config, images, AUTOENCODER_SIDE)
                code = self.autoencoder.encoded(pixels)
                seen.append(self.autoencoder.seen(code))
                if reconstruct:
                    error = jnp.square(self.autoencoder.decoded(code) - pixels).mean(axis=(1, 2, 3))
        return jnp.concatenate(seen, axis=1), error

    def _branches(self, seen: Features, tokens: Tokens, keys: Keys | None) -> tuple[Float[Array, "B n"], Float[Array, "B m"]]:
        """Logits of the closed answers and of the open ones."""
        states = self.question(tokens)
        dropping = self._always(tokens, _MODULATION) if keys is None else part_keys(keys, _MODULATION)
        modulation = self.modulation(tokens, dropping)
        closed = self.closed(seen, states, modulation, part_keys(keys, _CLOSED))
        return closed, self.open(seen, states, modulation, part_keys(keys, _OPEN))

    def _always(self, tokens: Tokens, part: int) -> Keys | None:
        """With `drops_in_evaluation`, keys made of a question's words, so that the same question drops the same numbers."""
        if not self.config.drops_in_evaluation:
            return None

        def key(row: Array) -> Array:
            root = jax.random.key(part, impl="threefry2x32")
            return jax.lax.fori_loop(0, len(row), lambda n, k: jax.random.fold_in(k, row[n]), root)

        return jax.vmap(key)(jnp.asarray(tokens))


def _cross_entropy(logits: Scores, right: Labels) -> Float[Array, " B"]:
    """Binary cross-entropy of each answer on its own, the mean over the answers."""
    losses = jax.nn.softplus(logits) - jnp.where(right, logits, 0)
    return losses.sum(axis=1) / max(1, logits.shape[1])
