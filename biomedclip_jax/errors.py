"""The kinds of errors that end a command with one line, and how others' errors become one line."""


class UserError(Exception):
    """Input of a user that cannot be used. The message is one line: what (file, key or value), what was expected, what to do.

    The command line prints it without a traceback and exits with code 2 (`--debug` shows the traceback).
    """


class Ended(Exception):
    """Nobody's mistake, and still the end: a signal, a lost host. The message is one line; `code` is the exit code."""

    code = 1


def first_line(error: Exception) -> str:
    """What an error of a library says first, with the next line where it ends in a colon; its kind if it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])
