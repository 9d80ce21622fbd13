"""Few-label methods on frozen towers: learned prompts (CoOp, CoCoOp, BiomedCoOp) and a cache of examples (Tip-Adapter).

Each is a `Method` of `evaluation.methods`: CoOp, CoCoOp, BiomedCoOp, TipAdapter, TipAdapterF. They learn from embeddings that
are made once; the published recipes cut and flip images at random in each epoch (random_resized_crop, random_flip).
"""

from biomedclip_jax.evaluation.prompt_learning.base_to_novel import base_to_novel
from biomedclip_jax.evaluation.prompt_learning.biomedcoop import BiomedCoOp
from biomedclip_jax.evaluation.prompt_learning.cocoop import CoCoOp
from biomedclip_jax.evaluation.prompt_learning.coop import CoOp
from biomedclip_jax.evaluation.prompt_learning.tip_adapter import TipAdapter, TipAdapterF
from biomedclip_jax.evaluation.prompt_learning.training import Recipe
from biomedclip_jax.prompts.layout import ContextConfig
from biomedclip_jax.prompts.learned import LearnedPrompts, load_prompts

__all__ = [
    "BiomedCoOp",
    "CoCoOp",
    "CoOp",
    "ContextConfig",
    "LearnedPrompts",
    "Recipe",
    "TipAdapter",
    "TipAdapterF",
    "base_to_novel",
    "load_prompts",
]
