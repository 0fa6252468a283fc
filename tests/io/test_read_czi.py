from __future__ import annotations

import builtins
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from scopeflow.cells.store.fovs import open_fovs
from scopeflow.errors import InputError, InputNotFoundError, UnreadableFileError
from scopeflow.io.open import describe, open_source

czi = pytest.importorskip("pylibCZIrw.czi")


def write_czi(path: Path, scenes, *, names=("Phase", "GFP"), pixel_um=0.65, omit=()) -> Path:
    """Write scenes of ``(T, C, Z, H, W)``; ``omit`` lists ``(scene, t, c, z)``."""
    with czi.create_czi(str(path)) as file:
        for s, scene in enumerate(scenes):
            for t, c, z in np.ndindex(scene.shape[:3]):
                if (s, t, c, z) not in omit:
                    place = {"T": t, "C": c, "Z": z}
                    location = (5000 * s - 40, 7 * s)
                    plane = np.ascontiguousarray(scene[t, c, z])
                    file.write(plane, plane=place, scene=s, location=location)
        step = pixel_um * 1e-6
        file.write_metadata("test", dict(enumerate(names)), scale_x=step, scale_y=2 * step)
    return path


def add_time_stamps(path: Path, times) -> None:
    """Append the attachment TimeStamps, as the ZISRAW format describes it."""

    def segment(name: bytes, content: bytes) -> bytes:
        size = len(content)
        return name.ljust(16, b"\0") + struct.pack("<qq", size, size) + content

    data = bytearray(path.read_bytes())
    place = len(data)
    entry = b"A1" + bytes(10) + struct.pack("<qi", place, 0) + bytes(16) + b"CZTIMS\0\0"
    entry += b"TimeStamps".ljust(80, b"\0")
    stamps = struct.pack(f"<ii{len(times)}d", 8 + 8 * len(times), len(times), *times)
    attached = struct.pack("<i", len(stamps)) + bytes(12) + entry + bytes(112) + stamps
    data += segment(b"ZISRAWATTACH", attached)
    data[32 + 72 : 32 + 80] = struct.pack("<q", len(data))
    data += segment(b"ZISRAWATTDIR", struct.pack("<i", 1) + bytes(252) + entry)
    path.write_bytes(bytes(data))


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(3)
    shapes = [(3, 2, 2, 40, 48), (3, 2, 2, 32, 64), (3, 2, 2, 40, 30)]
    return [rng.integers(0, 65536, shape).astype(np.uint16) for shape in shapes]


@pytest.fixture(scope="module")
def file(scenes, tmp_path_factory):
    return write_czi(tmp_path_factory.mktemp("czi") / "plate.czi", scenes)


def test_every_scene_channel_and_plane(file, scenes):
    for position, scene in enumerate(scenes):
        for z in range(2):
            source = open_source(file, position=position, z=z)
            frames, channels, _, height, width = scene.shape
            assert source.shape == (frames, height, width, channels)
            assert source.dtype == np.uint16
            expected = np.moveaxis(scene[:, :, z], 1, -1)
            np.testing.assert_array_equal(source.read(0, 3), expected)
            np.testing.assert_array_equal(source.read(1, 2), expected[1:2])


def test_facts(file):
    metadata = open_source(file, position=1, z=0).metadata
    assert metadata.channel_names == ("Phase", "GFP")
    assert metadata.pixel_size_um == (1.3, 0.65)
    assert metadata.frame_times_s is metadata.frame_interval_s is None
    rows = {name: value for name, value, _ in describe(open_source(file, position=1, z=0))}
    assert rows["pixel size"] == "1.3 × 0.65 µm"
    assert rows["axes in the file"] == "STZCYX"


def test_sources_travel_and_threads_share_the_file(file, scenes):
    source = pickle.loads(pickle.dumps(open_source(file, position=0, z=1)))
    expected = np.moveaxis(scenes[0][:, :, 1], 1, -1)
    with ThreadPoolExecutor(8) as pool:
        frames = np.concatenate(list(pool.map(lambda t: source.read(t, t + 1), range(3))))
    np.testing.assert_array_equal(frames, expected)
    assert source.identity() != open_source(file, position=0, z=0).identity()


def test_times(tmp_path):
    rng = np.random.default_rng(0)
    path = write_czi(tmp_path / "a.czi", [rng.integers(0, 255, (3, 1, 1, 20, 20)).astype("uint8")])
    add_time_stamps(path, [100.0, 160.5, 220.0])
    metadata = open_source(path).metadata
    assert metadata.frame_times_s == (0.0, 60.5, 120.0)
    assert metadata.frame_interval_s == 60.0
    assert metadata.origin("frame_times") == "CZI list TimeStamps"


def test_fields_of_view_and_projection(file, scenes, caplog):
    fovs = open_fovs(file)
    assert [fov.shape for fov in fovs] == [(3, s.shape[3], s.shape[4], 2) for s in scenes]
    assert "2 planes and the first is used" in caplog.text
    for fov, scene in zip(open_fovs(file, z="max"), scenes, strict=True):
        np.testing.assert_array_equal(fov.read(0, 3), np.moveaxis(scene.max(axis=2), 1, -1))
    np.testing.assert_array_equal(
        open_fovs(file, z=1)[2].read(0, 1)[0], np.moveaxis(scenes[2][0, :, 1], 0, -1)
    )


def test_tiles_of_a_scene_are_put_together(tmp_path):
    image = np.random.default_rng(5).integers(0, 255, (30, 50)).astype(np.uint8)
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for x in (0, 20, 40):
            tile = np.ascontiguousarray(image[:, x : x + 20])
            file.write(tile, plane={"T": 0, "C": 0}, scene=0, location=(300 + x, -8))
    np.testing.assert_array_equal(open_source(tmp_path / "a.czi").read(0, 1)[0, ..., 0], image)


def test_types(tmp_path):
    values = np.random.default_rng(2).normal(size=(2, 1, 1, 16, 18)).astype(np.float32)
    source = open_source(write_czi(tmp_path / "f.czi", [values], names=("A",)))
    assert source.dtype == np.float32
    np.testing.assert_array_equal(source.read(0, 2)[..., 0], values[:, 0, 0])
    with czi.create_czi(str(tmp_path / "m.czi")) as file:
        file.write(np.full((16, 18), 200, np.uint8), plane={"C": 0})
        file.write(np.full((16, 18), 40000, np.uint16), plane={"C": 1})
    mixed = open_source(tmp_path / "m.czi")
    assert mixed.dtype == np.uint16
    assert mixed.read(0, 1)[0, 3, 4].tolist() == [200, 40000]
    with czi.create_czi(str(tmp_path / "rgb.czi")) as file:
        file.write(np.zeros((16, 18, 3), np.uint8), plane={"C": 0})
    with pytest.raises(InputError, match=r"rgb\.czi: its pixels are Bgr24.*separate grey"):
        open_source(tmp_path / "rgb.czi")


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"z": 0}, ["3 scenes", "position=0"]),
        ({"position": 3, "z": 0}, ["position=3", "0 to 2"]),
        ({"position": 0}, ["2 planes", "z=0"]),
        ({"position": 0, "z": 2}, ["z=2", "0 to 1"]),
        ({"position": 0, "z": 0, "axes": "TYX"}, ["axes='TYX'", "no meaning"]),
    ],
)
def test_choices(file, choices, words):
    with pytest.raises(InputError) as raised:
        open_source(file, **choices)
    for word in ["plate.czi", *words]:
        assert word in str(raised.value)


def test_missing_images(scenes, tmp_path, caplog):
    path = write_czi(tmp_path / "a.czi", scenes[:1], omit=[(0, 1, 1, 0)])
    with pytest.raises(UnreadableFileError, match=r"a\.czi.*1 images are missing.*1, channel 1"):
        open_source(path, z=0)
    (fov,) = open_fovs(path, z=0)
    assert "1 images were never recorded, the first in frame 1; they are black" in caplog.text
    expected = np.moveaxis(scenes[0][:, :, 0], 1, -1).copy()
    expected[1, ..., 1] = 0
    np.testing.assert_array_equal(fov.read(0, 3), expected)


def test_damaged_files(file, tmp_path):
    data = file.read_bytes()
    for name, content in (("cut", data[: len(data) // 2]), ("head", b"ZISRAWFILE" + bytes(600))):
        path = tmp_path / f"{name}.czi"
        path.write_bytes(content)
        with pytest.raises(UnreadableFileError, match=rf"{name}\.czi.*truncated"):
            open_source(path, position=0, z=0)
    (tmp_path / "text.czi").write_text("not a CZI file")
    with pytest.raises(UnreadableFileError, match=r"text\.czi: named \.czi, but"):
        open_source(tmp_path / "text.czi")
    with pytest.raises(InputNotFoundError, match=r"none\.czi"):
        open_source(tmp_path / "none.czi")


def test_without_the_package_it_says_what_to_install(file, tmp_path, monkeypatch):
    path = tmp_path / "copy.czi"  # opened nowhere yet
    path.write_bytes(file.read_bytes())
    original = builtins.__import__

    def absent(name, *arguments, **keywords):
        if name.startswith("pylibCZIrw"):
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UnreadableFileError, match=r"copy\.czi.*scopeflow\[czi\]"):
        open_source(path, position=0, z=0)
