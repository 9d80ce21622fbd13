"""Verbs that use a model as it is: `biomedclip classify` and `convert`; `embed` is beside it."""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.cli._views import add_view_options, found_images
from biomedclip_jax.cli.arguments import add_verb, count, local_path
from biomedclip_jax.cli.embed import add_embed
from biomedclip_jax.config import DEFAULT_TEMPLATE
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

_MODEL_HELP = "a model folder, a run folder, or hf-hub:org/name"
_ADAPTER_HELP = (
    "what fine-tuned MODEL, merged into it: the adapter/ folder of a run, or one of PEFT (or of two, image/ and text/)"
)


def add_models(verbs: Any) -> None:
    """Add the verbs to the command."""
    verb = functools.partial(add_verb, verbs)

    classify = verb(
        "classify",
        _classify,
        "Zero-shot probabilities of labels for your own images.",
        'biomedclip classify runs/quickstart scan.dcm photo.jpg --labels "chest X-ray" "brain MRI"\n'
        "  biomedclip classify runs/quickstart scan.dcm --prompts report/prompts/held_out.quickstart.coop.5-per-class.seed-0"
        ".safetensors",
    )
    classify.add_argument("model", help=_MODEL_HELP)
    classify.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="files or folders: JPEG, PNG, TIFF, WebP, GIF, DICOM; with --every also NIfTI and slides",
    )
    classify.add_argument(
        "--labels", nargs="*", metavar="LABEL", help="two or more names to choose between (default with --prompts: its classes)"
    )
    classify.add_argument("--template", help=f"sentence with {{}} where the label goes (default: {DEFAULT_TEMPLATE})")
    classify.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE.safetensors",
        help="prompts learned on this model, in place of --template: of a run (prompts.safetensors), of `evaluate probe "
        "--methods coop` (OUT/prompts), or a checkpoint of CLEFT's second stage, which needs --labels",
    )
    classify.add_argument("--adapter", metavar="DIR", help=_ADAPTER_HELP)
    classify.add_argument(
        "--multi-label",
        action="store_true",
        help="each label is a question of its own, 'edema' against 'no edema' (--template: {}): probabilities do not "
        "sum to 1, and one label is enough",
    )
    classify.add_argument("--labels-file", type=Path, metavar="FILE", help="the labels, one a line, in place of --labels")
    classify.add_argument("--top", type=count, metavar="K", help="only the K best labels of each image")
    shown = classify.add_mutually_exclusive_group()
    shown.add_argument("--format", choices=["table", "csv", "json"], default="table", help="default: %(default)s")
    shown.add_argument(
        "--out", type=local_path, metavar="FILE", help="a .csv, .jsonl or .parquet file that gets image, label, probability"
    )
    classify.add_argument("--strict", action="store_true", help="exit code 2, and nothing written, if an image is broken")
    classify.add_argument("--batch-size", type=count, default=32, metavar="N", help="images at once (default: %(default)s)")
    classify.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16 is faster on accelerators"
    )

    add_view_options(classify, ["mean", "max"])

    add_embed(verbs, _MODEL_HELP, _ADAPTER_HELP)

    convert = verb(
        "convert",
        _convert,
        "Convert a model between open_clip's and transformers' layouts.",
        "biomedclip convert hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224 biomedclip-folder",
    )
    convert.add_argument("source", help=f"{_MODEL_HELP}; weights as .safetensors or .bin")
    convert.add_argument("destination", type=local_path, help="the folder to write; must not be there yet, or be empty")
    convert.add_argument(
        "--format",
        choices=["open_clip", "open_clip-bin", "huggingface", "cleft", "peft", "onnx", "stablehlo"],
        default="open_clip",
        help="open_clip: safetensors; open_clip-bin: PyTorch's pickle; huggingface: CLIPModel, or both towers for AutoModel; "
        "cleft: a checkpoint for XYPB/CLEFT; peft: of SOURCE, a run or its adapter/, the adapters alone; onnx: "
        "a file for each tower, checked with onnxruntime; stablehlo: programs for jax.export on CPU, CUDA and TPU "
        "(default: %(default)s)",
    )
    convert.add_argument(
        "--quantize",
        choices=["int8"],
        help="with --format onnx: weights of matrix products as 8-bit numbers, a quarter of the size",
    )
    convert.add_argument("--adapter", metavar="DIR", help=_ADAPTER_HELP.replace("MODEL", "SOURCE"))


def _classify(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.cli.output import check_out, ranked, warn_of_answering, write_classified, write_table
    from biomedclip_jax.data.unread_texts import say_unread
    from biomedclip_jax.pretrained import from_pretrained
    from biomedclip_jax.prompts.findings import finding_sentences
    from biomedclip_jax.prompts.learned import load_prompts
    from biomedclip_jax.prompts.templates import check_labels, label_sentences
    from biomedclip_jax.support.terminal import progress_bar

    labels, template, file = _labels(arguments), arguments.template, arguments.prompts
    sentences: list[str] = []
    # complain about words before the model is loaded
    if arguments.multi_label:
        if file is not None:
            raise UserError(
                f"--multi-label and --prompts {file}: learned prompts choose one of their classes; give one of the two"
            )
        sentences = finding_sentences(labels, template).flat
    elif file is None:
        if labels is None:
            raise UserError("--labels: expected two or more names to choose between, or --prompts FILE with learned prompts")
        sentences = label_sentences(labels, template)
    elif template is not None:
        raise UserError(f"--template {template!r} and --prompts {file}: learned prompts have no template; give one of the two")
    elif not file.is_file():
        raise UserError(f"--prompts {file}: no such file; expected learned prompts (.safetensors)")
    elif labels is not None:
        check_labels(labels)
    if arguments.out is not None:
        check_out(arguments.out)
    images = found_images(arguments)
    clip = from_pretrained(arguments.model, adapter=arguments.adapter, dtype=arguments.dtype, every_device=True)
    warn_of_answering(arguments.model, clip)
    learned = None if file is None else load_prompts(file, clip)
    classifier = clip.classifier(labels, template, prompts=learned, multi_label=arguments.multi_label)
    bad: dict[int, UserError] = {}
    with progress_bar(len(images), "image", show=len(images) > arguments.batch_size) as bar:
        embeddings = clip.encode_images(images, arguments.batch_size, bar.update, bad.__setitem__)
    if len(bad) == len(images):
        raise UserError(str(bad[0]) if len(bad) == 1 else f"none of the {len(bad)} images can be read; the first: {bad[0]}")
    if bad and arguments.strict:
        raise UserError(f"{len(bad)} of {len(images)} images cannot be read; the first: {next(iter(bad.values()))}")
    for error in bad.values():
        print(f"skipped: {error}", file=sys.stderr)
    if learned is None:
        say_unread("labels", clip.unread_texts(sentences))
    images = [image for position, image in enumerate(images) if position not in bad]
    shown = learned.classes if learned is not None and labels is None else labels
    assert shown is not None
    rows, probabilities = _rows_of(images, embeddings, classifier, arguments.aggregate)
    found = ranked(shown, probabilities, arguments.top)
    if arguments.multi_label and arguments.out is None and arguments.format == "table":
        print("each label against its absence: probabilities of one image do not sum to 1", file=sys.stderr)
    if arguments.out is None:
        write_table(sys.stdout, rows, found, arguments.format)
    else:
        write_classified(arguments.out, rows, found)
        left_out = f", {len(bad)} left out" if bad else ""
        what = "files and series" if arguments.aggregate else "images"
        print(f"{arguments.out}: {len(rows)} {what}{left_out}")


def _rows_of(
    images: Any, embeddings: "np.ndarray", classifier: "Callable[[np.ndarray], np.ndarray]", aggregate: str | None
) -> "tuple[list[str], np.ndarray]":
    """The names and probabilities of images, or with `aggregate` of the files and series that they are of."""
    if aggregate is None:
        return [str(image) for image in images], classifier(embeddings)
    from biomedclip_jax.data.images.views.aggregate import highest_of_groups, mean_of_groups

    groups = [image.group for image in images]
    if aggregate == "max":
        probabilities, names = highest_of_groups(classifier(embeddings), groups)
        return names, probabilities
    means, names = mean_of_groups(embeddings, groups)
    return names, classifier(means)


def _labels(arguments: argparse.Namespace) -> list[str] | None:
    """The labels of --labels or of --labels-file; None where neither is given."""
    file: Path | None = arguments.labels_file
    if file is None:
        return arguments.labels
    if arguments.labels is not None:
        raise UserError(f"--labels and --labels-file {file}: give one of the two")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--labels-file {file}: not readable as UTF-8 text ({error}); expected one label a line") from error
    return [line.strip() for line in lines if line.strip()]


def _convert(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.interop.write import write_model
    from biomedclip_jax.pretrained import load

    if arguments.quantize is not None and arguments.format != "onnx":
        raise UserError(f"--quantize {arguments.quantize}: only --format onnx can be quantised, not {arguments.format}")
    if arguments.format == "peft":
        _convert_to_peft(arguments)
        return
    if arguments.format in ("onnx", "stablehlo"):
        _take_away(arguments)
        return
    model = load(arguments.source, arguments.adapter)
    written = write_model(model, arguments.destination, arguments.format)
    report = model.report
    print(f"read     {len(report.used) + len(report.ignored):5d} tensors from {arguments.source}")
    print(f"ignored  {len(report.ignored):5d}")
    for name, reason in sorted(report.ignored.items()):
        print(f"           {name}: {reason}")
    print(f"written  {len(written):5d} tensors to {arguments.destination} ({arguments.format})")


def _take_away(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.deploy.onnx_folder import write_onnx
    from biomedclip_jax.deploy.stablehlo_folder import write_stablehlo
    from biomedclip_jax.pretrained import load

    model, destination = load(arguments.source, arguments.adapter), arguments.destination
    if arguments.format == "onnx":
        cosines = write_onnx(model, destination, int8=arguments.quantize == "int8")
    else:
        cosines = write_stablehlo(model, destination)
    if model.config.answering is not None:
        print(f"{arguments.source}: what answers questions is left out; only the two towers are written", file=sys.stderr)
    for file, cosine in cosines.items():
        size = sum(path.stat().st_size for path in (destination / file, destination / f"{file}.data") if path.exists())
        print(
            f"written  {destination / file}: {size / 1e6:,.1f} MB, cosine with the model's own embeddings {cosine:.6f} or more"
        )
    print(f"{destination}/README.md has code that uses them")


def _convert_to_peft(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.interop.formats.adapter_folder import read_adapter
    from biomedclip_jax.interop.formats.peft.folders import write_peft_folders

    if arguments.adapter is not None:
        raise UserError(f"--adapter {arguments.adapter}: with --format peft it is SOURCE itself")
    source = Path(arguments.source)
    adapter = read_adapter(source / "adapter" if (source / "adapter").is_dir() else source)
    left_out = write_peft_folders(adapter, arguments.destination)
    if left_out:
        print(
            f"left out {len(left_out):5d} learned parameters for which PEFT's folders have no place: {', '.join(left_out)}; on "
            f"the base model these adapters are not yet what was learned: all of it is in `biomedclip convert {source} FOLDER`"
        )
    towers = ", ".join(path.name for path in sorted(arguments.destination.iterdir()))
    print(f"written  {towers} to {arguments.destination} (peft)")
