"""CLEFT's two stages on the real images of the quickstart: minutes on two CPU cores.

    biomedclip train configs/cleft_quickstart.py

First images and captions are matched, which are put together from what is known of each region: kind of picture, view,
landmarks. The image tower learns, and of the language model LoRA's factors and the word embeddings; all else in it stays as it
was drawn (a pretrained one would have to be downloaded: `text_init`, see cleft_biomedlm.py). Then both towers stand still, and
thirty vectors before a label are learned by cross-entropy. They end up in `prompts.safetensors`. `results.json` has the
held-out accuracy of the sentence that they started from, `zero_shot_accuracy`, and theirs, `learned_prompt_accuracy`.
"""

from biomedclip_jax.config import (
    CLIPConfig,
    ComputeConfig,
    DataConfig,
    GPTConfig,
    LoRAConfig,
    OptimizerConfig,
    PreprocessConfig,
    Stage,
    TrainConfig,
    ViTConfig,
)
from biomedclip_jax.data.causal_demo import make_causal_demo

TOWERS = ("image", "*lora*", "text/word", "*_head", "logit_scale")

config = TrainConfig(
    name="cleft_quickstart",
    prepare=make_causal_demo,
    data=DataConfig(
        train="{workdir}/data/train.csv",
        held_out="{workdir}/data/held_out.csv",
        tokenizer="{workdir}/words",
        label_column="label",
        crop_scale=(0.6, 1.0),
    ),
    model=CLIPConfig(
        image=ViTConfig(image_size=64, patch_size=8, width=192, depth=4, heads=3, mlp_width=768, pool="mean_prenorm"),
        text=GPTConfig(
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
        ),
        embed_width=128,
        image_head_bias=True,
        text_head="linear",
        text_head_bias=True,
        text_adapter=LoRAConfig(),
        context=30,
    ),
    preprocess=PreprocessConfig(image_size=64),
    stages=(
        Stage(steps=200, batch_size=128, patch_keep=0.5, trainable=TOWERS),
        Stage(steps=50, batch_size=128, trainable=TOWERS),
        Stage(
            steps=100,
            batch_size=128,
            objective="classification",
            trainable=("context",),
            optimizer=OptimizerConfig(
                rule="sgd", learning_rate=0.1, final_learning_rate=0.01, weight_decay=1e-3, warmup_steps=10
            ),
        ),
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, beta2=0.999, weight_decay=0.1, warmup_steps=20, clip_norm=1.0),
    compute=ComputeConfig(unroll=4, text_buckets=1),
    log_every=10,
    checkpoint_every=100,
)
