"""State files of corrections and saved motion: damaged, foreign, hostile, of older versions."""

from __future__ import annotations

import functools
import json
import operator
import shutil

import h5py
import numpy as np
import pytest

from scopeflow import Motion, OFOptions
from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import OutputExistsError
from scopeflow.motion.correct import BatchMotionCorrector
from scopeflow.testing.synthetic import synthetic_recording
from tests.damage import ADDRESSES, at_most, results, state_files, survives
from tests.fuzz.mutate_json import places, replaced

FRAMES = 6


@pytest.fixture(scope="module")
def video():
    return synthetic_recording(FRAMES, 24, 32, seed=3, translation_px=1.0).video.astype(np.uint16)


@pytest.fixture(scope="module")
def movie(video, tmp_path_factory):
    path = tmp_path_factory.mktemp("movie") / "movie.hdf5"
    with h5py.File(path, "w") as file:
        file["mov"] = video[..., 0]
    return path


def correct(movie, out, output_format="ZARR", *, resume=True, save_w=False):
    options = OFOptions(
        input_file=str(movie),
        output_path=out,
        output_format=output_format,
        quality_setting="fast",
        buffer_size=4,
        reference_frames=[0, 1],
        save_w=save_w,
    )
    config = RegistrationConfig(n_jobs=1, progress=False, block_length=2, resume=resume)
    corrector = BatchMotionCorrector(options, config)
    corrector.run()
    return corrector


@pytest.fixture(scope="module")
def finished(movie, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    for kind in ("ZARR", "HDF5"):
        correct(movie, folder / kind, kind, save_w=kind == "HDF5")
    return folder


@pytest.mark.parametrize("kind", [pytest.param("ZARR", marks=pytest.mark.fuzz), "HDF5"])
def test_a_damaged_state_never_changes_results(movie, finished, tmp_path, kind):
    def run(out):
        correct(movie, out, kind, save_w=kind == "HDF5")

    assert survives(finished / kind, run, tmp_path) == []


def as_earlier_versions_wrote(folder):
    """Take away what records had not: checksums, digests of arrays, fingerprints of exports."""
    for path in state_files(folder):
        if path.suffix == ".json":
            value = json.loads((folder / path).read_text())
            del value["checksum"]
            if path.name == "finished.json":
                del value["fingerprint"]
                value["files"] = {str(folder / name): one for name, one in value["files"].items()}
            if "values" in value:
                value = {"files": {}, "has_arrays": False, **value}
                value.pop("arrays", None)
            (folder / path).write_text(json.dumps(value, indent=2) + "\n")


@pytest.mark.parametrize("kind", ["ZARR", "HDF5"])
def test_results_of_earlier_versions_are_continued(movie, finished, tmp_path, kind):
    out = tmp_path / "out"
    shutil.copytree(finished / kind, out)
    as_earlier_versions_wrote(out)
    run = correct(movie, out, kind, save_w=kind == "HDF5")
    assert (run.computed_frames, run.reused_frames) == (0, FRAMES)
    assert results(out) == results(finished / kind)


def edited(path, change):
    value = json.loads(path.read_text())
    value.pop("checksum", None)
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("files"),
        lambda record: record.update(files={}),
        lambda record: record["files"].popitem(),
        lambda record: record.update(has_arrays=False),
        lambda record: record["values"].pop("clipped"),
        lambda record: record["values"]["mean_disp"].pop(),
        *(
            lambda record, name=name: record["files"].update({name: record["files"].popitem()[1]})
            for name in ADDRESSES
        ),
    ],
)
def test_records_count_only_in_the_form_of_their_block(movie, finished, tmp_path, change):
    """Without its sums the next batch would start from zero, and nobody would know."""
    out = tmp_path / "out"
    shutil.copytree(finished / "ZARR", out)
    edited(out / ".scopeflow/compensated.zarr/ledger/block-000000002-000000004.json", change)
    with at_most(30):
        run = correct(movie, out)
    assert run.computed_frames == 2
    assert results(out) == results(finished / "ZARR")


@pytest.mark.parametrize("name", [*ADDRESSES, "/etc/passwd", "http://127.0.0.1:9/w.h5"])
def test_exports_are_looked_for_where_they_are_written_and_nowhere_else(
    movie, finished, tmp_path, name
):
    out = tmp_path / "out"
    shutil.copytree(finished / "HDF5", out)
    proof = out / ".scopeflow/compensated.hdf5/finished.json"

    def change(record):
        record["files"][name] = record["files"].pop("w.h5")

    edited(proof, change)
    with at_most(30):
        run = correct(movie, out, "HDF5", save_w=True)
    assert run.reused_frames == (FRAMES if name.endswith("/w.h5") else 0)
    assert results(out) == results(finished / "HDF5")


@pytest.mark.parametrize("kind", ["ZARR", "HDF5"])
def test_damaged_settings_do_not_brick_an_output(movie, finished, tmp_path, kind, caplog):
    out = tmp_path / "out"
    shutil.copytree(finished / kind, out)
    settings = out / f".scopeflow/compensated.{kind.lower()}/settings.json"
    settings.write_bytes(b"")
    run = correct(movie, out, kind, save_w=kind == "HDF5")
    assert (run.computed_frames, run.reused_frames) == (0, FRAMES)
    assert "settings.json is damaged" in caplog.text
    assert "continued" in caplog.text
    assert results(out) == results(finished / kind)
    assert (
        settings.read_bytes()
        == (finished / kind / f".scopeflow/compensated.{kind.lower()}/settings.json").read_bytes()
    )


def test_damaged_settings_and_no_proof_are_named_and_can_be_replaced(movie, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished / "ZARR", out)
    state = out / ".scopeflow/compensated.zarr"
    (state / "settings.json").write_bytes(b"")
    shutil.rmtree(state / "ledger")
    before = results(out)
    with pytest.raises(OutputExistsError, match=r"settings\.json is damaged.*--no-resume"):
        correct(movie, out)
    assert results(out) == before
    correct(movie, out, resume=False)
    assert results(out) == results(finished / "ZARR")


def test_records_of_other_settings_are_never_taken_for_these(movie, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished / "HDF5", out)
    (out / ".scopeflow/compensated.hdf5/settings.json").write_bytes(b"{}")
    with pytest.raises(OutputExistsError, match="no record proves"):
        correct(movie, out, "HDF5", save_w=False)  # other arrays are kept


def test_a_letter_of_a_description_that_changed_is_written_again(movie, finished, tmp_path):
    whole, out = finished / "ZARR", tmp_path / "out"
    shutil.copytree(whole, out)
    expected = results(whole)
    described = sorted((out / "compensated.zarr").rglob("zarr.json"))
    assert len(described) > 8
    words = []
    for file in described:
        stored = json.loads(file.read_text())
        found = [(at, functools.reduce(operator.getitem, at, stored)) for at in places(stored)]
        words += [(file, at, text) for at, text in found if isinstance(text, str) and text]
    changed = []
    for file, at, text in words[::7]:  # each takes a run
        other = chr(ord(text[0]) ^ 1) + text[1:]
        stored = replaced(json.loads(file.read_text()), at, other)
        file.write_text(json.dumps(stored, indent=2))
        correct(movie, out)
        if results(out) != expected:
            changed.append((file.relative_to(out), at, text))
            shutil.rmtree(out)
            shutil.copytree(whole, out)
    assert changed == []


def test_whole_descriptions_are_left_alone(movie, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished / "ZARR", out)
    store = out / "compensated.zarr"
    times = {f: f.stat().st_mtime_ns for f in store.rglob("zarr.json") if "stats" not in f.parts}
    assert correct(movie, out).reused_frames == FRAMES
    for name in ("registered", "motion", "valid"):
        file = store / name / "zarr.json"
        assert file.stat().st_mtime_ns == times[file]


def test_descriptions_of_another_version_keep_what_they_say(movie, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished / "ZARR", out)
    described = out / "compensated.zarr" / "zarr.json"
    stored = json.loads(described.read_text())
    own = stored["attributes"]["scopeflow"]
    own["versions"]["scopeflow"] = "0.0.9"
    del own["checksum"]  # earlier versions wrote none
    described.write_text(json.dumps(stored, indent=2))
    assert correct(movie, out).reused_frames == FRAMES
    assert json.loads(described.read_text())["attributes"]["scopeflow"] == own


def test_copied_outputs_are_proven_by_their_own_files(movie, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished / "HDF5", out)
    assert correct(movie, out, "HDF5", save_w=True).reused_frames == FRAMES
    with (out / "compensated.hdf5").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    assert correct(movie, out, "HDF5", save_w=True).computed_frames == FRAMES


def test_saved_motion_survives_too(finished, tmp_path):
    whole = tmp_path / "whole"
    shutil.copytree(finished / "ZARR", tmp_path / "given")
    motion = Motion.open(tmp_path / "given" / "compensated.zarr")
    motion.save(whole / "motion.zarr")
    work = tmp_path / "work"
    work.mkdir()
    assert survives(whole, lambda out: motion.save(out / "motion.zarr"), work) == []
    described = whole / "motion.zarr" / "zarr.json"
    plain = json.loads(described.read_text())
    own = plain["attributes"]["scopeflow"]["motion"]
    for name, value in (("interpolation", 7), ("non_finite", "maybe"), ("metadata", {"a": 1})):
        changed = {**own, name: value}
        plain["attributes"]["scopeflow"]["motion"] = changed
        described.write_text(json.dumps(plain))
        with pytest.raises(OSError, match=rf"motion\.zarr.*damaged \(scopeflow\.motion\.{name}"):
            Motion.open(whole / "motion.zarr")
