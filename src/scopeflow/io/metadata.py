"""Facts about a recording besides its pixels, and where each fact was read."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

from scopeflow.strict.values import shortened

__all__ = ["VideoMetadata", "micrometres", "seconds", "stated_number"]

logger = logging.getLogger(__name__)

# Spellings of length units in OME, ImageJ and NGFF files, in micrometres.
_LENGTH_UNITS = {
    "nm": 1e-3,
    "nanometer": 1e-3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "\\u00b5m": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "inch": 25400.0,
}
_TIME_UNITS = {
    "ms": 1e-3,
    "millisecond": 1e-3,
    "µs": 1e-6,
    "us": 1e-6,
    "microsecond": 1e-6,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
}


@dataclass(frozen=True)
class VideoMetadata:
    """What a file says about its recording.

    `pixel_size_um`: height and width ``(y, x)`` of one pixel in micrometres.
    `frame_times_s`: time of each frame in seconds, one for every frame.
    `frame_interval_s`: time between frames in seconds.
    `channel_names`: one name for each channel.
    `origins`: pairs ``(fact, origin)``, such as ``("axes", "OME-XML")``.

    Examples
    --------
    >>> VideoMetadata(pixel_size_um=(0.5, 0.5), origins=(("pixel_size", "OME-XML"),)).origin(
    ...     "pixel_size")
    'OME-XML'
    """

    pixel_size_um: tuple[float, float] | None = None
    frame_times_s: tuple[float, ...] | None = None
    frame_interval_s: float | None = None
    channel_names: tuple[str, ...] | None = None
    origins: tuple[tuple[str, str], ...] = ()

    def origin(self, fact: str) -> str:
        """Return where a fact was read, such as ``"axes"``, or an empty string where unknown."""
        return dict(self.origins).get(fact, "")


def stated_number(value: Any, fact: str, name: str) -> float:
    """Return a number that a file states; 0 where it states none, or none above zero.

    What is no number, such as ``"0,5"`` or ``"fast"``, is never guessed: the log has a warning, and
    the fact is unknown. `fact` and `name`: which one, and of which file.

    Examples
    --------
    >>> stated_number("0.5", "PhysicalSizeX", "movie.ome.tif")
    0.5
    >>> stated_number("0,5", "PhysicalSizeX", "movie.ome.tif")
    0.0
    """
    if value is None or value == "":
        return 0.0
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if number == 0:  # how programs say that they do not know
        return 0.0
    if not (math.isfinite(number) and number > 0):
        logger.warning(
            "%s: %s is %s, which is no number above zero; it is taken as unknown.",
            name,
            fact,
            shortened(value),
        )
        return 0.0
    return number


def micrometres(value: float, unit: str) -> float | None:
    """Convert a length to micrometres; None for an unknown unit or a length not above zero.

    Examples
    --------
    >>> micrometres(650.0, "nm")
    0.65
    """
    return _converted(value, unit, _LENGTH_UNITS)


def seconds(value: float, unit: str) -> float | None:
    """Convert a duration to seconds, as :func:`micrometres`."""
    return _converted(value, unit, _TIME_UNITS)


def _converted(value: float, unit: str, units: dict[str, float]) -> float | None:
    factor = units.get(unit.strip().lower())
    if factor is None or not value > 0:
        return None
    converted = value * factor
    return converted if 0 < converted < math.inf else None
