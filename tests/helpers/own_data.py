"""Tables of made-up pictures, as a user's own data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from biomedclip_jax.finetune._parts import Parts, divided
from biomedclip_jax.finetune.request import Request


def picture(folder: Path, name: str, seed: int) -> str:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9)).astype(np.uint8)
    Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC).save(folder / name)
    return name


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def labelled(folder: Path, count: int = 60, first: int = 0, **more: Any) -> list[dict[str, Any]]:
    rows = []
    for i in range(first, first + count):
        extra = {name: value(i) if callable(value) else value for name, value in more.items()}
        rows.append({"image": picture(folder, f"{i}.png", i), "label": ("lung_aca", "heart")[i % 2]} | extra)
    return rows


def divide(folder: Path, data: str, **more: Any) -> Parts:
    return divided(Request(model="unused", data=data, **more), folder / "out")


def images(parts: Parts, part: str) -> set[str]:
    return {Path(row.image).name for row in parts.rows(part)}
