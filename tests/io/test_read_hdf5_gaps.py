"""Values that an HDF5 file lacks are never zeros, and nothing in it is followed for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from scopeflow.errors import InputError, UnreadableFileError
from scopeflow.io.open import open_source
from scopeflow.io.read.boxes import TooManyPartsError, mapped, uncovered
from scopeflow.io.read.protocol import absent_frames

VIDEO = np.random.default_rng(2).integers(1, 999, (12, 16, 20)).astype("uint16")
every_missing = pytest.mark.parametrize("missing", ["error", "mask", "fill"])


def frames(source):
    return source.read(0, source.shape[0])[..., 0]


def with_zeros(*absent):
    video = VIDEO.copy()
    video[list(absent)] = 0
    return video


def write_parts(folder, count=3):
    """Write the recording as parts of 4 frames; return their paths."""
    paths = [folder / f"part_{n}.h5" for n in range(count)]
    for n, path in enumerate(paths):
        with h5py.File(path, "w") as file:
            file["mov"] = VIDEO[4 * n : 4 * n + 4]
    return paths


def write_virtual(path, parts, shape=VIDEO.shape, each=4, name="mov"):
    with h5py.File(path, "a") as file:
        layout = h5py.VirtualLayout(shape, "u2")
        for n, part in enumerate(parts):
            source = h5py.VirtualSource(part, "mov", shape=(each, *shape[1:]))
            layout[each * n : each * n + each] = source
        file.create_virtual_dataset(name, layout)
    return path


def raw_virtual(path, mappings, shape=VIDEO.shape, *, is_unlimited=False):
    """Write a virtual dataset from selections: (layout's, file, dataset, source's)."""
    limits = (h5s.UNLIMITED, *shape[1:]) if is_unlimited else shape
    with h5py.File(path, "a") as file:
        plist = h5p.create(h5p.DATASET_CREATE)
        for target, name, dataset, source in mappings:
            plist.set_virtual(target, name.encode(), dataset.encode(), source)
        space = h5s.create_simple(shape, limits)
        h5d.create(file.id, b"mov", h5t.NATIVE_UINT16, space, plist)
    return path


def hyperslab(start, count, stride, block, shape=VIDEO.shape, *, is_unlimited=False):
    space = h5s.create_simple(shape, (h5s.UNLIMITED, *shape[1:]) if is_unlimited else shape)
    space.select_hyperslab(
        (start, 0, 0), (count, 1, 1), stride=(stride, 1, 1), block=(block, *shape[1:])
    )
    return space


def test_whole_virtual_datasets_are_read_as_before(tmp_path):
    parts = write_parts(tmp_path)
    for name, given in (("relative", [p.name for p in parts]), ("absolute", parts)):
        path = write_virtual(tmp_path / f"{name}.h5", given)
        source = open_source(path)
        np.testing.assert_array_equal(frames(source), VIDEO)
        assert set(source.paths) == {str(path), *map(str, parts)}
        assert set(source.identity()) == {
            "kind", "path", "size", "mtime_ns", "files", "datasets", "axes", "fixed", "shape",
            "dtype",
        }  # fmt: skip
    inside = tmp_path / "inside.h5"
    with h5py.File(inside, "w") as file:
        file["stored"] = VIDEO
        layout = h5py.VirtualLayout(VIDEO.shape, "u2")
        layout[...] = h5py.VirtualSource(file["stored"])
        file.create_virtual_dataset("mov", layout)
    np.testing.assert_array_equal(frames(open_source(inside, dataset="mov")), VIDEO)


def lose(path):
    path.unlink()


def shrink(path):
    with h5py.File(path, "w") as file:
        file["mov"] = VIDEO[:3]


def narrow(path):
    with h5py.File(path, "w") as file:
        file["mov"] = VIDEO[:4, :, :19]


def rename(path):
    with h5py.File(path, "a") as file:
        file.move("mov", "other")


def empty(path):
    path.write_bytes(b"")


def truncate(path):
    os.truncate(path, 700)


def never_written(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("mov", (4, 16, 20), "u2")


@pytest.mark.parametrize(
    "harm", [lose, shrink, narrow, rename, empty, truncate, never_written], ids=lambda f: f.__name__
)
def test_a_source_that_is_gone_or_smaller_is_named(tmp_path, harm):
    parts = write_parts(tmp_path)
    path = write_virtual(tmp_path / "v.h5", [part.name for part in parts])
    harm(parts[1])
    with pytest.raises(UnreadableFileError) as caught:
        open_source(path)
    told = str(caught.value)
    assert "v.h5, mov" in told
    assert "part_1.h5" in told
    assert "4 of 12 frames lack pixels, first frames 4 to 7" in told
    assert 'missing="mask"' in told
    is_left_out = harm is never_written
    assert ("fill" in told) == is_left_out
    masked = open_source(path, missing="mask")
    assert absent_frames(masked) == (4, 5, 6, 7)
    np.testing.assert_array_equal(frames(masked), with_zeros(4, 5, 6, 7))
    if is_left_out:
        np.testing.assert_array_equal(
            frames(open_source(path, missing="fill")), with_zeros(4, 5, 6, 7)
        )
    else:
        with pytest.raises(UnreadableFileError, match=r"part_1\.h5"):
            open_source(path, missing="fill")


@every_missing
def test_a_source_that_goes_after_opening_is_noticed(tmp_path, missing):
    parts = write_parts(tmp_path)
    source = open_source(write_virtual(tmp_path / "v.h5", [p.name for p in parts]), missing=missing)
    np.testing.assert_array_equal(source.read(0, 2)[..., 0], VIDEO[:2])
    parts[2].unlink()
    with pytest.raises((UnreadableFileError, FileNotFoundError), match=r"part_2\.h5"):
        source.read(7, 10)


def test_virtual_datasets_of_virtual_datasets(tmp_path):
    parts = write_parts(tmp_path)
    inner = write_virtual(tmp_path / "inner.h5", [p.name for p in parts])
    outer = tmp_path / "outer.h5"
    with h5py.File(outer, "w") as file:
        layout = h5py.VirtualLayout((8, 16, 20), "u2")
        source = h5py.VirtualSource(inner, "mov", shape=VIDEO.shape)
        layout[...] = source[2:10]
        file.create_virtual_dataset("mov", layout)
    np.testing.assert_array_equal(frames(open_source(outer)), VIDEO[2:10])
    parts[1].unlink()
    with pytest.raises(UnreadableFileError, match=r"part_1\.h5.*4 of 8 .* frames 2 to 5"):
        open_source(outer)
    assert absent_frames(open_source(outer, missing="mask")) == (2, 3, 4, 5)
    inner.unlink()
    with pytest.raises(UnreadableFileError, match=r"inner\.h5.*8 of 8 "):
        open_source(outer)


def test_images_stacked_to_frames(tmp_path):
    for n in range(5):
        with h5py.File(tmp_path / f"{n}.h5", "w") as file:
            file["image"] = VIDEO[n]
    with h5py.File(tmp_path / "v.h5", "w") as file:
        layout = h5py.VirtualLayout((5, 16, 20), "u2")
        for n in range(5):
            layout[n] = h5py.VirtualSource(f"{n}.h5", "image", shape=(16, 20))
        file.create_virtual_dataset("mov", layout)
    np.testing.assert_array_equal(frames(open_source(tmp_path / "v.h5")), VIDEO[:5])
    (tmp_path / "3.h5").unlink()
    with pytest.raises(UnreadableFileError, match=r"3.h5.*1 of 5 .* frame 3"):
        open_source(tmp_path / "v.h5")
    assert absent_frames(open_source(tmp_path / "v.h5", missing="mask")) == (3,)


@pytest.mark.parametrize("rows", [16, 9])
def test_a_region_without_a_source(tmp_path, rows):
    """Frames 4 to 7 have no source, or only some rows of them."""
    parts = write_parts(tmp_path)
    path = tmp_path / "v.h5"
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout(VIDEO.shape, "u2", maxshape=VIDEO.shape)
        for n in (0, 2):
            source = h5py.VirtualSource(parts[n].name, "mov", shape=(4, 16, 20))
            layout[4 * n : 4 * n + 4] = source
        if rows < 16:
            source = h5py.VirtualSource(parts[1].name, "mov", shape=(4, 16, 20))
            layout[4:8, :rows] = source[:, :rows]
        file.create_virtual_dataset("mov", layout, fillvalue=5)
    with pytest.raises(UnreadableFileError, match=r"no source for a part.*4 of 12 .*frames 4 to 7"):
        open_source(path)
    np.testing.assert_array_equal(frames(open_source(path, missing="mask")), with_zeros(4, 5, 6, 7))
    filled = frames(open_source(path, missing="fill"))
    assert (filled[4:8, rows if rows < 16 else 0 :] == 5).all()


@pytest.mark.parametrize("names", ["part_%b.h5|mov", "all.h5|m/part_%b"])
def test_numbered_sources(tmp_path, names):
    parts = write_parts(tmp_path)
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for n in range(3):
            file[f"m/part_{n}"] = VIDEO[4 * n : 4 * n + 4]
    file_name, dataset = names.split("|")
    every = h5s.create_simple((4, 16, 20))
    target = hyperslab(0, h5s.UNLIMITED, 4, 4, is_unlimited=True)
    path = raw_virtual(tmp_path / "v.h5", [(target, file_name, dataset, every)], is_unlimited=True)
    np.testing.assert_array_equal(frames(open_source(path)), VIDEO)

    def lose_part(n):
        parts[n].unlink()
        with h5py.File(tmp_path / "all.h5", "a") as file:
            del file[f"m/part_{n}"]

    lose_part(1)
    for missing in ("error", "mask", "fill"):
        with pytest.raises(UnreadableFileError, match=r"part_1.* is missing, though a later one"):
            open_source(path, missing=missing)
    lose_part(0)
    with pytest.raises(UnreadableFileError, match=r"part_0.* is missing"):
        open_source(path)


def test_a_source_that_grows(tmp_path):
    with h5py.File(tmp_path / "grows.h5", "w") as file:
        file.create_dataset("mov", data=VIDEO, maxshape=(None, 16, 20), chunks=(1, 16, 20))
    both = [hyperslab(0, 1, 1, h5s.UNLIMITED, is_unlimited=True) for _ in range(2)]
    path = raw_virtual(
        tmp_path / "v.h5", [(both[0], "grows.h5", "mov", both[1])], is_unlimited=True
    )
    np.testing.assert_array_equal(frames(open_source(path)), VIDEO)
    (tmp_path / "grows.h5").unlink()
    with pytest.raises((UnreadableFileError, InputError), match=r"v\.h5"):
        open_source(path)


def test_frames_taken_in_turn(tmp_path):
    """Even frames from one file, odd ones from another."""
    every = h5s.create_simple((6, 16, 20))
    for n in range(2):
        with h5py.File(tmp_path / f"{n}.h5", "w") as file:
            file["mov"] = VIDEO[n::2]
    turns = [(hyperslab(n, 6, 2, 1), f"{n}.h5", "mov", every) for n in range(2)]
    path = raw_virtual(tmp_path / "v.h5", turns)
    np.testing.assert_array_equal(frames(open_source(path)), VIDEO)
    (tmp_path / "1.h5").unlink()
    assert absent_frames(open_source(path, missing="mask")) == (1, 3, 5, 7, 9, 11)


def circle(tmp_path, kind):
    """Write a virtual dataset that is its own source in one of several ways."""
    path = tmp_path / "a.h5"
    everything = h5s.create_simple(VIDEO.shape)
    if kind == "itself":
        raw_virtual(path, [(everything, ".", "mov", everything)])
    elif kind == "itself by name":
        raw_virtual(path, [(everything, "a.h5", "mov", everything)])
    elif kind == "itself by another name":
        raw_virtual(path, [(everything, "b.h5", "/x/../mov", everything)])
        os.symlink("a.h5", tmp_path / "b.h5")
        with h5py.File(path, "a") as file:
            file["x"] = h5py.SoftLink("/mov")
        path = tmp_path / "c.h5"
        raw_virtual(path, [(everything, "c.h5", "x", everything)])
        with h5py.File(path, "a") as file:
            file["x"] = h5py.SoftLink("/mov")
    elif kind == "a circle of files":
        for n in range(3):
            raw_virtual(
                tmp_path / f"{n}.h5", [(everything, f"{(n + 1) % 3}.h5", "mov", everything)]
            )
        path = tmp_path / "0.h5"
    elif kind == "a circle of datasets":
        with h5py.File(path, "w") as file:
            for n in range(2):
                layout = h5py.VirtualLayout(VIDEO.shape, "u2")
                layout[...] = h5py.VirtualSource(".", f"d{1 - n}", shape=VIDEO.shape)
                file.create_virtual_dataset(f"d{n}", layout)
    elif kind == "unlimited":
        both = [hyperslab(0, 1, 1, h5s.UNLIMITED, is_unlimited=True) for _ in range(2)]
        raw_virtual(path, [(both[0], ".", "mov", both[1])], is_unlimited=True)
    elif kind == "numbered":
        target = hyperslab(0, h5s.UNLIMITED, 12, 12, is_unlimited=True)
        raw_virtual(path, [(target, ".", "m%b", everything)], is_unlimited=True)
        with h5py.File(path, "a") as file:
            file["m0"] = h5py.SoftLink("/mov")
    else:
        for n in range(40):
            raw_virtual(tmp_path / f"{n}.h5", [(everything, f"{n + 1}.h5", "mov", everything)])
        path = tmp_path / "0.h5"
    return path


@every_missing
@pytest.mark.parametrize(
    "kind",
    [
        "itself", "itself by name", "itself by another name", "a circle of files",
        "a circle of datasets", "unlimited", "numbered", "too deep",
    ],
)  # fmt: skip
def test_a_dataset_that_is_its_own_source_is_refused(tmp_path, kind, missing):
    path = circle(tmp_path, kind)
    told = "more than 16 times" if kind == "too deep" else "is its own source"
    with pytest.raises(UnreadableFileError, match=told):
        open_source(path, missing=missing)


def test_circles_end_no_process(tmp_path):
    """The command line, in a process of its own: HDF5 would end it with a signal."""
    path = circle(tmp_path, "itself")
    command = [sys.executable, "-m", "scopeflow", "inspect", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "is its own source" in " ".join(ended.stderr.split())


def test_another_dataset_beside_a_circle_is_read(tmp_path):
    path = circle(tmp_path, "itself")
    with h5py.File(path, "a") as file:
        file["good"] = VIDEO
    np.testing.assert_array_equal(frames(open_source(path, dataset="good")), VIDEO)
    with pytest.raises(UnreadableFileError, match="is its own source"):
        open_source(path, dataset="mov")


@every_missing
def test_external_storage_is_refused(tmp_path, missing):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(VIDEO.tobytes())
    path = tmp_path / "e.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("mov", VIDEO.shape, "u2", external=[(secret, 0, VIDEO.nbytes)])
        file["good"] = VIDEO
    with pytest.raises(UnreadableFileError, match=r"e\.h5, /mov: .*secret.*external storage"):
        open_source(path, dataset="mov", missing=missing)
    np.testing.assert_array_equal(frames(open_source(path, dataset="good")), VIDEO)
    virtual = write_virtual(tmp_path / "v.h5", ["e.h5"], each=12)
    with pytest.raises(UnreadableFileError, match="external storage"):
        open_source(virtual, missing=missing)


@every_missing
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "address"])
def test_sources_that_are_no_files(tmp_path, kind, missing):
    name = {"device": "/dev/zero", "address": "http://127.0.0.1:9/a.h5"}.get(kind, "thing.h5")
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    if kind == "folder":
        (tmp_path / name).mkdir()
    path = write_virtual(tmp_path / "v.h5", [name], each=12)
    with pytest.raises((UnreadableFileError, InputError), match=f"v.h5.*{Path(name).name}"):
        open_source(path, missing=missing)


def test_links_to_other_files_are_not_followed(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    path = tmp_path / "l.h5"
    with h5py.File(path, "w") as file:
        file["mov"] = h5py.ExternalLink("pipe.h5", "/mov")
        file["good"] = VIDEO
    np.testing.assert_array_equal(frames(open_source(path)), VIDEO)
    with pytest.raises(LookupError, match=r"l\.h5: there is no dataset 'mov'"):
        open_source(path, dataset="mov")
    virtual = write_virtual(tmp_path / "v.h5", ["l.h5"], each=12)
    with pytest.raises(UnreadableFileError, match=r"l\.h5"):
        open_source(virtual)


def write_chunks(path, chunks, present, shape=VIDEO.shape, **options):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("mov", shape, "u2", chunks=chunks, **options)
        for place in present:
            index = tuple(slice(n, n + size) for n, size in zip(place, chunks, strict=False))
            data[index] = VIDEO[index]
    return path


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"maxshape": (None, 16, 20)}])
def test_chunks_that_were_never_written(tmp_path, options):
    path = write_chunks(tmp_path / "c.h5", (5, 16, 20), [(0, 0, 0), (10, 0, 0)], **options)
    with pytest.raises(UnreadableFileError) as caught:
        open_source(path)
    told = str(caught.value)
    assert "c.h5, mov: the dataset /mov lacks its chunk 1.0.0" in told
    assert "5 of 12 frames lack pixels, first frames 5 to 9" in told
    assert 'missing="fill"' in told
    assert 'missing="mask"' in told
    masked = open_source(path, missing="mask")
    assert absent_frames(masked) == (5, 6, 7, 8, 9)
    for missing in ("mask", "fill"):
        np.testing.assert_array_equal(
            frames(open_source(path, missing=missing)), with_zeros(5, 6, 7, 8, 9)
        )


def test_a_tile_that_was_never_written(tmp_path):
    present = [(t, y, 0) for t in range(0, 12, 3) for y in (0, 8) if (t, y) != (6, 8)]
    path = write_chunks(tmp_path / "c.h5", (3, 8, 20), present)
    with pytest.raises(UnreadableFileError, match=r"chunk 2\.1\.0, so 3 of 12 .* frames 6 to 8"):
        open_source(path)
    assert absent_frames(open_source(path, missing="mask")) == (6, 7, 8)


def test_a_dataset_that_was_never_written(tmp_path):
    for name, options in (("whole", {}), ("chunked", {"chunks": (1, 16, 20)})):
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("mov", VIDEO.shape, "u2", **options)
        with pytest.raises(UnreadableFileError, match="12 of 12 frames lack pixels"):
            open_source(path)
        with pytest.raises(InputError, match="Too few"):
            open_source(path, missing="mask")
        assert not frames(open_source(path, missing="fill")).any()


def test_only_the_chosen_plane_has_to_be_there(tmp_path):
    path = tmp_path / "z.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("mov", (6, 2, 16, 20), "u2", chunks=(2, 1, 16, 20))
        data[:, 0] = VIDEO[:6]
    np.testing.assert_array_equal(frames(open_source(path, axes="TZYX", z=0)), VIDEO[:6])
    with pytest.raises(UnreadableFileError, match="6 of 6"):
        open_source(path, axes="TZYX", z=1)


def test_channels_and_matlab_files(tmp_path):
    path = tmp_path / "m.mat"
    with h5py.File(path, "w") as file:
        for n in (1, 2):
            data = file.create_dataset(f"ch{n}", VIDEO.shape, "u2", chunks=(4, 16, 20))
            data.attrs["MATLAB_class"] = np.bytes_("uint16")
            data[: 12 if n == 1 else 8] = VIDEO[: 12 if n == 1 else 8]
    with pytest.raises(UnreadableFileError, match=r"/ch2 lacks its chunk 2.0.0, so 4 of 12"):
        open_source(path)
    masked = open_source(path, missing="mask")
    assert absent_frames(masked) == (8, 9, 10, 11)
    assert not masked.read(8, 12).any(), "no channel of a frame that lacks one"


@pytest.mark.parametrize(
    "value",
    [
        "abc",
        h5py.Empty("i4"),
        [0, 1, 1],
        [0, 1],
        [0.5, 1, 2],
        [2**62, 0, 1],
        b"012",
        [[0, 1, 2, 3]],
    ],
)
def test_a_bad_order_of_dimensions(tmp_path, value):
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("mov", data=VIDEO).attrs["dimension_ordering"] = value
    with pytest.raises(
        InputError, match=r"d\.h5, mov: its attribute dimension_ordering is .*axes="
    ):
        open_source(path)
    np.testing.assert_array_equal(frames(open_source(path, axes="TYX")), VIDEO)


@every_missing
def test_absurd_shapes(tmp_path, missing):
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("mov", (2**40, 2**20, 2**20), "u2", chunks=(1, 64, 64))
    with pytest.raises((UnreadableFileError, InputError), match=r"s\.h5.*"):
        open_source(path, missing=missing)


def test_uncovered_boxes_against_a_plain_mask():
    random = np.random.default_rng(3)
    for _ in range(100):
        shape = tuple(int(n) for n in random.integers(1, 9, 3))
        boxes = []
        mask = np.ones(shape, bool)
        for _ in range(int(random.integers(5))):
            pairs = [sorted(int(n) for n in random.integers(0, size + 1, 2)) for size in shape]
            boxes.append(tuple(map(tuple, pairs)))
            mask[tuple(slice(*pair) for pair in pairs)] = False
        found = np.zeros(shape, bool)
        for box in uncovered(shape, boxes):
            found[tuple(slice(*pair) for pair in box)] = True
        np.testing.assert_array_equal(found, mask)


def test_more_parts_than_can_be_checked():
    boxes = [((n, n + 1), (n, n + 1)) for n in range(5000)]
    with pytest.raises(TooManyPartsError):
        uncovered((10_000, 10_000), boxes)


def test_a_lost_part_is_found_in_what_it_is_a_part_of():
    source, target = [((0, 1), (2, 8), (0, 5))], [((10, 16), (3, 8))]
    assert mapped(((0, 1), (4, 20), (0, 5)), source, target) == [((12, 16), (3, 8))]
    assert mapped(((0, 1), (8, 9), (0, 5)), source, target) == []
    assert mapped(((0, 1), (7, 9), (0, 5)), source, [((0, 3), (0, 5)), ((4, 7), (0, 5))]) == [
        ((0, 3), (0, 5)), ((4, 7), (0, 5)),
    ]  # fmt: skip
