"""Flow statistics against their definitions in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from scopeflow.errors import InputError
from scopeflow.images.statistics import flow_statistics


@pytest.mark.parametrize("shape", [(2, 2), (2, 9), (3, 3), (31, 47)])
def test_statistics_match_their_definitions(shape):
    flow = np.random.default_rng(0).normal(size=(*shape, 2)).astype(np.float32)
    u, v = flow[..., 0].astype(float), flow[..., 1].astype(float)
    expected = (
        np.hypot(u, v).mean(),
        np.hypot(u, v).max(),
        (np.gradient(u, axis=1) + np.gradient(v, axis=0)).mean(),
        np.hypot(u.mean(), v.mean()),
    )
    np.testing.assert_allclose(tuple(flow_statistics(flow)), expected, atol=1e-12)


def test_expansion_has_the_divergence_of_its_slope():
    y, x = np.mgrid[0:20, 0:30]
    flow = np.stack([0.25 * x, 0.5 * y], axis=-1)
    assert flow_statistics(flow).mean_div == pytest.approx(0.75)


def test_wrong_shape_is_refused():
    with pytest.raises(InputError, match="H, W, 2"):
        flow_statistics(np.zeros((5, 5)))
