"""Kernels stay inside their arrays for every size: guard zones around the memory they touch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from scopeflow.cells.methods import components as cells_components
from scopeflow.cells.methods import display as cells_display
from scopeflow.cells.methods import logstd as cells_logstd
from scopeflow.cells.methods import splitting as cells_splitting
from scopeflow.compiled import scratch as _scratch
from scopeflow.flow.flow import solve_flow
from scopeflow.flow.median import median_5x5
from scopeflow.flow.parameters import FlowParameters
from scopeflow.flow.reference import prepare_reference
from scopeflow.images.register import FrameRegistration

SHAPES = [(10, 10), (11, 37), (127, 13), (16, 64), (101, 103)]
GUARD = 4096  # elements on each side
SENTINEL = np.float32(np.nan)  # a value read from a guard zone would spread to the results


class Guarded:
    """Hands out arrays in the middle of guard zones and looks at the zones afterwards."""

    def __init__(self):
        self._zones = []

    def array(self, size, dtype=np.float32):
        kind = np.dtype(dtype)
        raw = np.empty((size + 2 * GUARD) * kind.itemsize + 64, np.uint8)
        start = -raw.ctypes.data % 64
        whole = raw[start : start + (size + 2 * GUARD) * kind.itemsize].view(kind)
        whole[:] = SENTINEL if kind.kind == "f" else 77
        self._zones += [whole[:GUARD], whole[GUARD + size :]]
        return whole[GUARD : GUARD + size]

    def copy_of(self, array):
        inside = self.array(array.size, array.dtype).reshape(array.shape)
        inside[...] = array
        return inside

    def check(self):
        assert self._zones
        for zone in self._zones:
            if zone.dtype.kind == "f":
                assert np.isnan(zone).all(), "a kernel wrote beyond its memory"
            else:
                assert (zone == 77).all(), "a kernel wrote beyond its memory"


@pytest.fixture
def guarded(monkeypatch):
    zones = Guarded()
    _scratch.release_scratch()  # every scratch array is made anew, exactly as large as asked for
    monkeypatch.setattr(_scratch, "_aligned", zones.array)
    yield zones
    _scratch.release_scratch()


def frames(height, width, channels):
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:height, :width]
    fixed = 0.5 + 0.3 * np.sin(x / 3.0) * np.cos(y / 2.5)
    moving = 0.5 + 0.3 * np.sin((x - 1.3) / 3.0) * np.cos((y + 0.7) / 2.5)
    both = np.stack([fixed, moving])[..., None] + rng.normal(0, 0.02, (2, height, width, channels))
    return both.astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"data_term": "gray", "a_smooth": 0.6},
        {"data_term": "cs", "update_lag": 7},
        {"gnc_schedule": (0.0, 1.0), "warping_steps": 2},
    ],
    ids=str,
)
def test_flow_reads_and_writes_inside_its_memory(guarded, shape, options):
    channels = 2 if shape[0] % 2 else 1
    fixed, moving = frames(*shape, channels)
    weight = np.random.default_rng(1).uniform(0.5, 1, fixed.shape) if channels == 2 else None
    params = FlowParameters(**{"min_level": 0, "iterations": 12, **options})
    prepared = prepare_reference(fixed, weight, params)
    prepared = dataclasses.replace(
        prepared,
        images=tuple(guarded.copy_of(image) for image in prepared.images),
        maps=tuple(None if one is None else guarded.copy_of(one) for one in prepared.maps),
    )
    initial = np.full((*shape, 2), 0.4, np.float32)
    motion = solve_flow(prepared, guarded.copy_of(moving), guarded.copy_of(initial))
    assert np.isfinite(motion).all()
    guarded.check()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(500, 500), (4096, 64), (64, 4096), (1, 1)])
def test_flow_of_large_frames_stays_inside_its_memory(guarded, shape):
    shape = (max(shape[0], 10), max(shape[1], 10))
    fixed, moving = frames(*shape, 1)
    motion = solve_flow(prepare_reference(fixed, None, FlowParameters(min_level=0)), moving)
    assert np.isfinite(motion).all()
    guarded.check()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic"])
def test_registration_of_wild_motion_stays_inside_its_memory(guarded, shape, interpolation):
    rng = np.random.default_rng(2)
    frame = guarded.copy_of(rng.integers(0, 4096, (*shape, 2)).astype(np.uint16))
    fill = rng.uniform(0, 4096, (*shape, 2))
    motion = rng.normal(0, 50, (max(5, shape[0] // 2), max(5, shape[1] // 2), 2))
    motion[0, 0] = 1e30, -1e30
    out = guarded.array(frame.size, np.uint16).reshape(frame.shape)
    valid = guarded.array(shape[0] * shape[1], np.uint8).view(bool).reshape(shape)
    registration = FrameRegistration(fill, interpolation)
    registration.set_motion(motion.astype(np.float32))
    registration.register(frame, out)
    registration.valid(valid)
    assert np.isfinite(registration.statistics()).all()
    assert registration.warp(frame).max() < 3 * 4096
    guarded.check()


@pytest.mark.parametrize("shape", [(3, 3), *SHAPES])
def test_median_stays_inside_its_memory(guarded, shape):
    planes = np.random.default_rng(3).random((2, *shape)).astype(np.float32)
    out = guarded.array(planes.size).reshape(planes.shape)
    median_5x5(guarded.copy_of(planes), base=guarded.copy_of(planes), out=out)
    assert np.isfinite(out).all()
    guarded.check()


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), *SHAPES])
def test_small_pictures_stay_inside_their_memory(guarded, shape):
    height, width = shape
    rng = np.random.default_rng(9)
    integers = guarded.copy_of(rng.integers(0, 65536, (2, *shape)).astype(np.uint16))
    floats = guarded.copy_of(rng.normal(0, 9, (2, *shape)).astype(np.float32))
    halves = (2, max(1, height // 2), max(1, width // 2))
    small = guarded.array(int(np.prod(halves)), np.uint8).reshape(halves)
    cells_display._shrink_integers(
        integers, guarded.copy_of((np.arange(65536) // 257).astype(np.uint8)), small
    )
    cells_display._shrink_floats(floats, -5.0, 10.0, small)
    counts = guarded.copy_of(np.zeros(65536, np.int64))
    cells_display._count_integers(integers.ravel(), counts)
    cells_display._count_floats(floats.ravel().view(np.uint32), counts)
    assert counts.sum() == 2 * integers.size
    rows = guarded.copy_of(np.zeros(65536, np.int64))
    within = guarded.copy_of(np.zeros((1, 65536), np.int64))
    cells_display._count_within(floats.ravel().view(np.uint32), rows, within)
    assert within.sum() == floats.size
    guarded.check()


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), *SHAPES])
def test_segmentation_stays_inside_its_memory(guarded, shape):
    rng = np.random.default_rng(4)
    mask = guarded.copy_of((rng.random(shape) < 0.5).astype(np.uint8))
    mask[-1, -1] = 1
    size, runs = mask.size, cells_components._count_runs(mask)
    found = guarded.array(4 * runs, np.int64).reshape(runs, 4)
    parents, areas = guarded.array(runs, np.int64), guarded.array(runs, np.int64)
    count = cells_components._find(mask, found, parents, areas)
    painted = guarded.array(size, np.uint16).reshape(shape)
    cells_components._paint(found, guarded.copy_of(np.arange(count).astype(np.uint16)), painted)
    order = guarded.copy_of(rng.permutation(np.flatnonzero(mask)))
    parents, labels = guarded.array(size, np.int64), guarded.array(size, np.int64)
    parents[:], labels[:] = -1, 0
    heights = guarded.copy_of(rng.random(size).astype(np.float32))
    assert cells_splitting._flood(order, heights, shape[1], 0.3, parents, labels) > 0
    cells_components._erase(found, guarded.copy_of(np.zeros(count, np.uint8)), mask)
    assert not mask.any()
    for window in (3, 7):
        image = guarded.copy_of(
            rng.integers(0, 65536, (shape[0] + window - 1, shape[1] + window - 1)).astype(np.uint16)
        )
        columns = [guarded.copy_of(np.zeros(image.shape[1])) for _ in range(2)]
        variances = guarded.array(size, np.float64).reshape(shape)
        cells_logstd._variances(image, window, *columns, variances, guarded.array(2, np.float64))
        least, largest = variances.min(), variances.max()
        edges = guarded.copy_of(np.linspace(least, largest, 201)[1:-1])
        floor = least / 2
        counts = cells_logstd.count_logarithms(variances, floor, edges, least, largest)
        assert counts.sum() == size
    guarded.check()
