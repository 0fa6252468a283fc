"""Binned, selected, stacked and concatenated recordings against plain numpy."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from scopeflow.errors import InputError
from scopeflow.io.open import (
    BinnedSource,
    ChannelSelection,
    ConcatenatedFrames,
    FrameSelection,
    Source,
    StackedChannels,
    open_source,
)

RNG = np.random.default_rng(3)


def stack(*shape, dtype="uint16"):
    return RNG.integers(0, 60000, shape).astype(dtype)


def naive_bins(data, size):
    frames = []
    for start in range(0, len(data), size):
        group = [data[t].astype(np.float64) for t in range(start, min(start + size, len(data)))]
        mean = sum(group) / len(group)
        if data.dtype.kind in "iu":
            floor = np.floor(mean)
            rest = mean - floor
            up = (rest > 0.5) | ((rest == 0.5) & (floor % 2 == 1))
            mean = floor + up
        frames.append(mean.astype(data.dtype))
    return np.stack(frames)


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(1, 23),
    size=st.integers(1, 9),
    kind=st.sampled_from(["u1", "i2", "u2", "i4", "f4"]),
    data=st.data(),
)
def test_binning_against_naive(frames, size, kind, data):
    seed = data.draw(st.integers(0, 2**16))
    values = np.random.default_rng(seed).integers(-100, 100, (frames, 10, 11, 2)).astype(kind)
    binned = BinnedSource(open_source(values), size)
    expected = naive_bins(values, size)
    assert binned.shape == expected.shape
    count = math.ceil(frames / size)
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    part = binned.read(start, stop)
    assert part.dtype == values.dtype
    np.testing.assert_array_equal(part, expected[start:stop])


def test_binning_rounds_half_to_even():
    values = np.zeros((2, 10, 10), "uint8")
    values[0, 0, :4] = [1, 2, 3, 255]
    values[1, 0, :4] = [2, 3, 4, 255]
    np.testing.assert_array_equal(
        BinnedSource(open_source(values), 2).read(0, 1)[0, 0, :4, 0], [2, 2, 4, 255]
    )


def test_binning_of_chunked_files(tmp_path):
    values = stack(37, 12, 13, 1)
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=values.shape, chunks=(8, 12, 13, 1), dtype="u2"
    )
    array[:] = values
    binned = BinnedSource(open_source(tmp_path / "a.zarr"), 3)
    assert binned.frames_per_chunk == 3
    np.testing.assert_array_equal(binned.read(2, 13), naive_bins(values, 3)[2:])


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_bad_bin_size(size):
    with pytest.raises(InputError, match="bin"):
        BinnedSource(open_source(stack(5, 12, 13)), size)


def test_channels_and_frames():
    values = stack(9, 12, 13, 3)
    source = open_source(values)
    np.testing.assert_array_equal(
        ChannelSelection(source, (2, 0)).read(1, 5), values[1:5][..., [2, 0]]
    )
    chosen = (7, 8, 2, 2, 3, 4, 0)
    frames = FrameSelection(source, chosen)
    np.testing.assert_array_equal(frames.read(0, 7), values[list(chosen)])
    np.testing.assert_array_equal(frames.read(1, 6), values[list(chosen[1:6])])
    nested = BinnedSource(FrameSelection(ChannelSelection(source, (1,)), chosen), 2)
    np.testing.assert_array_equal(nested.read(0, 4), naive_bins(values[list(chosen)][..., [1]], 2))


@pytest.mark.parametrize(
    ("view", "choice", "message"),
    [
        (ChannelSelection, (3,), "no channel 3; its channels are 0 to 2"),
        (ChannelSelection, (-1,), "no channel -1"),
        (ChannelSelection, (), "no channel was selected"),
        (FrameSelection, (9,), "no frame 9; its frames are 0 to 8"),
        (FrameSelection, (True,), "whole number"),
        (FrameSelection, (), "no frame was selected"),
    ],
)
def test_bad_selection(view, choice, message):
    with pytest.raises(InputError, match=message):
        view(open_source(stack(9, 12, 13, 3)), choice)


def test_stacked_channels_promote_types():
    first, second = stack(5, 12, 13, dtype="uint8"), stack(5, 12, 13, 2, dtype="int16")
    source = StackedChannels((open_source(first), open_source(second)))
    assert source.dtype == np.int16
    np.testing.assert_array_equal(
        source.read(1, 4), np.concatenate([first[1:4, ..., None].astype("i2"), second[1:4]], -1)
    )
    with pytest.raises(InputError, match=r"\(frames, height, width\) \(4, 12, 13\).*must be equal"):
        StackedChannels((open_source(first), open_source(stack(4, 12, 13))))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.data())
def test_concatenated_frames(lengths, data):
    parts = [stack(n, 10, 11, 2) for n in lengths]
    source = ConcatenatedFrames(tuple(open_source(part) for part in parts))
    whole = np.concatenate(parts)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    np.testing.assert_array_equal(source.read(start, stop), whole[start:stop])


def test_concatenation_needs_equal_frames():
    first = open_source(stack(3, 12, 13))
    with pytest.raises(InputError, match=r"\(height, width, channels\) \(12, 14, 1\)"):
        ConcatenatedFrames((first, open_source(stack(3, 12, 14))))
    with pytest.raises(InputError, match=r"has type uint8, but .* has uint16"):
        ConcatenatedFrames((first, open_source(stack(3, 12, 13, dtype="uint8"))))


def test_views_are_sources_and_travel():
    source = open_source(stack(6, 12, 13, 2))
    views = [
        BinnedSource(source, 2),
        ChannelSelection(source, (1,)),
        FrameSelection(source, (3, 4)),
        StackedChannels((source, source)),
        ConcatenatedFrames((source, source)),
    ]
    facts = set()
    for view in views:
        assert isinstance(view, Source)
        again = pickle.loads(pickle.dumps(view))
        np.testing.assert_array_equal(again.read(0, 2), view.read(0, 2))
        assert again.identity() == view.identity()
        facts.add(str(view.identity()))
        hash(view)
    assert len(facts) == len(views)


def test_times_follow_the_frames(tmp_path):
    from tests.oracles.nd2_writer import write_nd2

    write_nd2(tmp_path / "a.nd2", stack(5, 1, 1, 12, 13), ["a"], period_s=2.0)
    source = open_source(tmp_path / "a.nd2")
    binned = BinnedSource(source, 2).metadata
    assert binned.frame_times_s == pytest.approx((1.0, 5.0, 8.0))
    assert binned.frame_interval_s == pytest.approx(4.0)
    chosen = FrameSelection(source, (4, 1)).metadata
    assert chosen.frame_times_s == pytest.approx((8.0, 2.0))
    assert chosen.frame_interval_s is None
    assert FrameSelection(source, (0, 2, 4)).metadata.frame_interval_s == pytest.approx(4.0)
