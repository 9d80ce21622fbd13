"""The demos as sources of pairs: `demo:NAME:SPLIT` is a table of pairs and `demo:NAME` a tokenizer, made when asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.data.demo.causal import make_causal_demo
from biomedclip_jax.data.demo.quickstart import make_demo
from biomedclip_jax.errors import UserError

PREFIX = "demo:"
_SPLITS = ("train", "held_out")


@dataclass(frozen=True)
class _Demo:
    make: Callable[[Path], None]  # writes all below a folder, whole or not at all; nothing where it is complete
    tokenizer: str  # below that folder


_DEMOS = {"quickstart": _Demo(make_demo, "data/tokenizer"), "causal": _Demo(make_causal_demo, "words")}


def make_demo_of(source: str, folder: Path) -> None:
    """Write the data of a demo source below `folder`, unless they are complete; any other source needs nothing.

    UserError for a demo or split that does not exist, or a package that is missing.
    """
    if source.startswith(PREFIX):
        _parse(source)[0].make(folder)


def demo_path(source: str, folder: Path) -> str:
    """The file or folder below `folder` that a demo source stands for; any other source is returned as it is.

    UserError for a demo or split that does not exist.
    """
    if not source.startswith(PREFIX):
        return source
    demo, split = _parse(source)
    return str(folder / (f"data/{split}.csv" if split else demo.tokenizer))


def _parse(source: str) -> tuple[_Demo, str]:
    name, _, split = source.removeprefix(PREFIX).partition(":")
    if name not in _DEMOS or split not in ("", *_SPLITS):
        names = " or ".join(f"{PREFIX}{name}" for name in _DEMOS)
        raise UserError(f"{source}: no such demo; expected {names} (a tokenizer), with :train or :held_out behind it (pairs)")
    return _DEMOS[name], split
