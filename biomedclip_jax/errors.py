"""The one kind of error that a user can cause and mend."""


class UserError(Exception):
    """Wrong input. The message is one line: what (file, key or value), what was expected, what to do.

    The command line prints it without a traceback and exits with code 2 (`--debug` shows the traceback).
    """
