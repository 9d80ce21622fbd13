"""The verb `biomedclip finetune`."""

import argparse
from typing import Any

from biomedclip_jax.cli._findings import add_declaration, declared_of
from biomedclip_jax.cli.arguments import add_verb, count, local_path
from biomedclip_jax.errors import UserError

_METHODS = ("lora", "full", "locked-image", "probe")


def add_finetune(verbs: Any) -> None:
    """Add `finetune` to the verbs of the command."""
    verb = add_verb(
        verbs,
        "finetune",
        _finetune,
        "Fine-tune a model on your own pairs or labels, and get it only if it became better.",
        "biomedclip finetune runs/quickstart --data xrays.csv --group-column patient_id --out xrays",
    )
    verb.add_argument("model", metavar="MODEL", help="a model folder, a run folder or hf-hub:org/name")
    data = verb.add_argument_group(
        "data",
        "A table (.csv, .tsv, .jsonl, .parquet) with a column image, of paths relative to it, and a column caption or label; "
        "a folder of class folders; tars or a build. A column split (train, validation, test), or folders of these names, "
        "are heeded.",
    )
    data.add_argument("--data", required=True, metavar="DATA", help="what is learned from")
    data.add_argument("--held-out", metavar="DATA", help="to choose and judge by (default: part of --data, by its groups)")
    data.add_argument("--image-column", default="image", metavar="NAME", help="column of the image paths (default: image)")
    data.add_argument("--caption-column", metavar="NAME", help="column of the captions (default: caption, if there is one)")
    data.add_argument("--label-column", metavar="NAME", help="column of the labels (default: label, if there is one)")
    data.add_argument(
        "--group-column",
        metavar="NAME",
        help="rows of one patient or article, never in two parts (default: patient_id, patient, article ... if there)",
    )
    data.add_argument(
        "--keep",
        metavar="DATA",
        help="data that the model must not become worse on, or none (default: the demo's 13 kinds of picture)",
    )
    data.add_argument(
        "--replay",
        metavar="DATA",
        help="pairs that are trained on besides, so that what they show is not forgotten, or none (default: the demo's, with "
        "the default of --keep)",
    )
    data.add_argument("--replay-share", type=float, default=0.25, metavar="SHARE", help="of what is trained on (default: 0.25)")
    add_declaration(
        verb.add_argument_group(
            "images with several findings",
            "Of a table with a row for each image: the findings that are present become its caption, 'a photo of edema and "
            "mass'. Afterwards `biomedclip evaluate zero-shot --multi-label` measures each finding.",
        )
    )
    how = verb.add_argument_group("how", "Each has a default that fits the data, or is found by trying.")
    how.add_argument(
        "--method",
        choices=_METHODS,
        default="lora",
        help="lora: small matrices beside both towers; full: everything; locked-image: text tower and projections; probe: "
        "projections alone (default: lora)",
    )
    how.add_argument("--rate", type=float, metavar="RATE", help="learning rate (default: the best of three in short runs)")
    how.add_argument("--epochs", type=float, metavar="N", help="most passes over the data (default: 30, 15 or 5, by its size)")
    how.add_argument("--batch-size", type=count, metavar="N", help="pairs in an update (default: an eighth of all, 8 to 128)")
    how.add_argument("--microbatch", type=count, metavar="N", help="pairs encoded at once (default: what fits into memory)")
    how.add_argument(
        "--max-forgetting", type=float, default=0.02, metavar="SHARE", help="how far --keep's score may fall (default: 0.02)"
    )
    how.add_argument(
        "--export", choices=["best", "last"], default="best", help="best by held-out data, or the last, whatever it is worth"
    )
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is drawn by chance (default: 0)")
    verb.add_argument(
        "--out", type=local_path, required=True, metavar="DIR", help="gets model/, results.json, report/, config.py"
    )


def _finetune(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.data.own_rows import Columns
    from biomedclip_jax.finetune.main import finetune
    from biomedclip_jax.finetune.request import DEMO_HELD_OUT, DEMO_TRAIN, Request

    columns = Columns(
        image=arguments.image_column,
        caption=arguments.caption_column,
        label=arguments.label_column,
        group=arguments.group_column,
        findings=declared_of(arguments, arguments.label_column or "label"),
    )
    if columns.findings is not None and columns.caption is not None:
        raise UserError(f"--caption-column {columns.caption}: with --multi-label the findings are the captions; leave it out")
    if arguments.out.is_file():
        raise UserError(f"--out {arguments.out}: is a file; expected a folder")
    keep, replay = arguments.keep or DEMO_HELD_OUT, arguments.replay
    if replay is None:
        replay = DEMO_TRAIN if keep == DEMO_HELD_OUT else "none"
    request = Request(
        model=arguments.model,
        data=arguments.data,
        held_out=arguments.held_out,
        method=arguments.method,
        columns=columns,
        keep=None if keep == "none" else keep,
        replay=None if replay == "none" else replay,
        replay_share=arguments.replay_share,
        max_forgetting=arguments.max_forgetting,
        rate=arguments.rate,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        microbatch=arguments.microbatch,
        export=arguments.export,
        seed=arguments.seed,
    )
    finetune(request, arguments.out)
