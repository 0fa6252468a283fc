"""The closed lists of names that options choose from; nothing here acts on data."""

from __future__ import annotations

from scopeflow.io.formats import _OptionName


class QualitySetting(_OptionName):
    """Finest pyramid level that is solved: quality 0, balanced 4, fast 6, custom ``min_level``."""

    QUALITY = "quality"
    BALANCED = "balanced"
    FAST = "fast"
    CUSTOM = "custom"


class ChannelNormalization(_OptionName):
    """One intensity range for all channels (joint), or one for each (separate)."""

    JOINT = "joint"
    SEPARATE = "separate"


class InterpolationMethod(_OptionName):
    """How raw frames are resampled between pixels."""

    NEAREST = "nearest"
    LINEAR = "linear"
    CUBIC = "cubic"


class ConstancyAssumption(_OptionName):
    """What stays constant between two frames: gradient (gc), brightness (gray), census (cs).

    Examples
    --------
    >>> ConstancyAssumption("brightness").value
    'gray'
    """

    GRADIENT = "gc"
    BRIGHTNESS = "gray"
    CENSUS = "cs"
    GC = "gc"
    GRAY = "gray"
    CS = "cs"


class NamingConvention(_OptionName):
    """``compensated.<ext>`` (default), or ``<input>_compensated.<ext>`` (batch)."""

    DEFAULT = "default"
    BATCH = "batch"
