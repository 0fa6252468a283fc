"""Chunks and arrays that are written without zarr hold the bytes that zarr writes."""

from __future__ import annotations

import numcodecs
import numpy as np
import pytest
import zarr
from packaging.version import Version
from zarr.codecs import BloscCodec

from scopeflow.cells.store.arrays import create_stack, read_array, write_array, write_frames
from scopeflow.errors import UnreadableFileError
from scopeflow.io.zarr.shards import Shards, read_whole, write_group, write_whole

# Before numcodecs 0.16 zarr did not tell the compressor how large an item is; we always do.
SAME_BYTES = Version(numcodecs.__version__) >= Version("0.16")


def files_below(folder):
    """Files by name: their bytes, or where these may differ for chunks whether there are any."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if SAME_BYTES or path.name == "zarr.json"
        else path.stat().st_size > 0
        for path in found
    }


def values_of(dtype, shape):
    rng = np.random.default_rng(len(shape))
    return (rng.integers(0, 200, shape) * (rng.random(shape) < 0.3)).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("float32", (7, 20, 31)), ("int32", (3,)), ("int32", (2, 3, 4)), ("bool", (3, 4))],
)
def test_one_chunk(tmp_path, dtype, shape):
    values = values_of(dtype, shape)
    codec = BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=values.itemsize)
    written = write_whole(tmp_path / "ours", values, codec, attributes={"scale": 2.5})
    assert sorted(written) == sorted(p for p in (tmp_path / "ours").rglob("*") if p.is_file())
    array = zarr.create_array(
        tmp_path / "zarr",
        shape=shape,
        dtype=dtype,
        chunks=shape,
        compressors=codec,
        attributes={"scale": 2.5},
    )
    array[...] = values
    assert files_below(tmp_path / "ours") == files_below(tmp_path / "zarr")
    np.testing.assert_array_equal(read_whole(tmp_path / "zarr"), values)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "ours", mode="r")[...], values)


@pytest.mark.parametrize("shape", [(5, 10, 15), (1, 1, 1), (40, 31, 33), (3, 256, 2)])
def test_a_shard_of_frames(tmp_path, shape):
    values = values_of("uint8", shape)
    values[0] = 0  # zarr writes chunks of nothing but zeros where it is told to
    codec = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=1)
    write_whole(tmp_path / "ours", values, codec, frames_apart=True)
    array = zarr.create_array(
        tmp_path / "zarr",
        shape=shape,
        dtype="uint8",
        chunks=(1, *shape[1:]),
        shards=shape,
        compressors=codec,
        config={"write_empty_chunks": True},
    )
    array[...] = values
    assert files_below(tmp_path / "ours") == files_below(tmp_path / "zarr")


def test_groups(tmp_path):
    zarr.create_group(tmp_path / "zarr", attributes={"scale": 3.0, "padding": 0})
    write_group(tmp_path / "ours", {"scale": 3.0, "padding": 0})
    assert files_below(tmp_path / "ours") == files_below(tmp_path / "zarr")
    write_group(tmp_path / "ours", {"scale": 4.0})  # one that stands there stays
    assert zarr.open_group(tmp_path / "ours", mode="r").attrs["scale"] == 3.0


@pytest.mark.parametrize(("level", "side"), [("0", 2048), ("1", 256)])
def test_frames_of_a_stack(tmp_path, level, side):
    # 260 px: the chunks of the display level at the edges are padded.
    dtype = np.uint16 if level == "0" else np.uint8
    values = values_of(dtype, (3, 260, 300))
    for name in ("ours", "zarr"):
        create_stack(tmp_path / name, f"a/{level}", values.shape, dtype, "print")
    files = write_frames(tmp_path / "ours", f"a/{level}", 1, values[1:])
    array = zarr.open_array(tmp_path / "zarr" / "a" / level).with_config(
        {"write_empty_chunks": True}
    )
    array[1:] = values[1:]
    assert array.chunks == (1, min(side, 260), min(side, 300))
    assert files_below(tmp_path / "ours") == files_below(tmp_path / "zarr")
    assert sorted(files) == [
        f"ours/{name}" for name in files_below(tmp_path / "ours") if "/c/" in name
    ]
    with pytest.raises(ValueError, match="do not fit"):
        write_frames(tmp_path / "ours", f"a/{level}", 2, values[1:])
    with pytest.raises(ValueError, match="do not fit"):
        write_frames(tmp_path / "ours", f"a/{level}", 0, values.astype(np.int64))


def test_arrays_without_items_and_wide_display_levels(tmp_path):
    store = tmp_path / "cells.zarr"
    assert write_array(store, "ids", np.zeros(0, np.int32)) == ["cells.zarr/ids/zarr.json"]
    assert zarr.open_array(store / "ids", mode="r").shape == (0,)
    wide = values_of("uint8", (2, 20, 300))
    files = write_array(store, "b/1", wide)
    array = zarr.open_array(store / "b/1", mode="r")
    assert (array.chunks, array.shards) == ((1, 20, 256), (2, 20, 512))
    np.testing.assert_array_equal(array[...], wide)
    assert sorted(files) == ["cells.zarr/b/1/c/0/0/0", "cells.zarr/b/1/zarr.json"]


def test_what_is_no_such_array_is_refused(tmp_path):
    store = tmp_path / "cells.zarr"
    write_array(store, "a/1", values_of("uint8", (3, 4, 5)))
    with pytest.raises(ValueError, match="no array of one Blosc chunk"):
        read_array(store, "a/1")
    with pytest.raises(OSError):
        read_array(store, "nothing/0")


@pytest.mark.parametrize(("frames", "length", "per_chunk"), [(6, 6, 3), (20, 8, 4), (9, 8, 2)])
@pytest.mark.parametrize("dtype", ["uint16", "float32", "bool"])
def test_shards_of_a_long_array(tmp_path, frames, length, per_chunk, dtype):
    values = values_of(dtype, (frames, 2, 21, 30))
    values[0] = 0
    codec = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=values.itemsize)
    array = zarr.create_array(
        tmp_path / "zarr",
        shape=values.shape,
        dtype=dtype,
        chunks=(per_chunk, *values.shape[1:]),
        shards=(length, *values.shape[1:]),
        compressors=codec,
        config={"write_empty_chunks": True},
    )
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "zarr.json").write_bytes((tmp_path / "zarr" / "zarr.json").read_bytes())
    shards, theirs = (
        Shards(tmp_path / name, values.shape, values.dtype, length, per_chunk, codec)
        for name in ("ours", "zarr")
    )
    for n, start in enumerate(range(0, frames, length)):
        block = values[start : start + length]
        assert shards.write(start, block) == f"c/{n}/0/0/0"
        array[start : start + length] = block
    ours = zarr.open_array(tmp_path / "ours", mode="r")
    np.testing.assert_array_equal(ours[:], values)
    np.testing.assert_array_equal(ours[frames - 1], values[-1])
    whole = frames // length  # zarr fills the last shard up with chunks of nothing
    files = files_below(tmp_path)
    for n in range(whole):
        name = f"c/{n}/0/0/0"
        assert files[f"ours/{name}"] == files[f"zarr/{name}"]
        for one in (shards, theirs):
            for start, stop in [(0, length), (1, length - 1), (length - 1, length)]:
                first = n * length
                read = one.read(first + start, first + stop)
                np.testing.assert_array_equal(read, values[first + start : first + stop])
    for start, stop in [(0, frames), (length - 1, frames), (frames - 1, frames), (2, 2)]:
        np.testing.assert_array_equal(shards.read(start, stop), values[start:stop])


@pytest.mark.parametrize("damage", ["cut", "index", "chunk", "empty", "shorter", "longer"])
def test_a_damaged_shard_is_an_error(tmp_path, damage):
    values = values_of("uint16", (6, 40, 50))
    codec = BloscCodec(cname="lz4", typesize=2)
    shards = Shards(tmp_path, values.shape, values.dtype, 6, 3, codec)
    file = tmp_path / shards.write(0, values)
    data = bytearray(file.read_bytes())
    if damage == "index":
        data[-10] ^= 1
    elif damage == "chunk":
        data[0:8] = bytes(8)
    elif damage == "shorter":
        data[4:8] = (values[:3].nbytes - 2).to_bytes(4, "little")  # bytes that the chunk holds
    elif damage == "longer":
        data[12:16] = (2**24).to_bytes(4, "little")  # bytes that it takes
    file.write_bytes(data[: {"cut": -7, "empty": 0}.get(damage, len(data))])
    with pytest.raises(UnreadableFileError, match="no whole shard"):
        shards.read(0, 6)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        shards.read(0, 6)
