"""biomedclip_jax: train, adapt, evaluate and use biomedical image-text models in JAX.

import biomedclip_jax as bc
clip = bc.from_pretrained("hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224")  # or a folder
clip.classify(["scan.png"], ["chest X-ray", "brain MRI"])
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomedclip_jax.data.embeddings_file import load_embeddings
    from biomedclip_jax.data.images.views.find import find_views
    from biomedclip_jax.data.images.views.options import ViewOptions
    from biomedclip_jax.data.processor import Processor
    from biomedclip_jax.errors import UserError
    from biomedclip_jax.models import CLIP
    from biomedclip_jax.pretrained import Pretrained, from_pretrained
    from biomedclip_jax.prompts.learned import load_prompts

__all__ = [
    "CLIP",
    "Pretrained",
    "Processor",
    "UserError",
    "ViewOptions",
    "find_views",
    "from_pretrained",
    "load_embeddings",
    "load_prompts",
]

_HOMES = {
    "CLIP": "biomedclip_jax.models",
    "Pretrained": "biomedclip_jax.pretrained",
    "Processor": "biomedclip_jax.data.processor",
    "UserError": "biomedclip_jax.errors",
    "ViewOptions": "biomedclip_jax.data.images.views.options",
    "find_views": "biomedclip_jax.data.images.views.find",
    "from_pretrained": "biomedclip_jax.pretrained",
    "load_embeddings": "biomedclip_jax.data.embeddings_file",
    "load_prompts": "biomedclip_jax.prompts.learned",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: `biomedclip --help` must not wait for JAX.
    if name not in _HOMES:
        raise AttributeError(f"module 'biomedclip_jax' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
