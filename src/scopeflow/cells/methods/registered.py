"""Methods of segmentation and tracking, and what happens to frames before; runs none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from scopeflow.cells.config import ProcessingParams, WorkflowConfig
from scopeflow.cells.methods.cellpose import segment_cellpose
from scopeflow.cells.methods.features import feature_facts, resolve_features
from scopeflow.cells.methods.laptrack import link_laptrack
from scopeflow.cells.methods.registry import Registry, function_facts
from scopeflow.cells.methods.segmentation import LogStdOptions
from scopeflow.cells.methods.tracking import link_iou
from scopeflow.errors import OptionsError
from scopeflow.strict.values import shortened

__all__ = [
    "MethodFacts",
    "Tracker",
    "check_method",
    "identify_methods",
    "method_facts",
    "preprocessors",
    "register_preprocessor",
    "register_segmentation",
    "register_tracking",
    "segmentation_method",
    "tracker",
    "tracking_facts",
]

_SEGMENTATION = Registry(
    "segmentation", {"logstd": None, "cellpose": segment_cellpose}, {"cellpose": "cellpose"}
)
_TRACKING = Registry(
    "tracking", {"iou": link_iou, "laptrack": link_laptrack}, {"laptrack": "laptrack"}
)
# What the workflow itself gives to trackers of tables; no options of users.
_GIVEN = ("min_iou", "overlaps", "came_from")
_PREPROCESSORS: list[Any] = []


def register_segmentation(name: str, method: Callable[..., NDArray[Any]]) -> None:
    """Add a segmentation method; packages may use entry points ``scopeflow.cells.segmentation``.

    Parameters
    ----------
    name : str
        For ``segmentation_method``.
    method : callable
        ``method(frame, **segmentation_options)`` returns integer labels of the same shape, 0 is
        background.

    Raises
    ------
    OptionsError
        If the name is taken.

    Examples
    --------
    >>> register_segmentation("bright", lambda frame, *, least=100: (frame > least).astype(int))
    >>> "bright" in _SEGMENTATION.names()
    True
    >>> del _SEGMENTATION.registered["bright"]
    """
    _SEGMENTATION.register(name, method)


def register_tracking(name: str, method: Callable[..., Any]) -> None:
    """Add a tracking method; packages may also use the entry points ``scopeflow.cells.tracking``.

    Parameters
    ----------
    name : str
        For ``tracking_method``.
    method : callable
        ``method(labels, **tracking_options)`` takes the objects of all frames, ``(T, H, W)``
        uint16, numbered in each frame by itself, and returns an array of the same shape in which
        whole objects have the numbers of their cells, 0 leaves one out; or that and a mapping of
        cells to their parents. The stack of one field of view is in memory.

    Raises
    ------
    OptionsError
        If the name is taken.

    Examples
    --------
    >>> register_tracking("nothing_moves", lambda labels: labels)
    >>> del _TRACKING.registered["nothing_moves"]
    """
    _TRACKING.register(name, method)


def register_preprocessor(preprocessor: Any) -> None:
    """Let an object change phase-contrast frames before segmentation, in order of registration.

    Stored images and measured intensities stay as they are.

    Parameters
    ----------
    preprocessor : object
        With ``process(image) -> image`` of the same shape.

    Raises
    ------
    OptionsError
        If it has no such method.

    Examples
    --------
    >>> register_preprocessor(3)
    Traceback (most recent call last):
    scopeflow.errors.OptionsError: int has no method process(image); a preprocessor needs one
    """
    if not callable(getattr(preprocessor, "process", None)):
        raise OptionsError(
            f"{type(preprocessor).__name__} has no method process(image); a preprocessor needs one"
        )
    _PREPROCESSORS.append(preprocessor)


def preprocessors() -> tuple[Any, ...]:
    """Return the registered preprocessors."""
    return tuple(_PREPROCESSORS)


def check_method(params: ProcessingParams) -> None:
    """Refuse unknown methods and options, and those whose package is not installed.

    Raises OptionsError: with the nearest known name.
    """
    _SEGMENTATION.get(params.segmentation_method, params.segmentation_options)
    tracker(params)


@dataclass(frozen=True)
class Tracker:
    """A tracking method with its parameters.

    `of_tables` are those that take region tables; others are ``method(labels) -> labels`` or
    ``(labels, parents)`` on arrays ``(T, H, W)``.
    """

    name: str
    min_iou: float
    method: Callable[..., Any] = link_iou
    of_tables: bool = True


def tracker(params: ProcessingParams) -> Tracker:
    """Return the chosen tracking method."""
    name, options = params.tracking_method, params.tracking_options
    reserved = [key for key in options if key in _GIVEN]
    if reserved:
        raise OptionsError(f"params.tracking_options: set params.{reserved[0]} instead")
    method = _TRACKING.get(name, options)
    assert method is not None
    if name == "iou":
        _check_sizes(options)
    return Tracker(name, params.min_iou, method, name in _TRACKING.built_in)


def _check_sizes(options: Mapping[str, Any]) -> None:
    least = options.get("min_size", 1)
    for name, value, bound in (
        ("min_size", least, 1),
        ("max_size", options.get("max_size"), least),
    ):
        if name in options and (type(value) is not int or value < bound):
            raise OptionsError(
                f"params.tracking_options: {name}={shortened(value)} has to be a number of "
                "pixels of at "
                f"least {bound}"
            )


def tracking_facts(params: ProcessingParams) -> list[Any]:
    """Return what numbers of cells depend on, for their fingerprint."""
    name, options = params.tracking_method, params.tracking_options
    return [_TRACKING.facts(name, options), params.min_iou, params.iou, params.drift_correction]


def segmentation_method(
    params: ProcessingParams,
) -> LogStdOptions | Callable[[NDArray[Any]], NDArray[Any]]:
    """Return the chosen method."""
    name = params.segmentation_method
    if name == "logstd":
        return LogStdOptions(
            params.logstd_window_size,
            params.threshold_method,
            params.morph_size,
            params.morph_shape,
            params.morph_iterations,
            params.min_object_size,
            params.max_object_size,
            params.threshold_offset,
            params.object_erosion,
            params.split,
            params.split_smoothing,
            params.split_depth,
        )
    method = _SEGMENTATION.get(name, params.segmentation_options)
    assert method is not None
    return method


def method_facts(params: ProcessingParams) -> Any:
    """Return what the labels depend on, for their fingerprint."""
    method = segmentation_method(params)
    if isinstance(method, LogStdOptions):
        return method
    return _SEGMENTATION.facts(params.segmentation_method, params.segmentation_options)


@dataclass(frozen=True)
class MethodFacts:
    """What the chosen methods are, in the form that fingerprints hold.

    Found once for a plan: what cannot be identified is another one whenever it is looked at.
    """

    segmentation: Any
    preprocessors: list[Any]
    tracking: list[Any]
    features: list[Any]

    def by_name(self) -> dict[str, Any]:
        """Return what methods are apart from their options, by kind and name."""
        features: dict[str, Any] = {}
        for n, (name, facts) in enumerate(self.features):
            # Phase contrast and fluorescence may have different ones of one name.
            same = features.get(name, facts) == facts
            features[name if same else f"{name} ({n})"] = facts
        return {
            "segmentation": _named(self.segmentation),
            "preprocessors": {str(n): one for n, one in enumerate(self.preprocessors)},
            "tracking": _named(self.tracking[0]) if self.tracking else {},
            "features": features,
        }


def _named(facts: Any) -> dict[str, Any]:
    if not isinstance(facts, list):  # none, or logstd, which is its options
        return {}
    name, known, _, package = facts
    return {name: known, **({} if package is None else {"version of the package": package})}


def identify_methods(config: WorkflowConfig) -> MethodFacts:
    """Return what the results of the chosen methods depend on.

    Raises OptionsError: for a feature that is not known, with its channel.
    """
    channels, params = config.channels, config.params
    chosen = [(channels.pc, "phase"), *((fl, "fluorescence") for fl in channels.fl)]
    features: list[Any] = []
    for one, kind in chosen:
        if one is not None:
            try:
                found = resolve_features(one.features or (), kind)
            except OptionsError as error:
                raise OptionsError(f"features of channel {one.channel}: {error}") from None
            features += [[name, feature_facts(name, function)] for name, function in found.items()]
    if channels.pc is None:
        return MethodFacts(None, [], [], features)
    before = [function_facts(one) for one in _PREPROCESSORS]
    return MethodFacts(method_facts(params), before, tracking_facts(params), features)
