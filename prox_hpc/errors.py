"""Errors that are the user's to mend.

Everything a user can get wrong is told in one line that names the path or key, the value and the remedy, and ends
the command with exit status 2 before anything is queued. All other exceptions are ours and keep their traceback.
"""

EXIT_USER_ERROR = 2


class UserError(Exception):
    """A mistake the user can mend; `str(error)` is one line: what, where, and what to do."""
