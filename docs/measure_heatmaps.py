"""How often heat maps point to the right half of a picture: `python docs/measure_heatmaps.py RUN ...`, runs of the quickstart.

A picture is made of halves of two held-out images of different classes, side by side; the phrases are "a photo of" each.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

import biomedclip_jax as bc
from biomedclip_jax.heatmaps import heatmap

PICTURES = 100


def half(path: Path, side: int) -> np.ndarray:
    """The middle half of an image made a square, uint8 [side, side / 2, 3]."""
    with Image.open(path) as image:
        least = min(image.size)
        left, top = (image.width - least) // 2, (image.height - least) // 2
        square = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC, (left, top, left + least, top + least))
    return np.asarray(square)[:, side // 4 : side // 4 + side // 2]


def measure(run: Path) -> dict[str, np.ndarray]:
    """For each method a row for each phrase: points to its half, mean larger there, word dependence, rewording."""
    clip, rng = bc.from_pretrained(run), np.random.default_rng(0)
    side = clip.config.image.image_size
    files = defaultdict(list)
    with (run / "data" / "held_out.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            files[row["label"]].append(run / "data" / row["image"])
    labels, rows = sorted(files), defaultdict(list)
    for _ in range(PICTURES):
        pair = [labels[i] for i in rng.choice(len(labels), 2, replace=False)]
        picture = np.concatenate([half(files[label][rng.integers(len(files[label]))], side) for label in pair], axis=1)
        found = heatmap(clip, picture, [f"a photo of {label}" for label in pair])
        for method, maps in found.maps.items():
            for i, own in enumerate(maps[:2]):
                middle = own.shape[1] // 2
                points = (np.unravel_index(own.argmax(), own.shape)[1] >= middle) == bool(i)
                larger = (own[:, middle:].mean() > own[:, :middle].mean()) == bool(i)
                rows[method].append((points, larger, found.word_dependence[method][i], found.rewording[method][i]))
    return {method: np.array(found, np.float64) for method, found in rows.items()}


for name in sys.argv[1:]:
    for method, rows in measure(Path(name)).items():
        points, larger, words, rewording = rows.mean(axis=0)
        print(
            f"{name}: {method}: points to its half {points:.1%}, mean larger there {larger:.1%} (chance 50 %); word dependence "
            f"{words:.2f}, below 0.1 in {np.mean(rows[:, 2] < 0.1):.1%}; rewording {rewording:.2f}"
        )
