"""The kinds of errors that end a command with one line, and how others' errors become one line."""

from pathlib import Path


class UserError(Exception):
    """Input of a user that cannot be used. The message is one line: what (file, key or value), what was expected, what to do.

    The command line prints it without a traceback and exits with code 2 (`--debug` shows the traceback).
    """


class Ended(Exception):
    """Nobody's mistake, and still the end: a signal, a lost host. The message is one line; `code` is the exit code."""

    code = 1


_addresses: dict[str, str] = {}


def fetched_from(folder: Path, address: str) -> None:
    """Note that a folder is a copy of what lies behind an address that the user gave, for `as_given`."""
    _addresses[str(folder)] = address.rstrip("/")


def as_given(message: str) -> str:
    """The message with the addresses that the user gave in place of the folders that they were fetched into, named last."""
    for folder, address in _addresses.items():
        if folder in message:
            message = f"{message.replace(folder, address)} (its copy here is {folder})"
    return message


def first_line(error: Exception) -> str:
    """What an error of a library says first, with the next line where it ends in a colon; its kind if it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])
