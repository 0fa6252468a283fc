"""May this output be continued, and with which settings? The one answer for all that is written.

An output has a settings file, written before anything else. Results of other settings are never
continued and never mixed with new ones; what decides the results but cannot be compared from one
run to the next, such as a function that holds a lock, is never continued either.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from scopeflow.engine.fingerprint import diff_settings, fingerprint
from scopeflow.engine.identity import NOT_IDENTIFIED
from scopeflow.errors import OutputExistsError
from scopeflow.io.locations import Location
from scopeflow.io.state import DamagedStateError, State, Table, load_state, read_state, save_state

__all__ = ["Claim", "StoredSettings", "changed_settings"]

logger = logging.getLogger(__name__)

REPLACE = "Use resume=False (--no-resume) to replace it, or choose another output folder"


class StoredSettings(State):
    """The settings of an output as they stand in its settings file."""

    fingerprint: Annotated[str, Field(max_length=400)]
    settings: Table


@dataclass(frozen=True)
class Claim:
    """One output and the settings that it is made with.

    `in_todays_form`: brings settings that an older version wrote into the form of `settings`, to
        name what differs; results count by the fingerprint alone.
    `marks`: returns the fingerprints of the whole records beside the settings file, which tell
        what the results are of where that file is damaged.
    """

    target: Location
    settings_file: Location
    settings: dict[str, Any]
    in_todays_form: Callable[[dict[str, Any]], dict[str, Any]] = dict
    marks: Callable[[], Iterable[str]] = tuple

    @property
    def mark(self) -> str:
        """Fingerprint of the settings, for ledgers."""
        return fingerprint(self.settings)

    def check(self, *, resume: bool, strangers: Callable[[], Iterable[str]] = tuple) -> bool:
        """Refuse an output that may not be written; touches nothing.

        `resume`: continue a run of the same settings, else replace our own old results.
        `strangers`: returns why what stands there without settings of ours has to stay.
        Raises OutputExistsError: if results of other settings, or files that are not ours, stand
            there.
        """
        try:
            existing = read_state(self.settings_file, StoredSettings)
        except FileNotFoundError:
            for reason in strangers():
                raise OutputExistsError(reason) from None
            return False
        except DamagedStateError as damage:
            return self._check_damaged(damage, strangers, resume=resume)
        if not resume:
            return True
        changes = changed_settings(self.in_todays_form(existing.settings), self.settings)
        if changes or existing.fingerprint != self.mark:
            raise OutputExistsError(
                f"{self.target} was made with other settings ({'; '.join(changes)}). {REPLACE}"
            )
        return True

    def _check_damaged(
        self,
        damage: DamagedStateError,
        strangers: Callable[[], Iterable[str]],
        *,
        resume: bool,
    ) -> bool:
        # The file stands in our folder for this output, so the results are ours, and each record
        # says by itself which settings it is of: none of others can be taken for one of these.
        if not resume or next(iter(strangers()), None) is None:
            return True
        if any(mark == self.mark for mark in self.marks()):
            logger.warning("%s. Its records are of these settings: it is continued.", damage)
            return True
        raise OutputExistsError(
            f"{damage}, and no record proves that {self.target} is of these settings. {REPLACE}"
        )

    def take(
        self,
        *,
        resume: bool,
        discard: Callable[[], None],
        strangers: Callable[[], Iterable[str]] = tuple,
    ) -> str:
        """Take possession of the output: fresh, to be continued, or to be replaced."""
        exists = self.check(resume=resume, strangers=strangers)
        if exists and not resume:
            discard()
        if not (exists and resume and load_state(self.settings_file, StoredSettings)):
            stored = StoredSettings(fingerprint=self.mark, settings=self.settings)
            save_state(self.settings_file, stored)
        return self.mark


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each setting that differs or cannot be compared; none if all hold."""
    lost = {**_not_identified(old), **_not_identified(new)}
    changed = [line for line in diff_settings(old, new) if not line.startswith((*lost,))]
    return [*_few(changed), *lost.values()]


def _few(lines: list[str], most: int = 6) -> list[str]:
    # A function that is another one altogether differs in all that it consists of.
    more = len(lines) - most
    return lines if more <= 1 else [*lines[:most], f"and {more} more"]


def _not_identified(settings: Any, place: str = "") -> dict[str, str]:
    """Return why settings cannot be compared, by place."""
    found: dict[str, str] = {}
    if isinstance(settings, Mapping):
        if NOT_IDENTIFIED in settings:
            name, reason = settings.get("name", "it"), settings[NOT_IDENTIFIED]
            return {place: f"{place}: {name} {NOT_IDENTIFIED} in a later run: {reason}"}
        for name, one in settings.items():
            found |= _not_identified(one, f"{place}.{name}" if place else str(name))
    elif isinstance(settings, (list, tuple)):
        for n, one in enumerate(settings):
            found |= _not_identified(one, f"{place}[{n}]")
    return found
