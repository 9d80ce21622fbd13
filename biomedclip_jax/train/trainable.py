"""Parameters by path: `image/blocks/mlp/fc1/kernel`. Which of them a stage trains, and at which rate, is told by patterns.

A pattern means a path or what lies below it, with the wildcards of `fnmatch`: "text" is the whole text tower, "*_head" both
projections, "*/bias" every bias.
"""

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

from biomedclip_jax.config import Stage
from biomedclip_jax.errors import UserError
from biomedclip_jax.models.adapters import CONTEXT

Flat = dict[str, Any]  # {path: leaf}


def matches(path: str, pattern: str) -> bool:
    """Whether the pattern means this parameter."""
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"{pattern}/*")


def chosen(paths: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The paths that any of the patterns means, in their order."""
    return [path for path in paths if any(matches(path, pattern) for pattern in patterns)]


def trained_by(stage: Stage, paths: Iterable[str]) -> list[str]:
    """The paths that a stage trains, in their order; the learned context only in a stage that uses it."""
    return [path for path in chosen(paths, stage.trainable) if stage.prompted or path != CONTEXT]


def check_patterns(paths: Sequence[str], patterns: Iterable[str], where: str) -> None:
    """UserError for a pattern that means no parameter; it suggests the nearest path. `where`: the config field."""
    for pattern in patterns:
        if not chosen(paths, [pattern]):
            parts = {"/".join(path.split("/")[:n]) for path in paths for n in range(1, path.count("/") + 2)}
            near = difflib.get_close_matches(pattern, sorted(parts), n=1, cutoff=0.0)
            raise UserError(f"{where}: {pattern!r} is no parameter of this model; did you mean {near[0]!r}?")
