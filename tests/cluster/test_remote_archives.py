"""Recordings and results in an S3 server that runs beside the tests."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

from scopeflow import OFOptions, compensate_recording, open_video
from scopeflow.cli.app import app
from scopeflow.errors import (
    InputError,
    InputNotFoundError,
    OptionsError,
    OutputError,
    OutputExistsError,
    UnreadableFileError,
)
from scopeflow.io.open import open_source
from scopeflow.motion.correct import BatchMotionCorrector
from scopeflow.motion.motion import Motion, compute_motion
from scopeflow.testing.synthetic import synthetic_recording
from tests.cluster.correct_remotely import config
from tests.cluster.correct_remotely import options as remote_options
from tests.clusters import two_workers
from tests.conftest import same_bits

pytest.importorskip("s3fs")
boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")

SCRIPT = Path(__file__).with_name("correct_remotely.py")
ROOT = Path(__file__).resolve().parents[2]
BUCKET = "archive"


@pytest.fixture(scope="module")
def server():
    """Address of an S3 server; the environment names it and credentials."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield settings
    running.stop()


@pytest.fixture(scope="module")
def s3(server):
    """A client that is not ours, and a bucket that keeps every version of an object."""
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    yield client
    client.close()


@pytest.fixture(scope="module")
def local(tmp_path_factory, s3):
    """The same recording in many formats, here and in the bucket below ``raw/``."""
    folder = tmp_path_factory.mktemp("raw")
    video = synthetic_recording(16, 32, 40, 2, seed=3, translation_px=2.0, nonrigid_px=0.7).video
    video = video.astype(np.uint16)
    tczyx = np.ascontiguousarray(video.transpose(0, 3, 1, 2))[:, :, None]
    zarr.create_array(folder / "v3.zarr", data=video, chunks=(2, 32, 40, 2), shards=(6, 32, 40, 2))
    zarr.create_array(folder / "v2.zarr", data=video, chunks=(4, 32, 40, 2), zarr_format=2)
    group = zarr.create_group(folder / "ome.zarr", zarr_format=2)
    group.create_array("0", data=tczyx, chunks=(1, 1, 1, 32, 40))
    axes = [{"name": name} for name in "tczyx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]
    tifffile.imwrite(folder / "plain.tif", video[..., 0])
    tifffile.imwrite(folder / "packed.tif", video[..., 0], compression="zlib")
    tifffile.imwrite(folder / "a.ome.tif", tczyx[:, :, 0], metadata={"axes": "TCYX"})
    tifffile.imwrite(folder / "c.ome.tif", video.transpose(3, 0, 1, 2), metadata={"axes": "CTYX"})
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("ch1", data=video[..., 0], chunks=(4, 32, 40), compression="gzip")
        file["ch2"] = video[..., 1]
    (folder / "stack").mkdir()
    for number in (9, 10):
        tifffile.imwrite(folder / "stack" / f"t{number}.tif", video[number, ..., 0])
    upload(s3, folder, "raw")
    return folder


def upload(s3, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            key = f"{prefix}/{path.relative_to(folder).as_posix()}"
            s3.upload_file(str(path), BUCKET, key, ExtraArgs={"ACL": "public-read"})


def listing(s3, prefix: str) -> dict[str, str]:
    """Names below a prefix, relative to it, and the version of each object."""
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
    versions = [each for page in pages for each in page.get("Versions", [])]
    return {v["Key"].removeprefix(f"{prefix}/"): v["VersionId"] for v in versions if v["IsLatest"]}


def count_versions(s3, prefix: str) -> dict[str, int]:
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
    counts: dict[str, int] = {}
    for page in pages:
        for each in page.get("Versions", []):
            counts[each["Key"]] = counts.get(each["Key"], 0) + 1
    return {key.removeprefix(f"{prefix}/"): count for key, count in counts.items()}


def content(s3, prefix: str) -> dict[str, bytes]:
    """Results below a prefix; without records, and without what tells times and versions."""
    return {
        name: s3.get_object(Bucket=BUCKET, Key=f"{prefix}/{name}")["Body"].read()
        for name in listing(s3, prefix)
        if not name.startswith(".scopeflow/") and name != "run.json"
    }


def local_content(folder: Path) -> dict[str, bytes]:
    return {
        name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and not (name := path.relative_to(folder).as_posix()).startswith(".scopeflow/")
        and name != "run.json"
    }


def address(name: str) -> str:
    return f"s3://{BUCKET}/{name}"


def options(folder, log=os.devnull, **changes) -> OFOptions:
    return remote_options(address("raw/v3.zarr"), folder, log, **changes)


@pytest.fixture(scope="module")
def expected(local, tmp_path_factory):
    """What a run writes to this machine, and how often it looks at a frame."""
    folder = tmp_path_factory.mktemp("expected")
    compensate_recording(options(folder / "out", folder / "log"), config=config())
    return local_content(folder / "out"), len((folder / "log").read_text().split())


def read_elsewhere(sources, start: int, stop: int, settings: dict[str, str]):
    os.environ.update(settings)
    return os.getpid(), [source.read(start, stop) for source in sources]


NAMES = ["v3.zarr", "v2.zarr", "ome.zarr", "plain.tif", "packed.tif", "a.ome.tif", "c.ome.tif",
         "a.h5", "stack", "stack/t*.tif"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_reads_as_it_does_here(local, name):
    here, there = open_video(local / name), open_video(address(f"raw/{name}"))
    assert same_bits(there.values, here.values)
    assert same_bits(there[1:2].values, here[1:2].values)


def test_an_address_that_was_a_path_is_mended(local):
    source = open_source(Path(address("raw/v3.zarr")))
    assert source.paths == (address("raw/v3.zarr"),)
    assert pickle.loads(pickle.dumps(source)) == source == open_source(address("raw/v3.zarr"))


@pytest.mark.parametrize("name", ["v3.zarr", "plain.tif", "a.h5"])
def test_a_web_server_is_read_too(local, server, name):
    web = f"{server['AWS_ENDPOINT_URL']}/{BUCKET}/raw/{name}"
    assert same_bits(open_video(web)[3:9].values, open_video(local / name)[3:9].values)


@pytest.mark.slow
def test_workers_open_recordings_for_themselves(local, server, cluster_client):
    names = ["v3.zarr", "a.h5", "packed.tif"]
    sources = [open_source(address(f"raw/{name}")) for name in names]
    process, read = cluster_client.submit(read_elsewhere, sources, 3, 7, server).result()
    assert process != os.getpid()
    for name, frames in zip(names, read, strict=True):
        assert same_bits(frames, open_source(local / name).read(3, 7))


def test_a_recording_that_changed_is_noticed(local, s3):
    upload(s3, local / "v2.zarr", "changing/v2.zarr")
    s3.upload_file(str(local / "plain.tif"), BUCKET, "changing/a.tif")
    folder, file = open_source(address("changing/v2.zarr")), open_source(address("changing/a.tif"))
    other = np.full((16, 32, 40), 7, np.uint16)
    tifffile.imwrite(local.parent / "other.tif", other)
    s3.upload_file(str(local.parent / "other.tif"), BUCKET, "changing/a.tif")
    with pytest.raises(InputError, match="the file changed since it was opened"):
        file.read(0, 1)
    assert open_source(address("changing/a.tif")).identity() != file.identity()
    # A chunk of the same size, which only its ETag tells apart.
    chunk = s3.get_object(Bucket=BUCKET, Key="changing/v2.zarr/0.0.0.0")["Body"].read()
    s3.put_object(Bucket=BUCKET, Key="changing/v2.zarr/0.0.0.0", Body=chunk[::-1])
    assert open_source(address("changing/v2.zarr")).identity() != folder.identity()


def test_what_cannot_be_read_is_one_error(local, s3):
    with pytest.raises(InputNotFoundError, match=r"raw/none\.tif: there is no such file"):
        open_source(address("raw/none.tif"))
    with pytest.raises(InputNotFoundError, match="Check the address, and the permission"):
        open_source("s3://no-such-bucket/a.zarr")
    s3.put_object(Bucket=BUCKET, Key="bad/a.nd2", Body=b"\xda\xce\xbe\x0a" + bytes(3000))
    with pytest.raises(InputError, match="ND2 files are not read from remote addresses"):
        open_source(address("bad/a.nd2"))
    s3.put_object(Bucket=BUCKET, Key="bad/a.h5", Body=b"\x89HDF\r\n\x1a\n" + bytes(3000))
    with pytest.raises(UnreadableFileError, match="cannot be opened as HDF5"):
        open_source(address("bad/a.h5"))
    s3.put_object(Bucket=BUCKET, Key="bad/empty.tif", Body=b"")
    with pytest.raises(UnreadableFileError, match="empty"):
        open_source(address("bad/empty.tif"))


@pytest.fixture(scope="module")
def written(expected, s3):
    """A finished run in the bucket, below ``threads/``."""
    compensate_recording(options(address("threads")), config=config())
    return "threads"


def test_results_are_the_same_bytes(expected, written, s3):
    assert content(s3, written) == expected[0]
    assert {"w.h5", "idx.hdf", "statistics.npz", "reference_frame.npy"} <= set(expected[0])
    assert "run.json" in listing(s3, written)


def test_no_object_of_a_block_was_written_twice(written, s3):
    counts = count_versions(s3, written)
    blocks = {name: count for name, count in counts.items() if "/c/" in name or "/block-" in name}
    assert len(blocks) >= 3 * 4 + 4
    assert set(blocks.values()) == {1}


def test_a_cluster_writes_the_same_bytes(expected, server, s3):
    # A cluster of its own: workers that are started later, too, have the server's credentials.
    with two_workers() as client:
        compensate_recording(
            options(address("cluster")),
            config=config(client=client, parallelization=None, n_jobs=-1),
        )
    assert content(s3, "cluster") == expected[0]


def test_a_second_run_computes_what_is_missing_or_damaged_only(expected, written, s3):
    shard = "compensated.zarr/registered/c/{}/0/0/0".format
    before = listing(s3, written)
    s3.delete_object(Bucket=BUCKET, Key=f"{written}/{shard(1)}")
    s3.put_object(Bucket=BUCKET, Key=f"{written}/{shard(3)}", Body=b"damaged")
    corrector = BatchMotionCorrector(options(address(written)), config())
    corrector.run()
    assert (corrector.computed_frames, corrector.reused_frames) == (8, 8)
    assert content(s3, written) == expected[0]
    after = listing(s3, written)
    changed = {name for name in before if "/registered/c/" in name and before[name] != after[name]}
    assert changed == {shard(1), shard(3)}


@pytest.mark.slow
def test_other_settings_are_refused_and_only_what_is_ours_is_replaced(expected, s3):
    neighbours = {f"mine/{name}": b"x" for name in ("compensated.zarr2/a", "w.h5.old", "other")}
    for key, body in neighbours.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    folder = address("mine")
    compensate_recording(options(folder, alpha=3), config=config())
    with pytest.raises(OutputExistsError, match="made with other settings"):
        compensate_recording(options(folder), config=config())
    compensate_recording(options(folder), config=config(resume=False))
    found = content(s3, "mine")
    for key, body in neighbours.items():
        assert found.pop(key.removeprefix("mine/")) == body
    assert found == expected[0]
    s3.put_object(Bucket=BUCKET, Key="foreign/compensated.zarr/zarr.json", Body=b"{}")
    with pytest.raises(OutputExistsError, match="no record that scopeflow wrote it"):
        compensate_recording(options(address("foreign")), config=config())


@pytest.mark.slow
def test_a_killed_run_goes_on(expected, s3, tmp_path):
    log = tmp_path / "log"
    arguments = [sys.executable, str(SCRIPT), address("raw/v3.zarr"), address("killed"), str(log)]
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = {**os.environ, "SECONDS_PER_FRAME": "0.05", "PYTHONPATH": path}
    process = subprocess.Popen(arguments, env=environment, start_new_session=True)
    records = ".scopeflow/compensated.zarr/ledger/block-"

    def finished() -> list[str]:
        return [n for n in listing(s3, "killed") if n.startswith(records) and n.endswith(".json")]

    try:
        while not finished():
            assert process.poll() is None, "finished before it could be killed"
            time.sleep(0.1)  # the server runs in this process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = finished()
    numbers = [int(name.removeprefix(records)[:9]) // 4 for name in done]
    assert 0 < len(numbers) < 4
    before = listing(s3, "killed")
    compensate_recording(options(address("killed"), log), config=config())
    assert content(s3, "killed") == expected[0]
    after = listing(s3, "killed")
    owned = [
        f"compensated.zarr/{array}/c/{number}/0/0{end}"
        for number in numbers
        for array, end in (("registered", "/0"), ("motion", "/0"), ("valid", ""))
    ]
    for name in (*owned, *done):
        assert after[name] == before[name], name
    # At most the blocks in flight, two at a time of four frames each, were begun twice.
    assert expected[1] <= len(log.read_text().split()) <= expected[1] + 2 * 4


def test_wrong_places_are_one_error_before_anything_is_computed(local, s3):
    calls = []

    def count(frame):
        calls.append(1)
        return frame

    for changes, error, message in (
        ({"output_path": "s3://no-such-bucket/out"}, OutputError, "bucket does not exist"),
        ({"output_format": "HDF5"}, OptionsError, "Choose output_format ZARR, or a folder"),
        ({"output_path": address("raw/v3.zarr/out")}, OutputError, "lies inside the input"),
        ({"output_path": address("raw")}, OutputError, "lies inside the output folder"),
    ):
        wrong = options(**{"folder": address("never"), **changes, "preproc_funct": count})
        with pytest.raises(error, match=message):
            compensate_recording(wrong, config=config())
    assert not calls
    assert not listing(s3, "never")


def test_without_credentials_is_one_line_and_exit_code_1(server):
    settings = {name: value for name, value in os.environ.items() if "ACCESS_KEY" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "scopeflow", "inspect", address("raw/v3.zarr")],
        env={**settings, "AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "no usable credentials" in done.stderr
    assert "Traceback" not in done.stderr


def run(*words: str):
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})


WORDS = ["correct", address("raw/a.h5"), address("shell"), "--quality", "fast"]
WORDS += ["--reference", "0:4", "--set", "iterations=2"]


def test_the_command_line_takes_addresses(local, s3):
    shown = run("inspect", address("raw/ome.zarr"))
    assert shown.exit_code == 0, shown.output
    assert address("raw/ome.zarr/0") in shown.output
    planned = run(*WORDS, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert address("shell/compensated.zarr") in planned.output
    assert not listing(s3, "shell")
    refused = run(*WORDS[:2], address("shell/a.tif"))
    assert refused.exit_code == 1
    assert "block by block" in " ".join(refused.output.split())


@pytest.mark.slow
def test_a_command_from_archive_to_archive(local, s3):
    done = run(*WORDS)
    assert done.exit_code == 0, done.output
    assert address("shell/compensated.zarr") in done.output
    assert open_video(address("shell")).shape == (16, 32, 40, 2)


@pytest.mark.slow
def test_displacements_alone(expected, s3):
    folder = address("null")
    compensate_recording(options(folder, output_format="NULL"), config=config())
    found = content(s3, "null")
    assert found == {
        name: body for name, body in expected[0].items() if "compensated.zarr" not in name
    }
    again = BatchMotionCorrector(options(folder, output_format="NULL"), config())
    again.run()
    assert again.computed_frames == 0


@pytest.mark.slow
def test_motion_is_kept_and_found(local, written, s3, tmp_path):
    motion = compute_motion(
        address("raw/v3.zarr"), list(range(4)), options("unused"), config(n_jobs=1)
    )
    here = motion.save(tmp_path / "motion.zarr", config())
    there = motion.save(address("kept/motion.zarr"), config())
    flow = here.grid_displacement.compute()
    assert same_bits(there.grid_displacement.compute(), flow)
    for place in (address(written), address(f"{written}/compensated.zarr")):
        assert same_bits(Motion.open(place).reference, here.reference)
        assert Motion.open(place).n_frames == 16
    frames = address("raw/v3.zarr")
    assert same_bits(there.apply(frames)[5].values, here.apply(frames)[5].values)
    with pytest.raises(InputNotFoundError):
        Motion.open(address("kept/none.zarr"))


def test_the_reference_may_be_remote(local, s3, tmp_path):
    image = np.random.default_rng(0).random((32, 40, 2))
    np.save(tmp_path / "reference.npy", image)
    s3.upload_file(str(tmp_path / "reference.npy"), BUCKET, "reference.npy")
    corrector = BatchMotionCorrector(
        options("unused", output_format="ARRAY", reference_frames=address("reference.npy")),
        config(),
    )
    assert same_bits(corrector.run(), image)


def test_the_server_is_a_real_one(server):
    with urllib.request.urlopen(f"{server['AWS_ENDPOINT_URL']}/{BUCKET}?list-type=2") as answer:
        assert b"ListBucketResult" in answer.read()
