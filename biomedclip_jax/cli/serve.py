"""The verb `biomedclip serve`."""

import argparse
import os
from pathlib import Path
from typing import Any

from biomedclip_jax.cli.arguments import add_verb, count


def add_serve(verbs: Any) -> None:
    """Add the verb to the command."""
    serve = add_verb(
        verbs,
        "serve",
        _serve,
        "Answer requests over HTTP: /classify, /embed, /search, /heatmap, and a page for a browser.",
        "biomedclip serve runs/quickstart\n"
        "  curl -F images=@photo.jpg -F 'labels=chest X-ray' -F 'labels=brain MRI' http://127.0.0.1:8000/classify",
    )
    serve.add_argument("model", help="a model folder, a run folder, or hf-hub:org/name")
    serve.add_argument("--index", type=Path, metavar="INDEX", help="to search in: a folder that `biomedclip index` has made")
    serve.add_argument(
        "--host", default="127.0.0.1", help="where to listen; one that others can reach needs a token (default: %(default)s)"
    )
    serve.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    serve.add_argument(
        "--token",
        help="what clients must send as 'Authorization: Bearer TOKEN', and type into the page; other users of this machine "
        "see it in the list of processes: better --token-file, or the variable BIOMEDCLIP_TOKEN",
    )
    serve.add_argument("--token-file", type=Path, metavar="FILE", help="a file that holds the token alone")
    serve.add_argument("--adapter", type=Path, metavar="DIR", help="what fine-tuned MODEL, merged into it, as of `classify`")
    serve.add_argument(
        "--batch-size", type=count, default=16, metavar="N", help="images at once, at most (default: %(default)s)"
    )
    serve.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16 is faster on accelerators")
    limits = serve.add_argument_group("limits")
    limits.add_argument("--max-mb", type=count, default=32, metavar="N", help="of one request (default: %(default)s)")
    limits.add_argument("--max-megapixels", type=count, default=50, metavar="N", help="of one image (default: %(default)s)")
    limits.add_argument("--max-images", type=count, default=16, metavar="N", help="in one request (default: %(default)s)")
    limits.add_argument("--max-texts", type=count, default=256, metavar="N", help="in one request (default: %(default)s)")
    limits.add_argument(
        "--max-requests",
        type=count,
        default=64,
        metavar="N",
        help="at once; others are told to come back (default: %(default)s)",
    )
    limits.add_argument("--seconds", type=count, default=60, metavar="N", help="for one answer (default: %(default)s)")


def _serve(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.serve.settings import Limits, Settings, check_installed, read_token

    megabytes = arguments.max_mb << 20
    limits = Limits(
        body_bytes=megabytes,
        bodies_bytes=max(Limits.bodies_bytes, 4 * megabytes),
        pixels=arguments.max_megapixels * 1_000_000,
        images=arguments.max_images,
        texts=arguments.max_texts,
        requests=arguments.max_requests,
        answer_seconds=arguments.seconds,
    )
    token = read_token(arguments.token, arguments.token_file, os.environ)
    settings = Settings(arguments.host, arguments.port, token, arguments.batch_size, limits)
    check_installed()

    from biomedclip_jax.serve.main import serve

    serve(arguments.model, settings, adapter=arguments.adapter, dtype=arguments.dtype, index=arguments.index)
