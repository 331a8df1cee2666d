"""The two errors that end a command with one line in place of a traceback."""


class UserError(Exception):
    """The input is at fault; the message names the file, line or key and what would be right. Exit status 2."""


class RunError(Exception):
    """The run could not go on, through no fault of the input's form; the message says where. Exit status 1."""
