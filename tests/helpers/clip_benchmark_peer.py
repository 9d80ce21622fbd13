"""A real peer of the evaluation: LAION's `clip_benchmark`, run by its command line on the same weights and the same images.

It comes with the extra `parity`. Run as a program this file is that command, with a `float` that takes arrays of one number, as
it did before NumPy 2.4.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def write_classification(
    folder: Path, images: Sequence[bytes], labels: Sequence[int], classes: Sequence[str], templates: Sequence[str]
) -> None:
    """A data set in clip_benchmark's WebDataset layout. images: PNG files. templates: sentences with {}."""
    _write(folder, "cls", [(image, str(label)) for image, label in zip(images, labels, strict=True)])
    _write_lines(folder / "classnames.txt", classes)
    _write_lines(folder / "zeroshot_classification_templates.txt", [template.replace("{}", "{c}") for template in templates])


def write_retrieval(folder: Path, images: Sequence[bytes], captions: Sequence[Sequence[str]]) -> None:
    """The same with captions[i], one or several, that belong to image i."""
    _write(folder, "txt", [(image, "\n".join(own)) for image, own in zip(images, captions, strict=True)])
    _write_lines(folder / "dataset_type.txt", ["retrieval"])


def clip_benchmark(model: Path, data: Path, task: str, *options: str) -> dict[str, float]:
    """The metrics of `clip_benchmark eval` for an open_clip model folder and a WebDataset folder, in float32.

    task: "zeroshot_classification" or "zeroshot_retrieval". options: more of its command line, such as "--recall_k", "1", "5".
    """
    output = data / f"{task}.json"
    command = [sys.executable, __file__, "eval", "--dataset", "wds/peer", "--dataset_root", str(data), "--task", task]
    command += ["--model", f"local-dir:{model}", "--pretrained", "", "--output", str(output), "--num_workers", "0", "--no_amp"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text())["metrics"]


def _write(folder: Path, suffix: str, samples: Sequence[tuple[bytes, str]], shard: int = 25) -> None:
    test = folder / "test"
    test.mkdir(parents=True)
    starts = range(0, len(samples), shard)
    for number, start in enumerate(starts):
        with tarfile.open(test / f"{number}.tar", "w") as tar:
            for i, (image, text) in enumerate(samples[start : start + shard], start):
                for name, content in ((f"s{i:07}.png", image), (f"s{i:07}.{suffix}", text.encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    (test / "nshards.txt").write_text(str(len(starts)))


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _main() -> Any:
    """clip_benchmark's command line; its code is as it was released."""
    from biomedclip_jax.bench._open_clip import import_open_clip

    import_open_clip()
    from clip_benchmark.cli import main
    from clip_benchmark.metrics import zeroshot_classification

    zeroshot_classification.float = lambda value: float(getattr(value, "flat", [value])[0])  # type: ignore[attr-defined]
    return main()


if __name__ == "__main__":
    sys.exit(_main())
