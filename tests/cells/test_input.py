from __future__ import annotations

import logging
import shutil

import nd2
import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
import zarr
from scipy import ndimage

from scopeflow.cells.config import WorkflowConfig
from scopeflow.cells.store.folders import numbered_fields
from scopeflow.cells.store.fovs import open_fovs
from scopeflow.cells.workflow import run_workflow
from scopeflow.engine.identity import identity
from scopeflow.errors import InputError, OptionsError, OutputExistsError
from tests.cell_movies import cell_config, cell_movie
from tests.io.test_read_czi import write_czi


@pytest.fixture(scope="module")
def movie():
    return cell_movie(n_frames=4, height=100, width=110, n_cells=1, late=False)


@pytest.fixture(scope="module")
def both(movie):
    return np.stack([movie.phase, movie.fluorescence], 1)  # T, C, H, W


@pytest.fixture(scope="module")
def plain(both, tmp_path_factory):
    output = tmp_path_factory.mktemp("plain") / "out"
    assert run_workflow(np.moveaxis(both, 1, -1), output, cell_config())
    return output


def traces(output, fov=0):
    (path,) = (output / f"fov_{fov:03d}").glob("*_traces.csv")
    return pd.read_csv(path)


def test_czi_through_all_steps(both, plain, tmp_path):
    stack = np.stack([both, both[:, ::1] // 2], 2)  # the brightest plane is the recording
    path = write_czi(tmp_path / "a.czi", [stack, stack])
    assert run_workflow(path, tmp_path / "out", cell_config(z="max"))
    for fov in range(2):
        expected = traces(plain).assign(fov=fov)
        pd.testing.assert_frame_equal(traces(tmp_path / "out", fov), expected)
    facts = yaml.safe_load((tmp_path / "out/processing_config.yaml").read_text())["metadata"]
    assert (facts["file_type"], facts["n_fovs"]) == ("czi", 2)
    assert facts["channel_names"] == ["Phase", "GFP"]


@pytest.mark.parametrize("name", ["multichannel", "timelapse", "zstack", "cerevisiae", "pbmc"])
def test_real_nd2_files(shared_data, name):
    folder = shared_data / "arcadia_nd2"
    path = folder / f"example-{name}.nd2"
    fovs = open_fovs(path, z="max")
    with nd2.ND2File(path) as file:
        array, sizes = file.asarray(), dict(file.sizes)
        names = tuple(c.channel.name for c in file.metadata.channels)
    array = array.reshape([sizes.get(axis, 1) for axis in "TPZCYX"])
    assert list(sizes) == [axis for axis in "TPZCYX" if axis in sizes]
    assert len(fovs) == array.shape[1]
    for p, fov in enumerate(fovs):
        assert fov.metadata.channel_names == names
        expected = np.moveaxis(array[:, p].max(axis=1), 1, -1)
        np.testing.assert_array_equal(fov.read(0, 1), expected[:1])
        assert fov.shape == expected.shape
    known = yaml.safe_load((folder / "known-metadata.yml").read_text())
    assert len(known.get(path.name, names)) == len(names)
    for facts in known.get(path.name, {}).values():
        size = facts["resolution"]
        assert fovs[0].shape[1:3] == (size["y_size_px"], size["x_size_px"])
        assert fovs[0].metadata.pixel_size_um == pytest.approx([size["xy_step_um"]] * 2)


def test_yeast_through_all_steps(shared_data, tmp_path):
    path = shared_data / "pie_yeast_timelapse" / "SL_180519_2_GR_xy0401_crop.tif"
    config = WorkflowConfig(
        channels={"pc": 0, "fl": [1, 2]},
        params={"min_frames": 2, "border_margin": 0, "morph_size": 3, "morph_iterations": 1},
    )
    assert run_workflow(path, tmp_path / "out", config)
    group = zarr.open_group(tmp_path / "out/fov_000/images.zarr", mode="r")
    with tifffile.TiffFile(path) as file:
        expected = file.asarray().reshape(5, 3, *file.pages[0].shape)
    for stack, channel in (("pc_ch_0", 0), ("fl_ch_1", 1), ("fl_ch_2", 2)):
        np.testing.assert_array_equal(group[f"{stack}/0"], expected[:, channel])
    table = traces(tmp_path / "out")
    assert len(table) > 20
    row = table.iloc[7]
    inside = group["seg_tracked_ch_0/0"][int(row.frame)] == row.cell
    raw = expected[int(row.frame), 2][inside].astype(float)
    level = group["fl_background_ch_2/0"][int(row.frame)][inside].astype(float)
    assert row.intensity_total_ch_2 == pytest.approx(raw.sum() - level.sum(), rel=1e-9)


def test_plates_and_series_of_ome_zarr(both, tmp_path):
    def image(place, value):
        axes = [("t", "time"), ("c", "channel"), ("y", "space"), ("x", "space")]
        scale = {"type": "scale", "scale": [1.0] * 4}
        level = {"path": "0", "coordinateTransformations": [scale]}
        listed = [{"name": name, "type": kind} for name, kind in axes]
        scales = {"axes": listed, "datasets": [level]}
        group = zarr.create_group(place, attributes={"ome": {"multiscales": [scales]}})
        written = {"write_empty_chunks": True}
        group.create_array("0", data=np.full((2, 1, 20, 30), value, np.uint16), config=written)

    plate = {"wells": [{"path": "A/1"}, {"path": "B/2"}]}
    zarr.create_group(tmp_path / "p.zarr", attributes={"ome": {"plate": plate}})
    for n, well in enumerate(("A/1", "B/2")):
        fields = {"well": {"images": [{"path": "0"}, {"path": "1"}]}}
        zarr.create_group(tmp_path / "p.zarr" / well, attributes={"ome": fields})
        for f in range(2):
            image(tmp_path / "p.zarr" / well / str(f), 10 * n + f)
    zarr.create_group(tmp_path / "s.zarr", attributes={"ome": {"bioformats2raw.layout": 3}})
    for n in range(11):
        image(tmp_path / "s.zarr" / str(n), n)
    for name, values in (("p.zarr", [0, 1, 10, 11]), ("s.zarr", list(range(11)))):
        fovs = open_fovs(tmp_path / name)
        assert [int(fov.read(1, 2).max()) for fov in fovs] == values


def test_folder_of_planes(tmp_path):
    for t, p, c in np.ndindex(3, 2, 2):
        value = np.full((20, 24), 100 * t + 10 * p + c, np.uint16)
        tifffile.imwrite(tmp_path / f"t{t + 9}xy040{p + 1}c{c + 1}.tif", value)
    fovs = open_fovs(tmp_path)
    assert [fov.shape for fov in fovs] == [(3, 20, 24, 2)] * 2
    for p, fov in enumerate(fovs):
        found = fov.read(0, 3)[:, 0, 0]
        assert found.tolist() == [[100 * t + 10 * p + c for c in range(2)] for t in range(3)]
    (tmp_path / "t10xy0402c1.tif").unlink()
    with pytest.raises(InputError, match=r"field 402.*1 files are missing.*frame 10, channel 1"):
        open_fovs(tmp_path)
    frames = tmp_path / "frames"
    frames.mkdir()
    for t in range(2):
        tifffile.imwrite(frames / f"frame_{t}.tif", np.zeros((20, 24), np.uint16))
    assert numbered_fields(frames) == []
    assert [fov.shape for fov in open_fovs(frames)] == [(2, 20, 24, 1)]


def test_results_of_other_settings_never_mix(both, tmp_path):
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for _ in range(2):
            writer.write(both, metadata={"axes": "TCYX"})
    output = tmp_path / "out"
    assert run_workflow(path, output, cell_config())
    before = (output / "processing_config.yaml").read_bytes()
    with pytest.raises(OutputExistsError, match=r"fov_001.*other parameters.*FOV 1 alone"):
        run_workflow(path, output, cell_config(fovs=[0], background_dilation=4))
    assert (output / "processing_config.yaml").read_bytes() == before
    # Features that do not change results of the other field of view may differ.
    assert run_workflow(path, output, cell_config(fovs=[0], n_workers=1))
    marks = output / "fov_001" / "two_fov_001_traces_inspected.csv"
    marks.write_text((output / "fov_001" / "two_fov_001_traces.csv").read_text())
    with pytest.raises(OutputExistsError, match=r"inspected.*Move the file away"):
        run_workflow(path, output, cell_config(min_frames=2))
    marks.unlink()
    # A copy alone with other parameters leaves nothing of the earlier ones.
    assert run_workflow(path, output, cell_config(morph_size=5, copy_only=True))
    for fov in ("fov_000", "fov_001"):
        assert [p.name for p in (output / fov).iterdir()] == ["images.zarr"]
        group = zarr.open_group(output / fov / "images.zarr", mode="r")
        assert sorted(group) == ["fl_ch_1", "pc_ch_0"]


def test_display_percentiles_are_those_of_numpy(plain):
    group = zarr.open_group(plain / "fov_000" / "images.zarr", mode="r")
    for name in ("pc_ch_0", "fl_ch_1", "fl_background_ch_1"):
        full = group[f"{name}/0"][:].astype(np.float64)
        low, high = np.percentile(full, [1, 99])
        grey = (np.clip((full - low) / (high - low), 0, 1) * 255).astype(np.uint8).astype(float)
        t, h, w = full.shape
        small = grey[:, : h // 2 * 2, : w // 2 * 2].reshape(t, h // 2, 2, w // 2, 2).mean((2, 4))
        difference = np.abs(group[f"{name}/1"][:] - small.astype(np.uint8))
        # One value of 255 where the interpolation rounds in another order.
        assert (difference > 0).mean() < 1e-3, name


def test_a_failing_picture_is_a_warning(both, tmp_path, caplog):
    output = tmp_path / "out"
    video = np.moveaxis(both, 1, -1)
    assert run_workflow(video, output, cell_config(copy_only=True))
    (output / "fov_000/images.zarr/fl_ch_1/1").write_text("a file where a folder is needed")
    with caplog.at_level(logging.WARNING):
        assert run_workflow(video, output, cell_config())
    assert "small pictures for viewers failed" in caplog.text


def test_pictures_that_lack_frames_are_not_left_to_be_shown_as_black(both, plain, tmp_path, caplog):
    output = tmp_path / "out"
    video = np.moveaxis(both, 1, -1)
    shutil.copytree(plain, output)
    level = output / "fov_000/images.zarr/fl_ch_1/1"
    chunk = level / "c/1/0/0"
    chunk.unlink()
    (chunk / "something").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        assert run_workflow(video, output, cell_config())
    assert str(chunk) in caplog.text
    assert not level.exists()
    assert run_workflow(video, output, cell_config())
    same = zarr.open_array(plain / "fov_000/images.zarr/fl_ch_1/1", mode="r")
    np.testing.assert_array_equal(zarr.open_array(level, mode="r")[:], same[:])


def test_an_empty_folder_in_the_place_of_a_chunk_is_replaced(both, plain, tmp_path, caplog):
    output = tmp_path / "out"
    shutil.copytree(plain, output)
    for name in ("fl_ch_1/0", "fl_ch_1/1"):
        chunk = output / "fov_000/images.zarr" / name / "c/1/0/0"
        chunk.unlink()
        chunk.mkdir()
    assert run_workflow(np.moveaxis(both, 1, -1), output, cell_config())
    assert not caplog.records
    for name in ("fl_ch_1/0", "fl_ch_1/1"):
        part = f"fov_000/images.zarr/{name}/c/1/0/0"
        assert (output / part).read_bytes() == (plain / part).read_bytes()


def test_partial_settings_of_a_killed_run_are_swept(both, plain, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(plain, output)
    for name in ("processing_config.yaml", ".scopeflow/settings.json"):
        (output / f"{name}.0123456789abcdef.partial").touch()
    assert run_workflow(np.moveaxis(both, 1, -1), output, cell_config())
    assert not list(output.rglob("*.partial"))


def test_a_letter_of_a_description_that_changed_is_written_again(both, plain, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(plain, output)
    described = [p.relative_to(plain) for p in plain.rglob("zarr.json") if "images.zarr" in p.parts]
    for name in described:
        file = output / name
        axis = '"dimension_names": [\n    "t"'
        changed = file.read_text().replace(axis, axis.replace("t", "T"))
        file.write_text(changed.replace('"attributes": {}', '"attributes": {"a": 1}'))
        assert file.read_bytes() != (plain / name).read_bytes()
    assert run_workflow(np.moveaxis(both, 1, -1), output, cell_config())
    for name in described:
        assert (output / name).read_bytes() == (plain / name).read_bytes()


def test_crops_with_context_and_without_background(both, plain, tmp_path):
    config = cell_config(crop_padding=3, crop_context=True, corrected_crops=True)
    config.params.background_weight = 0.5
    assert run_workflow(np.moveaxis(both, 1, -1), tmp_path / "out", config)
    cells = zarr.open_group(tmp_path / "out/fov_000/cells.zarr", mode="r")
    images = zarr.open_group(tmp_path / "out/fov_000/images.zarr", mode="r")
    boxes = cells["metadata/bboxes"][:]
    tight = zarr.open_group(plain / "fov_000/cells.zarr", mode="r")["metadata/bboxes"][:]
    np.testing.assert_array_equal(boxes, tight)
    assert cells["fl_ch_1"].attrs["padding"] == 3
    scale = cells["fl_ch_1"].attrs["scale"]
    level = images["fl_background_ch_1/0"][:].astype(float)
    raw = images["fl_ch_1/0"][:].astype(float)
    for name, stack in (("fl_ch_1", raw), ("fl_corrected_ch_1", raw - 0.5 * level)):
        crop = cells[f"{name}/1/0"][:] * scale
        for t, (y0, x0, y1, x1) in enumerate(boxes[0]):
            around = np.pad(np.maximum(stack[t], 0), 3)[y0 : y1 + 6, x0 : x1 + 6]
            found = crop[t, : around.shape[0], : around.shape[1]]
            np.testing.assert_allclose(found, around, atol=0.01)


@pytest.mark.parametrize("margin", [2, -3])
def test_mask_margin(both, tmp_path, margin):
    config = cell_config(mask_margin=margin)
    assert run_workflow(np.moveaxis(both, 1, -1), tmp_path / "out", config)
    images = zarr.open_group(tmp_path / "out/fov_000/images.zarr", mode="r")
    square = np.ones((2 * abs(margin) + 1,) * 2, bool)
    change = ndimage.binary_dilation if margin > 0 else ndimage.binary_erosion
    for row in traces(tmp_path / "out").itertuples():
        mask = images["seg_tracked_ch_0/0"][row.frame] == row.cell
        assert row.area_ch_0 == mask.sum()
        mask = change(mask, square)
        raw = images["fl_ch_1/0"][row.frame][mask].astype(float).sum()
        level = images["fl_background_ch_1/0"][row.frame][mask].astype(float).sum()
        assert row.intensity_total_ch_1 == pytest.approx(raw - level, rel=1e-9)


def test_default_features():
    config = WorkflowConfig(
        channels={"pc": 0, "fl": [1, [2, ["intensity_mean"]]]},
        params={"features": {"phase": ["area"], "fluorescence": ["intensity_total"]}},
    )
    assert config.channels.pc.features == ("area",)
    assert [fl.features for fl in config.channels.fl] == [("intensity_total",), ("intensity_mean",)]
    assert config.params["features"]["phase"] == ("area",)
    with pytest.raises(OptionsError, match=r"phse.*'phase'"):
        WorkflowConfig(params={"features": {"phse": []}})
    with pytest.raises(OptionsError, match="crop_padding=-1"):
        WorkflowConfig(params={"crop_padding": -1})
    with pytest.raises(OptionsError, match="min_frames=0"):
        config.params.min_frames = 0
    with pytest.raises(OptionsError, match=r"params.z"):
        WorkflowConfig(params={"z": "mean"})
    assert dict(config.params.items())["z"] is None


def test_identity_of_functions():
    def make(least, other=(1, 2)):
        def method(frame, scale=other):
            return frame * scale[0] > least

        return method

    table = np.arange(4)
    assert identity(make(3)) == identity(make(3))
    changed = [make(4), make(3, (1, 3)), lambda f: f + 1, lambda f: f + 2, lambda f: f + table]
    known = {str(identity(one)) for one in (make(3), *changed)}
    assert len(known) == 1 + len(changed)

    class Blur:
        def __init__(self, sigma):
            self.sigma = sigma

        def process(self, image):
            return image

    assert identity(Blur(1)) == identity(Blur(1)) != identity(Blur(2))
