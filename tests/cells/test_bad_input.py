"""What the cell workflow cannot use: one clear error before anything is written, or a warning."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
import zarr

from scopeflow.cells.config import WorkflowConfig
from scopeflow.cells.methods.registered import (
    _PREPROCESSORS,
    _SEGMENTATION,
    register_preprocessor,
    register_segmentation,
)
from scopeflow.cells.methods.segmentation import label_cells
from scopeflow.cells.methods.tracking import link_frames
from scopeflow.cells.workflow import run_workflow
from scopeflow.compat.pyama._services import CroppingService, ExtractionService
from scopeflow.errors import InputError, OptionsError, ScopeflowError
from tests.cell_movies import cell_config, cell_movie
from tests.io.test_read_czi import write_czi
from tests.oracles.nd2_writer import write_nd2

COPY = {"channels": {"pc": 0}, "params": {"copy_only": True}}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    frames = np.random.default_rng(0).integers(0, 900, (3, 2, 32, 40)).astype(np.uint16)
    write_nd2(folder / "whole.nd2", frames[:, None], ["Phase", "GFP"])
    write_czi(folder / "whole.czi", [frames[:, :, None]])
    tifffile.imwrite(folder / "whole.tif", frames, imagej=True, metadata={"axes": "TCYX"})
    for kind in ("nd2", "czi", "tif"):
        data = (folder / f"whole.{kind}").read_bytes()
        (folder / f"empty.{kind}").write_bytes(b"")
        (folder / f"text.{kind}").write_text("no microscope wrote this\n" * 99)
        (folder / f"half.{kind}").write_bytes(data[: len(data) // 2])
    tifffile.imwrite(folder / "rgb.tif", np.zeros((3, 32, 40, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(folder / "complex.tif", np.zeros((5, 32, 40), np.complex64))
    tifffile.imwrite(folder / "small.tif", np.zeros((5, 15, 40), np.uint16))
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    (folder / "empty").mkdir()
    zarr.create_group(folder / "group.zarr")
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing.nd2", "no such file"),
        ("empty.nd2", "empty"),
        ("empty.czi", "empty"),
        ("empty.tif", "empty"),
        ("text.nd2", "not of that format"),
        ("text.czi", "not of that format"),
        ("text.tif", "not of that format"),
        ("half.nd2", "breaks off"),
        ("half.czi", "truncated"),
        ("half.tif", "breaks off"),
        ("rgb.tif", "colours"),
        ("complex.tif", "complex64"),
        ("small.tif", "15 × 40 px.*16 × 16"),
        ("picture.png", "format is unknown"),
        ("empty", "neither zarr nor a folder"),
        ("group.zarr", "no dataset"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # tifffile on what is half
def test_files(files, tmp_path, name, words):
    with pytest.raises(ScopeflowError, match=words) as raised:
        run_workflow(files / name, tmp_path / "out", COPY)
    assert str(files / name) in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("nd2", {"channels": {"pc": 2}}, ["channels.pc", "channel=2", "0 to 1", "1: GFP"]),
        ("czi", {"channels": {"fl": [0, 5]}}, ["channels.fl", "channel=5", "0 to 1"]),
        ("tif", {"channels": {"fl": [9]}}, ["channels.fl", "channel=9", "0 to 1"]),
        ("nd2", {"params": {"z": 4}}, ["z=4", "(0 to 0)"]),
        ("czi", {"params": {"fovs": [1]}}, ["params.fovs", "1 do not exist", "1 fields of view"]),
        ("nd2", {"channels": {"pc": [0, ["aera"]]}}, ["channel 0", "'aera'", "'area'"]),
        (
            "nd2",
            {"params": {"time_mapping": {0: 0.0, 2: 9.0}}},
            ["params.time_mapping", "1 of 3 frames", "frame 1"],
        ),
        ("nd2", {"params": {"tracking_options": {"max_gap": 2}}}, ["tracking_options", "max_gap"]),
        ("nd2", {"params": {"tracking_options": {"min_iou": 2}}}, ["set params.min_iou"]),
        ("nd2", {"params": {"segmentation_options": {"a": 2}}}, ["segmentation_options", "'a'"]),
    ],
)
def test_channels_planes_fields_and_features(files, tmp_path, name, config, words):
    with pytest.raises(ScopeflowError) as raised:
        run_workflow(files / f"whole.{name}", tmp_path / "out", {"channels": {"pc": 0}, **config})
    for word in [*words, *(["whole"] if "channels.pc" in words else [])]:
        assert word in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"z": "mean"}, ["params.z='mean'", "from 0, or max"]),
        ({"z": -1}, ["params.z=-1", "from 0, or max"]),
        ({"time_mapping": {"0:0": None}}, ["params.time_mapping", "{0: 0.0, 1: 5.5}"]),
        ({"time_mapping": {0: "x"}}, ["params.time_mapping", "{0: 0.0, 1: 5.5}"]),
        ({"time_mapping": 3}, ["params.time_mapping=3"]),
        ({"convert": "scal"}, ["params.convert='scal'", "'scale'"]),
        ({"fovs": "1;2"}, ["params.fovs='1;2'", "'0-5, 7'"]),
        ({"fovs": "4-2"}, ["params.fovs='4-2'", "'2-4'"]),
        ({"batch_size": 0}, ["params.batch_size=0", "1"]),
        ({"n_workers": 0}, ["params.n_workers=0", "1"]),
        ({"logstd_window_size": 2}, ["params.logstd_window_size=2", "3"]),
        ({"morph_iterations": -1}, ["params.morph_iterations=-1", "0"]),
        ({"border_margin": -1}, ["params.border_margin=-1", "0"]),
        ({"background_dilation": -1}, ["params.background_dilation=-1", "0"]),
        ({"frame_interval": float("inf")}, ["params.frame_interval=inf", "finite"]),
        ({"mask_margin": 101}, ["params.mask_margin=101", "100"]),
        ({"crop_min_frames": 0}, ["params.crop_min_frames=0", "1"]),
        ({"min_frames": 2.5}, ["params.min_frames=2.5", "integer"]),
        ({"iou": "masks"}, ["params.iou='masks'", "'mask'"]),
        ({"threshold_method": "vally"}, ["params.threshold_method='vally'", "'valley'"]),
        ({"split_depth": 0}, ["params.split_depth=0", "0"]),
    ],
)
def test_parameters(params, words):
    with pytest.raises(OptionsError) as raised:
        WorkflowConfig(params=params)
    for word in words:
        assert word in str(raised.value)


def test_numbers_that_no_factor_makes_counts(tmp_path):
    config = {"channels": {"fl": [1]}, "params": {"copy_only": True, "convert": "scale"}}
    movie = np.full((2, 32, 40, 2), 0.5, np.float32)
    for bad in (-0.25, np.nan, np.inf):
        movie[1, 3, 4, 1] = bad
        with pytest.raises(InputError, match=r"channel 1: frames 0 to 1.*convert=scale needs"):
            run_workflow(movie, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()
    movie[1, 3, 4] = [-7, 0.5]  # a channel that is not stored may hold anything
    assert run_workflow(movie, tmp_path / "out", config)


def test_scaled_to_counts_by_one_factor_for_all_fields(tmp_path, caplog):
    rng = np.random.default_rng(3)
    fields = [rng.random((3, 2, 32, 40)).astype(np.float32) * scale for scale in (1.0, 4.0)]
    path = tmp_path / "floats.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for field in fields:
            writer.write(field, metadata={"axes": "TCYX"})
    params = {"copy_only": True, "convert": "scale"}
    assert run_workflow(path, tmp_path / "out", {"channels": {"fl": [0, 1]}, "params": params})
    kept = yaml.safe_load((tmp_path / "out/processing_config.yaml").read_text())["metadata"]
    for channel in range(2):
        factor = 65535 / float(max(field[:, channel].max() for field in fields))
        assert kept["count_factors"][channel] == pytest.approx(factor, rel=1e-12)
        assert f"channel {channel}: counts are the recorded values × {factor:.6g}" in caplog.text
        for n, field in enumerate(fields):
            group = zarr.open_group(tmp_path / f"out/fov_00{n}/images.zarr", mode="r")
            expected = np.rint(field[:, channel].astype(np.float64) * factor)
            np.testing.assert_array_equal(group[f"fl_ch_{channel}/0"][:], expected)
    # One field alone has the same counts.
    params = {**params, "fovs": [0]}
    assert run_workflow(path, tmp_path / "one", {"channels": {"fl": [0, 1]}, "params": params})
    chunk = "fov_000/images.zarr/fl_ch_1/0/c/2/0/0"
    assert (tmp_path / "one" / chunk).read_bytes() == (tmp_path / "out" / chunk).read_bytes()
    # Counts stay as they are.
    movie = np.array([7, 65535], np.int32)[:, None, None, None] * np.ones((1, 20, 20, 1), np.int32)
    config = {"channels": {"fl": [0]}, "params": {"copy_only": True, "convert": "scale"}}
    assert run_workflow(movie, tmp_path / "counts", config)
    stored = zarr.open_array(tmp_path / "counts/fov_000/images.zarr/fl_ch_0/0", mode="r")
    assert stored[:, 0, 0].tolist() == [7, 65535]


def test_more_objects_than_16_bits_number():
    mask = np.zeros((512, 514), bool)
    mask[::2, ::2] = True
    with pytest.raises(InputError, match=r"65792 objects.*65535.*min_object_size"):
        label_cells(mask, 1, 10)
    mask[-2:] = False
    labels, _, _ = label_cells(mask, 1, 10)
    assert labels.max() == 255 * 257


def test_more_cells_than_16_bits_number():
    boxes = 4 * np.arange(400)
    columns = [boxes + 1, np.full(400, 4), boxes, boxes, boxes + 2, boxes + 2]
    table = np.column_stack(columns)
    moved = np.column_stack([*columns[:3], boxes + 100000, boxes + 2, boxes + 100002])
    with pytest.raises(InputError, match=r"found 65600 cells.*65535.*min_object_size"):
        link_frames([table, moved] * 82)


def test_more_cells_than_16_bits_number_stop_the_field_alone(tmp_path, caplog):
    def many(frame):
        return np.arange(frame.size).reshape(frame.shape)

    register_segmentation("many", many)
    try:
        config = cell_config(segmentation_method="many")
        assert not run_workflow(np.zeros((1, 260, 260, 2), np.uint16), tmp_path / "out", config)
    finally:
        del _SEGMENTATION.registered["many"]
    assert "FOV 0 failed: segmentation" in caplog.text
    assert "labels 0 to 67599; labels are 0 for background and 1 to 65535" in caplog.text


def test_methods_and_preprocessors_that_break_their_word(tmp_path, caplog):
    class Cut:
        def process(self, image):
            return image[:-1]

    movie = np.zeros((2, 32, 40, 2), np.uint16)
    register_preprocessor(Cut())
    try:
        assert not run_workflow(movie, tmp_path / "a", cell_config())
    finally:
        _PREPROCESSORS.clear()
    assert "Cut made an image of shape (31, 40) from one of shape (32, 40)" in caplog.text
    register_segmentation("floats", lambda frame: frame / 2.0)
    try:
        assert not run_workflow(movie, tmp_path / "b", cell_config(segmentation_method="floats"))
    finally:
        del _SEGMENTATION.registered["floats"]
    assert "gave float64 of shape (32, 40); it has to give integer labels" in caplog.text


def test_extraction_without_channels_makes_tables_with_a_header(files, tmp_path, caplog):
    # As the reference promises; whole runs without channels are refused.
    source, output = files / "whole.nd2", tmp_path / "out"
    ExtractionService().process_all_fovs(source, {}, output, 0, 0)
    table = output / "fov_000" / "whole_fov_000_traces.csv"
    columns = list(pd.read_csv(table).columns)
    assert columns[:6] == ["fov", "cell", "frame", "good", "position_x", "position_y"]
    assert columns[6:] == ["bbox_x0", "bbox_y0", "bbox_x1", "bbox_y1"]
    assert table.read_text().count("\n") == 1
    assert "no channel is chosen" in caplog.text
    with pytest.raises(OptionsError, match=r"Invalid FOV range \[0, 1\].*0 to 0"):
        ExtractionService().process_all_fovs(source, {}, tmp_path / "b", 0, 1)
    with pytest.raises(OptionsError, match="neither pc nor fl"):
        CroppingService().process_all_fovs(source, {}, tmp_path / "b", 0, 0)
    assert not (tmp_path / "b").exists()


def test_objects_above_the_largest_size_are_counted(tmp_path, caplog):
    movie = cell_movie(n_frames=3, height=100, width=110, n_cells=1, late=False)
    both = np.stack([movie.phase, movie.fluorescence], -1)
    config = cell_config(max_object_size=100)
    with caplog.at_level(logging.WARNING):
        assert run_workflow(both, tmp_path / "out", config)
    assert "3 objects above max_object_size=100 px were left out" in caplog.text
    (path,) = (tmp_path / "out" / "fov_000").glob("*_traces.csv")
    assert len(pd.read_csv(path)) == 0
