"""Every error that scopeflow raises on purpose.

Each class also derives from the builtin that a caller would expect, so
``except ValueError`` and ``except scopeflow.errors.InputError`` both work.
Messages have three parts: what was given, what is needed, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ScopeflowError(Exception):
    """Base of all errors that scopeflow raises on purpose."""


class InputError(ScopeflowError, ValueError):
    """Data or an argument that cannot be used: axes, shape, values."""


class InputNotFoundError(ScopeflowError, FileNotFoundError):
    """A file or folder that does not exist."""


class UnreadableFileError(ScopeflowError, OSError):
    """A file that exists but is empty, truncated, damaged or of an unknown format."""


class DatasetNotFoundError(ScopeflowError, LookupError):
    """A dataset, variable or channel that the file does not hold."""


class OptionsError(ScopeflowError, ValueError):
    """Options that contradict each other or name something that does not exist."""


class OutputExistsError(ScopeflowError, FileExistsError):
    """Results of other settings, or of another program, stand where ours would go."""


class OutputError(ScopeflowError, OSError):
    """The output cannot be written: no permission, no space, or inside the input."""


class OutputLockedError(OutputError):
    """Another run writes to the output; the message names it."""


class SessionError(ScopeflowError, RuntimeError):
    """Some recordings of a session failed; the others are finished.

    Attributes
    ----------
    failures : dict of str to str
        Reason of each, by name of the recording.
    """

    def __init__(self, message: str, failures: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.failures = failures or {}


class MemoryLimitError(ScopeflowError, MemoryError):
    """One task would need more memory than a worker has."""


class CallbackWarning(UserWarning, RuntimeWarning):
    """A function of the user failed while a run goes on without it."""


def nearest_name(given: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known name, else an empty string.

    Examples
    --------
    >>> nearest_name("alhpa", ["alpha", "eta"])
    " Did you mean 'alpha'?"
    """
    matches = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""
