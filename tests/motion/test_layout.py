from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import yaozarrs
import zarr

from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.zarr.ngff import ngff_attributes
from scopeflow.motion.store.layout import (
    REGISTERED,
    ResultStore,
    StoreLayout,
    create_store,
    read_layout,
)

LAYOUT = StoreLayout((10, 12, 14, 2), "uint16", (6, 7), 4)


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "compensated.zarr"
    create_store(path, LAYOUT, {"settings": {"levels": (1, 2)}, "versions": {"numpy": "2.2"}})
    store = ResultStore(str(path), LAYOUT)
    metadata = VideoMetadata((0.5, 0.5), None, 0.1, ("green", "red"))
    store.set_attributes(**ngff_attributes("compensated", REGISTERED, metadata, [(0, 9)] * 2))
    return store


def test_blocks_come_back_and_each_is_one_file(store, tmp_path):
    rng = np.random.default_rng(0)
    video = rng.integers(0, 60000, LAYOUT.shape, dtype=np.uint16)
    files = [store.write("registered", a, min(a + 4, 10), video[a : a + 4]) for a in (0, 4, 8)]
    assert len(set(files)) == 3
    for name in files:
        assert (tmp_path / "compensated.zarr" / name).is_file()
    np.testing.assert_array_equal(store.read("registered", 0, 10), video)
    # An independent reader sees the axes in NGFF order.
    stored = zarr.open_group(store.path, mode="r")["registered"]
    np.testing.assert_array_equal(stored[:], np.moveaxis(video, -1, 1))
    on_disk = sorted(
        p for p in (tmp_path / "compensated.zarr/registered/c").rglob("*") if p.is_file()
    )
    assert len(on_disk) == 3


def test_blocks_of_zeros_are_files_too(store, tmp_path):
    name = store.write("valid", 0, 4, np.zeros((4, 12, 14), bool))
    assert (tmp_path / "compensated.zarr" / name).is_file()


@pytest.mark.parametrize(("start", "stop"), [(1, 5), (0, 3), (8, 12), (0, 8)])
def test_anything_but_a_whole_shard_is_refused(store, start, stop):
    with pytest.raises(ValueError, match="whole shard"):
        store.write("valid", start, stop, np.zeros((stop - start, 12, 14), bool))


def test_layout_is_read_back_and_a_half_made_store_is_none(store, tmp_path):
    assert read_layout(tmp_path / "compensated.zarr") == LAYOUT
    (tmp_path / "compensated.zarr/motion/zarr.json").unlink()
    assert read_layout(tmp_path / "compensated.zarr") is None
    assert read_layout(tmp_path / "nowhere") is None


def test_the_store_travels_by_pickle(store):
    store.write("motion", 0, 4, np.ones((4, 6, 7, 2), np.float32))
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.read("motion", 0, 4), 1)


def test_ngff_metadata_names_axes_units_and_scale():
    ome = ngff_attributes(
        "x", REGISTERED, VideoMetadata((0.5, 0.25), None, 0.1, ("green",)), [(0, 9)]
    )["ome"]
    (image,) = ome["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["t", "c", "y", "x"]
    assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == [0.1, 1.0, 0.5, 0.25]
    assert image["axes"][2]["unit"] == "micrometer"


def test_a_damaged_shard_is_replaced(store, tmp_path):
    shard = tmp_path / "compensated.zarr" / store.write("valid", 0, 4, np.ones((4, 12, 14), bool))
    shard.write_bytes(shard.read_bytes()[:-7])
    store.write("valid", 0, 4, np.ones((4, 12, 14), bool))
    assert store.read("valid", 0, 4).all()


def test_a_replaced_store_is_never_written_through_an_old_handle(store, tmp_path):
    store.write("registered", 0, 4, np.zeros((4, 12, 14, 2), np.uint16))
    other = StoreLayout((10, 12, 14, 2), "float32", (6, 7), 5)
    create_store(tmp_path / "compensated.zarr", other, {})
    values = np.full((5, 12, 14, 2), 0.5, np.float32)
    again = ResultStore(store.path, other)
    again.write("registered", 0, 5, values)
    found = zarr.open_array(f"{store.path}/registered", mode="r")[:5]
    np.testing.assert_array_equal(np.moveaxis(found, 1, -1), values)


@pytest.mark.parametrize("names", [None, ("green",), ("green", "red")])
def test_ngff_metadata_are_valid_for_an_independent_validator(names):
    metadata = VideoMetadata(pixel_size_um=(0.5, 0.5), channel_names=names)
    attributes = ngff_attributes("compensated", REGISTERED, metadata, [(0, 9)] * len(names or "ab"))
    validated = yaozarrs.validate_ome_json(json.dumps(attributes))
    assert validated.ome.multiscales[0].datasets[0].path == "registered"


def test_the_validator_would_notice_wrong_axes():
    attributes = ngff_attributes("compensated", REGISTERED, VideoMetadata(), [(0, 9)])
    attributes["ome"]["multiscales"][0]["axes"].pop()
    with pytest.raises(ValueError, match="ax"):
        yaozarrs.validate_ome_json(json.dumps(attributes))
