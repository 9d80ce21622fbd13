"""LP++ and LP+text: linear probes whose weights are blended with the zero-shot weights, class by class.

The logit of class k for the unit embedding f of an image is f · (w_k + alpha_k t_k) + b_k. t_k is the class's
zero-shot weight, which stays; the image weights w_k, the bias b_k and the blending weight alpha_k are learned, by the
cross-entropy of all labels at once. Step sizes and first values come from the data, so that nothing is searched for
but the epoch.

LP++ is by Huang et al. (CVPR 2024, arXiv 2404.02285; code FereshteShakeri/FewShot-CLIP-Strong-Baseline). What is
called LP+text here is the same probe as Shakeri et al. train it on medical models (MICCAI 2024, arXiv 2409.03868; code
few-shot-MedVLMs, its histology part): fewer epochs, and a step size that grows with the shots alone.
"""

from dataclasses import dataclass
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._trainer import sgd
from biomedclip_jax.evaluation.probe.methods import FewShot, Part, Prediction

_ALPHA_EVERY = 10  # updates of w and b between two of alpha
_FIRST_ALPHA = 250.0  # the authors' factor of the mean cosine
_MOMENTUM = 0.9


class Probe(NamedTuple):
    """What is learned: image weights [C, E], bias [C] and blending weights alpha [C], float32."""

    weight: Array
    bias: Array
    alpha: Array


class Steps(NamedTuple):
    """Step sizes: of image weights and bias, by SGD with momentum 0.9, and of the blending weights, without."""

    linear: float
    alpha: float


class Data(NamedTuple):
    """Images to learn from: unit embeddings [n, E], labels int [n], and the zero-shot weights [C, E]."""

    images: Array | np.ndarray
    labels: Array | np.ndarray
    text: Array | np.ndarray


def probe_logits(probe: Probe, images: Array | np.ndarray, text: Array | np.ndarray) -> Array:
    """Logits [n, C] of unit embeddings [n, E]. text: zero-shot weights [C, E]."""
    weight = probe.weight + probe.alpha[:, None] * text
    return jnp.matmul(images, weight.T, precision=lax.Precision.HIGHEST) + probe.bias


def first_probe(part: Part, text: np.ndarray, seed: int) -> Probe:
    """The authors' first values.

    w_k is the sum of the class's images; every alpha is 250 times the mean, over classes, of the mean cosine of a class's
    images and its zero-shot weight (classes without images do not count); the bias is drawn as in PyTorch.
    """
    classes, width = text.shape
    member = np.eye(classes, dtype=np.float32)[part.labels]
    counts = member.sum(axis=0)
    own = (member * (part.unit @ text.T)).sum(axis=0)[counts > 0] / counts[counts > 0]
    bias = np.random.default_rng([seed, 3]).uniform(-(width**-0.5), width**-0.5, classes).astype(np.float32)
    alpha = np.full(classes, _FIRST_ALPHA * own.mean(), np.float32)
    return Probe(*map(jnp.asarray, (member.T @ part.unit, bias, alpha)))


def alpha_step(part: Part, text: np.ndarray) -> float:
    """The authors' step size of alpha: n / (4 times the largest sum, over images, of a class's squared cosines)."""
    return float(len(part) / (4 * np.square(part.unit @ text.T).sum(axis=0).max()))


class _State(NamedTuple):
    probe: Probe
    moments: optax.OptState
    summed: Array  # the gradients of alpha since the start


def _optimizer(steps: Steps) -> optax.GradientTransformation:
    return sgd(steps.linear, 0.0, _MOMENTUM)


def _begin(probe: Probe, steps: Steps) -> _State:
    return _State(probe, _optimizer(steps).init(probe[:2]), jnp.zeros_like(probe.alpha))


def _update(state: _State, data: Data, steps: Steps, epoch: Array) -> _State:
    """One pass over all images; alpha moves in every tenth.

    As in the authors' code, which does not set the gradient of alpha back, alpha moves along the sum of all its gradients
    so far, not along the last one.
    """

    def loss(probe: Probe) -> Array:
        scores = probe_logits(probe, data.images, data.text)
        return optax.softmax_cross_entropy_with_integer_labels(scores, data.labels).mean()

    gradient = jax.grad(loss)(state.probe)
    updates, moments = _optimizer(steps).update(gradient[:2], state.moments, state.probe[:2])
    weight, bias = cast(tuple[Array, Array], optax.apply_updates(state.probe[:2], updates))
    summed = state.summed + gradient.alpha
    moved = state.probe.alpha - jnp.where((epoch + 1) % _ALPHA_EVERY == 0, steps.alpha, 0) * summed
    return _State(Probe(weight, bias, moved), moments, summed)


@jax.jit
def trained(probe: Probe, data: Data, steps: Steps, epochs: Array) -> Probe:
    """The probe after so many passes over all images."""
    return lax.fori_loop(0, epochs, lambda i, state: _update(state, data, steps, i), _begin(probe, steps)).probe


@jax.jit
def validated(probe: Probe, data: Data, steps: Steps, validation: Data, epochs: Array) -> Array:
    """The accuracy on the validation images after each epoch, for each of `epochs`, 0, 1, 2 ..."""

    def one(state: _State, epoch: Array) -> tuple[_State, Array]:
        state = _update(state, data, steps, epoch)
        guesses = probe_logits(state.probe, validation.images, validation.text).argmax(axis=1)
        return state, (guesses == validation.labels).mean()

    return lax.scan(one, _begin(probe, steps), epochs)[1]


@dataclass(frozen=True)
class LPPlusPlus:
    """LP++ as a method of few labels: 300 passes over all images; see the head of this file for what is learned.

    The epoch that counts is the best on the validation images, of equals the last, as in the authors' code; there is a
    second training, on all labels, up to that epoch. Without validation images the last one counts. Their images are cut
    and flipped at random once; here they are embedded as they are.
    """

    epochs: int = 300

    @property
    def name(self) -> str:
        """The task in results.json and tables: "lp++"."""
        return "lp++"

    def linear_step(self, part: Part, classes: int) -> float:
        """The step size of image weights and bias: 4 n / the largest eigenvalue of the images' second moments."""
        return float(4 * len(part) / np.linalg.eigvalsh((part.unit.T @ part.unit).astype(np.float64))[-1])

    def __call__(self, task: FewShot) -> Prediction:
        """Choose the epoch, learn from all labels, and predict the test images. UserError where training diverged."""
        epochs, selection = self.epochs, "last_epoch"
        if len(task.validation):
            scored = Data(task.validation.unit, task.validation.labels, task.text)
            accuracies = np.asarray(validated(*self._start(task, task.train), scored, np.arange(self.epochs)))
            epochs, selection = self.epochs - int(accuracies[::-1].argmax()), "validation"
        start, data, steps = self._start(task, task.given)
        found = trained(start, data, steps, jnp.int32(epochs))
        logits = np.asarray(probe_logits(found, task.test.unit, task.text))
        if not np.isfinite(logits).all():
            raise UserError(
                f"{self.name}: training diverged on {len(task.given)} images of {task.test.data.name}; leave it out"
            )
        first, last = float(start.alpha[0]), np.asarray(found.alpha)
        about = {"first_alpha": first, "alpha": [float(value) for value in last], "linear_step": steps.linear}
        settings = {"epochs": epochs, "selection": selection, "augmentation": "none"} | about | {"alpha_step": steps.alpha}
        caveats = (
            () if first > 0 else (f"the zero-shot weights count {first:.2g} at the start: cosines with them are not above 0",)
        )
        return Prediction(logits.astype(np.float64), settings, caveats=caveats)

    def _start(self, task: FewShot, part: Part) -> tuple[Probe, Data, Steps]:
        data = Data(*map(jnp.asarray, (part.unit, part.labels.astype(np.int32), task.text)))
        steps = Steps(self.linear_step(part, len(task.text)), alpha_step(part, task.text))
        return first_probe(part, task.text, task.seed), data, steps


@dataclass(frozen=True)
class LPText(LPPlusPlus):
    """LP+text as a method of few labels: LP++ with 200 passes and a step size of 5 ln(shots + 1)."""

    epochs: int = 200

    @property
    def name(self) -> str:
        """The task in results.json and tables: "lp+text"."""
        return "lp+text"

    def linear_step(self, part: Part, classes: int) -> float:
        """The step size of image weights and bias: 5 ln(1 + images of an average class)."""
        return float(5 * np.log1p(len(part) / classes))
