"""What ONNX files of 32 and of 8 bits lose: `python docs/measure_onnx.py RUN ...`, runs of the quickstart.

Zero-shot accuracy on the held-out images, and the smallest cosine with the model's own embeddings.
"""

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np

import biomedclip_jax as bc
from biomedclip_jax.deploy.onnx_folder import runner, write_onnx
from biomedclip_jax.pretrained import load
from biomedclip_jax.prompts.templates import Prompts

for run in map(Path, sys.argv[1:]):
    clip = bc.from_pretrained(run)
    with (run / "data" / "held_out.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = sorted({row["label"] for row in rows})
    images = [run / "data" / row["image"] for row in rows]
    sentences = Prompts.default(labels).flat
    own = clip.encode_images(images), clip.encode_texts(sentences)
    truth = np.array([labels.index(row["label"]) for row in rows])

    def accuracy(image: np.ndarray, text: np.ndarray, truth: np.ndarray = truth) -> float:
        classes = text.reshape(max(truth) + 1, -1, text.shape[1]).mean(axis=1)
        classes /= np.linalg.norm(classes, axis=1, keepdims=True)
        return float(np.mean((image @ classes.T).argmax(axis=1) == truth))

    print(f"{run}: the model itself: accuracy {accuracy(*own):.1%}")
    pixels, tokens = clip.processor.images(images), clip.processor.tokens(sentences)
    for int8 in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "onnx"
            write_onnx(load(run), out, int8=int8)
            found = runner(out / "image.onnx")(pixels), runner(out / "text.onnx")(tokens)
            size = sum(path.stat().st_size for path in out.glob("*.onnx*")) / 1e6
        cosines = [float(np.sum(a * b, axis=1).min()) for a, b in zip(found, own, strict=True)]
        kind = "int8" if int8 else "float32"
        print(f"  {kind}, {size:.1f} MB: accuracy {accuracy(*found):.1%}, cosine at least {min(cosines):.7f}")
