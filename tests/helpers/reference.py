"""The PyTorch side of the parity tests: open_clip, and models of it with random weights, all offline."""

import functools
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any


@functools.cache
def load_open_clip() -> ModuleType:
    """open_clip, offline, also on a machine whose torchvision has no compiled operators."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from biomedclip_jax.bench._open_clip import import_open_clip

    return import_open_clip()


BERT_SMALL = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 200}
PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}


def write_vocabulary(folder: Path, size: int = 200) -> None:
    """A small WordPiece vocabulary with BiomedBERT's special ids: letters, their continuations, and some words."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,;:-()/%+"
    words = ("the", "of", "and", "with", "chest", "ray", "brain", "image", "this", "is", "photo", "cells", "tumor", "lung")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), *words]
    vocabulary += [f"[unused{i}]" for i in range(size - len(vocabulary))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary[:size]) + "\n", encoding="utf-8")
    config = {"do_lower_case": True, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def randomise(model: Any, seed: int = 0) -> None:
    """Make every parameter matter: biases and norms too, which start at 0 and 1."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("logit_scale"):
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * (0.1 if parameter.ndim < 2 else 0.02))


def open_clip_model(
    folder: Path, vision: dict, text: dict, *, embed_dim: int = 32, bert: dict | None = None, seed: int = 0, **model: Any
) -> Any:
    """An open_clip model with random weights, in eval mode; its config, weights and tokenizer are written into `folder`.

    A text config with "hf_model_name" gets a BERT of the sizes in `bert`, whose config.json is put into the folder too;
    its model_type makes it another kind, such as a RoBERTa.
    """
    open_clip = load_open_clip()
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig

    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    if bert is not None:
        AutoConfig.for_model(**({"model_type": "bert"} | BERT_SMALL | bert)).save_pretrained(folder)
        write_vocabulary(folder, (BERT_SMALL | bert)["vocab_size"])
        text = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), **text}
    config = {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text, **model}
    content = {"model_cfg": config, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    reference = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    randomise(reference, seed)
    save_file({k: v.contiguous() for k, v in reference.state_dict().items()}, folder / "open_clip_model.safetensors")
    return reference.eval()


def randomise_batch_norm(model: Any, seed: int = 0) -> None:
    """BatchNorm with running statistics away from 0 and 1, where a mistake would not show, and with scales away from 0,
    at which residual branches begin.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                size = module.running_mean.shape
                module.running_mean.copy_(0.2 * torch.randn(size, generator=generator))
                module.running_var.copy_(0.5 + torch.rand(size, generator=generator))
                module.weight.copy_(0.5 + torch.rand(size, generator=generator))
