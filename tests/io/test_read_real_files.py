"""Real recordings of several microscopes, against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import yaml

from scopeflow.errors import InputError
from scopeflow.io.open import FrameSelection, open_source

KNOWN = {
    "thunder_mouse2p/mouse_64x64_500frames.tif": ((500, 64, 64, 1), "int16"),
    "optinist_mouse2p/mouse2p_frames1350-1869.tif": ((520, 128, 128, 1), "uint16"),
    "pystackreg_pc12/pc12-unreg.tif": ((5, 201, 199, 1), "uint16"),
    "pystackreg_pc12/pc12-reg-translation.tif": ((5, 201, 199, 1), "uint16"),
    "pie_yeast_timelapse/SL_180519_2_GR_xy0401_crop.tif": ((5, 330, 420, 3), "uint16"),
    "pie_yeast_timelapse/SL_180519_2_AT_xy0401_crop.tif": ((15, 330, 420, 2), "uint16"),
    "ctc_PhC-C2DL-PSC/PhC-C2DL-PSC/02": ((50, 576, 720, 1), "uint8"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_tiff(shared_data, name):
    shape, dtype = KNOWN[name]
    path = shared_data / name
    source = open_source(path)
    assert (source.shape, source.dtype) == (shape, np.dtype(dtype))
    last = shape[0] - 1
    if path.is_dir():
        expected = tifffile.imread(path / f"t{last:03d}.tif")
    else:
        expected = tifffile.imread(path)[last]
    if expected.ndim == 3:
        expected = np.moveaxis(expected, 0, -1)
    np.testing.assert_array_equal(source.read(last, last + 1)[0].squeeze(), expected)


def test_light_sheet_planes(shared_data):
    path = shared_data / "thunder_mouse2p/fish_20x2x76x87.tif"
    with pytest.raises(InputError, match="2 z planes"):
        open_source(path)
    expected = tifffile.imread(path)[:, 1]
    np.testing.assert_array_equal(open_source(path, z=1).read(0, 20)[..., 0], expected)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("example-timelapse", (53, 64, 64, 1)),
        ("example-multichannel", (1, 256, 256, 4)),
        ("example-zstack", (1, 128, 128, 1)),
    ],
)
def test_nd2_against_the_vendor_program(shared_data, name, shape):
    known = yaml.safe_load((shared_data / "arcadia_nd2/known-metadata.yml").read_text())
    channels = known[f"{name}.nd2"]
    facts = next(iter(channels.values()))["resolution"]
    source = open_source(
        shared_data / f"arcadia_nd2/{name}.nd2", z=0 if facts["z_size_px"] > 1 else None
    )
    assert source.shape == shape
    assert source.shape[1:3] == (facts["y_size_px"], facts["x_size_px"])
    assert source.shape[3] == len(channels)
    step = facts["xy_step_um"]
    assert source.metadata.pixel_size_um == pytest.approx((step, step), rel=1e-6)
    assert source.read(0, 1).std() > 0


def test_nd2_times(shared_data):
    metadata = open_source(shared_data / "arcadia_nd2/example-timelapse.nd2").metadata
    steps = np.diff(metadata.frame_times_s)
    assert len(steps) == 52
    assert np.all(steps > 0)
    assert metadata.frame_interval_s == pytest.approx(np.median(steps), rel=0.01)


def test_nd2_planes_of_a_confocal(shared_data):
    import nd2

    path = shared_data / "pims_nd2/cluster.nd2"
    whole = nd2.imread(path)  # T, Z, C, Y, X
    source = open_source(path, z=7)
    np.testing.assert_array_equal(source.read(0, 3), np.moveaxis(whole[:, 7], 1, -1))
    np.testing.assert_array_equal(
        FrameSelection(source, (2, 0)).read(0, 2), np.moveaxis(whole[[2, 0], 7], 1, -1)
    )
