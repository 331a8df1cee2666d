"""The one error that is the user's to mend: it ends a command with one line and exit status 2."""


class UserError(Exception):
    """The input is at fault; the message names the file, line or key and what would be right."""
