from __future__ import annotations

import json
import signal
import time

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

from scopeflow.cli.app import INTERRUPTED, app
from scopeflow.engine.place import RegistrationConfig
from scopeflow.motion.arrays import compensate_arr
from scopeflow.motion.options.of_options import OFOptions
from tests.cli.conftest import everything_below, plain, run_command, start_command

QUICK = ("--quality", "fast", "--set", "iterations=5", "--scheduler", "sequential")


def invoke(*words):
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def expected(frames):
    """The same correction through the function for arrays."""
    reference = frames[2:5].astype(float).mean(axis=0)
    options = OFOptions(quality_setting="fast", iterations=5, output_typename="uint16")
    registered, _ = compensate_arr(
        frames,
        reference,
        options,
        registration_config=RegistrationConfig(parallelization="sequential", progress=False),
    )
    return reference, registered


@pytest.mark.parametrize("file_format", ["zarr", "hdf5", "tiff", "mat", "null"])
def test_every_format_holds_what_the_array_function_returns(movie, tmp_path, expected, file_format):
    reference, registered = expected
    np.save(tmp_path / "reference.npy", reference)
    result = invoke(
        "correct", movie, tmp_path / "out", *QUICK, "--format", file_format, "--save-w",
        "--reference", tmp_path / "reference.npy",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "out"
    if file_format == "zarr":
        stored = zarr.open_group(out / "compensated.zarr", mode="r")["registered"][:, 0]
    elif file_format in ("hdf5", "mat"):
        with h5py.File(out / f"compensated.{file_format}") as file:
            stored = next(iter(file.values()))[:]
        if file_format == "mat":
            stored = np.swapaxes(stored, 1, 2)  # MATLAB counts columns first
    elif file_format == "tiff":
        stored = tifffile.imread(out / "compensated.tiff")
    else:
        assert not list(out.glob("compensated*"))
        stored = registered
    np.testing.assert_array_equal(np.squeeze(stored), registered)
    with h5py.File(out / "w.h5") as displacements:
        assert displacements["u"].shape == (24, 40, 48)
    printed = plain(result.stdout)
    assert f"{out}/w.h5" in printed
    assert "frames/s" in printed
    assert "mean displacement" in printed
    assert "clipped" in printed


def test_dry_run_shows_the_plan_and_writes_nothing(movie, tmp_path):
    before = everything_below(tmp_path)
    out = tmp_path / "out"
    result = invoke("correct", movie, out, *QUICK, "--dry-run", "--block-length", "10", "--save-w")
    assert result.exit_code == 0, result.stderr
    assert everything_below(tmp_path) == before
    printed = plain(result.stdout)
    for fact in ("24 × 40 × 48 × 1", "3 of 10 frames", "1 of 24 frames", "24 frames, 0 to 23"):
        assert fact in printed
    for name in ("compensated.zarr", "w.h5", "statistics.npz", "reference_frame.npy", "run.json"):
        assert str(out / name) in printed
    assert "MB" in printed
    assert "none; everything is computed" in printed


def test_what_a_dry_run_announces_is_what_a_run_writes(movie, tmp_path):
    words = ("correct", movie, tmp_path / "out", *QUICK, "--format", "hdf5")
    announced = plain(invoke(*words, "--dry-run").stdout)
    invoke(*words)
    written = {path for path in (tmp_path / "out").iterdir() if path.name != ".scopeflow"}
    assert written
    for path in written:
        assert f"writes {path}" in announced
    assert announced.count("writes") == len(written)
    assert "nothing would be computed" in plain(invoke(*words, "--dry-run").stdout)


def test_a_second_run_reuses_everything_and_no_resume_nothing(movie, tmp_path):
    words = ("correct", movie, tmp_path / "out", *QUICK)
    assert "reused 0 of 24 frames (0 %)" in plain(invoke(*words).stdout)
    assert "reused 24 of 24 frames (100 %)" in plain(invoke(*words).stdout)
    assert "would be resumed" in plain(invoke(*words, "--dry-run").stdout)
    assert "reused 0 of 24 frames (0 %)" in plain(invoke(*words, "--no-resume").stdout)


def test_other_settings_do_not_overwrite_results(movie, tmp_path):
    words = ("correct", movie, tmp_path / "out", *QUICK)
    invoke(*words)
    run = (tmp_path / "out" / "run.json").read_bytes()
    code, out, err = run_command(*words, "--set", "alpha=9")
    assert code == 1
    assert out == ""
    assert err.count("\n") == 1
    assert "alpha" in err
    assert "--no-resume" in err
    assert (tmp_path / "out" / "run.json").read_bytes() == run
    assert invoke(*words, "--set", "alpha=9", "--no-resume").exit_code == 0
    assert (tmp_path / "out" / "run.json").read_bytes() != run


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--set", "alhpa=3"], "Did you mean 'alpha'?"),
        (["--set", "alpha"], "write KEY=VALUE"),
        (["--set", "alpha=[1"], "cannot be read"),
        (["--set", "eta=7"], "eta"),
        (["--set", "input_file=x"], "there is no such option"),
        (["--set", "output_format=ARRAY"], "--format zarr"),
        (["--quality", "best"], "best"),
        (["--quality", "fast", "--set", "quality_setting=fast"], "give it once"),
        (["--reference", "5:5"], "holds no frame"),
        (["--scheduler", "thread"], "Did you mean 'threads'?"),
        (["--scheduler", "tcp://host:1", "--workers", "2"], "--workers has no effect"),
        (["--workers", "0"], "--workers"),
        (["--colour"], "--colour"),
    ],
)
def test_bad_usage_exits_2_and_writes_nothing(movie, tmp_path, words, complaint):
    before = everything_below(tmp_path)
    result = invoke("correct", movie, tmp_path / "out", *words)
    assert result.exit_code == 2
    assert complaint in plain(result.stderr)
    assert everything_below(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nowhere.tif", "out"], "no such file"),
        (["raw/movie.tif", "out", "--options", "nowhere.json"], "does not exist"),
        (["raw/movie.tif", "raw"], "inside the output folder"),
        (["raw/movie.tif", "out", "--reference", "900:950"], "900"),
        (["raw/movie.tif", "out", "--reference", "nowhere.npy"], "nowhere.npy"),
        (["raw/movie.tif", "out", "--dataset", "images"], "images"),
        (["raw/empty.tif", "out"], "empty.tif"),
        (["raw/movie.tif", "out", "--format", "tiff", "--set", "save_w=maybe"], None),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    movie, tmp_path, monkeypatch, words, complaint
):
    (tmp_path / "raw" / "empty.tif").touch()
    monkeypatch.chdir(tmp_path)
    before = everything_below(tmp_path)
    result = invoke("correct", *words)
    if complaint is None:
        assert result.exit_code == 2
        assert "save_w" in plain(result.stderr)
    else:
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert complaint in result.stderr
    assert result.stdout == ""
    assert everything_below(tmp_path) == before


def test_set_and_option_files_reach_the_run(movie, tmp_path):
    stored = OFOptions(alpha=7, iterations=3, min_level=6).save_options(tmp_path / "o.json")
    result = invoke(
        "correct", movie, tmp_path / "out", "--options", stored, "--scheduler", "sequential",
        "--set", "alpha=[2, 3]", "--set", "sigma=[[2, 2, 0.1]]", "--set", "eta=5e-1",
        "--set", "channel_normalization=separate", "--reference", "0:3",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    options = json.loads((tmp_path / "out" / "run.json").read_text())["options"]
    assert list(options["alpha"]) == [2, 3]
    assert options["sigma"] == [[2, 2, 0.1]]
    assert options["eta"] == 0.5
    assert options["channel_normalization"] == "separate"
    assert options["iterations"] == 3
    assert options["min_level"] == 6


def test_the_quality_flag_wins_over_the_level_of_an_option_file(movie, tmp_path):
    stored = OFOptions(min_level=2).save_options(tmp_path / "o.json")
    words = (
        "correct",
        movie,
        tmp_path / "out",
        "--options",
        stored,
        "--dry-run",
        "--reference",
        "0:3",
    )
    assert "quality custom" in plain(invoke(*words).stdout)
    assert "quality balanced" in plain(invoke(*words, "--quality", "balanced").stdout)


def test_output_may_be_a_file_name(movie, tmp_path):
    result = invoke("correct", movie, tmp_path / "out" / "day1.h5", *QUICK)
    assert result.exit_code == 0, result.stderr
    with h5py.File(tmp_path / "out" / "day1.h5") as file:
        assert next(iter(file.values())).shape[0] == 24
    result = invoke("correct", movie, tmp_path / "out" / "day1.h5", "--format", "tiff")
    assert result.exit_code == 2


def test_axes_and_dataset_choose_what_is_corrected(frames, tmp_path):
    path = tmp_path / "raw" / "two.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["green"] = np.moveaxis(frames, 0, -1)
        file["red"] = frames[:5]
    words = ("correct", path, tmp_path / "out", "--dry-run", "--dataset")
    assert "24 × 40 × 48 × 1" in plain(invoke(*words, "green", "--axes", "YXT").stdout)
    assert "5 × 40 × 48 × 1" in plain(invoke(*words, "red", "--axes", "TYX").stdout)


def test_a_cluster_is_used_by_address_and_by_scheduler_file(movie, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        file = tmp_path / "scheduler.json"
        file.write_text(json.dumps({"address": cluster.scheduler_address}))
        words = ("--quality", "fast", "--set", "iterations=3", "--set", "buffer_size=10")
        for place in (cluster.scheduler_address, file):
            out = tmp_path / f"out-{len(str(place))}"
            if cluster.scheduler_address.startswith("inproc"):
                code = invoke("correct", movie, out, *words, "--scheduler", place).exit_code
            else:
                code = run_command("correct", movie, out, *words, "--scheduler", place)[0]
            assert code == 0
            run = json.loads((out / "run.json").read_text())
            assert run["executor"]["name"] == "dask"


def test_ctrl_c_says_how_to_go_on_and_the_same_command_resumes(tmp_path):
    rng = np.random.default_rng(0)
    movie = tmp_path / "raw" / "long.tif"
    movie.parent.mkdir()
    tifffile.imwrite(movie, rng.integers(100, 900, (120, 96, 96)).astype(np.uint16))
    words = (
        "correct", movie, tmp_path / "out", "--reference", "0:1", "--scheduler", "sequential",
        "--block-length", "4", "--set", "buffer_size=400",
    )  # fmt: skip
    process = start_command(*words)
    blocks = tmp_path / "out" / ".scopeflow" / "compensated.zarr" / "ledger"
    deadline = time.monotonic() + 60
    while not list(blocks.glob("block*.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert INTERRUPTED in err
    assert "Traceback" not in err
    finished = 4 * len(list(blocks.glob("block*.json")))
    assert 0 < finished < 120
    code, out, err = run_command(*words)
    assert code == 0, err
    assert f"reused   {finished} of 120 frames" in out
