"""Every format with every choice of channels: what is made, what is left out, equal numbers."""

from __future__ import annotations

import nd2
import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from scopeflow.cells.config import WorkflowConfig
from scopeflow.cells.workflow import run_workflow
from tests.cell_movies import cell_movie
from tests.io.test_read_czi import write_czi
from tests.oracles.nd2_writer import write_nd2

PARAMS = {"min_frames": 2, "border_margin": 5, "background_tile_size": 50}
BASE = [
    "fov",
    "cell",
    "frame",
    "good",
    "position_x",
    "position_y",
    "bbox_x0",
    "bbox_y0",
    "bbox_x1",
    "bbox_y1",
]
SEGMENTED = ["pc_ch_0", "seg_labeled_ch_0", "seg_tracked_ch_0"]


@pytest.fixture(scope="module")
def both():
    movie = cell_movie(n_frames=3, height=80, width=100, n_cells=1, late=False)
    return np.stack([movie.phase, movie.fluorescence], 1)  # T, C, H, W


@pytest.fixture(scope="module")
def recordings(both, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    write_nd2(folder / "cells.nd2", both[:, None], ["Phase", "GFP"])
    write_czi(folder / "cells.czi", [both[:, :, None]])
    tifffile.imwrite(folder / "cells.ome.tif", both, ome=True, metadata={"axes": "TCYX"})
    axes = [("t", "time"), ("c", "channel"), ("y", "space"), ("x", "space")]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * 4}]}
    scales = {"axes": [{"name": n, "type": t} for n, t in axes], "datasets": [level]}
    attributes = {"ome": {"version": "0.5", "multiscales": [scales]}}
    zarr.create_group(folder / "cells.ome.zarr", attributes=attributes).create_array("0", data=both)
    return folder


@pytest.fixture(scope="module")
def expected(both, tmp_path_factory):
    """Traces of the same pixels as an array, with all features."""
    output = tmp_path_factory.mktemp("array") / "out"
    config = WorkflowConfig(channels={"pc": 0, "fl": [1]}, params=PARAMS)
    assert run_workflow(np.moveaxis(both, 1, -1), output, config)
    return pd.read_csv(output / "fov_000" / "recording_fov_000_traces.csv")


@pytest.mark.parametrize("kind", ["nd2", "czi", "ome.tif", "ome.zarr"])
@pytest.mark.parametrize(
    ("channels", "copy_only", "stacks", "features"),
    [
        ({"fl": [1]}, False, ["fl_background_ch_1", "fl_ch_1"], None),
        ({"pc": 0}, False, SEGMENTED, ["area_ch_0", "aspect_ratio_ch_0"]),
        ({"pc": [0, []]}, False, SEGMENTED, []),
        (
            {"pc": [0, []], "fl": [[1, ["intensity_total"]]]},
            False,
            ["fl_background_ch_1", "fl_ch_1", *SEGMENTED],
            ["intensity_total_ch_1"],
        ),
        ({"pc": 0, "fl": [1]}, True, ["fl_ch_1", "pc_ch_0"], None),
    ],
    ids=["no-pc", "no-fl", "no-features", "fl-features", "copy-only"],
)
def test_formats_and_channels(
    recordings, both, expected, tmp_path, kind, channels, copy_only, stacks, features
):
    config = WorkflowConfig(channels=channels, params={**PARAMS, "copy_only": copy_only})
    assert run_workflow(recordings / f"cells.{kind}", tmp_path / "out", config)
    folder = tmp_path / "out" / "fov_000"
    group = zarr.open_group(folder / "images.zarr", mode="r")
    assert sorted(group) == stacks
    for name in ("pc_ch_0", "fl_ch_1"):
        if name in stacks:
            np.testing.assert_array_equal(group[f"{name}/0"][:], both[:, int(name[-1])])
    assert all(("1" in group[name]) is not copy_only for name in stacks)
    tables = sorted(path.name for path in folder.glob("*.csv"))
    assert (folder / "cells.zarr").exists() is (features is not None)
    if features is None:
        assert tables == []
        return
    assert tables == ["cells_fov_000_traces.csv"]
    table = pd.read_csv(folder / tables[0])
    assert list(table.columns) == [*BASE, *features]
    assert len(table) == 3
    pd.testing.assert_frame_equal(table, expected[[*BASE, *features]])
    crops = zarr.open_group(folder / "cells.zarr", mode="r")
    made = {name for name in stacks if not name.startswith("seg_")}
    assert set(crops) == {"metadata", "seg_mask_ch_0", *made}


@pytest.mark.parametrize(("z", "plane"), [(None, 0), (1, 1), ("max", None)])
def test_planes_of_nd2(both, tmp_path, caplog, z, plane):
    planes = np.stack([both, both // 2 + 40, np.roll(both, 9, axis=-1)], 1)  # T, Z, C, Y, X
    data = np.stack([planes, planes + 1], 1)
    write_nd2(tmp_path / "stack.nd2", data, ["Phase", "GFP"])
    with nd2.ND2File(tmp_path / "stack.nd2") as file:
        assert dict(file.sizes) == {"T": 3, "P": 2, "Z": 3, "C": 2, "Y": 80, "X": 100}
    config = {"channels": {"pc": 0, "fl": [1]}, "params": {"copy_only": True, "z": z}}
    assert run_workflow(tmp_path / "stack.nd2", tmp_path / "out", config)
    assert ("3 planes and the first is used" in caplog.text) is (z is None)
    chosen = data.max(axis=2) if plane is None else data[:, :, plane]
    for fov in range(2):
        group = zarr.open_group(tmp_path / f"out/fov_00{fov}/images.zarr", mode="r")
        np.testing.assert_array_equal(group["pc_ch_0/0"][:], chosen[:, fov, 0])
        np.testing.assert_array_equal(group["fl_ch_1/0"][:], chosen[:, fov, 1])
