"""Files for measuring the loaders alone: pictures of a usual size, captions, and a vocabulary. Needs Pillow."""

import csv
import json
import os
import string
from pathlib import Path

import numpy as np

from biomedclip_jax.bench.task import Task, caption_lengths

_PICTURES, _WIDTH, _HEIGHT = 128, 800, 600


def worker_count() -> int:
    """Processors of this machine."""
    return os.cpu_count() or 1


def make_files(folder: Path, task: Task) -> None:
    """JPEGs of 800 x 600, `pairs.csv` of them with captions of the task's lengths, and a BERT vocabulary."""
    from PIL import Image

    rng = np.random.default_rng(0)
    text = task.config.model.text
    words = ["".join(rng.choice(list(string.ascii_lowercase), 6)) for _ in range(200)]
    letters = string.ascii_lowercase
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": text.context_length}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption"])
        for i, length in enumerate(caption_lengths(task.lengths, text.context_length, _PICTURES)):
            coarse = rng.integers(0, 256, (_HEIGHT // 20, _WIDTH // 20, 3), np.uint8)
            Image.fromarray(coarse).resize((_WIDTH, _HEIGHT)).save(folder / f"{i}.jpg", quality=90)
            table.writerow([f"{i}.jpg", " ".join(rng.choice(words, length - 2))])
