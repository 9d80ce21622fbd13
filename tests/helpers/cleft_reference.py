"""CLEFT by its own composition, small, with random weights: DINOv2 by timm's blocks, GPT-2 or LLaMA by transformers, PEFT."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from helpers.reference import load_open_clip, randomise

PAD = 59
LENGTH = 64
LENGTHS = (64, 63, 17, 1)  # the first caption is full
EMBED = 24
SETTINGS = {"llm_type": "gpt", "peft": "lora", "pool_feat": True, "linear_proj": True, "embed": False, "img_mask_ratio": 0}
PEFT: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("Lora", {"r": 8, "lora_alpha": 32, "lora_dropout": 0.1, "fan_in_fan_out": True}),
    "ia3": ("IA3", {"target_modules": ["c_attn", "mlp.c_proj"], "feedforward_modules": ["mlp.c_proj"], "fan_in_fan_out": True}),
    "prefix": ("PrefixTuning", {"num_virtual_tokens": 20}),
}
OF_LLAMA: dict[str, dict[str, Any]] = {  # of its feed-forward modules for (IA)³ none is among the targets
    "lora": {"r": 8, "lora_alpha": 32, "lora_dropout": 0.1},
    "ia3": {"target_modules": ["q_proj", "v_proj"], "feedforward_modules": []},
}


def image_tower() -> Any:
    """DINOv2 with registers, `is_training=True` of facebookresearch/dinov2: x_prenorm [B, 261, D]; blocks as timm has them."""
    import torch
    from timm.models.vision_transformer import Block

    class DINOv2(torch.nn.Module):
        patch_embed: Any

        def __init__(self) -> None:
            super().__init__()
            normal = lambda *shape: torch.nn.Parameter(0.5 * torch.randn(*shape))  # noqa: E731
            self.cls_token, self.register_tokens, self.mask_token = normal(1, 1, 128), normal(1, 4, 128), normal(1, 128)
            self.pos_embed = normal(1, 1 + 37 * 37, 128)
            self.patch_embed = torch.nn.Module()
            self.patch_embed.proj = torch.nn.Conv2d(3, 128, 14, 14)
            norm: Any = functools.partial(torch.nn.LayerNorm, eps=1e-6)
            self.blocks = torch.nn.ModuleList(
                Block(128, 2, 4, qkv_bias=True, init_values=0.5, norm_layer=norm) for _ in range(2)
            )
            self.norm = norm(128)

        def forward(self, pixels: Any) -> Any:
            x = self.patch_embed.proj(pixels)
            grid = self.pos_embed[:, 1:].reshape(1, 37, 37, 128).permute(0, 3, 1, 2)
            grid = torch.nn.functional.interpolate(grid, size=x.shape[2:], mode="bicubic", antialias=True)
            x = (x + grid).flatten(2).transpose(1, 2)
            first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
            x = torch.cat([first, self.register_tokens.expand(len(x), -1, -1), x], dim=1)
            for block in self.blocks:
                x = block(x)
            return x

    return DINOv2()


def local_head(width: int) -> Any:
    import torch

    head = torch.nn.Module()
    layers = [torch.nn.Conv1d(width, 8, 1), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Conv1d(8, EMBED, 1)]
    head.head = torch.nn.Sequential(*layers, torch.nn.BatchNorm1d(EMBED, affine=False))
    return head


def language_model(llm_type: str) -> Any:
    import transformers

    ends = {"bos_token_id": PAD, "eos_token_id": PAD, "tie_word_embeddings": False, "initializer_range": 0.3}
    described: Any = ends | {"attn_implementation": "eager", "vocab_size": 60}
    if llm_type == "llama":
        described |= {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "max_position_embeddings": 128}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**described, **heads))
    described |= {"n_positions": 128, "n_embd": 64, "n_layer": 3, "n_head": 4, "scale_attn_by_inverse_layer_idx": True}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**described))


def reference_model(kind: str | None, llm_type: str = "gpt") -> Any:
    """`model_cleft.py: CLEFT` with random weights, in eval mode."""
    load_open_clip()
    import peft
    import torch

    torch.manual_seed(0)
    language: Any = language_model(llm_type)
    language.lm_head = torch.nn.Identity()
    randomise(language)
    if kind:
        name, settings = PEFT[kind]
        settings = OF_LLAMA.get(kind, settings) if llm_type == "llama" else settings
        language = peft.get_peft_model(language, getattr(peft, f"{name}Config")(task_type="CAUSAL_LM", **settings))
        with torch.no_grad():
            for parameter in language.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.2 * torch.randn(parameter.shape))
    model = torch.nn.Module()
    for name, tower, width in (("img_encoder_q", image_tower(), 128), ("text_encoder_q", language, 64)):
        encoder = torch.nn.Module()
        encoder.model, encoder.local_embed, encoder.global_embed = tower, local_head(width), torch.nn.Linear(width, EMBED)
        setattr(model, name, encoder)
    model.logit_scale = torch.nn.Parameter(torch.tensor(2.5))
    return model.eval()


def with_context(model: Any) -> Any:
    """The second stage: PEFT's prompt tuning around what the first stage trained."""
    import peft
    import torch

    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=30, prompt_tuning_init="RANDOM")
    tuned: Any = peft.get_peft_model(model.text_encoder_q.model, config)
    model.text_encoder_q.model = tuned
    with torch.no_grad():
        tuned.prompt_encoder.default.embedding.weight.mul_(3)
    return model.eval()


def write(model: Any, folder: Path, old_names: bool = False, **settings: Any) -> Path:
    """A checkpoint with its tokenizer and the language model's config.json. old_names: as PEFT 0.6.2 has them."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    if old_names:
        state = {name.replace(".base_layer.", "."): tensor for name, tensor in state.items()}
    content = {"state_dict": state, "hyper_parameters": SETTINGS | settings, "pytorch-lightning_version": "2.1.2"}
    torch.save(content, folder / "cleft.ckpt")
    language = model.text_encoder_q.model
    language.config.to_json_file(folder / "config.json")
    vocabulary = {f"w{i}": i for i in range(59)} | {"<|endoftext|>": PAD}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "cleft.ckpt"


def captions() -> np.ndarray:
    tokens = np.random.default_rng(0).integers(0, PAD, (4, LENGTH))
    tokens[np.arange(LENGTH) >= np.array(LENGTHS)[:, None]] = PAD
    return tokens.astype(np.int32)


def their_texts(model: Any, tokens: np.ndarray) -> np.ndarray:
    """`CausalLMEncoder.forward` and the head: the tokenizer's mask, and an index that counts end tokens from the right."""
    import torch

    encoder = model.text_encoder_q
    ids = torch.from_numpy(tokens).long()
    mask = torch.from_numpy(np.arange(LENGTH) < np.array(LENGTHS)[:, None]).long()
    with torch.no_grad():
        hidden = encoder.model(input_ids=ids, attention_mask=mask, return_dict=True).logits
        pooled = torch.stack([row[n - LENGTH] for row, n in zip(hidden, LENGTHS, strict=True)])
        return torch.nn.functional.normalize(encoder.global_embed(pooled), dim=-1).numpy()
