"""Time and memory beside open_clip, on the same full-size folder: `python tests/compare_open_clip.py load|classify`.

Each side runs in a fresh process, the sides in turn, several times; medians and ratios are printed. Needs torch, open_clip.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LABELS = [
    "adenocarcinoma histopathology",
    "brain MRI",
    "covid line chart",
    "squamous cell carcinoma histopathology",
    "immunohistochemistry histopathology",
    "bone X-ray",
    "chest X-ray",
    "pie chart",
    "hematoxylin and eosin histopathology",
]
TEMPLATE = "this is a photo of {}"


def one(side: str, task: str, folder: Path) -> None:
    """The work of one process: import, load, and for "classify" 9 images with 9 labels. Prints seconds and peak memory."""
    images = sorted(folder.glob("*.png"))
    start = time.perf_counter()
    if side == "open_clip":
        from helpers.reference import load_open_clip

        open_clip = load_open_clip()
        import torch
        from PIL import Image

        imported = time.perf_counter()
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", pretrained_text=False)
        loaded = time.perf_counter()
        if task == "classify":
            tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
            model.eval()
            with torch.no_grad():
                pixels = torch.stack([preprocess(Image.open(path)) for path in images])
                tokens = tokenizer([TEMPLATE.format(label) for label in LABELS], context_length=256)
                image, text, scale = model(pixels, tokens)
                probabilities = (scale * image @ text.T).softmax(dim=-1).numpy()
    else:
        import biomedclip_jax as bc

        imported = time.perf_counter()
        clip = bc.from_pretrained(folder)
        loaded = time.perf_counter()
        if task == "classify":
            probabilities = clip.classify(images, LABELS, TEMPLATE)
    end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result = {"import": imported - start, "load": loaded - imported, "work": end - loaded, "total": end - start, "peak": peak}
    print(json.dumps(result | ({"probabilities": probabilities.tolist()} if task == "classify" else {})))


def full_size_folder(folder: Path, form: str) -> None:
    """BiomedCLIP's exact size with random weights, as .bin or .safetensors, and 9 images of 1 megapixel."""
    import numpy as np
    from PIL import Image

    from helpers.reference import open_clip_model

    bert = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    model = open_clip_model(
        folder,
        {"timm_model_name": "vit_base_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224},
        {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 256},
        embed_dim=512,
        bert=bert | {"vocab_size": 30522},
    )
    if form == "bin":
        import torch

        torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
        (folder / "open_clip_model.safetensors").unlink()
    rng = np.random.default_rng(0)
    for i in range(9):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).resize((1000, 1000)).save(folder / f"{i}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["load", "classify"])
    parser.add_argument("--form", choices=["bin", "safetensors"], default="safetensors")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return one(arguments.one[0], arguments.task, Path(arguments.one[1]))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        full_size_folder(folder, arguments.form)
        results: dict[str, list[dict]] = {"open_clip": [], "cold": [], "warm": []}
        for run in range(arguments.runs):
            for side, cache in (("open_clip", ""), ("cold", f"cold{run}"), ("warm", "cold0")):
                environment = os.environ | {"XDG_CACHE_HOME": str(Path(scratch) / cache)}
                command = [sys.executable, __file__, arguments.task, "--one", side, str(folder)]
                output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
                results[side].append(json.loads(output.splitlines()[-1]))
        print(f"{arguments.task}, {arguments.form}, {arguments.runs} runs each, medians (seconds, GiB)")
        median = {
            side: {key: statistics.median(r[key] for r in rows) for key in rows[0] if key != "probabilities"}
            for side, rows in results.items()
        }
        for side, row in median.items():
            ratios = "  ".join(f"{key} {value:6.2f} ({value / median['open_clip'][key]:.2f}x)" for key, value in row.items())
            print(f"{side:10s} {ratios}")
        if arguments.task == "classify":
            import numpy as np

            difference = np.abs(
                np.array(results["warm"][0]["probabilities"]) - np.array(results["open_clip"][0]["probabilities"])
            ).max()
            print(f"largest difference of a probability: {difference:.1e}")


if __name__ == "__main__":
    main()
