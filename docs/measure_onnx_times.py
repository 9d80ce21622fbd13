"""How long ONNX files take beside the model itself: `python docs/measure_onnx_times.py MODEL [TURNS]`.

Writes both kinds of ONNX folder, then runs 1 and 16 images and texts by each by turns. Prints the sizes of the files, the
smallest cosine with the model's own embeddings, and milliseconds a batch, the median and the least.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

import biomedclip_jax as bc
from biomedclip_jax.deploy.onnx_folder import runner, write_onnx
from biomedclip_jax.pretrained import load

TEXTS = [f"an axial CT image of the chest with a nodule of {n} mm in the right upper lobe, before treatment" for n in range(16)]

source, turns = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 7
clip = bc.from_pretrained(source)
size = clip.config.image.image_size
pixels = np.random.default_rng(0).normal(size=(16, size, size, 3)).astype(np.float32)
tokens = clip.processor.tokens(TEXTS)
tokens = tokens[:, : int((tokens != clip.config.text.pad_id).sum(axis=1).max())]

with tempfile.TemporaryDirectory() as folder:
    for kind in ("float32", "int8"):
        began = time.perf_counter()
        cosines = write_onnx(load(source), Path(folder) / kind, int8=kind == "int8")
        sizes = {path.name: round(path.stat().st_size / 1e6, 1) for path in (Path(folder) / kind).glob("*.onnx*")}
        print(f"{kind}: {sizes} MB, cosine at least {cosines}, written in {time.perf_counter() - began:.0f} s", flush=True)
    for file, batch, program in (("image.onnx", pixels, clip._encode_image), ("text.onnx", tokens, clip._encode_text)):
        runs = {kind: runner(Path(folder) / kind / file) for kind in ("float32", "int8")}
        runs["ours"] = lambda rows, program=program: np.asarray(program.of(len(rows) > clip._few)(clip.params, rows))
        for count in (1, 16):
            seconds = {kind: [] for kind in runs}
            for turn in range(turns + 1):
                for kind, run in runs.items():
                    began = time.perf_counter()
                    run(batch[:count])
                    if turn:  # the first is for compiling
                        seconds[kind].append(time.perf_counter() - began)
            shown = ", ".join(f"{kind} {1e3 * median(own):.0f} ({1e3 * min(own):.0f})" for kind, own in seconds.items())
            print(f"{file}, {count} at once, milliseconds: {shown}", flush=True)
