"""QCR on BiomedCLIP's image tower and an auto-encoder, trained on VQA-RAD, as PubMedCLIP's code trains it.

    biomedclip train configs/vqa_qcr_vqa_rad.py --data.train vqa-rad=DIR:train --data.held-out vqa-rad=DIR:test

DIR has trainset.json and testset.json with images/, or the official json. Published numbers (PubMedCLIP 72.1 %, QCR 71.6 %)
were learned from vqa-rad/mevf=DIR:train, with paraphrases of 284 of the 451 test questions. First the classifier of
questions is trained, closed or open, then all else beside it. There is no validation part: the last weights are handed over.

Files to start from, where you have them: --model.answering.glove glove.6B.300d.txt, --model.answering.autoencoder
pretrained_ae.pth. The original QCR: --model.answering.vision maml autoencoder --model.answering.maml
pretrained_maml.weights --model.answering.glimpses 2 --stages.1.batch-size 64 --optimizer.learning-rate 2e-3. PubMedCLIP's code
tunes the image tower, too: add image and image_head to --stages.1.trainable.
"""

from biomedclip_jax.config import (
    Answers,
    CLIPConfig,
    DataConfig,
    OptimizerConfig,
    PreprocessConfig,
    QCRConfig,
    QuestionTypes,
    RunConfig,
    Stage,
    TrainConfig,
)

BIOMEDCLIP = "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
TYPES = "answering/types"
OTHERS = tuple(f"answering/{part}" for part in ("autoencoder", "question", "modulation", "closed", "open"))

config = TrainConfig(
    name="vqa_qcr_vqa_rad",
    data=DataConfig(
        train="vqa-rad=vqa-rad:train",
        held_out="vqa-rad=vqa-rad:test",
        tokenizer=BIOMEDCLIP,
        caption_column="question",
        label_column="answer",
        crop_scale=(1.0, 1.0),
    ),
    model=CLIPConfig(answering=QCRConfig(vision=("clip", "autoencoder"), glimpses=10)),
    preprocess=PreprocessConfig(),
    model_init=BIOMEDCLIP,
    stages=(
        Stage(
            epochs=200,
            batch_size=32,
            loss=QuestionTypes(),
            trainable=(TYPES,),
            optimizer=OptimizerConfig(
                learning_rate=1e-4, beta2=0.999, eps=1e-8, weight_decay=0.0, warmup_steps=0, schedule="constant"
            ),
        ),
        Stage(epochs=200, batch_size=16, loss=Answers(), trainable=OTHERS),
    ),
    optimizer=OptimizerConfig(
        rule="adamax",
        learning_rate=1e-3,
        beta2=0.999,
        eps=1e-8,
        weight_decay=0.0,
        warmup_steps=0,
        schedule="constant",
        clip_norm=0.25,
    ),
    export="last",
    run=RunConfig(log_every=50, checkpoint_every=500),
)
