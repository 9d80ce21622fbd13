"""Verbs that train, plan a training run and measure it: `biomedclip train`, `plan` and `bench`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.cli.arguments import add_verb, count, index, local_path
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.config import TrainConfig

_FIELDS_HELP = """Any field can be given after CONFIG, by its path in the file, and counts instead of the file's value:
  --seed 3   --stages.1.microbatch 32   --optimizer.clip-norm None   --data.crop-scale 0.5 1.0
`biomedclip train CONFIG --help` lists them, with what each does, its value, type and default."""
_ALONE = ("loader", "embedding")  # measured by other programs than the rest

_BENCH_FLAGS = (
    *("--config", "--stage", "--what", "--lengths", "--steps", "--turns", "--images"),
    *("--against", "--eager", "--json", "--profile", "--debug"),
)
_PLAN_FLAGS = ("--topology", "--stage", "--pairs", "--json", "--debug")


def add_train(verbs: Any) -> None:
    """Add `train` to the verbs of the command."""
    train = add_verb(
        verbs,
        "train",
        _train,
        "Train a model, or go on with an interrupted run.",
        "biomedclip train configs/quickstart.py --workdir runs/x --optimizer.learning-rate 1e-4 --stages.0.batch-size 64",
        usage="biomedclip train CONFIG [--workdir DIR] [--max-steps N] [--profile STEPS] [--FIELD VALUE ...]",
        add_help=False,
        allow_abbrev=False,  # or a field might be taken for the beginning of --workdir
    )
    train.add_argument("-h", "--help", nargs=0, action=_TrainHelp, help="show this; after CONFIG, its fields as well")
    train.add_argument("config", type=Path, help="a Python file that defines `config`, see configs/")
    train.add_argument(
        "--workdir", metavar="DIR", help="the run folder, also s3:// or gs:// (default: runs/NAME-OF-THE-CONFIG)"
    )
    train.add_argument("--max-steps", type=count, metavar="N", help="stop, with a checkpoint, after N updates in total")
    train.add_argument(
        "--profile",
        type=count,
        metavar="STEPS",
        help="trace so many updates for xprof, into the run folder's profile/",
    )
    train.add_argument_group("fields of the config", _FIELDS_HELP)


class _TrainHelp(argparse.Action):
    """Help after a config waits until the config is read: its fields are shown too."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object) -> None:
        if namespace.config is None:
            parser.print_help()
            parser.exit()
        namespace.help = parser.format_help()


def _train(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.config.files import load_config
    from biomedclip_jax.config.overrides import describe, override

    config = load_config(arguments.config)
    if arguments.help:
        print(f"{arguments.help}\nfields of {arguments.config}:\n{describe(config)}")
        return
    config = override(config, arguments.overrides, other_flags=("--workdir", "--max-steps", "--profile", "--debug"))
    from biomedclip_jax.train.multihost import hosts

    hosts.start()
    from biomedclip_jax.train.main import opened_run_folder  # JAX, which a mistake above need not wait for

    where = (arguments.workdir or "").rstrip("/") or Path("runs") / config.name
    with opened_run_folder(where) as folder:
        lines = _trained(config, folder, arguments.max_steps, arguments.profile)
    for line in lines:
        print(line.replace(str(folder), str(where)))


def _trained(config: "TrainConfig", folder: Path, max_steps: int | None, profile: int | None) -> list[str]:
    """Train, or go on, in a run folder; what to print of a run that is finished."""
    from biomedclip_jax.train.main import RESULTS, train, try_next
    from biomedclip_jax.train.multihost.hosts import is_first

    done = (folder / RESULTS).is_file()
    results = train(config, folder, max_steps, profile)
    if results is None or not is_first():
        return []
    return [
        f"{folder}: {'this run is done already' if done else 'done'}",
        *(
            f"  {name:28s} {value:.4f}" if isinstance(value, float) else f"  {name:28s} {value}"
            for name, value in results.record().items()
        ),
        f"  pictures: {', '.join(map(str, sorted(folder.glob('*.png'))))}",
        *try_next(config, folder),
    ]


def add_plan(verbs: Any) -> None:
    """Add `plan` to the verbs of the command."""
    plan = add_verb(
        verbs,
        "plan",
        _plan,
        "Compile a run for machines that you need not have: memory, traffic, expected speed and hours.",
        "biomedclip plan configs/biomedclip_preprint.py --topology v5e:16x16 --sharding.fsdp 4",
        usage="biomedclip plan CONFIG --topology KIND:NxN [options] [--FIELD VALUE ...]",
        allow_abbrev=False,
    )
    plan.add_argument("config", type=Path, help="a Python file that defines `config`, see configs/")
    plan.add_argument(
        "--topology",
        required=True,
        metavar="KIND:NxN",
        help="v5e:16x16, v4:4x4x4, v5p:4x4x4, v6e:16x16, a100:2x8 (hosts x GPUs; 80 GB), h100:8x8, h200:1x8",
    )
    plan.add_argument("--stage", type=index, metavar="N", help="only this stage (default: each)")
    plan.add_argument(
        "--pairs",
        type=count,
        default=13_900_000,
        metavar="N",
        help="training pairs in an epoch (default: %(default)s, PMC-15M)",
    )
    plan.add_argument("--json", type=local_path, metavar="FILE", help="gets all that is printed, as numbers")
    plan.add_argument_group("fields of the config", _FIELDS_HELP)


def _plan(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.planning.devices import prepare

    prepare()  # before anything imports JAX
    from biomedclip_jax.config.files import load_config
    from biomedclip_jax.config.overrides import override
    from biomedclip_jax.planning.plan import plan

    config = override(load_config(arguments.config), arguments.overrides, other_flags=_PLAN_FLAGS)
    plan(config, arguments.topology, pairs=arguments.pairs, stage=arguments.stage, json_file=arguments.json)


def add_bench(verbs: Any) -> None:
    """Add `bench` to the verbs of the command."""
    bench = add_verb(
        verbs,
        "bench",
        _bench,
        "Measure the training step, the forward pass, the loss, the loader or the embedding of files, alone or beside others.",
        "biomedclip bench --batch-size 512 --dtype bfloat16 --patch-keep 0.5 --against open_clip --json bench.json",
        allow_abbrev=False,
    )
    bench.add_argument("--config", type=Path, help="a Python file that defines `config` (default: exact BiomedCLIP, 8 pairs)")
    bench.add_argument("--stage", type=index, default=0, metavar="N", help="which of its stages (default: 0, the first)")
    bench.add_argument("--batch-size", metavar="N", help="pairs in a step")
    bench.add_argument("--microbatch", metavar="N", help="pairs encoded at once: exact accumulation")
    bench.add_argument("--patch-keep", metavar="SHARE", help="share of the patches that the image tower sees")
    bench.add_argument("--dtype", choices=["float32", "bfloat16"], help="numbers that matrices are multiplied in")
    measures = ["step", "forward", "loss", *_ALONE]
    bench.add_argument("--what", nargs="+", choices=measures, default=measures[:2], help="default: step forward")
    bench.add_argument(
        "--images", type=Path, metavar="DIR", help="for loader and embedding: a folder of JPEGs (default: made, 800 x 600)"
    )
    bench.add_argument(
        "--lengths",
        choices=["full", "real"],
        default="full",
        help="captions all as long as can be, or as long as in PMC: median 123 tokens (default: %(default)s)",
    )
    bench.add_argument("--steps", type=count, default=5, metavar="N", help="timed calls a turn (default: %(default)s)")
    bench.add_argument("--turns", type=count, metavar="N", help="turns of each side (default: 3 on CPU, 2 elsewhere)")
    bench.add_argument("--against", choices=["open_clip"], help="the same work in PyTorch, in turns; on one device")
    bench.add_argument("--eager", action="store_true", help="open_clip without torch.compile")
    bench.add_argument("--json", type=local_path, metavar="FILE", help="gets every time, and what is printed")
    bench.add_argument("--profile", type=count, metavar="STEPS", help="trace so many calls for xprof first, into ./profile")
    bench.add_argument_group("fields of the config", _FIELDS_HELP.replace("after CONFIG, by", "as well, by"))


def _bench(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.bench.report import bench
    from biomedclip_jax.bench.task import Task, exact_biomedclip, task_config
    from biomedclip_jax.config.files import load_config
    from biomedclip_jax.config.overrides import override

    what: list[Any] = arguments.what
    words: list[str] = arguments.overrides
    if words and words[0] in _ALONE:  # `bench loader`
        what, words = words[:1], words[1:]
    usual = {"loader": 64, "embedding": 32}.get(what[0], 8)
    config = load_config(arguments.config) if arguments.config else exact_biomedclip(usual)
    config = task_config(config, arguments.stage)
    flags = {
        "stages.0.batch-size": arguments.batch_size,
        "stages.0.microbatch": arguments.microbatch,
        "stages.0.patch-keep": arguments.patch_keep,
        "compute.dtype": arguments.dtype,
    }
    given = [word for flag, value in flags.items() if value is not None for word in (f"--{flag}", str(value))]
    config = override(config, given + words, other_flags=_BENCH_FLAGS)
    against = arguments.against is not None
    if alone := [name for name in what if name in _ALONE]:
        from biomedclip_jax.bench.embedding import bench_embedding
        from biomedclip_jax.bench.loader import bench_loader

        if what != alone[:1]:
            raise UserError(f"--what {' '.join(what)}: expected {alone[0]} alone, because nothing else must run meanwhile")
        if arguments.profile is not None:
            raise UserError(f"--profile: expected --what step, forward or loss; {alone[0]} is not traced")
        task = Task(config, (), arguments.steps, arguments.lengths, not arguments.eager)
        if alone == ["loader"]:
            bench_loader(task, arguments.images, against=against, turns=arguments.turns or 3, json_file=arguments.json)
        else:
            bench_embedding(task, arguments.images, against=against, turns=arguments.turns, json_file=arguments.json)
        return
    task = Task(config, tuple(what), arguments.steps, arguments.lengths, not arguments.eager, profile=arguments.profile)
    bench(task, against=against, turns=arguments.turns, json_file=arguments.json)
