"""OME-Zarr metadata of any shape: one clear error, or left out where they only describe."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import zarr

from scopeflow.errors import MemoryLimitError, ScopeflowError, UnreadableFileError
from scopeflow.io.open import open_source

VIDEO = np.random.default_rng(4).integers(1, 999, (5, 2, 16, 20)).astype("uint16")
AXES = [
    {"name": "t", "type": "time", "unit": "second"},
    {"name": "c", "type": "channel"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]
SCALE = {"type": "scale", "scale": [0.1, 1, 0.5, 0.25]}
BIG = 10**30
# Whatever JSON can hold: of another kind, empty, nested, and numbers as text.
VALUES = [
    None, True, 0, -1, 1.5, BIG, "", "x", "3", "0", [], {}, [None], [[]], [{}], {"a": 1}, [1, 2],
    [[[["deep"]]]], {"": {"": []}}, "\u0000", "..", "/", "x" * 5000,
]  # fmt: skip


@pytest.fixture(scope="module", params=[2, 3])
def origin(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("ome") / "movie.zarr"
    group = zarr.create_group(path, zarr_format=request.param)
    group.create_array("0", data=VIDEO, chunks=(2, 2, 16, 20))
    group.create_group("labels")
    multiscale = {
        "axes": AXES,
        "datasets": [{"path": "0", "coordinateTransformations": [SCALE]}],
        "coordinateTransformations": [{"type": "scale", "scale": [2, 1, 1, 1]}],
    }
    omero = {"channels": [{"label": "a"}, {"label": "b"}]}
    described = {"multiscales": [multiscale], "omero": omero}
    if request.param == 3:
        group.attrs["ome"] = {"version": "0.5", **described}
    else:
        group.attrs.update(described)
    return path


@pytest.fixture
def movie(origin, tmp_path):
    """A copy of the recording, and a function that changes what its metadata hold."""
    path = tmp_path / "movie.zarr"
    shutil.copytree(origin, path)

    def change(place, value):
        file = path / ("zarr.json" if (path / "zarr.json").exists() else ".zattrs")
        content = json.loads(file.read_text())
        holder = content["attributes"]["ome"] if "attributes" in content else content
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
        file.write_text(json.dumps(content))
        return path

    return path, change


def opened(path, **choices):
    """Return the error about a file, or its recording once it was read."""
    try:
        source = open_source(path, **choices)
        source.read(0, source.shape[0])
    except ScopeflowError as error:
        return str(error), None
    return "", source


def test_the_recording_as_it_is(movie):
    source = open_source(movie[0])
    np.testing.assert_array_equal(source.read(0, 5), VIDEO.transpose(0, 2, 3, 1))
    assert source.metadata.pixel_size_um == (0.5, 0.25)
    assert source.metadata.frame_interval_s == pytest.approx(0.2)
    assert source.metadata.channel_names == ("a", "b")


DECIDING = [
    ("multiscales",),
    ("multiscales", 0),
    ("multiscales", 0, "datasets"),
    ("multiscales", 0, "datasets", 0),
    ("multiscales", 0, "datasets", 0, "path"),
    ("multiscales", 0, "axes"),
    ("multiscales", 0, "axes", 2),
    ("multiscales", 0, "axes", 2, "name"),
]
DESCRIBING = [
    ("omero",),
    ("omero", "channels"),
    ("omero", "channels", 1),
    ("omero", "channels", 1, "label"),
    ("multiscales", 0, "axes", 2, "unit"),
    ("multiscales", 0, "coordinateTransformations"),
    ("multiscales", 0, "coordinateTransformations", 0),
    ("multiscales", 0, "datasets", 0, "coordinateTransformations"),
    ("multiscales", 0, "datasets", 0, "coordinateTransformations", 0),
    ("multiscales", 0, "datasets", 0, "coordinateTransformations", 0, "type"),
    ("multiscales", 0, "datasets", 0, "coordinateTransformations", 0, "scale"),
    ("multiscales", 0, "datasets", 0, "coordinateTransformations", 0, "scale", 2),
]


@pytest.mark.parametrize("place", DECIDING, ids=lambda place: ".".join(map(str, place)))
def test_what_decides_is_refused_by_name(movie, place):
    path, change = movie
    refused = 0
    for value in VALUES:
        change(place, value)
        told, source = opened(path)
        if source is None:
            refused += 1
            assert str(path) in told
            assert "not understood" not in told, "it was expected"
            assert len(told) < 1500
        else:
            # Read by another way, as if the metadata were not there.
            np.testing.assert_array_equal(
                np.sort(source.read(0, source.shape[0]), None), np.sort(VIDEO, None)
            )
    assert refused >= len(VALUES) * 0.5


@pytest.mark.parametrize("place", DESCRIBING, ids=lambda place: ".".join(map(str, place)))
def test_what_describes_is_left_out(movie, place):
    path, change = movie
    for value in VALUES:
        change(place, value)
        source = open_source(path)
        np.testing.assert_array_equal(source.read(0, 5), VIDEO.transpose(0, 2, 3, 1))
        size = source.metadata.pixel_size_um
        assert size is None or (len(size) == 2 and all(0 < n < float("inf") for n in size))
        names = source.metadata.channel_names
        assert names is None or all(isinstance(name, str) for name in names)


@pytest.mark.parametrize(
    "path", ["..", "../0", "0/../0", "/etc/passwd", "s3://bucket/0", "http://a/0", "a\\..\\0"]
)
def test_paths_stay_inside_of_the_folder(movie, path):
    folder, change = movie
    change(("multiscales", 0, "datasets", 0, "path"), path)
    with pytest.raises(UnreadableFileError, match=r"movie\.zarr: its OME metadata"):
        open_source(folder)
    # What the metadata do not say can be given.
    assert open_source(folder, dataset="0", axes="TCYX").shape == (5, 16, 20, 2)


def test_a_level_that_is_a_group(movie):
    path, change = movie
    change(("multiscales", 0, "datasets", 0, "path"), "labels")
    with pytest.raises(UnreadableFileError, match="'labels', which is a group"):
        open_source(path)


def test_an_axis_without_a_name(movie):
    path, change = movie
    change(("multiscales", 0, "axes", 2), {"type": "space"})
    with pytest.raises(UnreadableFileError, match=r"axis 2 is .*an axis with a name is needed"):
        open_source(path)
    assert open_source(path, axes="TCYX").shape == (5, 16, 20, 2)


@pytest.mark.parametrize("kept", [0, 1, 7, 0.5])
def test_a_level_with_truncated_metadata(movie, kept):
    path, _ = movie
    file = next(one for one in (path / "0/zarr.json", path / "0/.zarray") if one.exists())
    text = file.read_text()
    file.write_text(text[: kept if isinstance(kept, int) else int(kept * len(text))])
    with pytest.raises(UnreadableFileError, match=r"movie\.zarr: the array '0'.*truncated"):
        open_source(path)


both_versions = pytest.mark.parametrize("version", [2, 3])
ABSURD = {
    # zarr takes true as 1.
    "shape": [[-5], [0], [BIG], [2**62], ["5"], [5.5], [None], [[5]], [], "abc"],
    "chunks": [[0], [-1], [BIG], [2**40], ["2"], [1.5], [None], [True], [], None, "abc"],
    "dtype": [
        "|O", "<c16", "<M8[s]", "|V4", "<U5", "string", "bytes", "object", 7, None, [["a", "<i4"]],
        "<f1000", "r99999999999",
    ],
}  # fmt: skip


@both_versions
@pytest.mark.parametrize("key", ABSURD)
def test_absurd_headers(tmp_path, version, key):
    for number, value in enumerate(ABSURD[key]):
        is_first = isinstance(value, list) and len(value) == 1 and key != "dtype"
        changed = [*value, 16, 20] if is_first else value
        refused_or_unchanged(tmp_path / str(number), version, key, changed)


def refused_or_unchanged(folder, version, key, value):
    """Change the header of an array, and ask for its frames in every way."""
    path = folder / "a.zarr"
    video = VIDEO[:, 0]
    zarr.create_array(path, data=video, chunks=(2, 16, 20), zarr_format=version)
    file = path / ("zarr.json" if version == 3 else ".zarray")
    content = json.loads(file.read_text())
    if version == 3 and key == "chunks":
        content["chunk_grid"]["configuration"]["chunk_shape"] = value
    else:
        content["data_type" if version == 3 and key == "dtype" else key] = value
    file.write_text(json.dumps(content))
    for missing in ("error", "mask", "fill"):
        told, source = opened(path, missing=missing)
        if source is None:
            assert str(path) in told
        else:
            np.testing.assert_array_equal(source.read(0, source.shape[0])[..., 0], video)


def test_a_chunk_larger_than_memory_is_told_with_the_numbers(tmp_path):
    path = tmp_path / "a.zarr"
    zarr.create_array(path, shape=(4, 16, 20), chunks=(2**40, 16, 20), dtype="u2")
    with pytest.raises(MemoryLimitError, match=r"a\.zarr: one chunk .* takes 7.04e\+05 GB"):
        open_source(path, missing="fill")


@pytest.mark.parametrize("part", ["compressor", "filters"])
def test_codecs_that_unpickle_are_refused(tmp_path, part):
    path = tmp_path / "p.zarr"
    zarr.create_array(path, data=VIDEO[:, 0], chunks=(5, 16, 20), zarr_format=2)
    content = json.loads((path / ".zarray").read_text())
    pickles = {"id": "pickle", "protocol": 5}
    content[part] = [pickles] if part == "filters" else pickles
    (path / ".zarray").write_text(json.dumps(content))
    for file in path.glob("[0-9]*"):
        file.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(ScopeflowError, match=r"p\.zarr"):
        open_source(path).read(0, 5)
    assert not (tmp_path / "ran").exists()
