"""The `biomedclip` command: parse, call, print. Nothing heavy is imported before a verb is chosen."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.config import DEFAULT_TEMPLATE
from biomedclip_jax.errors import UserError

_MODEL_HELP = "a model folder, a run folder, or hf-hub:org/name"


def _train(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.train.config_file import load_config
    from biomedclip_jax.train.loop import RESULTS, train

    config = load_config(arguments.config)
    workdir = arguments.workdir or Path("runs") / config.name
    done = (workdir / RESULTS).is_file()
    results = train(config, workdir, arguments.max_steps)
    if results is None:
        return
    print(f"{workdir}: {'this run is done already' if done else 'done'}")
    for name, value in results.items():
        print(f"  {name:28s} {value:.4f}" if isinstance(value, float) else f"  {name:28s} {value}")
    print(f"  pictures: {', '.join(map(str, sorted(workdir.glob('*.png'))))}")
    print("try next, on images of your own:")
    print(f'  biomedclip classify {workdir} IMAGE... --labels "chest X-ray" "head CT" "retinal fundus photograph"')


def _classify(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.classify_table import write_table
    from biomedclip_jax.data.images import find_images
    from biomedclip_jax.pretrained import from_pretrained, prompts

    labels = arguments.labels
    prompts(labels, arguments.template)  # complain about labels before the model is loaded
    images = [path for given in arguments.images for path in find_images(given)]
    clip = from_pretrained(arguments.model)
    probabilities = clip.classify(images, labels, arguments.template)
    write_table(sys.stdout, images, labels, probabilities, arguments.format)


def _embed(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.embed import embed_images, embed_texts
    from biomedclip_jax.pretrained import from_pretrained

    if arguments.out.suffix != ".npz":
        raise UserError(f"--out {arguments.out}: expected a name that ends in .npz")
    if arguments.images is not None:
        embed_images(lambda: from_pretrained(arguments.model), arguments.images, arguments.out, arguments.batch_size)
    else:
        embed_texts(lambda: from_pretrained(arguments.model), arguments.texts, arguments.out, arguments.batch_size)


def _convert(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.interop.folders import write_model
    from biomedclip_jax.pretrained import load

    model = load(arguments.source)
    written = write_model(model, arguments.destination, arguments.format)
    report = model.report
    print(f"read     {len(report.used) + len(report.ignored):5d} tensors from {arguments.source}")
    print(f"ignored  {len(report.ignored):5d}")
    for name, reason in sorted(report.ignored.items()):
        print(f"           {name}: {reason}")
    print(f"written  {len(written):5d} tensors to {arguments.destination} ({arguments.format})")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="biomedclip", description="Train, adapt, evaluate and use biomedical image-text models in JAX."
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace], None], description: str, example: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(
            name,
            help=description,
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=run)
        return sub

    train = verb("train", _train, "Train a model, or go on with an interrupted run.", "biomedclip train configs/quickstart.py")
    train.add_argument("config", type=Path, help="a Python file that defines `config`, see configs/")
    train.add_argument("--workdir", type=Path, help="the run folder (default: runs/NAME-OF-THE-CONFIG)")
    train.add_argument("--max-steps", type=_count, metavar="N", help="stop, with a checkpoint, after N updates in total")

    classify = verb(
        "classify",
        _classify,
        "Zero-shot probabilities of labels for your own images.",
        'biomedclip classify runs/quickstart scan.dcm photo.jpg --labels "chest X-ray" "brain MRI"',
    )
    classify.add_argument("model", help=_MODEL_HELP)
    classify.add_argument("images", nargs="+", metavar="IMAGE", help="files or folders: JPEG, PNG, TIFF, WebP, GIF, DICOM")
    classify.add_argument("--labels", nargs="*", required=True, metavar="LABEL", help="two or more names to choose between")
    classify.add_argument(
        "--template", default=DEFAULT_TEMPLATE, help="sentence with {} where the label goes (default: %(default)s)"
    )
    classify.add_argument("--format", choices=["table", "csv", "json"], default="table", help="default: %(default)s")

    embed = verb(
        "embed",
        _embed,
        "Unit embeddings of images or sentences, with their names, as .npz.",
        "biomedclip embed runs/quickstart --images scans/ --out scans.npz",
    )
    embed.add_argument("model", help=_MODEL_HELP)
    what = embed.add_mutually_exclusive_group(required=True)
    what.add_argument("--images", nargs="+", metavar="FILE_OR_DIR", help="image files, or folders of them")
    what.add_argument("--texts", type=Path, metavar="FILE", help="a UTF-8 text file, one sentence a line")
    embed.add_argument(
        "--out", type=Path, required=True, metavar="X.npz", help="gets arrays `embeddings` float32 [n, E] and `names` [n]"
    )
    embed.add_argument("--batch-size", type=_count, default=32, help="images or sentences at once (default: %(default)s)")

    convert = verb(
        "convert",
        _convert,
        "Convert a model between open_clip's and transformers' layouts.",
        "biomedclip convert hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224 biomedclip-folder",
    )
    convert.add_argument("source", help=f"{_MODEL_HELP}; weights as .safetensors or .bin")
    convert.add_argument("destination", type=Path, help="the folder to write; must not be there yet, or be empty")
    convert.add_argument(
        "--format",
        choices=["open_clip", "open_clip-bin", "huggingface"],
        default="open_clip",
        help="open_clip: safetensors; open_clip-bin: PyTorch's pickle; huggingface: CLIPModel, or ViT + BERT for AutoModel "
        "(default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, or 2 for input that is wrong."""
    arguments: Any = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except UserError as error:
        if arguments.debug:
            raise
        print(f"biomedclip {arguments.verb}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if arguments.debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"biomedclip {arguments.verb}: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; `train` goes on from its last checkpoint when run again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
