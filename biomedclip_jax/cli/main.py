"""The `biomedclip` command: parse, call, print. Nothing heavy is imported before a verb is chosen."""

import argparse
import functools
import io
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from biomedclip_jax.cli.answer import add_answer
from biomedclip_jax.cli.arguments import VerbParser
from biomedclip_jax.cli.data import add_data
from biomedclip_jax.cli.evaluate import add_evaluate
from biomedclip_jax.cli.finetune import add_finetune
from biomedclip_jax.cli.heatmap import add_heatmap
from biomedclip_jax.cli.index import add_index
from biomedclip_jax.cli.models import add_models
from biomedclip_jax.cli.search import add_search
from biomedclip_jax.cli.serve import add_serve
from biomedclip_jax.cli.train import add_bench, add_plan, add_train
from biomedclip_jax.errors import Ended, UserError, as_given
from biomedclip_jax.support.huge_pages import use_huge_pages

# what adds verbs to the command, in the order of the help
_VERBS = (
    (("train",), add_train),
    (("finetune",), add_finetune),
    (("classify", "embed", "convert"), add_models),
    (("heatmap",), add_heatmap),
    (("answer",), add_answer),
    (("index",), add_index),
    (("search",), add_search),
    (("serve",), add_serve),
    (("evaluate",), add_evaluate),
    (("data",), add_data),
    (("plan",), add_plan),
    (("bench",), add_bench),
)


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the verb that the command line begins with; of all verbs where it begins with none."""
    parser = argparse.ArgumentParser(
        prog="biomedclip", description="Train, adapt, evaluate and use biomedical image-text models in JAX."
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=VerbParser)
    chosen = [add for names, add in _VERBS if words and words[0] in names]
    for add in chosen or [add for _, add in _VERBS]:
        add(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, 2 for input that is wrong, 143 after a signal, 124 when another host is lost."""
    words = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no letter that a terminal or a pipe does not know stops the command
            stream.reconfigure(errors="backslashreplace")
    parser = _parser(words)
    arguments: Any
    arguments, arguments.overrides = parser.parse_known_args(words)
    arguments.command_line = shlex.join(["biomedclip", *words])
    if arguments.overrides and arguments.verb not in ("train", "bench", "plan"):
        parser.error(f"unrecognized arguments: {' '.join(arguments.overrides)}")
    if argv is None and arguments.verb in ("train", "finetune", "bench"):
        use_huge_pages()
    code = _run(arguments)
    if arguments.verb == "train":
        from biomedclip_jax.train.multihost.hosts import leave

        leave(code)  # together with the other processes of the run, if there are any
    return code


def _run(arguments: Any) -> int:
    """The exit code of the verb; what went wrong is one line on stderr."""
    say = functools.partial(print, f"biomedclip {arguments.verb}:", file=sys.stderr)
    try:
        arguments.run(arguments)
    except UserError as error:
        if arguments.debug:
            raise
        say(as_given(str(error)))
        return 2
    except BrokenPipeError:  # the reader of our output (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if arguments.debug:
            raise
        say(f"{error.filename}: {error.strerror or error}" if error.filename else error.strerror or error)
        return 2
    except Ended as error:
        say(error)
        return error.code
    except KeyboardInterrupt:
        print(
            "interrupted; `train` goes on from its last checkpoint, `data` with what is missing, when run again",
            file=sys.stderr,
        )
        return 130
    return 0
