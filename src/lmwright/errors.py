"""The errors that a user can cause, and the one way in which a run is stopped from outside.

Each message says what was given, where, what is allowed and what to do. `assert` is kept for what only
this package can cause.
"""

from __future__ import annotations


class LmwrightError(ValueError):
    """Base of every error that input can cause; the command line prints it as one line and exits 1.

    told: another process of the same run prints it, so this one need not.
    """

    told = False


class ConfigError(LmwrightError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another; exits 2."""


class DataError(LmwrightError):
    """A corpus, document or shard cannot be used. The message starts with `path` or `path:line`."""


class CheckpointError(LmwrightError):
    """A model or training-state directory is missing, damaged, foreign or inconsistent."""


class UnsupportedError(LmwrightError):
    """The input is valid, but asks for something that lmwright does not implement."""


class RequestError(LmwrightError):
    """A generation request is malformed or exceeds a limit."""


class Interrupted(LmwrightError):
    """A run was stopped by a signal after its state was saved.

    signum: the signal received; the command line exits with 128 + signum, as shells do.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
