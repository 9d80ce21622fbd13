"""Few-label methods on frozen towers: learned prompts (CoOp and its kin), adapters (CLIP-Adapter, Tip-Adapter).

In comes a `FewShot` task of the room `probe`, out comes a `Prediction`: each class here is a `probe.methods.Method`.
All learn from embeddings that are made once; the published recipes cut and flip images at random in each epoch
(random_resized_crop, random_flip). Read `coop.py` first, then `training.py`, which all that train share.
"""

from biomedclip_jax.evaluation.prompt_learning.base_to_novel import base_to_novel
from biomedclip_jax.evaluation.prompt_learning.biomedcoop import BiomedCoOp
from biomedclip_jax.evaluation.prompt_learning.clip_adapter import ClipAdapter
from biomedclip_jax.evaluation.prompt_learning.cocoop import CoCoOp
from biomedclip_jax.evaluation.prompt_learning.coop import CoOp
from biomedclip_jax.evaluation.prompt_learning.kgcoop import KgCoOp
from biomedclip_jax.evaluation.prompt_learning.prograd import ProGrad
from biomedclip_jax.evaluation.prompt_learning.tip_adapter import TipAdapter, TipAdapterF
from biomedclip_jax.evaluation.prompt_learning.training import Recipe
from biomedclip_jax.prompts.layout import ContextConfig
from biomedclip_jax.prompts.learned import LearnedPrompts, load_prompts

__all__ = [
    "BiomedCoOp",
    "ClipAdapter",
    "CoCoOp",
    "CoOp",
    "ContextConfig",
    "KgCoOp",
    "LearnedPrompts",
    "ProGrad",
    "Recipe",
    "TipAdapter",
    "TipAdapterF",
    "base_to_novel",
    "load_prompts",
]
