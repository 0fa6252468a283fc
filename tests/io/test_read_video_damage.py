"""A video that is cut off or damaged is never a shorter recording."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from scopeflow.errors import InputError, UnreadableFileError
from scopeflow.io.open import open_source
from scopeflow.io.read.video_container import avi_frames, container_damage
from scopeflow.io.read.video_index import VideoIndex, completed_times, dependent_frames

av = pytest.importorskip("av")

FRAMES = 24
KINDS = {
    "mjpeg avi": ("avi", "mjpeg", "yuvj420p", {}),
    "ffv1 avi": ("avi", "ffv1", "gray", {}),
    "mpeg4 avi, reordered": ("avi", "mpeg4", "yuv420p", {"bf": "2"}),
    "raw avi": ("avi", "rawvideo", "gray", {}),
    "mpeg4 mp4": ("mp4", "mpeg4", "yuv420p", {"movflags": "faststart"}),
    "h264 mp4, reordered": ("mp4", "libx264", "yuv420p", {"movflags": "faststart", "bf": "2"}),
    "h264 mp4, table at the end": ("mp4", "libx264", "yuv420p", {}),
    "h264 mp4, fragments": ("mp4", "libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
    "mjpeg mov": ("mov", "mjpeg", "yuvj420p", {"movflags": "faststart"}),
    "ffv1 mkv": ("mkv", "ffv1", "gray", {}),
    "h264 mkv, reordered": ("mkv", "libx264", "yuv420p", {"bf": "2"}),
    "raw mkv": ("mkv", "rawvideo", "gray", {}),
}


def encode(path, codec, pixels, options, *, times=None):
    """24 frames of one pattern that moves and becomes brighter."""
    pattern = np.random.default_rng(0).integers(0, 60, (32, 48 + FRAMES))
    video = np.stack([pattern[:, n : n + 48] + 7 * n for n in range(FRAMES)]).astype(np.uint8)
    movflags = {key: value for key, value in options.items() if key == "movflags"}
    coding = {key: value for key, value in options.items() if key != "movflags"}
    coding["sc_threshold"] = "1000000000"  # key frames only where they are due
    with av.open(str(path), "w", options=movflags) as container:
        stream = container.add_stream(codec, rate=20, options=coding)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = 32, 48, pixels, 6
        for number, image in enumerate(video):
            frame = av.VideoFrame.from_ndarray(image, format="gray").reformat(format=pixels)
            frame.pts = number if times is None else times[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module", params=KINDS)
def movie(request, tmp_path_factory):
    suffix, codec, pixels, options = KINDS[request.param]
    return encode(tmp_path_factory.mktemp("movie") / f"a.{suffix}", codec, pixels, options)


def test_whole_video_has_all_frames_and_the_identity_it_had(movie):
    source, masked = open_source(movie), open_source(movie, missing="mask")
    assert source.shape == (FRAMES, 32, 48, 1)
    assert masked.absent == ()
    assert masked.identity() == source.identity()
    assert set(source.identity()) == {"kind", "path", "size", "mtime_ns", "files", "shape"}
    np.testing.assert_array_equal(masked.read(0, FRAMES), source.read(0, FRAMES))


def test_no_cut_is_a_shorter_recording(tmp_path, movie):
    data, whole = movie.read_bytes(), open_source(movie).read(0, FRAMES)
    masked = 0
    for percent in (2, 15, 30, 45, 55, 65, 75, 85, 92, 97, 99, 99.9):
        cut = tmp_path / f"cut{percent}{movie.suffix}"
        cut.write_bytes(data[: int(len(data) * percent / 100)])
        with pytest.raises(UnreadableFileError, match=r"truncated|damaged|content|decoded"):
            open_source(cut)
        try:
            source = open_source(cut, missing="mask")
        except UnreadableFileError:  # nothing can be decoded any more
            continue
        masked += 1
        video, absent = source.read(0, source.shape[0]), list(source.absent)
        there = np.setdiff1d(np.arange(source.shape[0]), absent)
        np.testing.assert_array_equal(video[there], whole[there])
        assert not video[absent].any()
        if "fragments" not in str(movie.parent) and source.shape[0] == FRAMES and percent < 90:
            assert absent
            assert source.identity()["absent"] == absent
    if movie.suffix in (".avi", ".mkv"):
        assert masked >= 3


def test_message_names_both_numbers_and_the_remedy(tmp_path):
    path = encode(tmp_path / "a.avi", "mjpeg", "yuvj420p", {})
    data = bytearray(path.read_bytes())
    # The header of the stream promises frames that no part of the file was to hold.
    place = data.index(b"strh") + 8 + 32
    assert struct.unpack_from("<I", data, place) == (FRAMES,)
    struct.pack_into("<I", data, place, 31)
    path.write_bytes(data)
    with pytest.raises(UnreadableFileError, match="declares 31 frames, but 24 were found") as error:
        open_source(path)
    assert 'missing="mask"' in str(error.value)
    source = open_source(path, missing="mask")
    assert (source.shape[0], source.absent) == (31, tuple(range(24, 31)))


def test_avi_with_repeated_frames_is_whole(tmp_path):
    times = np.cumsum([0, *np.tile([1, 2, 5], 8)])[:FRAMES].tolist()
    path = encode(tmp_path / "a.avi", "ffv1", "gray", {}, times=times)
    assert avi_frames(str(path), 0) == times[-1] + 1
    assert open_source(path).shape[0] == FRAMES


@pytest.mark.parametrize(
    ("suffix", "codec", "times"), [("mkv", "ffv1", [1, 2, 5]), ("mp4", "mpeg4", [3, 1, 9])]
)
def test_uneven_times_are_no_damage(tmp_path, suffix, codec, times):
    stamps = np.cumsum([0, *np.tile(times, 8)])[:FRAMES].tolist()
    pixels = "gray" if codec == "ffv1" else "yuv420p"
    path = encode(tmp_path / f"a.{suffix}", codec, pixels, {}, times=stamps)
    assert open_source(path).shape[0] == FRAMES


def test_flipped_bytes_of_a_mkv_are_found_by_its_checksums(tmp_path):
    path = encode(tmp_path / "a.mkv", "rawvideo", "gray", {})
    data = path.read_bytes()
    assert container_damage(str(path)) == ""
    for place in np.random.default_rng(0).integers(600, len(data) - 200, 20):
        damaged = bytearray(data)
        damaged[place] ^= 16
        path.write_bytes(damaged)
        with pytest.raises(UnreadableFileError, match=r"truncated or damaged"):
            open_source(path)


def test_frame_that_the_decoder_finds_damaged_is_an_error_or_absent(tmp_path):
    path = encode(tmp_path / "a.avi", "mpeg4", "yuv420p", {})
    whole = open_source(path).read(0, FRAMES)
    with av.open(str(path)) as file:
        packets = [(p.pos, p.size) for p in file.demux(file.streams.video[0]) if p.size]
    data = bytearray(path.read_bytes())
    start, size = packets[8]  # key frames are 0, 6, 12, 18
    noise = np.random.default_rng(1).integers(0, 256, size - 8, dtype=np.uint8)
    data[start + 8 : start + size] = noise.tobytes()  # behind the head of the frame
    path.write_bytes(data)
    source = open_source(path)
    np.testing.assert_array_equal(source.read(0, 8), whole[:8])
    np.testing.assert_array_equal(source.read(12, 24), whole[12:])
    for start, stop in ((6, 12), (8, 9), (10, 11)):  # frame 10 is made from frame 8
        with pytest.raises(UnreadableFileError, match="frame 8 is damaged"):
            source.read(start, stop)
    masked = open_source(path, missing="mask")
    assert masked.absent == (8, 9, 10, 11)
    video = masked.read(0, FRAMES)
    assert not video[8:12].any()
    np.testing.assert_array_equal(
        np.delete(video, slice(8, 12), 0), np.delete(whole, slice(8, 12), 0)
    )


@pytest.mark.parametrize("suffix", ["avi", "mkv"])
def test_recording_that_was_never_finished_is_told(tmp_path, suffix):
    path = encode(tmp_path / f"a.{suffix}", "ffv1", "gray", {})
    data = bytearray(path.read_bytes())
    if suffix == "avi":
        data[4:8] = b"\xff" * 4
    else:
        place = data.index(bytes.fromhex("18538067")) + 4
        data[place : place + 8] = b"\x01" + b"\xff" * 7
    path.write_bytes(data)
    with pytest.raises(UnreadableFileError, match="never finished"):
        open_source(path)
    assert open_source(path, missing="mask").shape[0] == FRAMES


def test_other_meanings_of_missing_are_refused(tmp_path):
    path = encode(tmp_path / "a.avi", "ffv1", "gray", {})
    with pytest.raises(InputError, match='use missing="mask"'):
        open_source(path, missing="black")


def test_places_of_lost_frames():
    index = VideoIndex((0, 10, 20, 50), frozenset((0, 10, 20, 50)), (), 7, 4, 0, 10.0)
    times, lost = completed_times(index)
    assert times.tolist() == [0, 10, 20, 30, 40, 50, 60]
    assert lost == {30, 40, 60}
    uneven = VideoIndex((0, 7, 20), frozenset((0, 7, 20)), (), 5, 3, 0, 10.0)
    assert completed_times(uneven) == (pytest.approx([0, 7, 20, 30, 40]), {30, 40})


def test_frames_that_need_a_damaged_one():
    # Shown in the order of numbers; 0 and 6 are key frames, 4 and 5 lean on 6 and on 3.
    index = VideoIndex((0, 3, 1, 2, 6, 4, 5, 9, 7, 8), frozenset((0, 6)))

    def needing(*bad):
        return dependent_frames(index, frozenset(bad), index.keys)

    assert needing(1) == {1, 2, 4, 5}
    assert needing(6) == {6, 4, 5, 9, 7, 8}
    assert needing(8) == {8}
    assert needing() == frozenset()
