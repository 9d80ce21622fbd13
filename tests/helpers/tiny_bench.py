"""A config of two stages for the bench's tests."""

from biomedclip_jax.config import DataConfig, PreprocessConfig, Stage, TrainConfig
from helpers import tiny

CONFIG = TrainConfig(
    name="tiny",
    data=DataConfig(train=""),
    stages=(Stage(16, steps=1), Stage(32, steps=1, microbatch=8, patch_keep=0.5, image_size=24)),
    model=tiny.MODEL,
    preprocess=PreprocessConfig(image_size=16),
    model_init="a/folder",
)
