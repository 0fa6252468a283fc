from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from scopeflow import open_video
from scopeflow.cli.app import app
from scopeflow.errors import InputError, OptionsError, OutputExistsError
from scopeflow.io.files import file_digest
from scopeflow.motion.arrays import compensate_arr
from scopeflow.motion.correct import BatchMotionCorrector
from tests.conftest import same_bits

FILES = {
    "MULTIFILE_TIFF": ["compensated_ch1.tiff", "compensated_ch2.tiff"],
    "MULTIFILE_HDF5": ["compensated_ch1.hdf5", "compensated_ch2.hdf5"],
    "MULTIFILE_MAT": ["compensated_ch1.mat", "compensated_ch2.mat"],
    "CAIMAN_HDF5": ["compensated_ch1.hdf5", "compensated_ch2.hdf5"],
    "SUITE2P_TIFF": ["compensated.tif"],
    "OME_TIFF": ["compensated.ome.tiff"],
}


@pytest.fixture(scope="module")
def raw(small_recording, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "day1.tif"
    video = np.moveaxis(small_recording.video, -1, 1)
    tifffile.imwrite(path, video, imagej=True, metadata={"axes": "TCYX"})
    return path


@pytest.mark.parametrize("name", FILES)
def test_a_run_writes_the_format_and_knows_when_it_is_done(
    small_recording, raw, tmp_path, quick_options, quiet, name
):
    options = quick_options(
        input_file=raw,
        output_path=tmp_path,
        reference_frames=small_recording.reference,
        output_format=name.lower(),
    )
    expected, _ = compensate_arr(
        small_recording.video,
        small_recording.reference,
        quick_options(output_typename="uint16"),
        registration_config=quiet(),
    )
    BatchMotionCorrector(options, quiet(block_length=5)).run()
    found = sorted(path.name for path in tmp_path.glob("compensated*"))
    assert found == FILES[name]
    assert same_bits(open_video(tmp_path).to_numpy(), expected)
    # Finished: nothing is computed or written again.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("compensated*")}
    again = BatchMotionCorrector(options, quiet())
    again.run()
    assert (again.computed_frames, again.reused_frames) == (0, len(expected))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # A file that is missing or damaged is noticed.
    last = tmp_path / FILES[name][-1]
    digest = file_digest(last)
    last.write_bytes(last.read_bytes()[:-1000])
    BatchMotionCorrector(options, quiet(block_length=5)).run()
    if name not in ("MULTIFILE_MAT", "OME_TIFF"):  # these hold the time of writing, or an id
        assert file_digest(last) == digest
    assert same_bits(open_video(tmp_path).to_numpy(), expected)


def test_formats_of_the_same_names_are_told_apart(raw, tmp_path, quick_options, quiet):
    first = quick_options(input_file=raw, output_path=tmp_path, output_format="CAIMAN_HDF5")
    first.reference_frames = [0]
    BatchMotionCorrector(first, quiet()).run()
    second = first.copy()
    second.output_format = "MULTIFILE_HDF5"
    with pytest.raises(OutputExistsError, match="output_format"):
        BatchMotionCorrector(second, quiet()).run()
    # Files of somebody else are kept.
    other = tmp_path / "other"
    other.mkdir()
    with h5py.File(other / "compensated_ch2.hdf5", "w") as file:
        file["mine"] = 1
    second.output_path = other
    with pytest.raises(OutputExistsError, match=r"compensated_ch2\.hdf5 exists"):
        BatchMotionCorrector(second, quiet()).run()


def test_what_a_format_cannot_hold_is_refused_before_anything_is_written(
    raw, tmp_path, quick_options, quiet
):
    out = tmp_path / "out"
    options = quick_options(input_file=raw, output_path=out, output_format="SUITE2P_TIFF")
    options.output_typename = "single"
    with pytest.raises(InputError, match="output_typename='int16'"):
        BatchMotionCorrector(options, quiet()).run()
    options.output_typename = "int16"
    options.output_path = "s3://bucket/results"
    with pytest.raises(OptionsError, match="block by block to a remote store"):
        BatchMotionCorrector(options, quiet()).run()
    options.output_path = out
    options.output_format = "BEGONIA"
    with pytest.raises(OptionsError, match=r"not published.*MULTIFILE_TIFF"):
        BatchMotionCorrector(options, quiet()).run()
    assert not out.exists()


def call(*words: object):
    return CliRunner().invoke(app, ["correct", *map(str, words), "--dry-run"])


def test_formats_on_the_command_line(raw, tmp_path):
    result = call(raw, tmp_path / "out", "--format", "caiman-hdf5")
    assert result.exit_code == 0, result.output
    shown = "".join(result.output.split())
    assert "compensated_ch2.hdf5" in shown
    result = call(raw, tmp_path / "a.ome.tif")
    assert result.exit_code == 0, result.output
    result = call(raw, tmp_path / "a.tif", "--format", "multifile_tiff")
    assert result.exit_code == 0, result.output
    for words, message in [
        (("out", "--format", "caimen_hdf5"), "Did you mean 'caiman_hdf5'?"),
        (("out", "--format", "avi"), "Formats: zarr, hdf5"),
        (("a.tif", "--format", "caiman_hdf5"), "is a TIFF file"),
    ]:
        result = call(raw, tmp_path / words[0], *words[1:])
        assert result.exit_code == 2
        assert message.replace(" ", "") in "".join(result.output.replace("│", "").split())
    result = call(raw, tmp_path / "out", "--format", "begonia")
    assert result.exit_code == 1
    assert "not published" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()
