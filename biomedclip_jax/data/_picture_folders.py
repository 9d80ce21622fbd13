"""Folders of files with pictures, as `datasets` and the Hugging Face hub lay them out; which file is of which split.

- of the hub: `data/train-00000-of-00003.parquet`, `train.parquet`, `train/0000.parquet`, in the folder or in `data/`;
- of `Dataset.save_to_disk`: `state.json` and Arrow files, or `dataset_dict.json` above a folder for each split;
- of the cache of `load_dataset`: `dataset_info.json` and `NAME-train.arrow` ...;
- `hf://datasets/ORG/NAME`: what the hub's client has downloaded to this machine. Nothing is fetched.
"""

import json
import re
import socket
from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.data._picture_files import holds_pictures
from biomedclip_jax.data.names import SPLITS, matching_split
from biomedclip_jax.errors import UserError

WHOLE = ""  # the name of the only split of what has none
_HUB = "hf://"
_NUMBERED = re.compile(r"(?P<split>.+?)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?\.(parquet|arrow)")
_KNOWN = {name for names in SPLITS.values() for name in names}
_ADDRESS = re.compile(r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w.-]+))?(?P<inside>/.*)?")


def is_hub_address(source: str) -> bool:
    """Whether a source is written as an address of the Hugging Face hub."""
    return source.startswith(_HUB)


def hub_folder(source: str) -> Path:
    """Where the files of `hf://datasets/ORG/NAME` are on this machine. UserError if they are not; nothing is fetched."""
    found = _ADDRESS.fullmatch(source)
    if found is None:
        raise UserError(f"{source}: expected hf://datasets/ORG/NAME, with @REVISION or /FOLDER behind it where wanted")
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(found["name"], repo_type="dataset", revision=found["revision"], local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{source}: not on this machine, and nothing is fetched; run: hf download --repo-type dataset {found['name']}"
        ) from error
    return Path(folder, *Path((found["inside"] or "").strip("/")).parts)


def is_picture_folder(folder: Path) -> bool:
    """Whether a folder is one of those that this file names."""
    if not folder.is_dir():
        return False
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return any(folder.glob("*.arrow")) or any(folder.glob("*/*.arrow"))
    if (folder / "dataset_info.json").is_file() and any(folder.glob("*.arrow")):
        return True
    first = next((path for each in _homes(folder) for path in sorted(each.glob("*.parquet"))), None)
    return first is not None and holds_pictures(first)


def picture_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each split of a picture folder, in order; `WHOLE` where it has no splits.

    UserError for a file that is missing (naming host and path), and where files of one split are in several folders.
    """
    if (folder / "dataset_dict.json").is_file():
        names = sorted(path.name for path in folder.iterdir() if (path / "state.json").is_file())
        return {name: _saved(folder / name) for name in names}
    if (folder / "state.json").is_file():
        return {WHOLE: _saved(folder)}
    kind = "arrow" if (folder / "dataset_info.json").is_file() and any(folder.glob("*.arrow")) else "parquet"
    homes = [folder] if kind == "arrow" else _homes(folder)
    paths = [path for home in homes for path in sorted(home.glob(f"*.{kind}"))]
    found: dict[str, list[Path]] = {}
    for path in paths:
        if not path.name.startswith(("cache-", ".")):
            found.setdefault(_split_of(path, kind), []).append(path)
    for split, own in found.items():
        if len({path.parent for path in own}) > 1:
            places = ", ".join(dict.fromkeys(str(path.parent) for path in own))
            what = f"the split {split!r}" if split else "one split"
            raise UserError(f"{folder}: files of {what} are in several folders: {places}; give one of them")
        check_whole(own)
    return found


def of_split(source: object, files: dict[str, list[Path]], split: str | None) -> list[Path]:
    """The files of a split, under any of its names; None: of the only one. UserError if there is none, or several."""
    if split is None:
        if len(files) > 1:
            raise UserError(f"{source}: has the splits {', '.join(files)}; say which, such as {source}:{next(iter(files))}")
        return next(iter(files.values()))
    lower = {name.lower(): own for name, own in files.items()}
    return lower[matching_split(source, split, [name for name in files if name]).lower()]


def check_whole(paths: Sequence[Path]) -> None:
    """UserError, which names host and path, where files say how many there are (`-of-00003`) and some are missing."""
    counts: dict[tuple[Path, str, int], set[int]] = {}
    for path in paths:
        if found := _NUMBERED.fullmatch(path.name):
            counts.setdefault((path.parent, found["split"], int(found["count"])), set()).add(int(found["number"]))
    for (folder, split, count), there in counts.items():
        if missing := sorted(set(range(count)) - there):
            name = f"{split}-{missing[0]:05d}-of-{count:05d}"
            more = f" (and {len(missing) - 1} more of {count})" if len(missing) > 1 else ""
            raise UserError(f"{folder / name}.* on host {socket.gethostname()}: not there{more}; copy it there")


def _homes(folder: Path) -> list[Path]:
    """Where the Parquet files of a repository may be; not all folders are looked into, there may be a million pictures."""
    above = [folder, folder / "data", folder / "default"]
    below = [each / name for each in above for name in sorted(_KNOWN)]
    return [each for each in (*above, *below) if each.is_dir()]


def _split_of(path: Path, kind: str) -> str:
    """The split that a file's name, or its folder's, says; `WHOLE` where neither does."""
    if found := _NUMBERED.fullmatch(path.name):
        name = found["split"]
        return name.rpartition("-")[2] if kind == "arrow" else name
    if kind == "arrow":
        return path.stem.rpartition("-")[2]
    words = re.split(r"[-_.\s]+", path.stem.lower())
    return next((word for word in (*words, path.parent.name.lower()) if word in _KNOWN), WHOLE)


def _saved(folder: Path) -> list[Path]:
    """The Arrow files that `Dataset.save_to_disk` names in its state.json, in order."""
    file = folder / "state.json"
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        names = [each["filename"] for each in state["_data_files"]]
        chosen = state.get("_indices_data_files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not what `save_to_disk` writes ({error}); save the data set again") from error
    if chosen:
        raise UserError(f"{file}: a choice of rows in a second file; save it again after `flatten_indices()`")
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} on host {socket.gethostname()}: not there; copy it there")
    return [folder / name for name in names]
