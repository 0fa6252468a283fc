from __future__ import annotations

import json
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaozarrs
import zarr
from PIL import Image

from scopeflow.cells import (
    export_results,
    napari_layers,
    open_in_napari,
    open_results,
    run_workflow,
    save_pictures,
)
from scopeflow.errors import (
    InputError,
    InputNotFoundError,
    OptionsError,
    OutputError,
    OutputExistsError,
)
from tests.cell_movies import cell_config, cell_movie


@pytest.fixture(scope="module")
def movies():
    return [cell_movie(seed=s, n_frames=8, height=120, width=300, n_cells=3) for s in range(2)]


@pytest.fixture(scope="module")
def run(movies, tmp_path_factory):
    """Two fields of view of an OME-TIFF with pixel size and interval; cell 3 comes at frame 2."""
    folder = tmp_path_factory.mktemp("export")
    with tifffile.TiffWriter(folder / "plate.ome.tif", ome=True) as writer:
        for movie in movies:
            both = np.stack([movie.phase, movie.fluorescence], 1)
            facts = {
                "axes": "TCYX",
                "PhysicalSizeX": 0.65,
                "PhysicalSizeY": 0.65,
                "TimeIncrement": 300.0,
                "TimeIncrementUnit": "s",
                "Channel": {"Name": ["Phase", "GFP"]},
            }
            writer.write(both, metadata=facts)
    assert run_workflow(folder / "plate.ome.tif", folder / "run", cell_config(min_frames=8))
    return folder / "run"


def everything(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_results_open_lazily_and_hold_what_was_recorded(run, movies):
    results = open_results(run)
    assert list(results) == [0, 1]
    for fov, movie in zip(results.values(), movies, strict=True):
        assert list(fov.images) == ["pc_ch_0", "fl_ch_1"]
        for stack, truth in zip(
            fov.images.values(), (movie.phase, movie.fluorescence), strict=True
        ):
            assert stack.dims == ("T", "Y", "X")
            assert hasattr(stack.data, "dask")
            np.testing.assert_array_equal(stack, truth)
        np.testing.assert_array_equal(fov.labels > 0, fov.objects > 0)
        tracked = zarr.open_array(fov.folder / "images.zarr/seg_tracked_ch_0/0", mode="r")[:]
        np.testing.assert_array_equal(fov.labels, tracked)
        assert fov.lineage["first_frame"].tolist() == [0, 0, 2]
        assert fov.lineage["parent"].tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="no results of FOV 7; it has 0, 1"):
        results[7]
    with pytest.raises(InputError, match="Did you mean 'pc_ch_0'"):
        results[0].stack("pc_ch_1")
    with pytest.raises(InputNotFoundError, match=r"processing_config\.yaml"):
        open_results(run.parent)


def test_traces_as_arrays_are_the_rows_of_the_tables(run):
    traces = open_results(run).traces
    found = traces.to_xarray()
    assert found.sizes == {"fov": 2, "cell": 2, "frame": 8}  # cell 3 is seen in 6 of 8 frames
    tables = [
        pd.read_csv(run / f"fov_00{n}" / f"plate_fov_00{n}_traces.csv").assign(fov=n)
        for n in range(2)
    ]
    rows = pd.concat(tables)
    for row in rows.itertuples():
        one = found.sel(fov=row.fov, cell=row.cell, frame=row.frame)
        assert bool(one["good"])
        assert float(one["area_ch_0"]) == row.area_ch_0
        assert float(one["intensity_total_ch_1"]) == row.intensity_total_ch_1
    assert int(found["good"].sum()) == len(rows)
    np.testing.assert_allclose(found["time"], np.arange(8) * 5.0)
    assert found["intensity_total_ch_1"].attrs["units"] == "count"
    assert found.attrs["pixel_size_um"] == pytest.approx(0.65)
    assert list(traces.table.columns[:4]) == ["fov", "cell", "frame", "time"]


def test_cells_that_one_field_of_view_lacks_are_nan(run, tmp_path):
    traces = open_results(run).traces
    table = traces.table[(traces.table["fov"] == 1) | (traces.table["cell"] == 1)]
    found = type(traces)(table, 8, traces.times, {}).to_xarray()
    assert np.isnan(found["area_ch_0"].sel(fov=0, cell=2)).all()
    assert not found["good"].sel(fov=0, cell=2).any()
    assert not np.isnan(found["area_ch_0"].sel(fov=1)).any()


def test_ome_ngff_is_valid_and_holds_images_and_labels(run, movies, tmp_path):
    paths = export_results(run, tmp_path / "out", "ome-ngff")
    assert [p.name for p in paths] == ["plate_fov_000.ome.zarr", "plate_fov_001.ome.zarr"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [p.name for p in paths]
    for n, path in enumerate(paths):
        yaozarrs.validate_zarr_store(str(path))
        group = zarr.open_group(path, mode="r")
        yaozarrs.validate_ome_json(json.dumps(group.attrs.asdict()))
        image = np.stack([movies[n].phase, movies[n].fluorescence], 1)
        np.testing.assert_array_equal(group["0"][:], image)
        assert group["0"].metadata.dimension_names == ("t", "c", "y", "x")
        # Half resolution: means of 2 x 2 pixels, rounded to even.
        mean = image.reshape(8, 2, 60, 2, 150, 2).astype(float).mean((3, 5))
        np.testing.assert_array_equal(group["1"][:], np.rint(mean))
        scopes = group.attrs["ome"]["multiscales"][0]
        assert [axis.get("unit") for axis in scopes["axes"]] == [
            "second",
            None,
            "micrometer",
            "micrometer",
        ]
        first, second = (one["coordinateTransformations"] for one in scopes["datasets"])
        np.testing.assert_allclose(first[0]["scale"], [300, 1, 0.65, 0.65])
        np.testing.assert_allclose(second[0]["scale"], [300, 1, 1.3, 1.3])
        np.testing.assert_allclose(second[1]["translation"], [0, 0, 0.325, 0.325])
        channels = group.attrs["ome"]["omero"]["channels"]
        assert (channels[0]["label"], channels[0]["color"]) == ("Phase", "FFFFFF")
        fov = open_results(run)[n]
        labels = group["labels"]
        assert labels.attrs["ome"]["labels"] == ["cells", "objects"]
        np.testing.assert_array_equal(labels["cells/0"][:], fov.labels)
        np.testing.assert_array_equal(labels["objects/0"][:], fov.objects)
        np.testing.assert_array_equal(labels["cells/1"][:], fov.labels[:, ::2, ::2])


def test_nothing_is_overwritten_and_nothing_left_half_written(run, tmp_path, monkeypatch):
    export_results(run, tmp_path, "ome-ngff", fovs=[1])
    before = everything(tmp_path)
    with pytest.raises(OutputExistsError, match="plate_fov_001"):
        export_results(run, tmp_path, "ome-ngff")
    assert everything(tmp_path) == before
    export_results(run, tmp_path, "ome-ngff", fovs=[1], overwrite=True)
    assert everything(tmp_path) == before

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scopeflow.cells.results.export.write_image", no_space)
    with pytest.raises(OutputError, match="no space is left"):
        export_results(run, tmp_path, "ome-ngff", overwrite=True)
    assert everything(tmp_path) == before


def test_geff_is_valid_and_holds_the_tracks(run, tmp_path):
    geff = pytest.importorskip("geff")
    from geff.validate.data import ValidationConfig, validate_data

    export_results(run, tmp_path, "ome-ngff")
    for path, fov in zip(
        export_results(run, tmp_path, "geff"), open_results(run).values(), strict=True
    ):
        geff.validate_structure(path)
        memory = geff.GeffReader(path)
        memory.read_node_props()
        memory.read_edge_props()
        checks = ValidationConfig(graph=True, lineage=True, tracklet=True)
        validate_data(memory.build(), checks)
        graph, facts = geff.read(path)
        tracked = fov.labels.to_numpy()
        seen = {(t, c) for t in range(8) for c in np.unique(tracked[t]) if c}
        nodes = dict(graph.nodes(data=True))
        assert {(one["t"], one["cell"]) for one in nodes.values()} == seen
        for one in nodes.values():
            rows, columns = np.nonzero(tracked[one["t"]] == one["cell"])
            assert one["y"] == (rows.min() + rows.max()) / 2
            assert one["x"] == (columns.min() + columns.max()) / 2
            assert one["tracklet"] == one["lineage"] == one["cell"]
        steps = {
            (nodes[a]["cell"], nodes[a]["t"], nodes[b]["cell"], nodes[b]["t"])
            for a, b in graph.edges
        }
        assert steps == {(c, t - 1, c, t) for t, c in seen if (t - 1, c) in seen}
        table = fov.table.set_index(["cell", "frame"])
        for one in nodes.values():
            key = (one["cell"], one["t"])
            assert ("area_ch_0" in one) == (key in table.index)
            if key in table.index:
                assert one["intensity_total_ch_1"] == table.loc[key, "intensity_total_ch_1"]
        assert [(a.name, a.unit, a.scaled_unit) for a in facts.axes] == [
            ("t", "frame", "second"),
            ("y", "pixel", "micrometer"),
            ("x", "pixel", "micrometer"),
        ]
        assert facts.axes[0].scale == pytest.approx(300.0)
        for related in facts.related_objects:
            assert (path / related.path).resolve().is_dir()


def test_tables_hold_all_traces(run, tmp_path):
    (csv,) = export_results(run, tmp_path, "csv")
    (parquet,) = export_results(run, tmp_path, "parquet")
    expected = open_results(run).traces.table
    pd.testing.assert_frame_equal(pd.read_csv(csv), expected)
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), expected)
    with pytest.raises(OutputExistsError):
        export_results(run, tmp_path, "csv")


def test_bad_exports_are_refused(run, tmp_path):
    with pytest.raises(OptionsError, match="Did you mean 'geff'"):
        export_results(run, tmp_path / "out", "gef")
    with pytest.raises(InputError, match="no results of FOV 4"):
        export_results(run, tmp_path / "out", "geff", fovs=[4])
    movie = np.full((2, 32, 40, 1), 7, "uint16")
    channels = {"channels": {"fl": [0]}, "params": {"copy_only": True}}
    assert run_workflow(movie, tmp_path / "copied", channels)
    with pytest.raises(InputError, match="no followed cells"):
        export_results(tmp_path / "copied", tmp_path / "out", "geff")
    assert not (tmp_path / "out").exists()
    # Without cells the image has no labels, and the picture no traces.
    (image,) = export_results(tmp_path / "copied", tmp_path / "out", "ome-ngff")
    yaozarrs.validate_zarr_store(str(image))
    assert save_pictures(tmp_path / "copied")[0].is_file()
    assert open_results(tmp_path / "copied").traces.table.empty


def test_pictures_show_the_cells(run, tmp_path):
    paths = save_pictures(run, tmp_path, frame=3)
    assert [p.name for p in paths] == ["fov_000.png", "fov_001.png"]
    pixels = np.asarray(Image.open(paths[0]).convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) > 300
    colourful = np.ptp(pixels, axis=2) > 60
    assert 200 < colourful.sum() < 0.2 * colourful.size  # outlines, numbers and curves
    with pytest.raises(OutputExistsError):
        save_pictures(run, tmp_path)
    with pytest.raises(InputError, match="frame=8: FOV 0 has frames 0 to 7"):
        save_pictures(run, tmp_path, frame=8, overwrite=True)


def test_layers_for_napari(run):
    fov = open_results(run)[0]
    layers = {words["name"]: (data, words, kind) for data, words, kind in napari_layers(fov)}
    assert [(name, one[2]) for name, one in layers.items()] == [
        ("pc_ch_0", "image"),
        ("fl_ch_1", "image"),
        ("cells", "labels"),
        ("tracks", "tracks"),
    ]
    tracked = fov.labels.to_numpy()
    data, words, _ = layers["tracks"]
    assert words["graph"] == {}
    np.testing.assert_allclose(words["scale"], (1, 0.65, 0.65))
    for cell, t, y, x in data:
        assert tracked[int(t), round(y), round(x)] == cell
    assert (np.diff(data[:, 0]) >= 0).all()


def test_napari_is_opened_or_asked_for(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(OptionsError, match=r"pip install 'scopeflow\[napari\]'"):
        open_in_napari(run)
    added = []

    class Viewer:
        def __init__(self, title, show):
            assert "FOV 1" in title

        def __getattr__(self, name):
            return lambda data, **words: added.append((name, words["name"]))

    stand_in = ModuleType("napari")
    stand_in.Viewer = Viewer
    monkeypatch.setitem(sys.modules, "napari", stand_in)
    open_in_napari(run, 1, show=False)
    assert added[0] == ("add_image", "pc_ch_0")
    assert added[-1] == ("add_tracks", "tracks")
