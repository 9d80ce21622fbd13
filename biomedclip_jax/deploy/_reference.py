"""What a file that is taken away is compared with: the model's own embeddings of images and texts that try it out."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
from flax import nnx

from biomedclip_jax.config import ComputeConfig
from biomedclip_jax.config.towers import reads_padding
from biomedclip_jax.data.processor import Processor
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.model import Model
from biomedclip_jax.models import abstract_model

TEXTS = (
    "",
    "a photo of chest X-ray",
    "brain MRI, axial T2-weighted image",
    "Photomicrograph of a lung biopsy: granulomatous inflammation, H&E stain, original magnification 40x.",
    "A 54-year-old woman with cough and fever. (A) Chest radiograph shows an opacity in the right lower lobe; (B) the CT scan "
    "confirms consolidation with air bronchograms and a small pleural effusion, without lymph nodes or a mass in the "
    "mediastinum. " * 4,
)
_IMAGES = 4


@dataclass(frozen=True)
class Reference:
    """The model that is taken away. pixels: float32 [n, S, S, 3]; tokens: int32 [m, context_length]."""

    model: Model

    @cached_property
    def pixels(self) -> np.ndarray:
        """Normalised pixels of smooth patterns of different brightness, contrast and colour."""
        size, rng = self.model.config.image.image_size, np.random.default_rng(0)
        coarse = rng.normal(size=(_IMAGES, 8, 8, 3)) + rng.normal(size=(_IMAGES, 1, 1, 3))
        return np.asarray(jax.image.resize(coarse.astype(np.float32), (_IMAGES, size, size, 3), "cubic"))

    @cached_property
    def tokens(self) -> np.ndarray:
        """Token ids of texts from none to more than the context holds."""
        model = self.model
        return Processor(model.preprocess, model.config.text, model.tokenizer).tokens(TEXTS)

    def check_images(self, run: Callable[[np.ndarray], np.ndarray], least: float, what: str) -> float:
        """The smallest cosine between embeddings of `run`, given [n, S, S, 3], and our own, for batches of one and of several.

        UserError if it is below `least`; what: the file, for the message.
        """
        own = self._own("encode_image", self.pixels)
        return _checked([(run(self.pixels), own), (run(self.pixels[:1]), own[:1])], least, what)

    def check_texts(self, run: Callable[[np.ndarray], np.ndarray], least: float, what: str) -> float:
        """As `check_images`, of texts [m, N] of the whole context and, where padding makes no difference, of what is used."""
        own = self._own("encode_text", self.tokens)
        pairs = [(run(self.tokens), own), (run(self.tokens[1:2]), own[1:2])]
        if not reads_padding(self.model.config.text):
            used = [int(np.flatnonzero(row != self.model.config.text.pad_id).max(initial=0)) + 1 for row in self.tokens]
            pairs += [(run(self.tokens[:count, : max(used[:count])]), own[:count]) for count in range(1, len(own))]
        return _checked(pairs, least, what)

    def _own(self, method: str, batch: np.ndarray) -> np.ndarray:
        graph, _ = abstract_model(self.model.config, ComputeConfig(attention="plain"), adaptation=self.model.adaptation)
        run = jax.jit(lambda params, batch: getattr(nnx.merge(graph, params), method)(batch))
        return np.asarray(run(self.model.params, batch))


def _checked(pairs: list[tuple[np.ndarray, np.ndarray]], least: float, what: str) -> float:
    smallest = min(float(np.sum(np.float64(a) * b, axis=-1).min()) for a, b in pairs)
    if not smallest >= least:  # NaN, too
        raise UserError(f"{what}: its embeddings differ from the model's (cosine {smallest:.6f}, expected {least} or more)")
    return smallest
