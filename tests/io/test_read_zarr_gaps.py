"""Chunks that a zarr archive lacks are never read as zeros, however it names and packs them."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec

from scopeflow.errors import InputError, ScopeflowError, UnreadableFileError
from scopeflow.io.open import open_source
from scopeflow.io.read.protocol import absent_frames
from scopeflow.io.zarr.grid import ChunkGrid, Gaps

VIDEO = np.random.default_rng(1).integers(1, 999, (10, 16, 20)).astype("uint16")
V3 = {"zarr_format": 3}
V2 = {"zarr_format": 2}


def key_encoding(name, separator):
    return {"chunk_key_encoding": {"name": name, "separator": separator}}


# Frames of each chunk or shard: 0–3, 4–7, 8–9. `{}` stands for the number along the frames.
LAYOUTS = {
    "v3": (V3, "c/{}/0/0"),
    "v3.": (V3 | key_encoding("default", "."), "c.{}.0.0"),
    "v3 named as v2": (V3 | key_encoding("v2", "."), "{}.0.0"),
    "v3 named as v2/": (V3 | key_encoding("v2", "/"), "{}/0/0"),
    "v2": (V2, "{}.0.0"),
    "v2/": (V2 | key_encoding("v2", "/"), "{}/0/0"),
    "tiles": (V3 | {"chunks": (4, 8, 7)}, "c/{}/1/2"),
    "shards": (V3 | {"shards": (4, 16, 20), "chunks": (2, 8, 20)}, "c/{}/0/0"),
    "shards.": (
        V3 | {"shards": (4, 16, 20), "chunks": (1, 16, 10)} | key_encoding("default", "."),
        "c.{}.0.0",
    ),
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def write(path, layout="v3", video=VIDEO, **changed):
    """Write a recording; return a function that gives the file of a chunk by its number."""
    arguments, name = LAYOUTS[layout]
    arguments = {"chunks": (4, *video.shape[1:]), **arguments, **changed}
    array = zarr.create_array(path, shape=video.shape, dtype=video.dtype, **arguments)
    array[:] = video
    return lambda number: Path(path) / name.format(number)


def frames(source):
    return source.read(0, source.shape[0])[..., 0]


def with_zeros(*absent):
    video = VIDEO.copy()
    video[list(absent)] = 0
    return video


def filled(layout):
    """Chunk number 1 of a layout as zeros; of tiles it is a part of the frames."""
    video = VIDEO.copy()
    video[4:8, 8 if layout == "tiles" else 0 :, 14 if layout == "tiles" else 0 :] = 0
    return video


@every_layout
def test_whole_archives_are_read_as_before(tmp_path, layout):
    write(tmp_path / "m.zarr", layout)
    for missing in ("error", "mask", "fill"):
        source = open_source(tmp_path / "m.zarr", missing=missing)
        np.testing.assert_array_equal(frames(source), VIDEO)
        np.testing.assert_array_equal(source.read(3, 9)[..., 0], VIDEO[3:9])
        assert absent_frames(source) == ()
        assert source.identity() == open_source(tmp_path / "m.zarr").identity()


@every_layout
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_chunk_is_an_error_that_names_it(tmp_path, layout, number):
    chunk = write(tmp_path / "m.zarr", layout)(number)
    chunk.unlink()
    first, last = number * 4, min(number * 4 + 3, 9)
    with pytest.raises(UnreadableFileError) as caught:
        open_source(tmp_path / "m.zarr")
    told = str(caught.value)
    key = chunk.relative_to(tmp_path / "m.zarr").as_posix()
    assert f"m.zarr: the chunk file {key} is missing" in told
    assert f"{last - first + 1} of 10 frames lack pixels, first frames {first} to {last}" in told
    assert 'missing="fill"' in told
    assert 'missing="mask"' in told
    assert "--missing" in told
    absent = tuple(range(first, last + 1))
    masked = open_source(tmp_path / "m.zarr", missing="mask")
    assert absent_frames(masked) == absent
    np.testing.assert_array_equal(frames(masked), with_zeros(*absent))


@every_layout
def test_a_chunk_of_no_bytes_is_an_error_unless_masked(tmp_path, layout):
    chunk = write(tmp_path / "m.zarr", layout)(1)
    chunk.write_bytes(b"")
    for missing in ("error", "fill"):
        with pytest.raises(UnreadableFileError, match=r"holds 0 bytes, so 4 of 10 frames") as told:
            open_source(tmp_path / "m.zarr", missing=missing)
        assert "fill" not in str(told.value), "no writer leaves out a chunk like that"
    masked = open_source(tmp_path / "m.zarr", missing="mask")
    assert absent_frames(masked) == (4, 5, 6, 7)
    np.testing.assert_array_equal(frames(masked), with_zeros(4, 5, 6, 7))


@every_layout
@pytest.mark.parametrize("fill", [0, 77])
def test_fill_reads_what_zarr_reads(tmp_path, layout, fill):
    """An archive as zarr writes it by default: chunks of the fill value are left out."""
    video = VIDEO.copy()
    video[4:8] = fill
    chunk = write(tmp_path / "m.zarr", layout, video, fill_value=fill)(1)
    if "tiles" not in layout:
        assert not chunk.exists()
    filled = open_source(tmp_path / "m.zarr", missing="fill")
    np.testing.assert_array_equal(frames(filled), video)
    assert absent_frames(filled) == ()
    with pytest.raises(UnreadableFileError, match="lack pixels, first frames 4 to 7"):
        open_source(tmp_path / "m.zarr")


@every_layout
@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("missing", ["error", "mask"])
def test_a_chunk_that_goes_after_opening_is_noticed(tmp_path, layout, harm, missing):
    chunk = write(tmp_path / "m.zarr", layout)
    source = open_source(tmp_path / "m.zarr", missing=missing)
    np.testing.assert_array_equal(source.read(4, 8)[..., 0], VIDEO[4:8])
    harm(chunk(1))
    np.testing.assert_array_equal(source.read(0, 4)[..., 0], VIDEO[:4])
    for start, stop in ((4, 5), (3, 9), (0, 10)):
        with pytest.raises(UnreadableFileError, match=r"m\.zarr: the chunk file .*frame"):
            source.read(start, stop)


def test_several_gaps_are_counted(tmp_path):
    chunk = write(tmp_path / "m.zarr", chunks=(1, 16, 20))
    for number in (2, 3, 8):
        chunk(number).unlink()
    with pytest.raises(
        UnreadableFileError, match=r"c/2/0/0 is missing, so 3 of 10 .*frames 2 to 3"
    ):
        open_source(tmp_path / "m.zarr")
    masked = open_source(tmp_path / "m.zarr", missing="mask")
    assert masked.identity()["absent"] == [2, 3, 8]
    np.testing.assert_array_equal(frames(masked), with_zeros(2, 3, 8))
    np.testing.assert_array_equal(masked.read(3, 9)[..., 0], with_zeros(2, 3, 8)[3:9])


def test_a_folder_without_any_chunk_cannot_be_masked(tmp_path):
    write(tmp_path / "m.zarr")
    shutil.rmtree(tmp_path / "m.zarr" / "c")
    with pytest.raises(UnreadableFileError, match="10 of 10 frames lack pixels"):
        open_source(tmp_path / "m.zarr")
    with pytest.raises(InputError, match="10 of 10 frames"):
        open_source(tmp_path / "m.zarr", missing="mask")
    assert not frames(open_source(tmp_path / "m.zarr", missing="fill")).any()


def test_black_is_for_other_formats(tmp_path):
    write(tmp_path / "m.zarr")
    with pytest.raises(InputError, match=r"m\.zarr.*black.*fill"):
        open_source(tmp_path / "m.zarr", missing="black")


def test_only_the_chosen_plane_has_to_be_there(tmp_path):
    video = np.stack([VIDEO, VIDEO + 1], 1)
    zarr.create_array(
        tmp_path / "m.zarr", data=video, chunks=(5, 1, 16, 20), dimension_names=list("tzyx")
    )
    (tmp_path / "m.zarr/c/1/1/0/0").unlink()
    np.testing.assert_array_equal(frames(open_source(tmp_path / "m.zarr", z=0)), VIDEO)
    with pytest.raises(UnreadableFileError, match="c/1/1/0/0 is missing, so 5 of 10"):
        open_source(tmp_path / "m.zarr", z=1)


@pytest.mark.parametrize("axes", ["YXT", "CTYX", "YX"])
def test_frames_may_be_any_axis_or_none(tmp_path, axes):
    shape = tuple({"T": 6, "C": 2, "Y": 12, "X": 14}[letter] for letter in axes)
    values = np.ones(shape, "u2")
    chunks = tuple({"T": 2, "C": 1, "Y": 12, "X": 7}[letter] for letter in axes)
    zarr.create_array(tmp_path / "m.zarr", data=values, chunks=chunks)
    gap = {"YXT": "c/0/1/2", "CTYX": "c/1/2/0/0", "YX": "c/0/1"}[axes]
    (tmp_path / "m.zarr" / gap).unlink()
    told = {"YX": "1 of 1 frames lack pixels, first frame 0"}.get(axes, "2 of 6 .* frames 4 to 5")
    with pytest.raises(UnreadableFileError, match=f"{gap} is missing, so {told}"):
        open_source(tmp_path / "m.zarr", axes=axes)
    if axes != "YX":
        masked = open_source(tmp_path / "m.zarr", axes=axes, missing="mask")
        assert absent_frames(masked) == (4, 5)
        assert not masked.read(4, 6).any()
        assert masked.read(0, 4).all()


def without_inner(path, layout, numbers, **changed):
    """Write shards of which some frames were left out, as zarr does for the fill value."""
    video = with_zeros(*numbers)
    return write(path, layout, video, **changed)


@pytest.mark.parametrize("order", ["start", "end"])
@pytest.mark.parametrize(
    "index_codecs", [[BytesCodec()], [BytesCodec(endian="big"), Crc32cCodec()]]
)
def test_inner_chunks_that_a_shard_lacks(tmp_path, order, index_codecs):
    codec = ShardingCodec(
        chunk_shape=(2, 16, 10), codecs=[BytesCodec(), GzipCodec()],
        index_codecs=index_codecs, index_location=order,
    )  # fmt: skip
    array = zarr.create_array(
        tmp_path / "m.zarr", shape=VIDEO.shape, chunks=(4, 16, 20), dtype="u2", serializer=codec,
        compressors=None, filters=None,
    )  # fmt: skip
    video = VIDEO.copy()
    video[6:8, :, 10:] = 0
    array[:] = video
    source = open_source(tmp_path / "m.zarr")
    np.testing.assert_array_equal(source.read(0, 6)[..., 0], VIDEO[:6])
    for start, stop in ((6, 7), (4, 8), (7, 9), (0, 10), (5, 7)):
        with pytest.raises(
            UnreadableFileError, match=r"m\.zarr: the chunk file c/1/0/0 lacks inner"
        ):
            source.read(start, stop)
    np.testing.assert_array_equal(source.read(8, 10)[..., 0], VIDEO[8:])
    masked = open_source(tmp_path / "m.zarr", missing="mask")
    assert absent_frames(masked) == (6, 7)
    np.testing.assert_array_equal(frames(masked), with_zeros(6, 7))
    np.testing.assert_array_equal(frames(open_source(tmp_path / "m.zarr", missing="fill")), video)


@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
@pytest.mark.parametrize("whole", [True, False])
def test_shards_in_shards_and_behind_a_transposition(tmp_path, whole):
    inner = ShardingCodec(chunk_shape=(1, 16, 20), codecs=[BytesCodec()])
    nested = {"serializer": ShardingCodec(chunk_shape=(2, 16, 20), codecs=[inner])}
    turned = {
        "serializer": ShardingCodec(chunk_shape=(2, 4, 4), codecs=[BytesCodec()]),
        "filters": [TransposeCodec(order=(0, 2, 1))],
    }
    video = VIDEO if whole else with_zeros(4, 5)
    for name, codecs in (("nested", nested), ("turned", turned)):
        path = tmp_path / f"{name}.zarr"
        array = zarr.create_array(
            path, shape=VIDEO.shape, chunks=(4, 16, 20), dtype="u2", compressors=None,
            **{"filters": None, **codecs},
        )  # fmt: skip
        array[:] = video
        source = open_source(path)
        np.testing.assert_array_equal(source.read(0, 4)[..., 0], VIDEO[:4])
        if whole:
            np.testing.assert_array_equal(frames(source), VIDEO)
        else:
            with pytest.raises(UnreadableFileError, match="lacks chunks inside its shards"):
                source.read(3, 6)
        np.testing.assert_array_equal(frames(open_source(path, missing="fill")), video)


@pytest.mark.parametrize("kept", [0.3, 0.9])
@pytest.mark.parametrize("order", ["start", "end"])
@pytest.mark.parametrize("missing", ["error", "fill", "mask"])
def test_truncated_shards(tmp_path, kept, order, missing):
    codec = ShardingCodec(chunk_shape=(1, 16, 20), codecs=[BytesCodec()], index_location=order)
    array = zarr.create_array(
        tmp_path / "m.zarr", shape=VIDEO.shape, chunks=(4, 16, 20), dtype="u2", serializer=codec,
        compressors=None, filters=None,
    )  # fmt: skip
    array[:] = VIDEO
    shard = tmp_path / "m.zarr/c/1/0/0"
    os.truncate(shard, int(kept * shard.stat().st_size))
    for start, stop in ((7, 8), (4, 8), (6, 9)):
        with pytest.raises(UnreadableFileError, match=r"m\.zarr"):
            open_source(tmp_path / "m.zarr", missing=missing).read(start, stop)


@every_layout
def test_remote_archives(request, tmp_path, layout):
    address = f"memory://gaps-{abs(hash(request.node.name))}/m.zarr"
    chunk = write(tmp_path / "m.zarr", layout)(1)
    fsspec.filesystem("memory").put(str(tmp_path / "m.zarr"), address, recursive=True)
    whole = open_source(address)
    np.testing.assert_array_equal(frames(whole), VIDEO)
    fsspec.filesystem("memory").rm_file(
        f"{address}/{chunk.relative_to(tmp_path / 'm.zarr').as_posix()}"
    )
    with pytest.raises(UnreadableFileError, match=r"the chunk file .* is missing"):
        whole.read(3, 5)
    with pytest.raises(UnreadableFileError, match="is missing, so 4 of 10 frames"):
        open_source(address)
    masked = open_source(address, missing="mask")
    assert absent_frames(masked) == (4, 5, 6, 7)
    np.testing.assert_array_equal(frames(masked), with_zeros(4, 5, 6, 7))
    np.testing.assert_array_equal(frames(open_source(address, missing="fill")), filled(layout))


def test_inner_chunks_of_remote_shards(request, tmp_path):
    address = f"memory://gaps-{request.node.name}/m.zarr"
    video = with_zeros(2, 3)
    write(tmp_path / "m.zarr", "shards", video)
    fsspec.filesystem("memory").put(str(tmp_path / "m.zarr"), address, recursive=True)
    with pytest.raises(UnreadableFileError, match="c/0/0/0 lacks inner chunks"):
        open_source(address).read(1, 3)
    assert absent_frames(open_source(address, missing="mask")) == (2, 3)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


# Shards would need a server that knows ranges of bytes.
@pytest.mark.parametrize("layout", ["v3", "v2", "tiles"])
def test_stores_that_cannot_list_tell_when_frames_are_read(tmp_path, served, layout):
    pytest.importorskip("aiohttp")
    chunk = write(tmp_path / "m.zarr", layout)(1)
    chunk.unlink()
    source = open_source(f"{served}/m.zarr")
    np.testing.assert_array_equal(source.read(0, 4)[..., 0], VIDEO[:4])
    with pytest.raises(
        UnreadableFileError, match=r"the chunk file .* is missing, so frames 4 to 5"
    ):
        source.read(2, 6)
    as_zarr_reads = open_source(f"{served}/m.zarr", missing="fill")
    np.testing.assert_array_equal(frames(as_zarr_reads), filled(layout))


def test_groups_and_objects(tmp_path):
    group = zarr.create_group(tmp_path / "g.zarr")
    array = group.create_array("video", data=VIDEO, chunks=(5, 16, 20))
    (tmp_path / "g.zarr/video/c/1/0/0").unlink()
    for given in (tmp_path / "g.zarr", array):
        with pytest.raises(UnreadableFileError, match="c/1/0/0 is missing"):
            open_source(given)
        assert absent_frames(open_source(given, missing="mask")) == (5, 6, 7, 8, 9)
        assert open_source(given, missing="fill").shape[0] == 10


def test_lists_of_recordings_take_the_choice(tmp_path):
    for name in ("a_1", "a_2"):
        write(tmp_path / f"{name}.zarr")
    (tmp_path / "a_2.zarr/c/0/0/0").unlink()
    paths = [tmp_path / "a_1.zarr", tmp_path / "a_2.zarr"]
    assert absent_frames(open_source(paths, missing="mask")) == (10, 11, 12, 13)
    with pytest.raises(UnreadableFileError, match=r"a_2\.zarr: the chunk file c/0/0/0 is missing"):
        open_source(paths)


def test_other_files_in_the_folder_are_no_chunks(tmp_path):
    chunk = write(tmp_path / "m.zarr")(1)
    shutil.copy(chunk, chunk.with_name("00"))
    shutil.copy(chunk, chunk.with_name("0.tmp"))
    (tmp_path / "m.zarr/c/9/0").mkdir(parents=True)
    shutil.copy(chunk, tmp_path / "m.zarr/c/9/0/0")
    assert open_source(tmp_path / "m.zarr").shape[0] == 10
    chunk.unlink()
    with pytest.raises(UnreadableFileError, match="4 of 10"):
        open_source(tmp_path / "m.zarr")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_pipes_do_not_hang(tmp_path):
    chunk = write(tmp_path / "m.zarr")(1)
    chunk.unlink()
    os.mkfifo(chunk)
    for missing in ("error", "fill"):
        with pytest.raises(UnreadableFileError, match="0 bytes"):
            open_source(tmp_path / "m.zarr", missing=missing)
    group = zarr.create_group(tmp_path / "g.zarr")
    group.create_array("video", data=VIDEO)
    (tmp_path / "g.zarr/video/zarr.json").unlink()
    os.mkfifo(tmp_path / "g.zarr/video/zarr.json")
    with pytest.raises(UnreadableFileError, match="pipe"):
        open_source(tmp_path / "g.zarr")


def test_links_in_circles_end(tmp_path):
    write(tmp_path / "m.zarr")
    for name in "ab":
        (tmp_path / "m.zarr/c" / name).symlink_to(tmp_path / "m.zarr/c")
    with pytest.raises(UnreadableFileError, match=r"m\.zarr: a folder in it is a link"):
        open_source(tmp_path / "m.zarr")


@pytest.mark.parametrize(
    ("shape", "chunk", "there", "gaps"),
    [
        ((10, 8), (4, 8), ["c/0/0", "c/1/0", "c/2/0"], None),
        ((10, 8), (4, 8), ["c/1/0"], Gaps(((0, 4), (8, 10)), "c/0/0")),
        ((10, 8), (4, 4), ["c/0/0", "c/0/1", "c/1/1"], Gaps(((4, 10),), "c/1/0")),
        # Takes no time, however large a header says that it is.
        ((10**30, 10**30), (1, 1), ["c/0/0"], Gaps(((0, 10**30),), "c/0/1")),
        ((10**30, 1), (10, 1), ["c/0/0", "c/2/0"], Gaps(((10, 20), (30, 10**30)), "c/1/0")),
    ],
)
def test_gaps(shape, chunk, there, gaps):
    assert ChunkGrid(shape, chunk, "c/", "/", 0).gaps(there) == gaps


def test_any_gap_is_found_with_its_frames(tmp_path):
    """Against a plain count: some chunks of a random grid are removed."""
    random = np.random.default_rng(5)
    for _ in range(50):
        shape = tuple(int(n) for n in random.integers(1, 9, 3))
        chunk = tuple(int(n) for n in random.integers(1, 5, 3))
        time = int(random.integers(3))
        grid = ChunkGrid(shape, chunk, "", ".", time)
        counts = [-(-a // b) for a, b in zip(shape, chunk, strict=True)]
        held = [place for place in np.ndindex(*counts) if random.random() < 0.9]
        lost = set(np.ndindex(*counts)) - set(held)
        wanted = sorted(
            {
                frame
                for place in lost
                for frame in range(place[time] * chunk[time], (place[time] + 1) * chunk[time])
                if frame < shape[time]
            }
        )
        gaps = grid.gaps([grid.key(place) for place in held])
        found = [n for start, stop in (gaps.spans if gaps else ()) for n in range(start, stop)]
        assert found == wanted
        assert gaps is None or grid.place(gaps.first) in lost


def test_results_with_frames_of_zeros_leave_no_chunk_out(tmp_path):
    """What zarr would leave out by default is written here: results stay readable."""
    from scopeflow import OFOptions, compensate_recording

    video = np.zeros((6, 24, 24, 1), "uint16")
    options = OFOptions(
        input_file=video, output_path=str(tmp_path / "out"), output_format="ZARR",
        quality_setting="fast", iterations=2, buffer_size=3, reference_frames=video[0],
    )  # fmt: skip
    compensate_recording(options)
    result = open_source(tmp_path / "out" / "compensated.zarr")
    assert not result.read(0, 6).any()


def test_every_refusal_is_one_of_ours(tmp_path):
    write(tmp_path / "m.zarr", "shards")(0).unlink()
    with pytest.raises(ScopeflowError) as caught:
        open_source(tmp_path / "m.zarr")
    assert caught.value.__cause__ is None
