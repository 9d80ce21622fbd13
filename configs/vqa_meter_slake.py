"""METER on BiomedCLIP's towers, fine-tuned on the English questions of SLAKE.

    biomedclip train configs/vqa_meter_slake.py --data.train slake=DIR:train --data.held-out slake=DIR:validation

DIR has train.json, validate.json and test.json with imgs/. The weights with the lowest loss on the validation part are
handed over; `biomedclip evaluate vqa runs/vqa_meter_slake --data slake=DIR --out OUT` then measures the test.

The recipe is M3AE's fine-tuning of METER (zhjohnchan/M3AE), as BiomedCLIP's own was never published: 15 epochs of 32, else as
on VQA-RAD. BiomedCLIP's paper says 86.1 %.
"""

import dataclasses

from vqa_meter_vqa_rad import config as vqa_rad

from biomedclip_jax.config import RunConfig

config = dataclasses.replace(
    vqa_rad,
    name="vqa_meter_slake",
    data=dataclasses.replace(vqa_rad.data, train="slake=slake:train", held_out="slake=slake:validation"),
    stages=(dataclasses.replace(vqa_rad.stages[0], epochs=15, batch_size=32),),
    optimizer=dataclasses.replace(vqa_rad.optimizer, warmup_steps=230),
    export="best",
    run=RunConfig(log_every=10, checkpoint_every=200, evaluate_every=154),
)
