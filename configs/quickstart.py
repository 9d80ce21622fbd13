"""A small CLIP on real biomedical images that pip packages carry: minutes on two CPU cores.

    biomedclip train configs/quickstart.py

Three stages: half the patches; half the patches with twice the batch by exact accumulation; all the patches.
"""

from biomedclip_jax.config import (
    BertConfig,
    CLIPConfig,
    ComputeConfig,
    DataConfig,
    OptimizerConfig,
    PreprocessConfig,
    RunConfig,
    Softmax,
    Stage,
    TrainConfig,
    ViTConfig,
)

_LOSS = Softmax(equal_captions="positives")  # four in ten pairs share their caption with another

config = TrainConfig(
    name="quickstart",
    data=DataConfig(
        train="demo:quickstart:train",
        held_out="demo:quickstart:held_out",
        tokenizer="demo:quickstart",
        label_column="label",
        crop_scale=(0.6, 1.0),
    ),
    # CLIP's own form of ViT (no bias on the patches), which open_clip can build in any size
    model=CLIPConfig(
        image=ViTConfig(image_size=64, patch_size=8, width=192, depth=4, heads=3, mlp_width=768, patch_bias=False),
        text=BertConfig(
            vocab_size=512,
            context_length=32,
            positions=32,
            width=128,
            depth=2,
            heads=2,
            mlp_width=512,
            dropout=0.0,
            attention_dropout=0.0,
        ),
        embed_width=128,
    ),
    preprocess=PreprocessConfig(image_size=64),
    stages=(
        Stage(steps=170, batch_size=128, patch_keep=0.5, loss=_LOSS),
        Stage(steps=40, batch_size=256, microbatch=128, patch_keep=0.5, loss=_LOSS),
        Stage(steps=50, batch_size=128, patch_keep=1.0, loss=_LOSS),
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.1, warmup_steps=20, clip_norm=1.0),
    compute=ComputeConfig(unroll=4, text_buckets=1),  # short captions, and compiling for each length takes longer than it saves
    run=RunConfig(log_every=10, checkpoint_every=100),
)
