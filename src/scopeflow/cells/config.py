"""Options of the cell workflow: channels and parameters with bounds; opens no recording."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from scopeflow.cells.ranges import parse_ranges
from scopeflow.errors import InputNotFoundError, OptionsError, nearest_name

__all__ = ["ChannelSelection", "Channels", "ProcessingParams", "WorkflowConfig", "load_config"]

logger = logging.getLogger(__name__)

PHASE_DEFAULTS = ("area", "aspect_ratio")
FLUORESCENCE_DEFAULTS = ("intensity_mean", "intensity_total")

Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    """Fields by attribute and by key; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

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

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            raise OptionsError(_explain(error, type(self))) from None


class ChannelSelection(_Strict):
    """One channel of the recording and the features measured in it.

    Parameters
    ----------
    channel : int
        Number of the channel, from 0.
    features : list of str, optional
        Names of features; None takes the defaults of the kind of channel. Sorted, each once.

    Examples
    --------
    >>> ChannelSelection(channel=1, features=["intensity_total", None, "intensity_total"]).features
    ('intensity_total',)
    """

    channel: int = Field(ge=0)
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
    if isinstance(given, int) and not isinstance(given, bool):
        return {"channel": given}
    if isinstance(given, list | tuple) and 1 <= len(given) <= 2:
        return {"channel": given[0], **({"features": given[1]} if len(given) == 2 else {})}
    return given


def _with_features(given: Any, names: Any) -> Any:
    channel = _channel(given)
    if isinstance(channel, Mapping) and channel.get("features") is None:
        return {**channel, "features": names}
    return channel


class Channels(_Strict):
    """Which channels are phase contrast and fluorescence.

    Parameters
    ----------
    pc : int, mapping or ChannelSelection, optional
        Phase contrast, where cells are found; None finds no cells.
    fl : list of the same, optional
        Fluorescence; sorted, features of a channel that is named twice are merged.

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
        if isinstance(given, int | Mapping):
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


class Features(_Strict):
    """Features of channels that name none themselves.

    Parameters
    ----------
    phase, fluorescence : list of str
        Names of features of each kind of channel.

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


class ProcessingParams(_Strict):
    """Parameters of a cell workflow, by attribute and by key.

    Parameters
    ----------
    fovs : str or list of int
        ``"all"``, range text such as ``"0-5, 7"``, or numbers from 0.
    batch_size : int
        Fields of view (FOVs) that are worked on together, at least 1.
    n_workers : int
        Tasks at the same time where no client is given, at least 1.
    copy_only : bool
        Stop after the images are copied.
    convert : {"exact", "clip", "scale"}
        What happens to pixels that are no integers from 0 to 65535: an error; rounding and clipping
        with a warning; or, channel by channel, one factor for the whole recording that makes its
        largest value 65535, written to ``processing_config.yaml`` as ``count_factors``.
    z : int or "max", optional
        Plane of a z stack, or the maximum over all; by default the first, with a warning.
    segmentation_method, tracking_method : str
        ``logstd`` or ``cellpose``, ``iou`` or ``laptrack``, or a registered name.
    segmentation_options, tracking_options : mapping
        Options of methods that have some: the keyword arguments of their functions. ``iou`` has
        ``min_size`` and ``max_size``, inclusive bounds of the area of what it links, px.
    drift_correction : {"none", "rigid", "flow"}
        Whether links take into account how the field of view moved since the frame before: by one
        shift, or by an optical flow. Images and positions stay as they were recorded.
    logstd_window_size : int
        Side of the window of the local standard deviation, px, odd, at least 3.
    threshold_method : {"valley", "mode_3sigma", "otsu"}
        How the threshold of the logarithm of the local standard deviation is found; ``otsu`` is the
        steadiest from frame to frame where the valley is shallow.
    morph_size : int
        Diameter of the structuring element, px, odd.
    morph_shape : {"disk", "square"}
        Its shape.
    morph_iterations : int
        Repetitions in closing and opening.
    min_object_size, max_object_size : int
        Inclusive bounds of the area of a cell, px.
    threshold_offset : float
        Added to the threshold; negative finds fainter cells, and more of their edges.
    object_erosion : int
        Pixels that are taken from the edge of objects, as the window widens them.
    split : {"none", "distance", "bright", "dark"}
        How objects of several cells are cut: by the distance to their edge, or where brightness
        has a valley (``bright``: cells are brighter than what lies between them) or a ridge.
    split_smoothing : float
        Standard deviation of the Gaussian over distance or brightness, px.
    split_depth : float, optional
        Least depth of a valley that cuts: px for ``distance``, share of the range of the smoothed
        frame else. By default 0.5 px and 0.04.
    min_iou : float
        Regions are linked from this intersection over union on, 0 to 1.
    iou : {"bbox", "mask"}
        Whether bounding boxes or masks are compared.
    min_frames : int
        Cells seen in fewer frames are left out of the traces.
    border_margin : int
        Cells that come nearer to the edge of the frame, px, are left out of the traces; 0 is off.
    background_weight : float
        Share of the background that is subtracted; clipped to 0..1.
    background_tile_size : int
        Side of the tiles whose medians make the background, px, at least 16.
    background_dilation : int
        Radius by which cells are grown before they are taken out of the background, px.
    frame_interval : float
        Minutes from frame to frame, where neither `time_mapping` nor the file has times.
    time_mapping : dict of int to float, optional
        Minutes by frame.
    crop_min_frames : int
        Cells seen in fewer frames get no crops.
    crop_padding : int
        Pixels around the bounding box that a crop shows; ``bboxes`` stay tight, and a cell then
        begins at row and column `crop_padding`.
    crop_context : bool
        Crops show what lies around the cell, else 0 there; the mask tells.
    corrected_crops : bool
        Further crops ``fl_corrected_ch_*`` without the background, not below 0, for viewing.
    mask_margin : int
        Pixels by which masks grow (or shrink, below 0) for features of fluorescence, -100 to 100,
        in a square. Masks grow over background alone, and not where two cells would meet; a cell
        that would vanish keeps its mask.
    features : mapping
        ``phase`` and ``fluorescence``: features of channels that name none themselves.

    Raises
    ------
    OptionsError
        From :class:`WorkflowConfig`: the key, the value and its bound.

    Examples
    --------
    >>> params = ProcessingParams(min_frames=5)
    >>> params.min_frames, params.get("min_frames", 30), params["morph_size"]
    (5, 5, 7)
    """

    fovs: str | tuple[int, ...] = "all"
    batch_size: int = Field(default=2, ge=1)
    n_workers: int = Field(default=2, ge=1)
    copy_only: bool = False
    convert: Literal["exact", "clip", "scale"] = "exact"
    z: Annotated[int, Field(ge=0)] | Literal["max"] | None = None
    segmentation_method: str = "logstd"
    tracking_method: str = "iou"
    segmentation_options: dict[str, Any] = Field(default_factory=dict)
    tracking_options: dict[str, Any] = Field(default_factory=dict)
    drift_correction: Literal["none", "rigid", "flow"] = "none"
    logstd_window_size: int = Field(default=3, ge=3)
    threshold_method: Literal["valley", "mode_3sigma", "otsu"] = "valley"
    morph_size: int = Field(default=7, ge=1)
    morph_shape: Literal["disk", "square"] = "disk"
    morph_iterations: int = Field(default=3, ge=0)
    min_object_size: int = Field(default=50, ge=1)
    max_object_size: int = Field(default=10000, ge=1)
    threshold_offset: float = Field(default=0.0, allow_inf_nan=False)
    object_erosion: int = Field(default=0, ge=0)
    split: Literal["none", "distance", "bright", "dark"] = "none"
    split_smoothing: float = Field(default=1.5, ge=0, le=100)
    split_depth: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    min_iou: float = Field(default=0.1, ge=0, le=1)
    iou: Literal["bbox", "mask"] = "bbox"
    min_frames: int = Field(default=30, ge=1)
    border_margin: int = Field(default=50, ge=0)
    background_weight: float = 1.0
    background_tile_size: int = Field(default=100, ge=16)
    background_dilation: int = Field(default=10, ge=0)
    frame_interval: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    time_mapping: dict[int, float] | None = None
    crop_min_frames: int = Field(default=1, ge=1)
    crop_padding: int = Field(default=0, ge=0)
    crop_context: bool = False
    corrected_crops: bool = False
    mask_margin: int = Field(default=0, ge=-100, le=100)
    features: Features = Field(default_factory=Features)

    @field_validator("fovs", mode="before")
    @classmethod
    def _read_fovs(cls, given: Any) -> Any:
        if given is None or (isinstance(given, str) and given.strip().lower() in ("", "all")):
            return "all"
        return parse_ranges(given, "numbers")

    @field_validator("z", mode="before")
    @classmethod
    def _plane(cls, given: Any) -> Any:
        if given is None or given == "max" or (type(given) is int and given >= 0):
            return given
        raise ValueError("write the number of a plane from 0, or max")

    @field_validator("time_mapping", mode="before")
    @classmethod
    def _times(cls, given: Any) -> Any:
        if given is None:
            return given
        try:
            times = {int(str(frame)): float(minutes) for frame, minutes in given.items()}
        except (AttributeError, TypeError, ValueError):
            times = {}
        if not times or min(times) < 0 or not all(map(math.isfinite, times.values())):
            raise ValueError("write frames from 0 and their minutes, such as {0: 0.0, 1: 5.5}")
        return times

    @field_validator("logstd_window_size", "morph_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"must be odd, such as {value + 1}")
        return value

    @field_validator("background_weight", mode="before")
    @classmethod
    def _weight(cls, given: Any) -> float:
        try:
            weight = float(given)
        except (TypeError, ValueError):
            weight = math.nan
        if math.isnan(weight):
            logger.warning("background_weight: %r is no number; 1.0 is used", given)
            return 1.0
        if not 0.0 <= weight <= 1.0:
            logger.warning("background_weight: %g is outside 0..1 and was clipped", weight)
        return min(max(weight, 0.0), 1.0)

    @model_validator(mode="after")
    def _ordered(self) -> ProcessingParams:
        if self.max_object_size < self.min_object_size:
            raise ValueError(
                f"max_object_size={self.max_object_size} is below "
                f"min_object_size={self.min_object_size}"
            )
        return self


class WorkflowConfig(_Strict):
    """Channels and parameters of a cell workflow; what ``processing_config.yaml`` holds.

    Parameters
    ----------
    channels : mapping or Channels
        See :class:`Channels`.
    params : mapping or ProcessingParams
        See :class:`ProcessingParams`.
    metadata : mapping, optional
        Facts of an earlier run, kept for people; never used.

    Raises
    ------
    OptionsError
        Unknown names (with the nearest known one) and values outside their bounds.

    Examples
    --------
    >>> config = WorkflowConfig(channels={"pc": 0, "fl": [1]}, params={"min_frames": 5})
    >>> config.params.min_frames, config.channels.fl[0].channel
    (5, 1)
    """

    channels: Channels = Field(default_factory=Channels)
    params: ProcessingParams = Field(default_factory=ProcessingParams)
    metadata: dict[str, Any] = Field(default_factory=dict)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise OptionsError(_explain(error, type(self))) from None

    @model_validator(mode="before")
    @classmethod
    def _default_features(cls, given: Any) -> Any:
        """Give the features of `params` to channels that name none."""
        if not isinstance(given, Mapping) or not isinstance(given.get("channels"), Mapping):
            return given
        params = given.get("params")
        chosen = params.get("features") if isinstance(params, Mapping | ProcessingParams) else None
        if chosen is None or not isinstance(chosen, Mapping | Features):
            return given
        channels = dict(given["channels"])
        fl = channels.get("fl")
        fl = [fl] if isinstance(fl, int | Mapping) else fl
        if channels.get("pc") is not None:
            channels["pc"] = _with_features(channels["pc"], chosen.get("phase"))
        if isinstance(fl, list | tuple):
            channels["fl"] = [_with_features(one, chosen.get("fluorescence")) for one in fl]
        return {**given, "channels": channels}

    def to_yaml(self, metadata: Mapping[str, Any] | None = None) -> str:
        """Return the text of ``processing_config.yaml``.

        Parameters
        ----------
        metadata : mapping, optional
            Facts of the recording, in the place of those kept here.
        """
        plain = self.model_dump(mode="json")
        plain["metadata"] = dict(self.metadata if metadata is None else metadata)
        order = {name: plain[name] for name in ("metadata", "channels", "params")}
        return yaml.safe_dump(order, sort_keys=False, allow_unicode=True)


def load_config(path: str | os.PathLike[str]) -> WorkflowConfig:
    r"""Read ``processing_config.yaml``.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    WorkflowConfig
        Checked.

    Raises
    ------
    InputNotFoundError, OptionsError
        If it is missing, is no YAML mapping, or holds unknown names or bad values.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "processing_config.yaml"
    >>> _ = file.write_text("channels: {pc: [0, [area]]}\nparams: {morph_size: 5}\n")
    >>> load_config(file).params.morph_size
    5
    """
    file = Path(path)
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputNotFoundError(
            f"{file}: there is no such configuration; check the path"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise OptionsError(f"{file}: cannot be read as YAML: {reason}") from None
    if not isinstance(read, dict):
        raise OptionsError(f"{file}: holds no mapping with channels: and params:")
    try:
        return WorkflowConfig(**{str(key): value for key, value in read.items()})
    except OptionsError as error:
        raise OptionsError(f"{file}: {error}") from None


def _known_names(model: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    nested: dict[str, type[BaseModel]] = {
        "channels": Channels,
        "params": ProcessingParams,
        "features": Features,
        "pc": ChannelSelection,
    }
    nested["fl"] = ChannelSelection
    for part in place:
        model = nested.get(part, model) if isinstance(part, str) else model
    return list(model.model_fields)


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    lines = []
    for problem in error.errors():
        place = tuple(problem["loc"])
        name = ".".join(str(part) for part in place)
        if problem["type"] == "extra_forbidden":
            known = _known_names(model, place[:-1])
            hint = nearest_name(str(place[-1]), known)
            lines.append(f"{name}: there is no such key.{hint or ' Known: ' + ', '.join(known)}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            message = message[0].lower() + message[1:]
            given = "" if isinstance(problem["input"], BaseModel | dict) else problem["input"]
            lines.append(f"{name}={given!r}: {message}" if given != "" else f"{name}: {message}")
    return "; ".join(lines)
