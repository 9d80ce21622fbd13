"""Learned prompts written out in PyTorch, class by class, on the text tower of an open_clip model with a BERT."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class TorchPrompts:
    """`reference`: as `reference.open_clip_model` makes it, with a BERT; tokens by transformers' tokenizer in `folder`."""

    def __init__(self, reference: Any, folder: str, names: Sequence[str], position: str = "end"):
        from transformers import BertTokenizer

        self.text = reference.text
        self.image_scale = reference.logit_scale.exp().detach()
        self.tokenizer = BertTokenizer.from_pretrained(folder)
        self.names = names
        self.position = position
        for parameter in reference.parameters():
            parameter.requires_grad_(False)

    def words(self, text: str) -> Any:
        """[n, D], without start and end."""
        import torch

        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return self.text.transformer.embeddings.word_embeddings(torch.tensor(ids, dtype=torch.long))

    def texts(self, context: Any) -> Any:
        """Unit embeddings [C, E]; context [n, D] or [C, n, D]."""
        import torch

        start, end = self.words("[CLS]"), self.words("[SEP]")
        rows = []
        for i, name in enumerate(self.names):
            own = context[i] if context.ndim == 3 else context
            half = {"end": len(own), "middle": len(own) // 2, "front": 0}[self.position]
            rows.append(torch.cat([start, own[:half], self.words(name), own[half:], self.words("."), end]))
        words = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(words.shape[1]) < lengths[:, None]
        # what stands at padded places must not matter: not the embedding of [PAD], as in the library, but ones
        words = torch.where(mask[..., None], words, torch.ones(()))
        hidden = self.text.transformer(inputs_embeds=words, attention_mask=mask.long()).last_hidden_state[:, 0]
        return torch.nn.functional.normalize(self.text.proj(hidden), dim=-1)

    def logits(self, images: Any, context: Any) -> Any:
        """[B, C] of unit images [B, E]."""
        return self.image_scale * images @ self.texts(context).T


def unit_rows(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """float32, unit length along the last axis."""
    rows = rng.normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
