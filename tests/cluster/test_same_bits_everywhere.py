"""One recording, every format, chunking, scheduler and block length: always the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
import zarr

from scopeflow.engine.place import RegistrationConfig
from scopeflow.io.recording import open_video
from scopeflow.motion.arrays import compensate_arr
from scopeflow.motion.correct import BatchMotionCorrector, compensate_recording
from tests.conftest import same_bits


@pytest.fixture(scope="module")
def expected(small_recording, tmp_path_factory):
    """Registered video and motion of an undisturbed sequential run in blocks of 20."""
    from scopeflow.motion.options.of_options import OFOptions

    folder = tmp_path_factory.mktemp("expected")
    options = OFOptions(
        **OPTIONS,
        input_file=small_recording.video,
        reference_frames=list(range(10, 30)),
        output_path=folder,
    )
    config = RegistrationConfig(parallelization="sequential", progress=False, block_length=20)
    compensate_recording(options, config=config)
    return stored(folder)


OPTIONS = {
    "quality_setting": "fast",
    "iterations": 10,
    "buffer_size": 20,
    "sigma": [1, 1, 0.4],
    "update_reference": True,
}


def stored(folder):
    group = zarr.open_group(folder / "compensated.zarr", mode="r")
    names = ("registered", "motion", "valid", "stats/mean_disp", "reference/raw")
    return {name: group[name][:] for name in names}


def check(found, expected):
    for name, values in expected.items():
        assert same_bits(found[name], values), name


@pytest.fixture
def correct(tmp_path, quick_options):
    def run(given, config):
        options = quick_options(
            **OPTIONS,
            input_file=given,
            reference_frames=list(range(10, 30)),
            output_path=tmp_path / "out",
        )
        compensate_recording(options, config=config)
        return stored(tmp_path / "out")

    return run


@pytest.mark.parametrize("block_length", [4, 10, 20])
@pytest.mark.parametrize("scheduler", ["sequential", "threading", "multiprocessing", "dask"])
def test_schedulers_and_block_lengths(
    small_recording, expected, correct, quiet, cluster_client, scheduler, block_length
):
    client = cluster_client if scheduler == "dask" else None
    config = quiet(parallelization=scheduler, n_jobs=2, block_length=block_length, client=client)
    check(correct(small_recording.video, config), expected)


def write_zarr2(path, video):
    zarr.create_array(path, data=video, chunks=(3, 40, 20, 1), zarr_format=2)


def write_zarr3(path, video):
    zarr.create_array(
        path,
        data=np.moveaxis(video, -1, 1),
        chunks=(1, 2, 40, 52),
        shards=(8, 2, 40, 52),
        dimension_names=("t", "c", "y", "x"),
    )


def write_hdf5(path, video):
    with h5py.File(path, "w") as file:
        for channel in (0, 1):
            file.create_dataset(f"ch{channel + 1}", data=video[..., channel], chunks=(5, 11, 13))


def write_mat(path, video):
    channels = {f"ch{c + 1}": video[..., c].transpose(1, 2, 0) for c in (0, 1)}
    scipy.io.savemat(path, channels)


def write_tiff(path, video):
    tifffile.imwrite(path, np.moveaxis(video, -1, 1), imagej=True, metadata={"axes": "TCYX"})


def write_ome_tiff(path, video):
    tifffile.imwrite(path, np.moveaxis(video, -1, 1), ome=True, metadata={"axes": "TCYX"})


def write_folder(path, video):
    path.mkdir()
    for t, frame in enumerate(video):
        planes = frame.transpose(2, 0, 1)
        tifffile.imwrite(path / f"t{t}.tif", planes, imagej=True, metadata={"axes": "CYX"})


FORMATS = {
    "zarr v2": ("raw.zarr", write_zarr2),
    "zarr v3 sharded": ("raw.zarr", write_zarr3),
    "HDF5": ("raw.h5", write_hdf5),
    "MAT": ("raw.mat", write_mat),
    "ImageJ TIFF": ("raw.tif", write_tiff),
    "OME-TIFF": ("raw.ome.tif", write_ome_tiff),
    "folder of TIFFs": ("raw", write_folder),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_on_a_cluster(
    small_recording, expected, correct, quiet, cluster_client, tmp_path, kind
):
    name, write = FORMATS[kind]
    write(tmp_path / name, small_recording.video)
    config = quiet(parallelization="dask", client=cluster_client, block_length=10)
    check(correct(tmp_path / name, config), expected)


def test_nd2_on_a_cluster(small_recording, expected, correct, quiet, cluster_client, tmp_path):
    from tests.oracles.nd2_writer import write_nd2

    video = np.moveaxis(small_recording.video, -1, 1)[:, None]
    write_nd2(tmp_path / "raw.nd2", video, ["green", "red"])
    config = quiet(parallelization="dask", client=cluster_client, block_length=10)
    check(correct(tmp_path / "raw.nd2", config), expected)


@pytest.mark.parametrize("chunks", [(1, 40, 52, 2), (44, 20, 26, 1)])
def test_chunks_of_lazy_arrays_on_a_cluster(
    small_recording, expected, correct, quiet, cluster_client, chunks
):
    lazy = da.from_array(small_recording.video, chunks=chunks)
    config = quiet(parallelization="dask", client=cluster_client, block_length=4)
    check(correct(lazy, config), expected)


def test_arrays_come_back_from_a_cluster(
    small_recording, quick_options, quiet, cluster_client, expected
):
    video, reference = small_recording.video, small_recording.reference
    options = quick_options(output_typename=None)
    here = compensate_arr(video, reference, options, registration_config=quiet())
    there = compensate_arr(
        video,
        reference,
        options,
        registration_config=quiet(parallelization="dask", client=cluster_client, block_length=5),
    )
    assert same_bits(here[0], there[0])
    assert same_bits(here[1], there[1])


def test_the_active_client_is_used_without_asking(
    small_recording, quick_options, quiet, cluster_client, tmp_path
):
    options = quick_options(
        input_file=small_recording.video[:8], reference_frames=[0], output_path=tmp_path / "o"
    )
    with cluster_client.as_current():
        corrector = BatchMotionCorrector(options, quiet(parallelization=None))
        corrector.run()
    run = json.loads((tmp_path / "o" / "run.json").read_text())
    assert run["executor"]["name"] == "dask"


def test_dask_without_a_client_says_what_to_do(small_recording, quick_options, quiet, tmp_path):
    options = quick_options(
        input_file=small_recording.video[:8], reference_frames=[0], output_path=tmp_path / "o"
    )
    with pytest.raises(ValueError, match="no active client"):
        compensate_recording(options, config=quiet(parallelization="dask"))
    assert not (tmp_path / "o").exists()


def test_a_scheduler_that_does_not_answer_is_named(small_recording, quick_options, tmp_path):
    options = quick_options(
        input_file=small_recording.video[:8], reference_frames=[0], output_path=tmp_path / "o"
    )
    config = RegistrationConfig(scheduler_address="tcp://127.0.0.1:9", progress=False)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ValueError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9"),
    ):
        compensate_recording(options, config=config)
    assert not (tmp_path / "o").exists()


def test_callbacks_on_a_cluster_come_in_order(
    small_recording, quick_options, quiet, cluster_client, tmp_path
):
    spans = []
    options = quick_options(
        input_file=small_recording.video, reference_frames=[0], output_path=tmp_path / "o"
    )
    collected = []

    def collect(frames, start, end):
        spans.append((start, end))
        collected.append(frames)

    compensate_recording(
        options,
        config=quiet(parallelization="dask", client=cluster_client, block_length=5),
        registered_callback=collect,
    )
    assert spans == [(0, 20), (20, 40), (40, 44)]
    result = open_video(tmp_path / "o" / "compensated.zarr").values
    assert same_bits(np.concatenate(collected), result)


def test_processes_work_in_a_script_without_a_main_guard(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import numpy as np\n"
        "from scopeflow import OFOptions, RegistrationConfig, compensate_arr\n"
        "video = np.random.default_rng(0).normal(100, 10, (8, 32, 32))\n"
        "def twice(reference, moving, **_):\n"
        "    return np.full((32, 32, 2), 2, np.float32)\n"
        "config = RegistrationConfig(parallelization='multiprocessing', n_jobs=2, progress=False)\n"
        "_, w = compensate_arr(video, video[0], OFOptions(), get_displacement=twice,\n"
        "                      registration_config=config)\n"
        "print('found', w.mean())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "found 2.0\n"
