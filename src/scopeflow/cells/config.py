"""Options of the cell workflow: channels and parameters with bounds; opens no recording."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from scopeflow.cells.channels import ByKey, Channels, ChannelSelection, Features, with_features
from scopeflow.cells.ranges import parse_ranges
from scopeflow.errors import InputNotFoundError, OptionsError
from scopeflow.strict.model import Count, Flag
from scopeflow.strict.text import TextError, file_text, read_yaml
from scopeflow.strict.values import Number, Whole, is_integer, plain

__all__ = ["ChannelSelection", "Channels", "ProcessingParams", "WorkflowConfig", "load_config"]

logger = logging.getLogger(__name__)


class ProcessingParams(ByKey):
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
        The key, the value and its bound.

    Examples
    --------
    >>> params = ProcessingParams(min_frames=5)
    >>> params.min_frames, params.get("min_frames", 30), params["morph_size"]
    (5, 5, 7)
    """

    fovs: str | tuple[int, ...] = "all"
    batch_size: Count = 2
    n_workers: Count = 2
    copy_only: Flag = False
    convert: Literal["exact", "clip", "scale"] = "exact"
    z: int | Literal["max"] | None = None
    segmentation_method: str = "logstd"
    tracking_method: str = "iou"
    segmentation_options: dict[str, Any] = Field(default_factory=dict)
    tracking_options: dict[str, Any] = Field(default_factory=dict)
    drift_correction: Literal["none", "rigid", "flow"] = "none"
    logstd_window_size: Annotated[int, Whole(3)] = 3
    threshold_method: Literal["valley", "mode_3sigma", "otsu"] = "valley"
    morph_size: Count = 7
    morph_shape: Literal["disk", "square"] = "disk"
    morph_iterations: Annotated[int, Whole(0)] = 3
    min_object_size: Count = 50
    max_object_size: Count = 10000
    threshold_offset: Annotated[float, Number()] = 0.0
    object_erosion: Annotated[int, Whole(0)] = 0
    split: Literal["none", "distance", "bright", "dark"] = "none"
    split_smoothing: Annotated[float, Number(least=0, most=100)] = 1.5
    split_depth: Annotated[float, Number(above=0)] | None = None
    min_iou: Annotated[float, Number(least=0, most=1)] = 0.1
    iou: Literal["bbox", "mask"] = "bbox"
    min_frames: Count = 30
    border_margin: Annotated[int, Whole(0)] = 50
    background_weight: float = 1.0
    background_tile_size: Annotated[int, Whole(16)] = 100
    background_dilation: Annotated[int, Whole(0)] = 10
    frame_interval: Annotated[float, Number(above=0)] = 10.0
    time_mapping: dict[int, float] | None = None
    crop_min_frames: Count = 1
    crop_padding: Annotated[int, Whole(0)] = 0
    crop_context: Flag = False
    corrected_crops: Flag = False
    mask_margin: Annotated[int, Whole(-100, 100)] = 0
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
        given = plain(given)
        if given is None or given == "max" or (is_integer(given) and given >= 0):
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


class WorkflowConfig(ByKey):
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

    if TYPE_CHECKING:
        # Values in any form that a rule accepts, not only those of the fields.
        def __init__(self, **data: Any) -> None: ...

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
        fl = [fl] if is_integer(fl) or isinstance(fl, Mapping) else fl
        if channels.get("pc") is not None:
            channels["pc"] = with_features(channels["pc"], chosen.get("phase"))
        if isinstance(fl, list | tuple):
            channels["fl"] = [with_features(one, chosen.get("fluorescence")) for one in fl]
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
        read = read_yaml(file_text(file))
    except FileNotFoundError:
        raise InputNotFoundError(
            f"{file}: there is no such configuration; check the path"
        ) from None
    except (TextError, OSError) as error:
        raise OptionsError(f"{file}: cannot be read as YAML: {error}") from None
    if not isinstance(read, dict):
        raise OptionsError(f"{file}: holds no mapping with channels: and params:")
    try:
        return WorkflowConfig(**{str(key): value for key, value in read.items()})
    except OptionsError as error:
        raise OptionsError(f"{file}: {error}") from None
