"""The `biomedclip` command: words on the command line in, calls of the other rooms, lines and exit codes out.

Read `main.py` first: it finds the verb and turns errors into one line and an exit code. Each other file adds verbs
(`train.py`, `models.py`, `evaluate.py`, `data.py` and those that it names) or helps them (`arguments.py`,
`output.py`). A verb imports what it needs when it runs, so that help and mistakes come at once. Every room may be
used from here, and none knows this one.
"""

from biomedclip_jax.cli.main import main

__all__ = ["main"]
