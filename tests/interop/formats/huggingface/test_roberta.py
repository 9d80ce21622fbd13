"""RoBERTa against transformers, as a text tower to start from: a BERT that counts positions from pad_id + 1."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from helpers.reference import load_open_clip, randomise

from biomedclip_jax.config import Adaptation, BertConfig, CLIPConfig, ComputeConfig, PrefixConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import from_params
from biomedclip_jax.interop.formats.huggingface.mapping import bert_config, bert_config_json, bert_entries
from biomedclip_jax.interop.initial import text_tower
from biomedclip_jax.interop.tensor_files import read_weights
from biomedclip_jax.models.bert import Bert

SIZES = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SIZES |= {"max_position_embeddings": 14, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}
TOKENS = np.array([[0, *range(5, 15), 2], [0, 8, 7, 2, *[1] * 8], [0, 2, *[1] * 10]])


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "camembert"])
def test_a_language_model_becomes_the_text_tower_and_comes_back(tmp_path: Path, kind: str) -> None:
    load_open_clip()
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

    torch.manual_seed(0)
    reference = AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, **SIZES)).eval()
    randomise(reference)
    reference.save_pretrained(tmp_path)
    file = read_weights(tmp_path / "model.safetensors")
    config = dataclasses.replace(bert_config(file, "roberta.", tmp_path, kind), pool="mean", context_length=12)
    assert (config.position_offset, config.longest, config.pad_id) == (2, 12, 1)
    params = text_tower(str(tmp_path), config)
    graph, _ = nnx.split(nnx.eval_shape(lambda: Bert(config, ComputeConfig(), nnx.Rngs(0))))
    ours = nnx.merge(graph, params)(TOKENS)
    with torch.no_grad():
        mask = torch.from_numpy(TOKENS != 1)
        hidden = reference.base_model(torch.from_numpy(TOKENS), attention_mask=mask.long()).last_hidden_state
        expected = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    assert np.abs(ours - expected.numpy()).max() <= 1e-5

    back = from_params({"text": params}, bert_entries(config))
    assert all(np.array_equal(tensor, file[f"roberta.{name}"]) for name, tensor in back.items())
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "config.json").write_text(json.dumps(bert_config_json(config)))
    again = AutoModel.from_config(AutoConfig.from_pretrained(tmp_path / "back"), add_pooling_layer=False).eval()
    again.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in back.items()})
    with torch.no_grad():
        assert torch.equal(again(torch.from_numpy(TOKENS), attention_mask=mask.long()).last_hidden_state, hidden)

    with pytest.raises(UserError, match=r"config\.json: another model .*: position_offset = 2 \(config: 0\)"):
        text_tower(str(tmp_path), dataclasses.replace(config, position_offset=0))


def test_captions_are_no_longer_than_the_positions_behind_paddings() -> None:
    roberta = BertConfig(positions=514, position_offset=2, pad_id=1, context_length=512)
    with pytest.raises(UserError, match=r"context_length = 513: expected at most 512: positions = 514, of which captions"):
        dataclasses.replace(roberta, context_length=513)
    with pytest.raises(UserError, match="position_offset = 1: expected 0, or pad_id"):
        dataclasses.replace(roberta, position_offset=1)
    with pytest.raises(UserError, match=r"tokens .* context_length = 512 at most positions = 512"):
        Adaptation(text=PrefixConfig(tokens=1)).check_fits(CLIPConfig(image=ViTConfig(), text=roberta))


def test_hubs_robertas_are_known_by_name(tmp_path: Path) -> None:
    """open_clip's config names them, and leaves their config.json on the hub."""
    sizes = BertConfig(width=64, heads=1, mlp_width=4, depth=1, positions=4, context_length=1, vocab_size=2, token_types=1)
    paths = {entry.names[0][0]: entry for entry in bert_entries(sizes)}
    shapes = {name: (4, 768) if name.endswith("s.weight") and name.startswith("embeddings") else (768, 768) for name in paths}

    class Shapes(dict):
        def shape(self, name: str) -> tuple[int, ...]:
            return self[name]

    file: Any = Shapes(shapes)
    found = bert_config(file, "", tmp_path, "xlm-roberta-base")
    assert (found.heads, found.pad_id, found.position_offset, found.layer_norm_eps) == (12, 1, 2, 1e-5)
    with pytest.raises(UserError, match=r"the text model's config\.json"):
        bert_config(file, "", tmp_path, "my-own-model")
