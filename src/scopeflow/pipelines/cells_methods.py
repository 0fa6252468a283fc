"""Methods of segmentation by name, and what happens to frames before it; runs none of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from numpy.typing import NDArray

from scopeflow.config.cells import ProcessingParams
from scopeflow.errors import OptionsError, nearest_name
from scopeflow.kernels.cells_segmentation import LogStdOptions

__all__ = [
    "check_method",
    "method_facts",
    "preprocessor_facts",
    "preprocessors",
    "register_preprocessor",
    "register_segmentation",
    "segmentation_method",
]

ENTRY_POINTS = "scopeflow.segmentation"
TRACKING_METHODS = ("iou",)

_SEGMENTATION: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {}
_PREPROCESSORS: list[Any] = []


def register_segmentation(name: str, method: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Add a segmentation method; packages may also use the entry point ``scopeflow.segmentation``.

    Parameters
    ----------
    name : str
        For ``segmentation_method``.
    method : callable
        ``method(frame)`` returns integer labels of the same shape, 0 is background.

    Raises
    ------
    OptionsError
        If the name is taken.

    Examples
    --------
    >>> register_segmentation("bright", lambda frame: (frame > 100).astype(int))
    >>> "bright" in known_methods()
    True
    >>> del _SEGMENTATION["bright"]
    """
    if name in known_methods():
        raise OptionsError(f"a segmentation method {name!r} exists; choose another name")
    _SEGMENTATION[name] = method


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


def known_methods() -> list[str]:
    """Return the names of all segmentation methods."""
    named = {entry.name for entry in entry_points(group=ENTRY_POINTS)}
    return sorted({"logstd", *_SEGMENTATION, *named})


def check_method(params: ProcessingParams) -> None:
    """Refuse unknown methods.

    Raises
    ------
    OptionsError
        With the nearest known name.
    """
    for key, given, known in (
        ("segmentation_method", params.segmentation_method, known_methods()),
        ("tracking_method", params.tracking_method, list(TRACKING_METHODS)),
    ):
        if given not in known:
            raise OptionsError(
                f"params.{key}={given!r} is not known.{nearest_name(given, known)} "
                f"Known: {', '.join(known)}"
            )


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
    if name in _SEGMENTATION:
        return _SEGMENTATION[name]
    (entry,) = entry_points(group=ENTRY_POINTS, name=name)
    method: Callable[[NDArray[Any]], NDArray[Any]] = entry.load()
    return method


def method_facts(params: ProcessingParams) -> Any:
    """Return what the labels depend on, for their fingerprint."""
    method = segmentation_method(params)
    return (
        method if isinstance(method, LogStdOptions) else [params.segmentation_method, _who(method)]
    )


def preprocessor_facts() -> list[str]:
    """Return the identity of the preprocessors, for fingerprints."""
    return [
        f"{_who(one)} {sorted(vars(one).items()) if hasattr(one, '__dict__') else ''}"
        for one in _PREPROCESSORS
    ]


def _who(method: Any) -> str:
    named = method if hasattr(method, "__qualname__") else type(method)
    code = getattr(method, "__code__", None)
    return f"{named.__module__}.{named.__qualname__}{'' if code is None else code.co_code.hex()}"
