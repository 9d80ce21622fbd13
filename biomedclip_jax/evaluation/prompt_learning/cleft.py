"""CLEFT's second stage: thirty learned vectors before the names of the classes, both towers frozen.

Source: the paper (arXiv 2407.21011), which learns them by the cross-entropy of classification. Its released code calls the
contrastive loss instead, and leaves the image tower free; neither is done here.
"""

import dataclasses
from dataclasses import dataclass

from biomedclip_jax.evaluation.probe.methods import FewShot
from biomedclip_jax.evaluation.prompt_learning.coop import CoOp
from biomedclip_jax.prompts.layout import ContextConfig
from biomedclip_jax.prompts.learned import LearnedPrompts

PHRASE = "this is a chest x ray of a patient with"


@dataclass(frozen=True)
class ContextPrompts(CoOp):
    """The method, on any text tower. context: 30 vectors shared by all classes, that start from a phrase, said again and again.

    recipe: None is CoOp's for the number of shots. CLEFT's, for whole training sets: SGD with momentum 0.9, rate 1e-4 falling
    to 1e-5, weight decay 1e-3, 8,000 updates of 288 images.
    """

    context: ContextConfig = ContextConfig(start=PHRASE, vectors=30)

    @property
    def name(self) -> str:
        """See `Method`."""
        return "context-prompts"

    def learn(self, task: FewShot) -> LearnedPrompts:
        """As CoOp does, from another start."""
        return dataclasses.replace(super().learn(task), method="context-prompts")
