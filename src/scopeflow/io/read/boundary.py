"""The boundary to files of others: whatever goes wrong behind it is one error about the file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from scopeflow.errors import MemoryLimitError, ScopeflowError, UnreadableFileError
from scopeflow.strict.values import excerpt

__all__ = ["understood"]

logger = logging.getLogger(__name__)


@contextmanager
def understood(what: str, frames: str = "") -> Iterator[None]:
    """Report what nobody expected while a file is opened or read.

    `what` names the file for people, `frames` the part that is read; without, headers are.

    Raises UnreadableFileError: in the place of any exception that was not raised on purpose; the
        log has it with its traceback, at the level of debugging.
    Raises MemoryLimitError: frames do not fit into memory.
    """
    try:
        yield
    except (ScopeflowError, ImportError, Warning):  # a missing package is no damage
        raise
    except MemoryError as error:
        if not frames:
            raise _damaged(what, frames, error) from error
        raise MemoryLimitError(
            f"{what}: {frames} do not fit into memory ({excerpt(str(error))}). Take fewer at a "
            "time (block_length), a part of the recording, or a machine with more memory"
        ) from error
    except Exception as error:
        raise _damaged(what, frames, error) from error


def _damaged(what: str, frames: str, error: Exception) -> UnreadableFileError:
    logger.debug("%s: what led to the error:", what, exc_info=error)
    try:
        reason = excerpt(f"{type(error).__name__}: {error}")
    except Exception:  # errors of others may have no text
        reason = type(error).__name__
    part = f"{frames} cannot be read; the file " if frames else ""
    return UnreadableFileError(
        f"{what}: {part}is damaged or not understood ({reason}). Restore it from the original, or "
        "save it again with the program that made it."
    )
