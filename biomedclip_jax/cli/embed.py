"""`biomedclip embed`: the embeddings of a few images or sentences in one file, or of any number of images in a folder."""

import argparse
import importlib.util
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.cli._views import add_view_options, found_images, say_unused, view_options
from biomedclip_jax.cli.arguments import add_verb, count, local_path
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.data.embeddings_folder import Archive
    from biomedclip_jax.data.file_list import FileList
    from biomedclip_jax.data.images.load import LazyImage
    from biomedclip_jax.pretrained import Pretrained

_OTHER_ENDINGS = (".npy", ".parquet", ".csv", ".tsv", ".json", ".jsonl", ".txt", ".pt", ".pkl", ".h5", ".safetensors")
_PART = re.compile(r"(\d+)/(\d+)")

Part = tuple[int, int]  # which part, from 0, and of how many


def add_embed(verbs: Any, model_help: str, adapter_help: str) -> None:
    """Add the verb to the command."""
    embed = add_verb(
        verbs,
        "embed",
        _embed,
        "Unit embeddings of images or sentences, with their names: a few as .npz, any number as a folder of Parquet.",
        "biomedclip embed runs/quickstart --images scans/ --out scans.npz\n"
        "  biomedclip embed runs/quickstart --images archive/ --out embeddings",
    )
    embed.add_argument("model", help=model_help)
    what = embed.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--images", nargs="+", metavar="FILE_OR_DIR", help="image files, or folders of them; with --every also NIfTI and slides"
    )
    what.add_argument(
        "--texts", type=Path, metavar="FILE", help="a UTF-8 text file, one sentence a line; --out is an .npz then"
    )
    embed.add_argument(
        "--out",
        type=local_path,
        required=True,
        metavar="X.npz|DIR",
        help="X.npz gets the arrays `embeddings` float32 [n, E], `names` uint8 (all names in UTF-8, one after the other) and "
        "`name_ends` int64 [n] (where each ends). DIR gets Parquet files with the columns name, sha256, embedding and reject "
        "(why a file is no readable image; its embedding is NaN then); the same command goes on where it was killed. "
        "biomedclip_jax.load_embeddings reads both",
    )
    embed.add_argument("--adapter", metavar="DIR", help=adapter_help)
    embed.add_argument(
        "--batch-size", type=count, default=32, metavar="N", help="images or sentences at once, a device (default: %(default)s)"
    )
    embed.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16 is faster on accelerators")
    embed.add_argument(
        "--strict",
        action="store_true",
        help="exit code 2 if an image is broken: .npz is not written then, DIR gets all the others first",
    )
    embed.add_argument(
        "--shard-size", type=count, default=10_000, metavar="N", help="of DIR: images in each file (default: %(default)s)"
    )
    embed.add_argument(
        "--part",
        type=_part,
        metavar="I/N",
        help="of DIR: make only the I-th of N parts, as one of N processes, 1/N to N/N; all together make the same files as "
        "one (default: all; under srun and in job arrays of Slurm the part of the task)",
    )
    add_view_options(embed, ["mean"])


def _part(text: str) -> Part:
    """An argparse type."""
    found = _PART.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a part of all, from 1/16 to 16/16 for sixteen processes")
    return int(found[1]) - 1, int(found[2])


def slurm_part(environment: Mapping[str, str]) -> Part:
    """The part of this process among the tasks of a Slurm step and of a job array; 0 of 1 outside of Slurm.

    A batch script without srun is one process, whatever number of tasks it was given. UserError for an array whose ids
    have gaps of different sizes.
    """

    def number(name: str, default: int) -> int:
        value = environment.get(name, "")
        return int(value) if value.isdecimal() else default

    task, tasks = 0, 1
    if "SLURM_STEP_NODELIST" in environment:
        tasks = number("SLURM_STEP_NUM_TASKS", number("SLURM_NTASKS", 1))
        task = number("SLURM_PROCID", 0)
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return task, tasks
    job, first, last = (number(f"SLURM_ARRAY_TASK_{name}", 0) for name in ("ID", "MIN", "MAX"))
    step, jobs = number("SLURM_ARRAY_TASK_STEP", 1), number("SLURM_ARRAY_TASK_COUNT", 1)
    if (last - first) // step + 1 != jobs:
        raise UserError(
            f"--part: the ids of this Slurm job array, {first} to {last}, are not {jobs} in equal steps of {step}, so it is "
            "not known which part is whose; give --part I/N"
        )
    return (job - first) // step * tasks + task, jobs * tasks


def _embed(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.cli.output import warn_of_answering
    from biomedclip_jax.pretrained import from_pretrained

    out, to_file = arguments.out, arguments.out.suffix == ".npz"
    if not to_file and out.suffix.lower() in _OTHER_ENDINGS:
        raise UserError(f"--out {out}: expected a name that ends in .npz, or a folder")
    if not to_file and arguments.texts is not None:
        raise UserError(f"--out {out}: embeddings of texts go into one file; expected a name that ends in .npz")
    if arguments.texts is not None and view_options(arguments) is not None:
        raise UserError("--every: is for images, and --texts has none; leave it out")
    if not to_file and arguments.aggregate is not None:
        raise UserError(f"--aggregate: goes into one file; expected an --out that ends in .npz, not {out}")
    if to_file and arguments.part is not None:
        raise UserError(f"--part: parts are of a folder, and --out {out} is one file; give --out a folder")
    if not to_file and importlib.util.find_spec("pyarrow") is None:
        raise UserError(f"--out {out}: writing Parquet needs pyarrow: pip install 'biomedclip_jax[tfds]'")

    def load() -> "Pretrained":
        clip = from_pretrained(arguments.model, adapter=arguments.adapter, dtype=arguments.dtype, every_device=True)
        warn_of_answering(arguments.model, clip)
        return clip

    if arguments.texts is not None:
        _embed_texts(load, arguments)
    elif to_file:
        _embed_images(load, arguments)
    else:
        _embed_into_folder(load, arguments)


def _embed_images(load: "Callable[[], Pretrained]", arguments: argparse.Namespace) -> None:
    """Files that cannot be read are listed on stderr and left out; UserError if none can, or with --strict."""
    from biomedclip_jax.data.embeddings_file import write_embeddings
    from biomedclip_jax.support.terminal import progress_bar

    paths = found_images(arguments)
    clip = load()
    bad: dict[int, UserError] = {}
    with progress_bar(len(paths), "image") as bar:
        embeddings = clip.encode_images(paths, arguments.batch_size, bar.update, bad.__setitem__)
    for error in bad.values():
        print(f"skipped: {error}", file=sys.stderr)
    if len(bad) == len(paths):
        raise UserError(f"none of the {len(paths)} images can be read; nothing is written")
    if bad and arguments.strict:
        raise UserError(f"{len(bad)} of {len(paths)} images cannot be read; nothing is written")
    good: list[Any] = [path for i, path in enumerate(paths) if i not in bad]
    names = [str(image) for image in good]
    if arguments.aggregate is not None:
        from biomedclip_jax.data.images.views.aggregate import mean_of_groups

        embeddings, names = mean_of_groups(embeddings, [view.group for view in good])
    write_embeddings(arguments.out, embeddings, names)


def _embed_texts(load: "Callable[[], Pretrained]", arguments: argparse.Namespace) -> None:
    """Empty lines are left out and counted on stderr."""
    from biomedclip_jax.data.embeddings_file import write_embeddings
    from biomedclip_jax.data.unread_texts import say_unread
    from biomedclip_jax.support.terminal import progress_bar

    source: Path = arguments.texts
    try:
        lines = source.read_text(encoding="utf-8-sig").split("\n")  # as in grep and wc
    except FileNotFoundError:
        raise UserError(f"{source}: no such file; expected a text file with one sentence a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: not readable as UTF-8 text ({error})") from error
    numbered = [(f"line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    texts = [line for _, line in numbered]
    if not texts:
        raise UserError(f"{source}: no sentence in it; expected one a line")
    if empty := len(lines) - (lines[-1] == "") - len(texts):
        print(f"{source}: {empty:,} empty {'line' if empty == 1 else 'lines'} left out", file=sys.stderr)
    clip = load()
    with progress_bar(len(texts), "text") as bar:
        embeddings = clip.encode_texts(texts, arguments.batch_size, bar.update)
    say_unread(str(source), clip.unread_texts(texts, [name for name, _ in numbered]))
    write_embeddings(arguments.out, embeddings, texts)


def _embed_into_folder(load: "Callable[[], Pretrained]", arguments: argparse.Namespace) -> None:
    from biomedclip_jax.data.embeddings_folder import Archive, model_mark, open_archive
    from biomedclip_jax.data.file_list import FileList
    from biomedclip_jax.data.images.search import say_left_out, stream_images
    from biomedclip_jax.data.images.views.find import find_views

    out, (part, parts) = arguments.out, _which_part(arguments)
    left_out: Counter[str] = Counter()
    options = view_options(arguments)
    images = (
        stream_images(arguments.images, left_out)
        if options is None
        else say_unused(arguments, find_views(arguments.images, options, left_out))
    )
    with FileList(images, arguments.shard_size, options) as files:
        if left_out:
            print(say_left_out(left_out), file=sys.stderr)
        clip = load()
        model = model_mark(clip.fingerprint, clip.config, clip.processor.config, arguments.dtype)
        views = "" if options is None else options.to_text()
        archive = Archive(model, clip.config.embed_width, files.count, files.listed, arguments.shard_size, views)
        open_archive(out, archive)
        _make_shards(clip, files, archive, (part, parts), arguments)


def _make_shards(clip: "Pretrained", files: "FileList", archive: "Archive", part: Part, arguments: argparse.Namespace) -> None:
    from biomedclip_jax.data.embeddings_folder import write_shard
    from biomedclip_jax.support.terminal import progress_bar

    out, shards = arguments.out, range(part[0], archive.shards, part[1])
    mine, done, rejects = sum(map(archive.rows_of, shards)), 0, 0
    began, made = time.monotonic(), 0
    with progress_bar(mine, "image") as bar:

        def embed(images: "Sequence[LazyImage]", on_error: Callable[[int, UserError], object]) -> Any:
            nonlocal made
            made += len(images)
            return clip.encode_images(images, arguments.batch_size, bar.update, on_error)

        for shard in shards:
            before, done = made, done + archive.rows_of(shard)
            rejects += write_shard(out, archive, shard, files.part(shard), embed)
            if made == before:  # it was there
                bar.update(archive.rows_of(shard))
            elif bar.disable:
                rate = made / (time.monotonic() - began)
                print(f"{out}: {done:,} of {mine:,} images, {rate:,.0f} images/s", file=sys.stderr, flush=True)
    _say_what_was_made(out, archive, arguments, mine, rejects)


def _which_part(arguments: argparse.Namespace) -> Part:
    if arguments.part is not None:
        return arguments.part
    part, parts = slurm_part(os.environ)
    if parts > 1:
        print(f"part {part + 1} of {parts}, as this task of Slurm", file=sys.stderr)
    return part, parts


def _say_what_was_made(out: Path, archive: "Archive", arguments: argparse.Namespace, mine: int, rejects: int) -> None:
    from biomedclip_jax.data.embeddings_folder import shards_there

    there = shards_there(out, archive)
    own = f"{mine:,} of {archive.files:,}" if mine < archive.files else f"{mine:,}"
    broken = f", {rejects:,} of them cannot be read (column reject)" if rejects else ""
    print(f"{out}: {own} images, embeddings of width {archive.width}{broken}; {there:,} of {archive.shards:,} shards are there")
    if rejects and rejects == mine:
        raise UserError(f"none of the {mine:,} images can be read; the column reject of {out} says why")
    if rejects and arguments.strict:
        raise UserError(f"{rejects:,} of {mine:,} images cannot be read; the column reject of {out} says why")
