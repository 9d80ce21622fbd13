"""METER on BiomedCLIP's towers, fine-tuned on VQA-RAD.

    biomedclip train configs/vqa_meter_vqa_rad.py --data.train vqa-rad=DIR:train --data.held-out vqa-rad=DIR:test

DIR has trainset.json and testset.json with images/, or the official json. Learned is the official split (1,797
questions); vqa-rad/clean=DIR:train and vqa-rad/mevf=DIR:train have more, the latter with paraphrases of 284 of the 451 test
questions. There is no validation part: the last weights are handed over and nothing is chosen on the test.

The recipe is M3AE's fine-tuning of METER (zhjohnchan/M3AE), as BiomedCLIP's own was never published: 50 epochs of 64, rate
5e-6 (x5 in the co-attention, x50 in the classifier), a tenth of warm-up, images of 384 px, 32 tokens. With frozen towers:
--stages.0.trainable answering. The public reproduction of BiomedCLIP's number got 59.3 % with frozen towers (two layers)
and 41.1 % with the co-attention from scratch; the paper says 72.7 %.
"""

from biomedclip_jax.config import (
    Answers,
    CLIPConfig,
    ComputeConfig,
    DataConfig,
    MeterConfig,
    OptimizerConfig,
    PreprocessConfig,
    RunConfig,
    Stage,
    TrainConfig,
    ViTConfig,
)

BIOMEDCLIP = "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
# the projections and the temperature have no part in an answer
TRAINED = ("image/*", "text/*", "answering")
# METER decays the norm of its classifier and these embeddings, but no norm inside the blocks
DECAYED = ("answering/classifier/norm/scale",)
FACTORS = (("answering/token_type", 1.0), ("answering/classifier", 50.0), ("answering", 5.0))

config = TrainConfig(
    name="vqa_meter_vqa_rad",
    data=DataConfig(
        train="vqa-rad=vqa-rad:train",
        held_out="vqa-rad=vqa-rad:test",
        tokenizer=BIOMEDCLIP,
        caption_column="question",
        label_column="answer",
        crop_scale=(1.0, 1.0),
    ),
    model=CLIPConfig(image=ViTConfig(image_size=384), answering=MeterConfig()),
    preprocess=PreprocessConfig(image_size=384),
    model_init=BIOMEDCLIP,
    stages=(Stage(epochs=50, batch_size=64, microbatch=16, loss=Answers(), trainable=TRAINED),),
    optimizer=OptimizerConfig(
        learning_rate=5e-6,
        beta2=0.98,
        eps=1e-8,
        weight_decay=0.01,
        decayed=DECAYED,
        warmup_steps=140,
        schedule="linear",
        groups=FACTORS,
    ),
    export="last",
    compute=ComputeConfig(remat="dots"),
    run=RunConfig(log_every=10, checkpoint_every=200),
)
