"""A run of a tiny model that answers questions about coloured squares: what it is asked cannot be told without looking."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from biomedclip_jax.config import (
    Answers,
    DataConfig,
    MeterConfig,
    OptimizerConfig,
    PreprocessConfig,
    RunConfig,
    Stage,
    TrainConfig,
)
from helpers import tiny

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}
HEAD = ["image", "question", "answer", "answer_type", "question_type"]
WORDS = ("what", "colour", "is", "it", "this", "the", "square", "?", *COLOURS, "yes", "no", "a", "which")


def make_questions(folder: Path) -> Path:
    """48 training and 24 held-out questions about 24 and 12 squares, and a tokenizer that knows their words."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("held_out", 12)):
        rows = []
        for i in range(count):
            colour = list(COLOURS)[i % 3]
            pixels = np.clip(np.array(COLOURS[colour]) + rng.integers(-25, 25, (20, 20, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{part}{i}.png")
            asked = colour if i % 2 else list(COLOURS)[(i + 1) % 3]
            rows.append(
                [f"{part}{i}.png", ("What colour is it?", "which colour is this?")[i // 3 % 2], colour, "OPEN", "COLOUR"]
            )
            rows.append([f"{part}{i}.png", f"Is it {asked}?", "yes" if asked == colour else "no", "CLOSED", "PRESENCE"])
        with (folder / f"{part}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([HEAD, *rows])
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *WORDS]) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    return folder


def question_config(data: Path, **changes: Any) -> TrainConfig:
    """METER on tiny towers, all trained. changes: fields of TrainConfig."""
    model = dataclasses.replace(
        tiny.MODEL,
        text=dataclasses.replace(tiny.MODEL.text, dropout=0.0, attention_dropout=0.0),
        answering=MeterConfig(question_length=8, layers=1, width=32, heads=2, mlp_width=64),
    )
    values: dict[str, Any] = {
        "name": "questions",
        "data": DataConfig(
            train=str(data / "train.csv"),
            held_out=str(data / "held_out.csv"),
            tokenizer=str(data),
            caption_column="question",
            label_column="answer",
        ),
        "stages": (Stage(16, steps=60, loss=Answers(), trainable=("image/*", "text/*", "answering")),),
        "model": model,
        "preprocess": PreprocessConfig(image_size=16),
        "optimizer": OptimizerConfig(learning_rate=3e-3, warmup_steps=2, weight_decay=0.0, clip_norm=1.0),
        "run": RunConfig(log_every=1, checkpoint_every=2),
    }
    return TrainConfig(**(values | changes))
