"""UniMed-CLIP as released: CLIP's ViT with quick GELU (from MetaCLIP) beside BiomedBERT, in one `.pt` of its training.

    unimed-clip-vit-b16.pt                       ViT-B/16, 224 pixels, BiomedBERT-base
    unimed_clip_vit_l14_base_text_encoder.pt     ViT-L/14, 336 pixels, BiomedBERT-base
    unimed_clip_vit_l14_large_text_encoder.pt    ViT-L/14, 336 pixels, BiomedBERT-large

Beside it vocab.txt of BiomedBERT. Text up to 256 tokens, [CLS] of the last block, Linear-GELU-Linear; CLIP's
preprocessing.

Sources: mbzuai-oryx/UniMed-CLIP `src/open_clip/model.py: CLIP`, `hf_model.py`, `transform.py`, `app.py` (6f09177).
Its demos leave the temperature out of the softmax; here it is in, as in its README and its training.
"""

import dataclasses
from pathlib import Path

from biomedclip_jax.config import BertConfig, CLIPConfig, PreprocessConfig
from biomedclip_jax.interop._mapping import Entry, dense, one, to_params
from biomedclip_jax.interop.baselines.openai_clip.reader import clip_vit_config
from biomedclip_jax.interop.formats.huggingface.mapping import BERT_IGNORED, bert_config, bert_entries
from biomedclip_jax.interop.formats.open_clip.mapping import clip_vision_entries
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.tensor_files import TensorFile
from biomedclip_jax.models import abstract_model

_BERT = "text_encoder.transformer."
_WORDS = f"{_BERT}embeddings.word_embeddings.weight"
_CONTEXT = 256


def is_unimed_clip(tensors: TensorFile) -> bool:
    """Whether a weight file is UniMed-CLIP's, by its names."""
    return "visual.proj" in tensors and _WORDS in tensors


def read_unimed_clip(tensors: TensorFile, path: Path, tokenizer: Path) -> Model:
    """The model in `tensors`, which were read from `path`. UserError names what is missing, unknown or misshapen."""
    size = "large" if tensors.shape(_WORDS)[-1] == 1024 else "base"
    bert = f"microsoft/BiomedNLP-BiomedBERT-{size}-uncased-abstract"
    text = bert_config(tensors, _BERT, path.parent, bert)
    text = dataclasses.replace(text, context_length=min(_CONTEXT, text.positions))
    image = clip_vit_config(tensors, path)
    config = CLIPConfig(image=image, text=text, embed_width=tensors.shape("visual.proj")[1])
    ignored = {f"{_BERT}{pattern}": why for pattern, why in BERT_IGNORED.items()}
    params, report = to_params(tensors, _entries(config, text), abstract_model(config)[1], ignored, path)
    return Model(config, PreprocessConfig(image.image_size), params, tokenizer, report, bert)


def _entries(config: CLIPConfig, text: BertConfig) -> list[Entry]:
    return [
        *clip_vision_entries(config.vit),
        one("image_head/proj/kernel", "visual.proj"),
        *bert_entries(text, _BERT),
        *dense("text_head/fc1", "text_encoder.proj.0", bias=False),
        *dense("text_head/fc2", "text_encoder.proj.2", bias=False),
        one("logit_scale", "logit_scale"),
    ]
