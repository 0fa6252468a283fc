"""Which channels of a recording the cell workflow uses, and what it measures in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import field_validator, model_validator

from scopeflow.strict.model import StrictModel
from scopeflow.strict.values import Whole, is_integer

PHASE_DEFAULTS = ("area", "aspect_ratio")
FLUORESCENCE_DEFAULTS = ("intensity_mean", "intensity_total")


class ByKey(StrictModel):
    """Fields by attribute and by key."""

    def __getitem__(self, key: str) -> Any:
        if key not in type(self).model_fields:
            raise KeyError(key)
        return getattr(self, key)

    def __contains__(self, key: object) -> bool:
        return key in type(self).model_fields

    def keys(self) -> Iterator[str]:
        """Return the names of all fields."""
        return iter(type(self).model_fields)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a field by name, `default` where there is no such field."""
        return getattr(self, key) if key in type(self).model_fields else default

    def values(self) -> Iterator[Any]:
        """Return the values of all fields."""
        return (getattr(self, key) for key in self.keys())

    def items(self) -> Iterator[tuple[str, Any]]:
        """Return names and values of all fields."""
        return zip(self.keys(), self.values(), strict=True)


class ChannelSelection(ByKey):
    """One channel of the recording and the features measured in it.

    `channel`: number of the channel, from 0.
    `features`: names of features; None takes the defaults of the kind of channel. Sorted, each
        once.

    Examples
    --------
    >>> ChannelSelection(channel=1, features=["intensity_total", None, "intensity_total"]).features
    ('intensity_total',)
    """

    channel: Annotated[int, Whole(0)]
    features: tuple[str, ...] | None = None

    @field_validator("features", mode="before")
    @classmethod
    def _clean_features(cls, given: Any) -> Any:
        return None if given is None else _clean_names(given)


def _clean_names(given: Any) -> Any:
    """Sort names, each once; empty ones are left out."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list | tuple | set | frozenset):
        return () if given is None else given
    return tuple(sorted({str(name) for name in given if name is not None and str(name)}))


def _channel(given: Any) -> Any:
    """Accept a bare number, the list form ``[0, [area]]`` and a mapping."""
    if is_integer(given):
        return {"channel": given}
    if isinstance(given, list | tuple) and 1 <= len(given) <= 2:
        return {"channel": given[0], **({"features": given[1]} if len(given) == 2 else {})}
    return given


def with_features(given: Any, names: Any) -> Any:
    """Return a channel in any of its forms, with `names` where it names no features."""
    channel = _channel(given)
    if isinstance(channel, Mapping) and channel.get("features") is None:
        return {**channel, "features": names}
    return channel


class Channels(ByKey):
    """Which channels are phase contrast and fluorescence.

    `pc`: phase contrast, where cells are found; None finds no cells.
    `fl`: fluorescence; sorted, features of a channel that is named twice are merged.

    Examples
    --------
    >>> channels = Channels(pc=0, fl=[2, {"channel": 1, "features": ["intensity_total"]}])
    >>> [fl.channel for fl in channels.fl], channels.pc.features
    ([1, 2], ('area', 'aspect_ratio'))
    """

    pc: ChannelSelection | None = None
    fl: tuple[ChannelSelection, ...] = ()

    @field_validator("pc", mode="before")
    @classmethod
    def _read_pc(cls, given: Any) -> Any:
        return _channel(given)

    @field_validator("fl", mode="before")
    @classmethod
    def _read_fl(cls, given: Any) -> Any:
        if given is None:
            return ()
        if is_integer(given) or isinstance(given, Mapping):
            given = [given]
        return tuple(_channel(one) for one in given)

    @model_validator(mode="after")
    def _fill(self) -> Channels:
        pc = self.pc
        if pc is not None and pc.features is None:
            pc = ChannelSelection(channel=pc.channel, features=PHASE_DEFAULTS)
        merged: dict[int, set[str]] = {}
        for one in self.fl:
            names = FLUORESCENCE_DEFAULTS if one.features is None else one.features
            merged.setdefault(one.channel, set()).update(names)
        fl = tuple(ChannelSelection(channel=n, features=tuple(merged[n])) for n in sorted(merged))
        # Past validation, which would call this method again.
        self.__dict__.update(pc=pc, fl=fl)
        return self


class Features(ByKey):
    """Features of channels that name none themselves.

    `phase`, `fluorescence`: names of features of each kind of channel.

    Examples
    --------
    >>> Features(fluorescence=["intensity_total"]).fluorescence
    ('intensity_total',)
    """

    phase: tuple[str, ...] = PHASE_DEFAULTS
    fluorescence: tuple[str, ...] = FLUORESCENCE_DEFAULTS

    @field_validator("phase", "fluorescence", mode="before")
    @classmethod
    def _clean(cls, given: Any) -> Any:
        return _clean_names(given)
