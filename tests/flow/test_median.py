"""The median network equals scipy exactly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import median_filter

from scopeflow.errors import InputError
from scopeflow.flow.median import median_5x5


@pytest.mark.parametrize("shape", [(3, 3), (5, 5), (6, 47), (31, 16), (40, 33)])
def test_median_equals_scipy(shape):
    rng = np.random.default_rng(5)
    smooth = rng.normal(size=(1, *shape))
    ties = rng.integers(-2, 3, size=(1, *shape))  # many equal values
    planes = np.concatenate([smooth, ties]).astype(np.float32)
    expected = [median_filter(plane, 5, mode="mirror") for plane in planes]
    np.testing.assert_array_equal(median_5x5(planes), expected)


def test_zero_one_principle_on_all_counts():
    """A network is right when it is right on zeros and ones: test all counts, many orders."""
    rng = np.random.default_rng(6)
    planes = np.zeros((26, 65, 65), np.float32)
    for count, plane in enumerate(planes):
        blocks = np.zeros((169, 25), np.float32)
        blocks[:, :count] = 1
        plane[:] = rng.permuted(blocks, axis=1).reshape(13, 13, 5, 5).swapaxes(1, 2).reshape(65, 65)
    expected = [median_filter(plane, 5, mode="mirror") for plane in planes]
    np.testing.assert_array_equal(median_5x5(planes), expected)


def test_planes_too_small_for_the_mirror_are_refused():
    with pytest.raises(InputError, match="3 × 3"):
        median_5x5(np.zeros((1, 2, 9), np.float32))
