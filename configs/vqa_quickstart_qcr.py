"""QCR in the place of METER, on the same real images and questions: minutes on two CPU cores.

    biomedclip train configs/vqa_quickstart_qcr.py

The classifier of questions is trained first, then the image tower and all else.
"""

import dataclasses

from vqa_quickstart import config as meter

from biomedclip_jax.config import Answers, OptimizerConfig, QCRConfig, QuestionTypes, Stage

OTHERS = tuple(f"answering/{part}" for part in ("question", "modulation", "closed", "open"))

config = dataclasses.replace(
    meter,
    name="vqa_quickstart_qcr",
    model=dataclasses.replace(
        meter.model, answering=QCRConfig(vision=("clip",), word_width=64, width=128, input_dropout=0.0, dropout=0.1)
    ),
    stages=(
        Stage(steps=60, batch_size=96, loss=QuestionTypes(), trainable=("answering/types",)),
        Stage(steps=600, batch_size=96, loss=Answers(), trainable=("image", "image_head", *OTHERS)),
    ),
    optimizer=OptimizerConfig(
        rule="adamax", learning_rate=4e-3, beta2=0.999, eps=1e-8, weight_decay=0.0, warmup_steps=30, clip_norm=0.25
    ),
)
