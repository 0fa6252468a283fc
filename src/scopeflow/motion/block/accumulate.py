"""Sums that do not depend on how frames are grouped into blocks.

Floating-point sums depend on their order. Sums that cross block borders are therefore kept as
64-bit integers in units of 2^-32: integer addition is exact, so any grouping gives the same bits.
Displacements and normalised intensities stay far below the limit of 2^31 / number of frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_UNIT = 2.0**32


def to_fixed_point(values: NDArray[Any]) -> NDArray[np.int64]:
    """Round values to integers in units of 2^-32.

    `values`: finite values of magnitude below 2^31.
    Returns: int64, same shape.

    Examples
    --------
    >>> to_fixed_point(np.array([0.5, -1.0])) / 2.0**32
    array([ 0.5, -1. ])
    """
    return np.rint(np.asarray(values, dtype=np.float64) * _UNIT).astype(np.int64)


def fixed_point_mean(total: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Return the mean of summed fixed-point values as float32.

    `total`: int64, sum of values made by :func:`to_fixed_point`.
    Returns: float32, same shape.
    """
    return (total / (_UNIT * count)).astype(np.float32)
