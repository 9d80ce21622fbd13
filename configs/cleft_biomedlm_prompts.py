"""CLEFT's second stage on CheXpert: thirty vectors before a label are learned, both towers of the first stage stand still.

    biomedclip train configs/cleft_biomedlm_prompts.py --sharding.fsdp 4       # after configs/cleft_biomedlm.py

76,800 numbers are trained, by the cross-entropy of five findings; images that show more than one of them have no label and are
left out. They end up in `prompts.safetensors`, for `biomedclip classify runs/cleft_biomedlm --prompts ...`.

- From the paper (MICCAI 2024, arXiv 2407.21011): both towers are frozen, the loss is that of classification.
- From its code (XYPB/CLEFT 8d489d1559b9, the published command): vectors before the label that start from the words of the
  caption, SGD with momentum 0.9, 1e-4 falling to 1e-5, weight decay 1e-3, 100 updates of warm-up, 8,000 of 4 x 72 images.
  Its loss matches images and labels instead, and its image tower learns as well; that is
  `loss=Softmax(directions="sum", negatives=72, text="label"), trainable=("context", "image", "image_head", "logit_scale")` in
  the stage.
- Ours: the frozen weights are float32, because LoRA's share of them, merged in, would be lost in part in bfloat16.
"""

import dataclasses

from cleft_biomedlm import config as base

from biomedclip_jax.config import Adaptation, Classification, OptimizerConfig, Stage

config = dataclasses.replace(
    base,
    name="cleft_biomedlm_prompts",
    data=dataclasses.replace(base.data, label_column="label", template="this is a chest x ray of a patient with {}"),
    adaptation=Adaptation(context=30),
    stages=(Stage(steps=8_000, batch_size=288, loss=Classification(), trainable=("context",)),),
    optimizer=OptimizerConfig(
        rule="sgd",
        learning_rate=1e-4,
        final_learning_rate=1e-5,
        momentum=0.9,
        weight_decay=1e-3,
        warmup_steps=100,
    ),
    compute=dataclasses.replace(base.compute, frozen_dtype="float32"),
    image_init=None,
    text_init=None,
    model_init="runs/cleft_biomedlm/model",
)
