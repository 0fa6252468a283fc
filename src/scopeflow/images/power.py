"""Real power of positive float32 numbers by polynomials, so that loops over it vectorise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.gateway import float32, inner, kernel, nothing, readable, writable
from scopeflow.compiled.intrinsics import round_half_even, scale_by_power_of_two, split_float

PENALTY_EPSILON = np.float32(1e-5)
"""Added to squared residuals before a robust penalty takes their power."""

LOG2_COEFFICIENTS = tuple(
    np.float32(c)
    for c in (1.44271342, -0.721132259, 0.479349727, -0.367484009, 0.322142445, -0.206603271)
)
"""``log2(1 + t) = t * polynomial(t)`` on [sqrt(1/2) - 1, sqrt(2) - 1], error 2.2e-6.

Weighted least-squares fit at Chebyshev nodes, reweighted towards the smallest largest error.
"""

EXP2_COEFFICIENTS = tuple(
    np.float32(c) for c in (0.999999261, 0.693121815, 0.24024745, 0.0559178599, 0.00957009651)
)
"""``2 ** f`` on [-1/2, 1/2], relative error 2.6e-6, fitted in the same way."""

_L0, _L1, _L2, _L3, _L4, _L5 = LOG2_COEFFICIENTS  # single numbers: constants of compiled code
_E0, _E1, _E2, _E3, _E4 = EXP2_COEFFICIENTS
_LIMIT = np.float32(120.0)
_ONE = np.float32(1.0)


@inner(inlined=True)
def power(value, exponent):
    """``value ** exponent`` for normal positive float32, relative error below 1e-5."""
    whole, mantissa = split_float(value)
    t = mantissa - _ONE
    # Polynomials as a tree: half the waiting of Horner's chain, a fifth of the solver's time.
    t2 = t * t
    log2 = whole + t * (((_L0 + t * _L1) + t2 * (_L2 + t * _L3)) + (t2 * t2) * (_L4 + t * _L5))
    y = exponent * log2
    y = min(_LIMIT, y)  # keep the exponent bits from running over
    y = max(-_LIMIT, y)
    n = round_half_even(y)
    f = y - n
    f2 = f * f
    return scale_by_power_of_two((_E0 + f * _E1) + f2 * ((_E2 + f * _E3) + f2 * _E4), n)


@kernel(nothing, readable(1), float32, writable(1))
def _power_of_all(values, exponent, out):
    for i in range(values.size):
        out[i] = power(values[i], exponent)


def positive_power(values: NDArray[np.float32], exponent: float) -> NDArray[np.float32]:
    """Elementwise ``values ** exponent`` as the solver computes it.

    `values`: positive normal float32 numbers, any shape.
    `exponent`: any real exponent for which the result stays within ``2 ** ±120``.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(positive_power(np.float32([4.0]), 0.5)[0]), 3)
    2.0
    """
    flat = np.ascontiguousarray(values, np.float32).ravel()
    out = np.empty_like(flat)
    _power_of_all(flat, np.float32(exponent), out)
    return out.reshape(np.shape(values))
