from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from distributed import Client, LocalCluster

from scopeflow.cells.config import WorkflowConfig
from scopeflow.cells.methods.features import PHASE_FEATURES
from scopeflow.cells.results.fit import fit_traces
from scopeflow.cells.results.merge import merge_traces
from scopeflow.cells.workflow import STEPS, run_workflow
from scopeflow.errors import InputError, OptionsError, OutputExistsError, ScopeflowError
from tests.cell_movies import cell_config, cell_movie
from tests.oracles.nd2_writer import write_nd2

ROOT = Path(__file__).resolve().parents[2]
BASE = "fov,cell,frame,good,position_x,position_y,bbox_x0,bbox_y0,bbox_x1,bbox_y1"


def contents(output: Path) -> dict[str, str]:
    """Digest of every result; records of the run itself are left out."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file() and ".scopeflow" not in path.parts and path.suffix != ".yaml"
    }


@pytest.fixture(scope="module")
def movies():
    return [cell_movie(seed=s, n_frames=40, height=160, width=240, n_cells=3) for s in range(2)]


@pytest.fixture(scope="module")
def source(movies, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "movie.nd2"
    data = np.stack([np.stack([m.phase, m.fluorescence], 1) for m in movies], 1)
    write_nd2(path, data, ["Phase", "GFP"], period_s=300)
    return path


@pytest.fixture(scope="module")
def done(source, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("done") / "out"
    assert run_workflow(source, output, cell_config())
    return output


def images(output: Path, fov: int = 0):
    return zarr.open_group(output / f"fov_{fov:03d}" / "images.zarr", mode="r")


def test_tree_types_shapes_and_chunks(done, movies):
    for fov, movie in enumerate(movies):
        frames, height, width = movie.phase.shape
        group = images(done, fov)
        expected = {
            "pc_ch_0": "uint16",
            "fl_ch_1": "uint16",
            "seg_labeled_ch_0": "uint16",
            "seg_tracked_ch_0": "uint16",
            "fl_background_ch_1": "float32",
        }
        assert sorted(group) == sorted(expected)
        for name, dtype in expected.items():
            full, small = group[f"{name}/0"], group[f"{name}/1"]
            assert (full.dtype, full.shape) == (dtype, (frames, height, width))
            assert full.chunks == (1, height, width)
            assert (small.dtype, small.shape) == ("uint8", (frames, height // 2, width // 2))
            assert small.chunks == (1, min(256, height // 2), min(256, width // 2))
            assert small.compressors[0].cname.value == "lz4"
        np.testing.assert_array_equal(group["pc_ch_0/0"], movie.phase)
        np.testing.assert_array_equal(group["fl_ch_1/0"], movie.fluorescence)
        assert np.unique(group["seg_tracked_ch_0/1"][:]).size == len(
            np.unique(group["seg_tracked_ch_0/0"])
        )


def test_cells_are_found_followed_and_the_late_one_too(done, movies):
    for fov, movie in enumerate(movies):
        tracked = images(done, fov)["seg_tracked_ch_0/0"][:]
        assert sorted(np.unique(tracked)) == [0, 1, 2, 3]
        for n in (1, 2, 3):
            inside = tracked[movie.truth == n]
            (cell,) = np.unique(inside[inside > 0])
            union = ((tracked == cell) | (movie.truth == n)).sum()
            assert ((tracked == cell) & (movie.truth == n)).sum() / union > 0.85
        assert not tracked[:2][movie.truth[:2] == 3].any()


def test_background_is_the_known_plane(done, movies):
    found = images(done)["fl_background_ch_1/0"][:]
    error = np.abs(found - movies[0].background)
    # Cells hide one side of a tile: at most half a tile of slope, twice that where it is continued.
    assert error.max() < 2 * 25 * (0.05 + 0.02)
    assert error.mean() < 0.6


def test_crops_hold_the_cells(done):
    group = images(done)
    tracked = group["seg_tracked_ch_0/0"][:]
    cells = zarr.open_group(done / "fov_000" / "cells.zarr", mode="r")
    ids, boxes = cells["metadata/cell_ids"][:], cells["metadata/bboxes"][:]
    valid = cells["metadata/valid_frames"][:]
    assert (ids.dtype, boxes.dtype, valid.dtype) == (np.int32, np.int32, bool)
    assert ids.tolist() == [1, 2, 3]
    stacks = {
        "pc_ch_0": group["pc_ch_0/0"][:],
        "fl_ch_1": group["fl_ch_1/0"][:],
        "fl_background_ch_1": group["fl_background_ch_1/0"][:],
    }
    for n, cell in enumerate(ids):
        for t in range(len(tracked)):
            where = np.nonzero(tracked[t] == cell)
            assert valid[n, t] == bool(where[0].size)
            if not where[0].size:
                assert not boxes[n, t].any()
                continue
            y0, x0, y1, x1 = boxes[n, t]
            assert (y0, x0) == (where[0].min(), where[1].min())
            assert (y1, x1) == (where[0].max() + 1, where[1].max() + 1)
        for name, stack in stacks.items():
            crop = cells[f"{name}/{cell}/0"]
            assert crop.dtype == np.float32
            assert crop.chunks == crop.shape
            scale = cells[name].attrs["scale"]
            assert scale == stacks[name.replace("background_", "")].max()
            back = crop[:].astype(float) * scale
            for t in np.flatnonzero(valid[n]):
                y0, x0, y1, x1 = boxes[n, t]
                inside = np.where(tracked[t] == cell, stack[t], 0)[y0:y1, x0:x1]
                np.testing.assert_allclose(back[t, : y1 - y0, : x1 - x0], inside, atol=0.004)
                assert not back[t, y1 - y0 :].any()
            small = cells[f"{name}/{cell}/1"]
            assert small.dtype == np.uint8
            assert small.chunks == (1, *small.shape[1:])
            assert small.shards == small.shape
            assert small.shape == tuple(
                max(1, s // d) for s, d in zip(crop.shape, (1, 2, 2), strict=True)
            )
        mask = cells[f"seg_mask_ch_0/{cell}/0"][:]
        assert mask.sum() == (tracked == cell).sum()


def test_traces(done):
    path = done / "fov_001" / "movie_fov_001_traces.csv"
    header = "area_ch_0,aspect_ratio_ch_0,intensity_mean_ch_1,intensity_total_ch_1"
    assert path.read_text().splitlines()[0] == f"{BASE},{header}"
    table = pd.read_csv(path)
    pd.testing.assert_frame_equal(table, pd.read_parquet(path.with_suffix(".parquet")))
    group = images(done, 1)
    tracked, raw = group["seg_tracked_ch_0/0"][:], group["fl_ch_1/0"][:]
    level = group["fl_background_ch_1/0"][:].astype(float)
    expected = [(c, t) for c in (1, 2, 3) for t in range(40) if (tracked[t] == c).any()]
    assert list(zip(table["cell"], table["frame"], strict=True)) == expected
    assert (table["fov"] == 1).all()
    assert table["good"].all()
    for row in table.itertuples():
        inside = tracked[row.frame] == row.cell
        assert row.area_ch_0 == inside.sum()
        total = raw[row.frame][inside].sum() - level[row.frame][inside].sum()
        assert row.intensity_total_ch_1 == pytest.approx(total, rel=1e-9)
        assert row.intensity_mean_ch_1 == pytest.approx(total / inside.sum(), rel=1e-9)
        assert row.position_x == (row.bbox_x0 + row.bbox_x1) / 2
    # 100, 200 and 300 counts were put on the background of the three cells.
    means = table.groupby("cell")["intensity_mean_ch_1"].median().sort_values()
    np.testing.assert_allclose(means, [100, 200, 300], rtol=0.13)


@pytest.mark.parametrize("changes", [{"n_workers": 1, "batch_size": 1}, {"n_workers": 4}])
def test_same_bytes_for_workers_and_batches(source, done, tmp_path, changes):
    assert run_workflow(source, tmp_path / "out", cell_config(**changes))
    assert contents(tmp_path / "out") == contents(done)


def test_same_bytes_on_a_cluster(source, done, tmp_path):
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        assert run_workflow(source, tmp_path / "out", cell_config(), client=client)
    assert contents(tmp_path / "out") == contents(done)


@pytest.mark.parametrize("step", STEPS)
def test_cancel_in_every_step_and_resume(source, done, tmp_path, step):
    event = Event()

    def stop(report):
        if report["step"] == step:
            event.set()

    output = tmp_path / "out"
    of_first = {k: v for k, v in contents(done).items() if k.startswith("fov_000")}
    assert not run_workflow(
        source, output, cell_config(fovs=[0]), cancel_event=event, progress=stop
    )
    assert contents(output) != of_first
    reused = []
    assert run_workflow(source, output, cell_config(fovs=[0]), progress=reused.append)
    assert any(report["message"] == "reused" for report in reused)
    assert contents(output) == of_first


@pytest.mark.slow
@pytest.mark.parametrize(
    "record",
    [
        "fl_ch_1-0",
        "seg_labeled_ch_0-000032",
        "links",
        "seg_tracked_ch_0-0",
        "medians",
        "fl_background_ch_1-000032",
        "crops-metadata",
        "crops-0",
        "measure-000032",
        "traces",
        "display-fl_ch_1",
        "display-crops",
    ],
)
def test_kill_in_every_step_and_resume(source, done, tmp_path, record):
    script = ROOT / "tests" / "faults" / "cells_slowly.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, str(script), str(source), str(tmp_path / "out")]
    killed = subprocess.run([*command, record, "2"], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert contents(tmp_path / "out") != {}
    subprocess.run([*command, "", "2"], env=environment, check=True)
    assert contents(tmp_path / "out") == contents(done)


def test_damaged_frames_are_made_again(source, done, tmp_path):
    output = tmp_path / "out"
    assert run_workflow(source, output, cell_config(fovs=[0]))
    before = contents(output)
    victims = [
        output / "fov_000/images.zarr/seg_labeled_ch_0/0/c/3/0/0",
        output / "fov_000/cells.zarr/fl_ch_1/2/0/c/0/0/0",
    ]
    victims[0].write_bytes(b"damaged")
    victims[1].unlink()
    assert run_workflow(source, output, cell_config(fovs=[0]))
    assert contents(output) == before


def test_changed_parameters_redo_what_depends_on_them(source, tmp_path):
    output = tmp_path / "out"
    assert run_workflow(source, output, cell_config(fovs=[0]))
    steps: dict[str, set[str]] = {}

    def note(report):
        steps.setdefault(report["step"], set()).add(report["message"])

    changed = cell_config(fovs=[0], background_dilation=4)
    assert run_workflow(source, output, changed, progress=note)
    assert steps["copy"] == steps["segmentation"] == steps["tracking"] == {"reused"}
    assert "" in steps["background_estimation"]
    assert steps["extraction"] == {""}
    fresh = tmp_path / "fresh"
    assert run_workflow(source, fresh, changed)
    assert contents(output) == contents(fresh)


@pytest.mark.parametrize("kind", ["ome-tiff", "ome-zarr"])
def test_other_formats_give_the_same(movies, done, tmp_path, kind):
    data = np.stack([movies[0].phase, movies[0].fluorescence], 1)
    if kind == "ome-tiff":
        path = tmp_path / "movie.ome.tif"
        with tifffile.TiffWriter(path, ome=True) as writer:
            for movie in movies:
                both = np.stack([movie.phase, movie.fluorescence], 1)
                writer.write(both, metadata={"axes": "TCYX"})
    else:
        path = tmp_path / "movie.ome.zarr"
        group = zarr.create_group(
            path,
            attributes={
                "ome": {
                    "version": "0.5",
                    "multiscales": [
                        {
                            "axes": [
                                {"name": n, "type": t}
                                for n, t in (
                                    ("t", "time"),
                                    ("c", "channel"),
                                    ("y", "space"),
                                    ("x", "space"),
                                )
                            ],
                            "datasets": [
                                {
                                    "path": "0",
                                    "coordinateTransformations": [
                                        {"type": "scale", "scale": [1.0, 1.0, 1.0, 1.0]}
                                    ],
                                }
                            ],
                        }
                    ],
                }
            },
        )
        group.create_array("0", data=data, chunks=(1, 1, 160, 240))
    output = tmp_path / "out"
    assert run_workflow(path, output, cell_config())
    table = pd.read_csv(output / "fov_000" / "movie_fov_000_traces.csv")
    pd.testing.assert_frame_equal(table, pd.read_csv(done / "fov_000" / "movie_fov_000_traces.csv"))
    assert len(list(output.glob("fov_*"))) == (2 if kind == "ome-tiff" else 1)


def test_channel_conditional_behaviour(source, tmp_path, caplog):
    def run(name, channels, **params):
        output = tmp_path / name
        config = WorkflowConfig(
            channels=channels,
            params={"fovs": [1], "min_frames": 3, "border_margin": 0, **params},
        )
        assert run_workflow(source, output, config)
        names = sorted(path.name for path in (output / "fov_001").iterdir())
        return names, images(output, 1), output

    names, group, _ = run("no_pc", {"fl": [1]})
    assert names == ["images.zarr"]
    assert sorted(group) == ["fl_background_ch_1", "fl_ch_1"]
    names, group, _ = run("no_fl", {"pc": 0})
    assert sorted(group) == ["pc_ch_0", "seg_labeled_ch_0", "seg_tracked_ch_0"]
    names, _, output = run("no_features", {"pc": [0, []]})
    assert (output / "fov_001/movie_fov_001_traces.csv").read_text().splitlines()[0] == BASE
    names, group, _ = run("copy", {"pc": 0, "fl": [1]}, copy_only=True)
    assert names == ["images.zarr"]
    assert sorted(group) == ["fl_ch_1", "pc_ch_0"]
    assert list(group["pc_ch_0"]) == ["0"]
    # A full run goes on from the copy.
    names, _, _ = run("copy", {"pc": 0, "fl": [1]})
    assert "cells.zarr" in names


def test_nothing_left_is_said_and_a_header_is_written(source, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert run_workflow(source, tmp_path / "out", cell_config(fovs=[0], min_frames=300))
    assert "of 3 cells 3 were seen in fewer than min_frames=300" in caplog.text
    table = pd.read_csv(tmp_path / "out" / "fov_000" / "movie_fov_000_traces.csv")
    assert len(table) == 0
    assert table.columns[0] == "fov"


def test_empty_field_of_view(tmp_path):
    movie = np.full((4, 64, 80, 2), 100, np.uint16)
    assert run_workflow(movie, tmp_path / "out", cell_config())
    cells = zarr.open_group(tmp_path / "out" / "fov_000" / "cells.zarr", mode="r")
    assert cells["metadata/cell_ids"].shape == (0,)
    assert cells["metadata/bboxes"].shape == (0, 4, 4)
    text = (tmp_path / "out" / "fov_000" / "recording_fov_000_traces.csv").read_text()
    assert text.startswith(BASE)
    assert text.count("\n") == 1


def test_one_failing_field_of_view_does_not_stop_the_others(source, done, tmp_path, caplog):
    output = tmp_path / "out"
    assert run_workflow(source, output, cell_config(copy_only=True))
    blocker = output / "fov_001" / "images.zarr" / "seg_labeled_ch_0"
    blocker.write_text("a file where a folder is needed")
    assert not run_workflow(source, output, cell_config())
    assert "FOV 1 failed" in caplog.text
    first = {k: v for k, v in contents(done).items() if k.startswith("fov_000")}
    found = {k: v for k, v in contents(output).items() if k.startswith("fov_000")}
    assert found == first
    blocker.unlink()
    assert run_workflow(source, output, cell_config())
    assert contents(output) == contents(done)


def test_failing_feature_gives_nan_and_one_warning(source, tmp_path, caplog):
    def picky(image, mask, context):
        if context.frame == 2:
            raise RuntimeError
        return mask.sum()

    PHASE_FEATURES["picky"] = picky
    try:
        config = WorkflowConfig(
            channels={"pc": [0, ["area", "picky"]]},
            params={"fovs": [0], "min_frames": 3, "border_margin": 5},
        )
        assert run_workflow(source, tmp_path / "out", config)
    finally:
        del PHASE_FEATURES["picky"]
    table = pd.read_csv(tmp_path / "out" / "fov_000" / "movie_fov_000_traces.csv")
    failed = table["picky_ch_0"].isna()
    assert (failed == (table["frame"] == 2)).all()
    assert (table["picky_ch_0"][~failed] == table["area_ch_0"][~failed]).all()
    assert caplog.text.count("picky_ch_0 failed in 3 cells") == 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, ["neither pc nor fl", "0: Phase"]),
        ({"channels": {"pc": 2}}, ["channels.pc", "channel=2", "0 to 1"]),
        ({"channels": {"pc": [0, ["aera"]]}}, ["'aera'", "'area'"]),
        ({"channels": {"pc": 0}, "params": {"fovs": "0-4"}}, ["2, 3, 4", "0 to 1"]),
        ({"channels": {"pc": 0}, "params": {"segmentation_method": "logst"}}, ["'logstd'"]),
        ({"channels": {"pc": 0}, "params": {"tracking_method": "uio"}}, ["tracking_method"]),
        (None, ["no configuration"]),
    ],
)
def test_bad_options_stop_before_anything_is_written(source, tmp_path, config, words):
    with pytest.raises(OptionsError) as raised:
        run_workflow(source, tmp_path / "out", config)
    for word in words:
        assert word in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_foreign_results_are_not_touched(source, done, tmp_path):
    (tmp_path / "fov_000").mkdir()
    with pytest.raises(OutputExistsError, match="another program"):
        run_workflow(source, tmp_path, cell_config())
    with pytest.raises(OutputExistsError, match="another recording"):
        run_workflow(np.zeros((2, 32, 32, 2), np.uint16), done, cell_config())


def test_floats_are_refused_or_clipped(tmp_path):
    movie = np.full((2, 32, 40, 1), -1.5, np.float32)
    config = {"channels": {"fl": [0]}, "params": {"copy_only": True}}
    with pytest.raises(InputError, match=r"pixels are float32.*convert=clip"):
        run_workflow(movie, tmp_path / "a", config)
    movie_of_integers = np.full((2, 32, 40, 1), -1, np.int32)
    with pytest.raises(InputError, match=r"channel 0.*from -1 to -1.*convert=clip"):
        run_workflow(movie_of_integers, tmp_path / "a", config)
    assert not (tmp_path / "a").exists()
    assert run_workflow(np.full((2, 32, 40, 1), 65535, np.int32), tmp_path / "c", config)
    config["params"]["convert"] = "clip"
    assert run_workflow(movie, tmp_path / "b", config)
    assert not images(tmp_path / "b")["fl_ch_0/0"][:].any()


def test_merge_and_fit(done, tmp_path):
    paths = merge_traces(done, {"a": "0", "b": [0, 1]}, target=tmp_path)
    assert paths["a"].read_text().startswith("# sample: a\n# fovs: 0\n")
    table = pd.read_csv(paths["b"], comment="#")
    assert sorted(table["fov"].unique()) == [0, 1]
    np.testing.assert_allclose(table["time"], table["frame"] * 5.0)  # of the file, 300 s
    pd.testing.assert_frame_equal(table, pd.read_parquet(paths["b"].with_suffix(".parquet")))
    with pytest.raises(OutputExistsError):
        merge_traces(done, {"a": "0"}, target=tmp_path)
    with pytest.raises(ScopeflowError, match="none of its FOVs"):
        merge_traces(done, {"c": "5"}, target=tmp_path)
    fitted = pd.read_csv(fit_traces(paths["b"], "intensity_total_ch_1", "trivial"))
    assert list(fitted.columns[:5]) == ["fov", "cell", "model_type", "success", "r_squared"]
    assert len(fitted) == 6
    with pytest.raises(ScopeflowError, match="intensity_total_ch_1"):
        fit_traces(paths["b"], "intensity_totl_ch_1")
