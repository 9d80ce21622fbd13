"""Published benchmarks, read from their own files: which images, which classes, which split.

In: the folder of a benchmark as its makers publish it, and a split. Out: `Labelled`; of CheXpert, RSNA and EMBED also
rows for captions (`labelled.caption_table`). A file reads one data set, `histology` two; what all readers share is
here. Names, licences and prompts of benchmarks are in `evaluation/benchmarks.yaml`. Read `medmnist` first, the
plainest.
"""

from pathlib import Path

from biomedclip_jax.errors import UserError


class NotOnDisk(UserError):
    """Files are not where they were looked for; `evaluation.benchmarks` adds what to fetch, and how to lay it out."""


def existing(where: Path, *names: str) -> Path:
    """The first of some paths below `where` that exists. NotOnDisk, which names the first path, if none does."""
    found = next((where / name for name in names if (where / name).exists()), None)
    if found is None:
        packed = next(
            (where / f"{name}{end}" for name in names for end in (".gz", ".zip") if (where / f"{name}{end}").is_file()), None
        )
        if packed is not None:
            raise UserError(f"{packed}: still compressed; unpack it beside itself")
        raise NotOnDisk(f"{where}: no {names[0]}")
    return found


def check_split(name: str, split: str, there: tuple[str, ...]) -> None:
    """UserError for a split that the benchmark does not have."""
    if split not in there:
        raise UserError(f"{name}: no split {split!r}; there are: {', '.join(there)}")
