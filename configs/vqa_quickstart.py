"""A small model that answers questions about real biomedical images that pip packages carry: minutes on two CPU cores.

    biomedclip train configs/vqa_quickstart.py

METER (co-attention between the tokens of image and question) on the quickstart's pictures: modality, body part, view,
plane, colour, "is this a ct?". Words alone do not tell the answers, and the held-out regions are of other parts of the
pictures. From another model's towers: --model-init FOLDER, with --model.image and --model.text of its sizes.
"""

from biomedclip_jax.config import (
    Answers,
    BertConfig,
    CLIPConfig,
    DataConfig,
    MeterConfig,
    OptimizerConfig,
    PreprocessConfig,
    RunConfig,
    Stage,
    TrainConfig,
    ViTConfig,
)

config = TrainConfig(
    name="vqa_quickstart",
    data=DataConfig(
        train="demo:vqa:train",
        held_out="demo:vqa:held_out",
        tokenizer="demo:vqa",
        caption_column="question",
        label_column="answer",
        crop_scale=(0.6, 1.0),
    ),
    model=CLIPConfig(
        image=ViTConfig(image_size=64, patch_size=16, width=128, depth=2, heads=4, mlp_width=512, patch_bias=False),
        text=BertConfig(
            vocab_size=512,
            context_length=32,
            positions=32,
            width=128,
            depth=1,
            heads=4,
            mlp_width=512,
            dropout=0.0,
            attention_dropout=0.0,
        ),
        embed_width=128,
        answering=MeterConfig(layers=2, width=128, heads=4, mlp_width=512, dropout=0.0),
    ),
    preprocess=PreprocessConfig(image_size=64),
    # the heads of CLIP's embeddings and its temperature have no part in an answer
    stages=(Stage(steps=600, batch_size=96, loss=Answers(), trainable=("image/*", "text/*", "answering")),),
    optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.05, warmup_steps=30, clip_norm=1.0),
    run=RunConfig(log_every=20, checkpoint_every=200),
)
