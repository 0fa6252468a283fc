"""Smooth displacements in closed form, and the backward flow that a solver should find for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scopeflow._shapes import FlowYX2
from scopeflow.errors import InputError

DisplacementFunction: TypeAlias = Callable[
    [int, NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[Any], NDArray[Any]]
]
"""``displacement(t, y, x) -> (dx, dy)``: how far the content at (y, x) has moved, in pixels."""

_DRIFT_TERMS = 4
_WAVES = 4
# Fewest and most frames that one swing of the motion takes.
_PERIODS = (9.0, 160.0)


@dataclass(frozen=True)
class SmoothDisplacement:
    """A translation that drifts plus a smooth deformation, in closed form for every frame.

    The translation is a sum of slow sinusoids in time. The deformation is a sum of plane waves in
    space whose strengths swing in time. Frame ``t`` depends on ``seed`` and ``t`` alone, so frames
    may be made in any order, by any process, for a recording of any length.

    Parameters
    ----------
    seed : int
        Decides the motion; not negative.
    translation_px : float
        Largest translation along each axis, pixels.
    nonrigid_px : float
        Largest deformation along each axis, pixels; at most a tenth of ``wavelength_px``, so that
        the movement never folds and can be inverted.
    wavelength_px : float
        Shortest wavelength of the deformation, pixels; the longest is twice this.

    Raises
    ------
    InputError
        A negative seed or amplitude, a wavelength that is not positive, or a deformation that
        would fold.

    Examples
    --------
    >>> import numpy as np
    >>> displacement = SmoothDisplacement(seed=1, translation_px=3.0, nonrigid_px=0.0)
    >>> dx, dy = displacement(7, np.zeros((2, 2)), np.zeros((2, 2)))
    >>> dx.shape, bool(np.ptp(dx) == 0), bool(abs(dx).max() <= 3.0)
    ((2, 2), True, True)
    """

    seed: int = 0
    translation_px: float = 4.0
    nonrigid_px: float = 1.5
    wavelength_px: float = 80.0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed={self.seed}: a seed of 0 or more is needed.")
        if self.translation_px < 0 or self.nonrigid_px < 0:
            raise InputError(
                f"translation_px={self.translation_px}, nonrigid_px={self.nonrigid_px}: amplitudes "
                "of 0 or more are needed; the direction follows from the seed."
            )
        if not self.wavelength_px > 0:
            raise InputError(f"wavelength_px={self.wavelength_px}: a positive length is needed.")
        if self.nonrigid_px > self.wavelength_px / 10:
            raise InputError(
                f"nonrigid_px={self.nonrigid_px} at wavelength_px={self.wavelength_px} could fold "
                f"the image: at most {self.wavelength_px / 10:g} px is possible. Lower "
                "nonrigid_px or raise wavelength_px."
            )

    @cached_property
    def _terms(self) -> dict[str, NDArray[np.float64]]:
        rng = np.random.default_rng([self.seed, 1])
        shortest, longest = np.log(_PERIODS)
        direction = rng.uniform(0, 2 * np.pi, (2, _WAVES))
        length = self.wavelength_px * rng.uniform(1, 2, (2, _WAVES))
        return {
            # Axis 0 of every table: displacement along x, along y.
            "drift_period": np.exp(rng.uniform(shortest, longest, (2, _DRIFT_TERMS))),
            "drift_phase": rng.uniform(0, 2 * np.pi, (2, _DRIFT_TERMS)),
            "wave_y": 2 * np.pi * np.sin(direction) / length,
            "wave_x": 2 * np.pi * np.cos(direction) / length,
            "wave_phase": rng.uniform(0, 2 * np.pi, (2, _WAVES)),
            "swing_period": np.exp(rng.uniform(shortest, longest, (2, _WAVES))),
            "swing_phase": rng.uniform(0, 2 * np.pi, (2, _WAVES)),
        }

    def __call__(
        self, frame: int, y: NDArray[np.float64], x: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return how far the content at each position has moved in one frame.

        Positions, float64 arrays of equal shapes, may lie between pixels; ``(dx, dy)`` have their
        shape, along columns and along rows, pixels.
        """
        terms = self._terms
        components = []
        for axis in range(2):
            drift = np.sin(
                2 * np.pi * frame / terms["drift_period"][axis] + terms["drift_phase"][axis]
            ).mean()
            total = np.full(np.shape(y), self.translation_px * drift)
            if self.nonrigid_px > 0:
                swing = np.cos(
                    2 * np.pi * frame / terms["swing_period"][axis] + terms["swing_phase"][axis]
                )
                for wave in range(_WAVES):
                    phase = terms["wave_phase"][axis, wave]
                    angle = (
                        terms["wave_y"][axis, wave] * y + terms["wave_x"][axis, wave] * x + phase
                    )
                    total += self.nonrigid_px / _WAVES * swing[wave] * np.cos(angle)
            components.append(total)
        return components[0], components[1]


def backward_flow(
    displacement: DisplacementFunction,
    frame: int,
    height: int,
    width: int,
    *,
    tolerance_px: float = 1e-5,
    max_steps: int = 200,
) -> FlowYX2:
    """Return the flow ``w`` with ``moved(y + v, x + u) = still(y, x)``, by fixed-point iteration.

    Content at ``p`` of the moved frame was at ``p - d(p)``; hence ``w(p) = d(p + w(p))``, which
    converges because a smooth displacement changes by less than a pixel from pixel to pixel.

    Parameters
    ----------
    displacement : callable
        ``displacement(t, y, x) -> (dx, dy)`` in pixels, for any real ``y`` and ``x``.
    frame : int
        Frame index ``t``.
    height, width : int
        Frame size, pixels.
    tolerance_px : float
        Largest change of the last step, pixels.
    max_steps : int
        Steps after which the displacement counts as not invertible.

    Returns
    -------
    ndarray of float32, shape (H, W, 2)
        ``[..., 0] = u`` along columns, ``[..., 1] = v`` along rows, pixels.

    Raises
    ------
    InputError
        The iteration does not settle: the displacement folds the image.

    Examples
    --------
    >>> flow = backward_flow(lambda t, y, x: (0 * x + 2.0, 0 * y - 1.0), 0, 3, 4)
    >>> flow.shape, flow[1, 1].tolist()
    ((3, 4, 2), [2.0, -1.0])
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    u, v = displacement(frame, y, x)
    for _ in range(max_steps):
        next_u, next_v = displacement(frame, y + v, x + u)
        change = max(np.abs(next_u - u).max(), np.abs(next_v - v).max())
        u, v = next_u, next_v
        if change <= tolerance_px:
            return np.stack([u, v], axis=-1).astype(np.float32)
    raise InputError(
        f"The displacement of frame {frame} has no inverse: after {max_steps} steps it still "
        f"changes by {change:.3g} px. Give a displacement that changes by less than 1 px per pixel."
    )


def to_dtype(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round half to even and keep inside the range of an integer type."""
    if dtype.kind in "ui":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(dtype)
