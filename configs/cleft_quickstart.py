"""CLEFT's two stages on the real images of the quickstart: minutes on two CPU cores.

    biomedclip train configs/cleft_quickstart.py

First images and captions are matched, which are put together from what is known of each region: kind of picture, view,
landmarks. The image tower learns, and of the language model LoRA's factors and the word embeddings; all else in it stays as it
was drawn (a pretrained one would have to be downloaded: `text_init`, see cleft_biomedlm.py). Then both towers stand still, and
thirty vectors before a label are learned by cross-entropy. They end up in `prompts.safetensors`. `results.json` has the
held-out accuracy of the sentence that they started from, `template_accuracy`, and theirs, `learned_prompt_accuracy`.
"""

import dataclasses

from quickstart import config as base

from biomedclip_jax.config import Adaptation, Classification, CLIPConfig, GPTConfig, LoRAConfig, OptimizerConfig, Stage

TOWERS = ("image", "*lora*", "text/word", "*_head", "logit_scale")

text = GPTConfig(
    vocab_size=512,
    context_length=32,
    positions=64,
    width=192,
    depth=2,
    heads=3,
    mlp_width=768,
    pool="first_eos",
    dropout=0.0,
    embedding_dropout=0.0,
    attention_dropout=0.0,
    pad_id=0,
)

config = dataclasses.replace(
    base,
    name="cleft_quickstart",
    data=dataclasses.replace(base.data, tokenizer="demo:causal"),
    model=CLIPConfig(
        image=dataclasses.replace(base.model.image, pool="mean_prenorm", patch_bias=True),
        text=text,
        embed_width=128,
        image_head_bias=True,
        text_head="linear",
        text_head_bias=True,
    ),
    adaptation=Adaptation(text=LoRAConfig(), context=30),
    stages=(
        Stage(steps=200, batch_size=128, patch_keep=0.5, trainable=TOWERS),
        Stage(steps=50, batch_size=128, trainable=TOWERS),
        Stage(
            steps=100,
            batch_size=128,
            loss=Classification(),
            trainable=("context",),
            optimizer=OptimizerConfig(
                rule="sgd", learning_rate=0.1, final_learning_rate=0.01, weight_decay=1e-3, warmup_steps=10
            ),
        ),
    ),
)
