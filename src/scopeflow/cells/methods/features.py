"""Numbers measured in the cells of one frame, and the registries that name them; no files."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from scopeflow.cells.methods.regionprops import INTENSITY_FEATURES, SHAPE_FEATURES
from scopeflow.cells.methods.registry import function_facts
from scopeflow.errors import OptionsError, nearest_name
from scopeflow.strict.values import shortened

__all__ = [
    "FLUORESCENCE_FEATURES",
    "PHASE_FEATURES",
    "FeatureContext",
    "grow_labels",
    "measure_frame",
    "register_feature",
    "resolve_features",
]

logger = logging.getLogger(__name__)

Feature = Callable[..., float]


@dataclass(frozen=True)
class FeatureContext:
    """What a feature function may look at besides its image and mask.

    `image`: ``(h, w)``, counts inside the bounding box of the cell.
    `mask`: ``(h, w)`` bool, pixels of the cell.
    `background`: float32, background in counts; None for phase contrast.
    `bbox`: ``y0, x0, y1, x1``, half-open.
    """

    image: NDArray[Any]
    mask: NDArray[np.bool_]
    background: NDArray[np.float32] | None = None
    background_weight: float = 0.0
    cell: int = 0
    frame: int = 0
    bbox: tuple[int, int, int, int] = (0, 0, 0, 0)


def _area(image: Any, mask: NDArray[np.bool_], context: FeatureContext) -> float:  # noqa: ARG001
    return float(np.count_nonzero(mask))


def _moments(y: NDArray[Any], x: NDArray[Any]) -> tuple[float, float, float]:
    return float(np.var(y)), float(np.var(x)), float(np.mean((y - y.mean()) * (x - x.mean())))


def _axis_ratio(
    yy: NDArray[np.float64], xx: NDArray[np.float64], xy: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Ratio of the axes of the ellipse of the same second moments; NaN for lines and points."""
    mean, half = (yy + xx) / 2.0, np.sqrt(((yy - xx) / 2.0) ** 2 + xy**2)
    major, minor = mean + half, mean - half
    flat = minor <= 1e-9 * np.maximum(major, 1e-300)
    ratio: NDArray[np.float64] = np.sqrt(
        np.where(flat, np.nan, major) / np.where(flat, np.nan, minor)
    )
    return ratio


def _aspect_ratio(image: Any, mask: NDArray[np.bool_], context: FeatureContext) -> float:  # noqa: ARG001
    yy, xx, xy = _moments(*np.nonzero(mask))
    return float(_axis_ratio(np.array(yy), np.array(xx), np.array(xy)))


def _centroid_x(image: Any, mask: NDArray[np.bool_], context: FeatureContext) -> float:  # noqa: ARG001
    return float(np.nonzero(mask)[1].mean()) + context.bbox[1]


def _centroid_y(image: Any, mask: NDArray[np.bool_], context: FeatureContext) -> float:  # noqa: ARG001
    return float(np.nonzero(mask)[0].mean()) + context.bbox[0]


def _intensity_total(image: Any, mask: NDArray[np.bool_], context: FeatureContext) -> float:
    total = float(np.sum(image[mask], dtype=np.float64))
    if context.background is None:
        return total
    return total - context.background_weight * float(
        np.sum(context.background[mask], dtype=np.float64)
    )


def _intensity_mean(image: Any, mask: NDArray[np.bool_], context: FeatureContext) -> float:
    return _intensity_total(image, mask, context) / float(np.count_nonzero(mask))


PHASE_FEATURES: dict[str, Feature] = {
    "area": _area,
    "aspect_ratio": _aspect_ratio,
    "centroid_x": _centroid_x,
    "centroid_y": _centroid_y,
    **SHAPE_FEATURES,
}
"""Features of the phase-contrast channel by name; add a function ``f(image, mask, context)``."""

FLUORESCENCE_FEATURES: dict[str, Feature] = {
    "intensity_mean": _intensity_mean,
    "intensity_total": _intensity_total,
    **INTENSITY_FEATURES,
}
"""Features of fluorescence channels by name; add a function ``f(image, mask, context)``."""


_BUILT_IN = {"phase": dict(PHASE_FEATURES), "fluorescence": dict(FLUORESCENCE_FEATURES)}


def feature_facts(name: str, function: Feature) -> Any:
    """Return what the values of a feature depend on; built-in ones are known by their name."""
    if any(functions.get(name) is function for functions in _BUILT_IN.values()):
        return "built in"
    return function_facts(function)


def register_feature(name: str, function: Feature, kind: str) -> None:
    """Add a feature under a new name.

    Parameters
    ----------
    name : str
        Its name in options and columns.
    function : callable
        ``f(image, mask, context)`` or ``f(context)``, returns a number.
    kind : {"phase", "fluorescence"}
        Where it is measured.

    Raises
    ------
    OptionsError
        For a name that is taken, or an unknown kind.

    Examples
    --------
    >>> register_feature("brightest", lambda image, mask, context: image[mask].max(), "phase")
    >>> "brightest" in PHASE_FEATURES
    True
    >>> del PHASE_FEATURES["brightest"]
    """
    registries = {"phase": PHASE_FEATURES, "fluorescence": FLUORESCENCE_FEATURES}
    if kind not in registries:
        raise OptionsError(f"kind={shortened(kind)} is not known; use 'phase' or 'fluorescence'")
    if name in registries[kind]:
        raise OptionsError(f"a {kind} feature {shortened(name)} exists; choose another name")
    registries[kind][name] = function


def resolve_features(names: Sequence[str], kind: str) -> dict[str, Feature]:
    """Return the functions of names: registered, or of entry points.

    Packages offer features by the entry points ``scopeflow.cells.phase_features`` and
    ``scopeflow.cells.fluorescence_features``.

    Raises OptionsError: for an unknown name, with the nearest known one.

    Examples
    --------
    >>> list(resolve_features(["area"], "phase"))
    ['area']
    """
    registered = PHASE_FEATURES if kind == "phase" else FLUORESCENCE_FEATURES
    offered = {
        entry.name: entry for entry in entry_points(group=f"scopeflow.cells.{kind}_features")
    }
    known = {*registered, *offered}
    for name in names:
        if name not in known:
            raise OptionsError(
                f"there is no {kind} feature {shortened(name)}.{nearest_name(name, known)} "
                f"Known: {', '.join(sorted(known))}"
            )
    return {n: registered[n] if n in registered else _load(offered[n]) for n in names}


def _load(entry: EntryPoint) -> Feature:
    try:
        function: Feature = entry.load()
    except Exception as error:
        raise OptionsError(
            f"feature {entry.name!r}: {entry.value} cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    return function


class _Pixels:
    """Pixels of all cells of a frame, so that one pass serves every cell."""

    def __init__(self, labels: NDArray[np.integer], table: NDArray[np.int64]) -> None:
        self.where = np.flatnonzero(labels)
        self.label = labels.ravel()[self.where]
        self.width = labels.shape[1]
        self.size = int(self.label.max(initial=0)) + 1
        self.order = table[:, 0]
        self.area = table[:, 1].astype(np.float64)

    def sums(self, values: NDArray[Any]) -> NDArray[np.float64]:
        sums = np.bincount(self.label, values, minlength=self.size)
        return np.asarray(sums[self.order], np.float64)

    def image_sums(self, image: NDArray[Any]) -> NDArray[np.float64]:
        return self.sums(image.ravel()[self.where])

    def position(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.where // self.width, self.where % self.width

    def aspect_ratio(self) -> NDArray[np.float64]:
        y, x = self.position()
        mean_y, mean_x = np.zeros(self.size), np.zeros(self.size)
        mean_y[self.order] = self.sums(y) / self.area
        mean_x[self.order] = self.sums(x) / self.area
        y, x = y - mean_y[self.label], x - mean_x[self.label]
        return _axis_ratio(
            self.sums(y * y) / self.area, self.sums(x * x) / self.area, self.sums(x * y) / self.area
        )


def grow_labels(labels: NDArray[np.integer], margin: int) -> NDArray[Any]:
    """Grow labels by a square of side ``2 margin + 1``, or shrink them where it is below 0.

    Labels grow over background alone, and not over pixels that two of them reach. What lies
    outside the frame is background. A label that would vanish stays as it is.

    Examples
    --------
    >>> grow_labels(np.array([[0, 1, 0, 0, 0, 2]]), 1).tolist()
    [[1, 1, 1, 0, 2, 2]]
    >>> grow_labels(np.array([[0, 1, 0, 2]]), 1).tolist()
    [[1, 1, 0, 2]]
    """
    side = 2 * abs(margin) + 1
    highest = ndimage.maximum_filter(labels, side, mode="constant", cval=0)
    if margin < 0:
        lowest = ndimage.minimum_filter(labels, side, mode="constant", cval=0)
        shrunk = np.where(lowest == highest, labels, 0)
        vanished = np.setdiff1d(labels, shrunk)
        return np.where(np.isin(labels, vanished), labels, shrunk)
    beyond = int(highest.max(initial=0)) + 1
    free = np.where(labels > 0, labels, beyond).astype(np.int64)
    lowest = ndimage.minimum_filter(free, side, mode="constant", cval=beyond)
    grown: NDArray[Any] = np.where((labels == 0) & (lowest == highest), highest, labels)
    return grown


def measure_frame(
    labels: NDArray[np.integer],
    table: NDArray[np.int64],
    image: NDArray[Any],
    features: Mapping[str, Feature],
    *,
    background: NDArray[np.float32] | None = None,
    background_weight: float = 0.0,
    frame: int = 0,
) -> tuple[dict[str, NDArray[np.float64]], dict[str, int]]:
    """Measure features of all cells of one frame.

    `labels` are cells and `table` their :func:`~scopeflow.cells.methods.tracking.region_table`;
    `image` and `background` are in counts, all ``(H, W)``. The share `background_weight` of the
    background is subtracted. Returns one number a cell by feature, in the order of the table, NaN
    where a function failed, and in how many cells functions raised or gave no number.

    Examples
    --------
    >>> from scopeflow.cells.methods.tracking import region_table
    >>> labels = np.array([[1, 1], [0, 2]])
    >>> image = np.array([[3, 4], [9, 5]])
    >>> features = resolve_features(["intensity_total"], "fluorescence")
    >>> measure_frame(labels, region_table(labels), image, features)[0]["intensity_total"].tolist()
    [7.0, 5.0]
    """
    values: dict[str, NDArray[np.float64]] = {}
    failures: dict[str, int] = {}
    pixels = _Pixels(labels, table) if features else None
    for name, function in features.items():
        assert pixels is not None
        if function is _area:
            values[name] = pixels.area
        elif function is _aspect_ratio:
            values[name] = pixels.aspect_ratio()
        elif function is _centroid_y or function is _centroid_x:
            values[name] = pixels.sums(pixels.position()[function is _centroid_x]) / pixels.area
        elif function is _intensity_total or function is _intensity_mean:
            sums = pixels.image_sums(image)
            if background is not None:
                sums = sums - background_weight * pixels.image_sums(background)
            values[name] = sums if function is _intensity_total else sums / pixels.area
        else:
            values[name], failed = _each_cell(
                function, labels, table, image, background, background_weight, frame
            )
            if failed:
                failures[name] = failed
    return values, failures


def _each_cell(
    function: Feature,
    labels: NDArray[np.integer],
    table: NDArray[np.int64],
    image: NDArray[Any],
    background: NDArray[np.float32] | None,
    weight: float,
    frame: int,
) -> tuple[NDArray[np.float64], int]:
    values, failed = np.full(len(table), np.nan), 0
    takes_one = len(inspect.signature(function).parameters) == 1
    context = FeatureContext(image, labels > 0, None, weight, 0, frame)
    for n, (label, _, y0, x0, y1, x1) in enumerate(table.tolist()):
        box = slice(y0, y1), slice(x0, x1)
        one = replace(
            context,
            image=image[box],
            mask=labels[box] == label,
            background=None if background is None else background[box],
            cell=label,
            bbox=(y0, x0, y1, x1),
        )
        try:
            value = function(one) if takes_one else function(one.image, one.mask, one)
            values[n] = float(np.asarray(value).reshape(()))
        except Exception:  # a user's function; the run goes on, and the caller warns
            logger.debug("A feature failed in cell %d, frame %d", label, frame, exc_info=True)
            failed += 1
    return values, failed
