"""Frames that lack pixels: named by every view of a recording, and read as zeros."""

from __future__ import annotations

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from scopeflow.errors import InputError, UnreadableFileError
from scopeflow.io.open import open_source
from scopeflow.io.read.files import FileStamp
from scopeflow.io.read.memory import open_array
from scopeflow.io.read.projection import MaximumProjection
from scopeflow.io.read.protocol import absent_frames, describe
from scopeflow.io.read.source import FileSource
from scopeflow.io.read.views import (
    BinnedSource,
    ChannelSelection,
    ConcatenatedFrames,
    FrameSelection,
    StackedChannels,
)
from tests.oracles.nd2_writer import write_nd2

VIDEO = np.random.default_rng(0).integers(1, 200, (9, 12, 14, 2)).astype("uint8")


@dataclass(frozen=True, kw_only=True)
class Ones(FileSource):
    """Reads ones in every frame: what is absent has to be blanked for all formats at one place."""

    kind: str = "ones"

    def _read(self, start, stop):
        return np.ones((stop - start, *self.shape[1:]), self.dtype)


def gappy(absent=(2, 3, 7), frames=9):
    return Ones(
        stamp=FileStamp("/nowhere", 1, 1),
        shape=(frames, 12, 14, 1),
        dtype=np.dtype("uint8"),
        metadata=open_array(VIDEO).metadata,
        absent=absent,
    )


def zeros_of(source):
    frames = source.read(0, source.shape[0])
    for start in range(source.shape[0]):
        for stop in (start, start + 1, source.shape[0]):
            np.testing.assert_array_equal(source.read(start, stop), frames[start:stop])
    return tuple(int(n) for n in np.flatnonzero(~frames.any((1, 2, 3))))


@pytest.mark.parametrize(
    ("view", "absent"),
    [
        (lambda s: s, (2, 3, 7)),
        (lambda s: BinnedSource(s, 1), (2, 3, 7)),
        (lambda s: BinnedSource(s, 2), (1, 3)),
        (lambda s: BinnedSource(s, 4), (0, 1)),
        (lambda s: ChannelSelection(s, (0, 0)), (2, 3, 7)),
        (lambda s: FrameSelection(s, (7, 0, 3, 7, 8)), (0, 2, 3)),
        (lambda s: StackedChannels((s, gappy(absent=(0, 3)))), (0, 2, 3, 7)),
        (lambda s: ConcatenatedFrames((gappy((), 4), s, gappy((1,), 2))), (6, 7, 11, 14)),
        (lambda s: MaximumProjection((s, gappy(absent=(0,)))), (0, 2, 3, 7)),
        (lambda s: BinnedSource(FrameSelection(s, (0, 1, 4, 7)), 2), (1,)),
    ],
)
def test_views_name_what_is_absent(view, absent):
    source = pickle.loads(pickle.dumps(view(gappy())))
    assert absent_frames(source) == absent == zeros_of(source)
    assert absent_frames(view(gappy(()))) != absent


def test_identity_names_what_is_absent_only_where_there_is_any():
    whole, part = gappy(()).identity(), gappy().identity()
    assert part.pop("absent") == [2, 3, 7]
    assert part == whole


def test_recordings_of_other_classes_lack_nothing():
    assert absent_frames(open_source(VIDEO)) == ()
    assert not any("lack" in row[0] for row in describe(open_source(VIDEO)))
    assert ("frames that lack pixels", "3, the first 2", "files") in describe(gappy())


@pytest.mark.parametrize(
    ("given", "hint"), [("maks", "'mask'"), ("Error", "'error'"), (None, ""), (["fill"], "")]
)
def test_unknown_values_of_missing_name_the_nearest(given, hint):
    with pytest.raises(InputError, match="error, mask, fill, black") as caught:
        open_source(VIDEO, missing=given)
    assert hint in str(caught.value)


@pytest.mark.parametrize("missing", ["mask", "fill", "black"])
def test_arrays_have_nothing_to_miss(missing):
    with pytest.raises(InputError, match="no meaning"):
        open_source(VIDEO, missing=missing)
    assert open_source(VIDEO, missing="error").shape == VIDEO.shape


def test_images_that_an_nd2_file_lacks_can_be_masked(tmp_path):
    images = np.ones((4, 1, 2, 20, 30), np.uint16)
    write_nd2(tmp_path / "a.nd2", images, ["a", "b"], omit=[2])
    with pytest.raises(UnreadableFileError, match="missing"):
        open_source(tmp_path / "a.nd2")
    black, masked = (open_source(tmp_path / "a.nd2", missing=one) for one in ("black", "mask"))
    assert absent_frames(black) == ()
    assert absent_frames(masked) == (2,)
    assert zeros_of(masked) == zeros_of(black) == (2,)
    with pytest.raises(InputError, match="zarr and HDF5"):
        open_source(tmp_path / "a.nd2", missing="fill")
