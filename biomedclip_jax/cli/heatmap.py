"""`biomedclip heatmap`: which regions of an image answer a phrase, beside the maps of another finding and of nonsense."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.cli.arguments import add_verb, local_path
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.heatmaps import Heatmap

_OUT = (".png", ".json", ".npz")


def add_heatmap(verbs: Any) -> None:
    """Add the verb to the command."""
    verb = add_verb(
        verbs,
        "heatmap",
        _heatmap,
        "Which regions of an image answer a phrase, and how much of that depends on the words.",
        'biomedclip heatmap runs/quickstart scan.dcm "chest X-ray" --out map.png\n'
        '  biomedclip heatmap runs/quickstart scan.dcm "a mass" "an effusion" --out map.png map.npz --format json',
    )
    verb.add_argument("model", help="a model folder, a run folder, or hf-hub:org/name")
    verb.add_argument("image", metavar="IMAGE", help="one file: JPEG, PNG, TIFF, WebP, GIF, DICOM")
    verb.add_argument("phrases", nargs="+", metavar="PHRASE", help="what to look for, in the words of a caption")
    verb.add_argument(
        "--out",
        type=local_path,
        nargs="+",
        required=True,
        metavar="FILE",
        help=".png: the picture; .json: all numbers; .npz: maps [texts, g, g] by method, and laid over the image; several "
        "may be given",
    )
    verb.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="FINDING",
        help="other findings, whose maps stand beside those of the phrases (default: a common one; nonsense always does)",
    )
    verb.add_argument(
        "--method",
        choices=["attention", "similarity"],
        nargs="+",
        help="attention: gradient-weighted, of a ViT's last two blocks; similarity: of each patch with the phrase (default: "
        "both)",
    )
    verb.add_argument(
        "--format", choices=["table", "json"], default="table", help="what is printed; json: all numbers (default: %(default)s)"
    )
    verb.add_argument("--side", type=_pixels, default=320, metavar="PIXELS", help="long side of a map (default: %(default)s)")
    verb.add_argument("--adapter", metavar="DIR", help="what fine-tuned MODEL, merged into it, as in `classify`")


def _pixels(text: str) -> int:
    if not text.isdecimal() or not 64 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of pixels from 64 to 4096")
    return int(text)


def _heatmap(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.cli.output import warn_of_answering
    from biomedclip_jax.data.images.load import load_image
    from biomedclip_jax.data.unread_texts import say_unread
    from biomedclip_jax.heatmaps import heatmap
    from biomedclip_jax.pretrained import from_pretrained

    for path in arguments.out:
        if path.suffix not in _OUT:
            raise UserError(f"--out {path}: expected a name that ends in {', '.join(_OUT)}")
        if path.is_dir():
            raise UserError(f"--out {path}: is a folder; expected a file")
    image = load_image(arguments.image)  # a wrong name is told before the model is loaded
    clip = from_pretrained(arguments.model, adapter=arguments.adapter)
    warn_of_answering(arguments.model, clip)
    found = heatmap(clip, image, arguments.phrases, against=arguments.against, methods=arguments.method)
    say_unread("phrases", clip.unread_texts([*found.phrases, *found.findings]))
    for path in arguments.out:
        _write(found, path, arguments.side)
    if arguments.format == "json":
        json.dump(found.numbers(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _print(found)
    for line in found.warnings:
        print(f"warning: {line}", file=sys.stderr)


def _write(found: "Heatmap", path: Path, side: int) -> None:
    import numpy as np

    from biomedclip_jax.files import write_file, write_text

    if path.suffix == ".png":
        write_file(path, lambda partial: found.picture(side).save(partial, format="png"))
    elif path.suffix == ".json":
        write_text(path, json.dumps(found.numbers(), indent=2))
    else:
        arrays: dict[str, Any] = {"texts": np.array(found.texts), "cosines": found.cosines}
        for method, maps in found.maps.items():
            arrays[method] = maps
            arrays[f"{method}_over_image"] = np.stack([found.over_image(method, text) for text in found.phrases])
            arrays[f"{method}_word_dependence"] = np.array(found.word_dependence[method], np.float32)

        def write(partial: Path) -> None:
            with partial.open("wb") as file:
                np.savez_compressed(file, **arrays)

        write_file(path, write)


def _print(found: "Heatmap") -> None:
    width = max(len(text) for text in found.texts)
    methods = list(found.maps)
    print(f"{'':{width}s}  cosine  {'  '.join(f'word dependence, {method}' for method in methods)}")
    for i, text in enumerate(found.texts):
        if i < len(found.phrases):
            shown = [f"{found.word_dependence[m][i]:.2f} (in other words {found.rewording[m][i]:.2f})" for m in methods]
        else:
            shown = ["another finding, for comparison" if text in found.findings else "nonsense, for comparison"]
        print(f"{text:{width}s}  {found.cosines[i]:6.3f}  {'  '.join(f'{each:27s}' for each in shown).rstrip()}")
