"""Motion tensors against the twin that follows the formulas with padded numpy arrays."""

from __future__ import annotations

import numpy as np
import pytest

from scopeflow.compiled.bands import COLUMN_BORDER, FRONT
from scopeflow.compiled.simd import LANES
from scopeflow.flow.solver import LevelLayout
from scopeflow.flow.tensor import motion_tensor
from tests.oracles import naive_flow


def tensor_of(fixed, moving, h_row, h_col, term):
    """``(C, 6, h, w)`` tensors, read from the memory of a level by its documented address."""
    border = ((0, 0), (1, 1), (COLUMN_BORDER, COLUMN_BORDER))
    channels, h, w = fixed.shape
    layout = LevelLayout(h, w, channels)
    system = np.full(layout.size, np.nan, np.float32)
    padded = [np.pad(a, border, mode="edge") for a in (fixed, moving)]
    motion_tensor(*padded, h_row, h_col, term, layout, system)
    places = system.reshape(-1, layout.slots, layout.fields, LANES)
    y, x = np.mgrid[1 : h + 1, 1 : w + 1]
    fields = range(6 * channels)
    found = [places[y // LANES, FRONT + x + y % LANES, field, y % LANES] for field in fields]
    return np.reshape(found, (channels, 6, h, w))


@pytest.mark.parametrize("shape", [(11, 16), (14, 9), (8, 30), (23, 7), (1, 5)])
@pytest.mark.parametrize("term", ["gc", "gray", "cs"])
def test_tensor_matches_the_plain_twin(term, shape):
    rng = np.random.default_rng(7)
    fixed, moving = rng.random((2, 2, *shape)).astype(np.float32)
    h_row, h_col = 2.4, 1.7
    ours = tensor_of(fixed, moving, h_row, h_col, term)
    for c in range(2):
        twin = naive_flow.tensor(
            fixed[c].astype(float), moving[c].astype(float), h_row, h_col, term
        )
        np.testing.assert_allclose(ours[c], twin[:, 1:-1, 1:-1], rtol=2e-4, atol=2e-6)


def test_identical_images_say_that_nothing_moved():
    image = np.random.default_rng(7).random((1, 12, 13)).astype(np.float32)
    for term in ("gc", "gray", "cs"):
        tensor = tensor_of(image, image, 1.0, 1.0, term)
        assert not tensor[:, [2, 4, 5]].any()
        assert tensor[:, 0].max() > 0
