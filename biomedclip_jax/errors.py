"""The one kind of error that a user can cause and mend, and how others' errors become one line."""


class UserError(Exception):
    """Wrong input. The message is one line: what (file, key or value), what was expected, what to do.

    The command line prints it without a traceback and exits with code 2 (`--debug` shows the traceback).
    """


def first_line(error: Exception) -> str:
    """What an error of a library says first; its kind if it says nothing."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
