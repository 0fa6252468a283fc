"""``scopeflow cells``: one run from a recording to fits, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tifffile
from typer.testing import CliRunner

from scopeflow.cli.app import app
from tests.cell_movies import cell_movie
from tests.cli.conftest import plain


def call(*words):
    return CliRunner().invoke(app, ["cells", *map(str, words)])


PARAMETERS = ["--pc", "0", "--fl", "1", "--set", "min_frames=3", "--set", "border_margin=0"]


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    """Two fields of view with two cells of 100 and 200 counts, 10 min from frame to frame."""
    path = tmp_path_factory.mktemp("raw") / "plate.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for seed in range(2):
            movie = cell_movie(seed=seed, n_frames=8, height=96, width=160, n_cells=2, late=False)
            both = np.stack([movie.phase, movie.fluorescence], 1)
            writer.write(both, metadata={"axes": "TCYX"})
    return path


@pytest.fixture(scope="module")
def done(plate, tmp_path_factory):
    output = tmp_path_factory.mktemp("done") / "out"
    found = call("run", plate, output, *PARAMETERS)
    assert found.exit_code == 0, found.output
    return output


def test_dry_run_writes_nothing(plate, tmp_path):
    found = call("run", plate, tmp_path / "out", *PARAMETERS, "--dry-run")
    assert found.exit_code == 0
    assert "Nothing was written" in found.output
    assert "96 × 160" in found.output
    assert not (tmp_path / "out").exists()


def test_status_says_what_was_kept(done):
    found = call("status", done)
    rows = [line for line in found.output.splitlines() if line.startswith("│")]
    assert [[part.strip() for part in row.strip("│").split("│")] for row in rows] == [
        [str(fov), "2", "1", "1", "2", "0", "0", "2", "0", "0"] for fov in (0, 1)
    ]


def test_merge_tidy_and_fit(done, tmp_path):
    samples = tmp_path / "samples.yaml"
    samples.write_text("samples:\n- {name: control, fovs: '0'}\n- {name: drug, fovs: [1]}\n")
    found = call("merge", done, "--samples", samples, "--tidy")
    assert found.exit_code == 0, found.output
    merged = done / "merged"
    tables = sorted(path.name for path in merged.glob("drug*.csv"))
    assert tables == [
        "drug_area_ch_0.csv",
        "drug_aspect_ratio_ch_0.csv",
        "drug_intensity_mean_ch_1.csv",
        "drug_intensity_total_ch_1.csv",
        "drug_merged.csv",
    ]
    whole = pd.read_csv(merged / "drug_merged.csv", comment="#")
    assert len(whole) == 2 * 8
    text = (merged / "drug_intensity_total_ch_1.csv").read_text()
    assert text.startswith("# Time units: min\ntime,fov,cell,value\n0.0,1,1,")
    small = pd.read_csv(merged / "drug_intensity_total_ch_1.csv", comment="#")
    assert small["time"].is_monotonic_increasing
    for row in small.itertuples():
        same = whole[(whole["time"] == row.time) & (whole["cell"] == row.cell)]
        assert same["intensity_total_ch_1"].item() == row.value
    assert call("merge", done, "--samples", samples).exit_code == 1  # exists
    words = ["--column", "intensity_mean_ch_1", "--model", "trivial"]
    found = call("fit", merged / "drug_merged.csv", *words)
    assert found.exit_code == 0, found.output
    assert len(pd.read_csv(merged / "drug_merged_fitted_trivial.csv")) == 2


def test_exports_and_pictures(done, tmp_path):
    found = call("export", done, tmp_path / "out", "--format", "csv")
    assert found.exit_code == 0, found.output
    assert found.stdout.strip().endswith("plate_traces.csv")
    assert call("export", done, tmp_path / "out", "--format", "geff", "--fovs", "1").exit_code == 0
    assert [path.name for path in (tmp_path / "out").glob("*.geff")] == ["plate_fov_001.geff"]
    found = call("view", done, "--to", tmp_path / "pictures", "--fovs", "0-1")
    assert found.exit_code == 0, found.output
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "{plate}", "{out}", "--pc", "0", "--set", "min_frame=2"], 2, "min_frames"),
        (["run", "{plate}", "{out}", "--pc", "0", "--set", "min_frames=0"], 2, "min_frames=0"),
        (["run", "{plate}", "{out}", "--pc", "5"], 1, "channel=5"),
        (
            ["run", "{plate}", "{out}", "--pc", "0", "--set", "tracking_method=laptrak"],
            1,
            "laptrack",
        ),
        (["status", "{out}"], 1, "holds no run"),
        (["merge", "{out}", "--samples", "{out}.yaml"], 1, "no such file of samples"),
        (["merge", "{done}", "--sample", "a=0", "--samples", "x"], 2, "use one of them"),
        (["export", "{done}", "{out}", "--format", "gef"], 2, "geff"),
        (["export", "{out}", "{out}"], 1, "no results of a cell workflow"),
        (["export", "{done}", "{out}", "--fovs", "3-1"], 1, "3-1"),
        (["view", "{out}"], 1, "no results of a cell workflow"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_written(plate, done, tmp_path, words, code, said):
    out = tmp_path / "out"
    found = call(*(word.format(plate=plate, out=out, done=done) for word in words))
    assert found.exit_code == code, found.output
    assert said in plain(found.output) + plain(found.stderr)
    assert not out.exists()


def test_samples_of_a_wrong_form_are_named(done, tmp_path):
    for text, words in [
        ("[1, 2]", "has no list samples"),
        ("samples: [{name: a}]", "is no sample with name and fovs"),
        ("samples: [{name: a, fovs: 0}, {name: a, fovs: 1}]", "named twice"),
        ("samples: [", "cannot be read as YAML"),
    ]:
        (tmp_path / "s.yaml").write_text(text)
        found = call("merge", done, "--samples", tmp_path / "s.yaml")
        assert found.exit_code == 1
        assert words in plain(found.output) + plain(found.stderr)
