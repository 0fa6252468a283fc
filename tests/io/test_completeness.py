"""Results that are unfinished or damaged say so when opened; none reads as black frames."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from scopeflow import open_video
from scopeflow.cli.app import app
from scopeflow.errors import UnreadableFileError
from scopeflow.io.zarr.completeness import condition
from scopeflow.motion.correct import compensate_recording
from scopeflow.motion.motion import Motion


@pytest.fixture(scope="module")
def whole(small_recording, tmp_path_factory):
    from scopeflow import OFOptions, RegistrationConfig

    folder = tmp_path_factory.mktemp("whole") / "out"
    options = OFOptions(
        input_file=small_recording.video[:22],
        output_path=folder,
        quality_setting="fast",
        iterations=5,
        buffer_size=20,
        reference_frames=[0],
    )
    config = RegistrationConfig(progress=False, parallelization="sequential", block_length=4)
    compensate_recording(options, config=config)
    return folder


@pytest.fixture
def result(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "out")


def unfinish(store):
    file = store / "zarr.json"
    description = json.loads(file.read_text())
    del description["attributes"]["ome"]
    file.write_text(json.dumps(description))
    shutil.rmtree(store / "registered" / "c" / "3")


def cut(store):
    shard = store / "motion" / "c" / "2" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-30])


DAMAGE = {
    "missing": (lambda s: shutil.rmtree(s / "registered/c/3"), "registered/c/3/0/0/0 is missing"),
    "empty": (lambda s: (s / "valid/c/1/0/0").write_bytes(b""), "valid/c/1/0/0 is empty"),
    "cut": (cut, "motion/c/2/0/0/0 is cut"),
    "no array": (lambda s: (s / "registered/zarr.json").write_text(""), "registered/zarr.json"),
    "no group": (lambda s: (s / "zarr.json").write_text(""), "zarr.json"),
    "unfinished": (unfinish, "unfinished: 5 of 6 blocks"),
}


def test_a_whole_result_opens(result):
    store = result / "compensated.zarr"
    assert str(condition(store)) == "complete: 6 of 6 blocks"
    assert open_video(store).shape == open_video(result).shape
    assert Motion.open(result).n_frames == 22
    told = CliRunner().invoke(app, ["inspect", str(store)])
    assert told.exit_code == 0
    assert "complete: 6 of 6 blocks" in told.output


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_not_whole_is_named(result, kind):
    damage, said = DAMAGE[kind]
    store = result / "compensated.zarr"
    damage(store)
    for opened in (open_video, Motion.open):
        with pytest.raises(UnreadableFileError) as caught:
            opened(store)
        assert said in str(caught.value)
        assert "Run the same command again" in str(caught.value)
    told = CliRunner().invoke(app, ["inspect", str(result)])
    assert told.exit_code == 1
    assert said in told.output


def test_a_lost_inner_chunk_is_no_zeros(result):
    from scopeflow.motion.store.layout import REGISTERED, open_result

    store = result / "compensated.zarr"
    shard = store / "registered" / "c" / "1" / "0" / "0" / "0"
    import google_crc32c

    data = shard.read_bytes()
    chunks = (len(data) - 4) // 16  # an upper bound; the index has one place here
    index = np.full((1, 2), 2**64 - 1, "<u8").tobytes()
    assert chunks >= 1
    shard.write_bytes(data[:-20] + index + google_crc32c.value(index).to_bytes(4, "little"))
    with pytest.raises(UnreadableFileError, match="lacks"):
        open_result(store).read(REGISTERED, 4, 8)
    with pytest.raises(UnreadableFileError, match="lacks a chunk"):
        open_video(store)
