"""May this output be continued, and with which settings? The one answer for all that is written.

An output has a settings file, written before anything else. Results of other settings are never
continued and never mixed with new ones; what decides the results but cannot be compared from one
run to the next, such as a function that holds a lock, is never continued either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scopeflow.engine.fingerprint import diff_settings, fingerprint
from scopeflow.engine.identity import NOT_IDENTIFIED
from scopeflow.errors import OutputExistsError
from scopeflow.io.files import load_json, save_json
from scopeflow.io.locations import Location

__all__ = ["Claim", "changed_settings"]

REPLACE = "Use resume=False (--no-resume) to replace it, or choose another output folder"


@dataclass(frozen=True)
class Claim:
    """One output and the settings that it is made with.

    `in_todays_form`: brings settings that an older version wrote into the form of `settings`, to
        name what differs; results count by the fingerprint alone.
    """

    target: Location
    settings_file: Location
    settings: dict[str, Any]
    in_todays_form: Callable[[dict[str, Any]], dict[str, Any]] = dict

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
        existing = load_json(self.settings_file)
        if existing is None:
            for reason in strangers():
                raise OutputExistsError(reason)
            return False
        if not resume:
            return True
        changes = changed_settings(self.in_todays_form(existing["settings"]), self.settings)
        if changes or existing.get("fingerprint") != self.mark:
            raise OutputExistsError(
                f"{self.target} was made with other settings ({'; '.join(changes)}). {REPLACE}"
            )
        return True

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
        if not (exists and resume):
            save_json(self.settings_file, {"fingerprint": self.mark, "settings": self.settings})
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
