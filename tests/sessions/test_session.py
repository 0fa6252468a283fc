"""Whole sessions with known truth: accuracy, files, resume, failures."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pytest
import scipy.io
import tifffile

from scopeflow import (
    RegistrationConfig,
    SessionConfig,
    run_session,
    run_stage1,
    run_stage2,
    run_stage3,
    session_status,
)
from scopeflow.errors import InputError, InputNotFoundError, OptionsError, SessionError
from scopeflow.io.recording import open_video
from scopeflow.sessions.recordings import find_session_recordings
from tests.sessions.session_data import CENTER, border_band, true_session, write_session

QUIET = RegistrationConfig(progress=False, n_jobs=2, parallelization="threading")
QUICK = {"quality_setting": "fast", "iterations": 10, "reference_frames": [0]}
STAGE1 = ("compensated.hdf5", "idx.hdf", "motion.h5", "statistics.npz", "reference_frame.npy",
          "temporal_average.npy", "run.json")  # fmt: skip


def contents(root: Path) -> dict[str, bytes]:
    """Bytes of every product below a session's root; not of records and timings."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".scopeflow" not in path.parts and path.name != "run.json"
    }


def times(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".scopeflow" not in path.parts
    }


@pytest.fixture(scope="module")
def truth():
    """6 recordings of 16 frames, 96 x 128 px, 2 channels: not square."""
    return true_session()


@pytest.fixture(scope="module")
def finished(truth, tmp_path_factory):
    root = tmp_path_factory.mktemp("session")
    write_session(truth, root)
    config = SessionConfig(
        root=root, flow_options={"quality_setting": "balanced", "reference_frames": [0]}
    )
    return config, run_session(config, execution=QUIET)


@pytest.fixture
def small(tmp_path):
    """Three recordings of 8 frames, 48 x 64 px, one channel."""
    session = true_session(frames=8, height=48, width=64, channels=1, count=3)
    write_session(session, tmp_path)
    return SessionConfig(root=tmp_path, flow_options=QUICK, center="rec_2.tif")


def report_of(config) -> dict:
    return json.loads((config.resolve_output_paths()[1] / "session_report.json").read_text())


# -- accuracy -------------------------------------------------------------------------------------


def test_displacements_between_recordings_are_those_of_the_truth(truth, finished):
    _, result = finished
    assert result.middle_idx == CENTER
    inside = truth.final_mask
    errors = []
    for n, w in enumerate(result.displacement_fields):
        assert w.shape == (96, 128, 2)
        errors.append(np.linalg.norm(w - truth.between(n), axis=-1)[inside].mean())
    assert np.mean(errors) <= 0.1
    assert max(errors) <= 0.12


def test_the_whole_way_from_raw_frames_to_the_reference_is_that_of_the_truth(truth, finished):
    from scopeflow.images.register import FrameRegistration

    config, result = finished
    inside = truth.final_mask
    errors = []
    for n in range(len(truth.recordings)):
        with h5py.File(config.resolve_output_paths()[0] / f"rec_{n}" / "motion.h5") as file:
            motion = np.stack([file["u"][:], file["v"][:]], axis=-1)
        fill = np.zeros((*truth.shape, 1))
        chain = FrameRegistration(fill, "cubic", then=result.displacement_fields[n])
        for frame in range(0, 16, 5):
            chain.set_motion(motion[frame])
            error = np.linalg.norm(chain.flow() - truth.total(n, frame), axis=-1)[inside]
            errors.append(np.nanmean(error))
    assert np.mean(errors) <= 0.15


def test_the_final_mask_is_the_analytic_one_but_for_a_pixel_at_its_border(truth, finished):
    _, result = finished
    expected = truth.final_mask
    wrong = result.final_valid != expected
    assert not (wrong & ~border_band(expected, 1)).any()
    assert 0.3 < expected.mean() < 0.9


def test_aligned_recordings_show_the_reference(truth, finished):
    config, _ = finished
    scene = truth.recordings[CENTER].reference
    inside = truth.final_mask
    contrast = scene[inside].std(axis=0)
    for n in range(len(truth.recordings)):
        path = config.resolve_output_paths()[1] / f"aligned_rec_{n}.tif"
        video = np.moveaxis(tifffile.imread(path), 1, -1).astype(float)
        assert video.shape == (16, 96, 128, 2)
        difference = (video.mean(axis=0) - scene)[inside]
        assert (np.sqrt((difference**2).mean(axis=0)) < 0.12 * contrast).all()


def test_one_interpolation_keeps_more_detail_than_two(truth, finished, tmp_path):
    config, result = finished
    shutil.copytree(config.root, tmp_path / "copy")
    twice = SessionConfig(
        root=tmp_path / "copy", flow_options=config.flow_options, align_method="two_step"
    )
    mask = run_stage3(twice, result.middle_idx, result.displacement_fields, execution=QUIET)
    assert (mask == result.final_valid).all()

    def sharpness(folder, n):
        video = np.moveaxis(tifffile.imread(folder / f"aligned_rec_{n}.tif"), 1, -1).astype(float)
        inner = result.final_valid[1:-1, 1:-1]
        # What changes from pixel to pixel, such as noise, is what interpolation takes away.
        fine = np.diff(video, 2, axis=1)[:, :, 1:-1], np.diff(video, 2, axis=2)[:, 1:-1]
        return (fine[0] ** 2 + fine[1] ** 2)[:, inner].mean()

    folders = config.resolve_output_paths()[1], twice.resolve_output_paths()[1]
    gains = [sharpness(folders[0], n) / sharpness(folders[1], n) for n in (0, 1, 3, 4, 5)]
    assert min(gains) > 1.01
    assert np.mean(gains) > 1.05
    # The center is not moved between recordings: nothing to interpolate again.
    assert sharpness(folders[0], CENTER) == pytest.approx(sharpness(folders[1], CENTER), rel=1e-3)


def test_numbers_of_trust(finished):
    config, _ = finished
    report = report_of(config)
    assert report["center"] == "rec_2"
    for entry in report["recordings"]:
        assert entry["included"]
        assert entry["mismatch"] is None
        assert entry["similarity_after"] > 0.95
        assert entry["loop_error"] < 0.2
        if entry["name"] in ("rec_1", "rec_3", "rec_4", "rec_5"):
            assert entry["similarity_before"] < 0.6
    assert 0 < report["final_valid_share"] < min(e["valid_share"] for e in report["recordings"])


# -- files ----------------------------------------------------------------------------------------


def test_files_of_a_recording_are_the_documented_ones(truth, finished):
    config, _ = finished
    for n in range(6):
        folder = config.resolve_output_paths()[0] / f"rec_{n}"
        assert {p.name for p in folder.iterdir()} == {
            *STAGE1, "status.json", "w_to_reference.npz", ".scopeflow",
        }  # fmt: skip
        with h5py.File(folder / "compensated.hdf5") as file:
            assert sorted(file) == ["ch1", "ch2"]
            video = np.stack([file["ch1"][:], file["ch2"][:]], axis=-1)
        assert (video.shape, video.dtype) == ((16, 96, 128, 2), np.uint16)
        with h5py.File(folder / "idx.hdf") as file:
            masks = file["ch1"][:]
        assert (masks.shape, masks.dtype) == ((16, 96, 128), np.uint8)
        assert set(np.unique(masks)) <= {0, 255}
        average = np.load(folder / "temporal_average.npy")
        assert average.dtype == np.float64
        # The naive mean; sums of whole numbers are exact.
        assert (average == video.astype(np.int64).sum(axis=0) / 16).all()
        with np.load(folder / "w_to_reference.npz") as stored:
            assert sorted(stored) == ["u", "v"]
            assert stored["u"].shape == (96, 128)
            assert stored["u"].dtype == (np.float32 if n == CENTER else np.float64)
        status = json.loads((folder / "status.json").read_text())
        assert status == {"stage1": "done", "stage2": "done"}


def test_final_files_are_the_documented_ones(finished):
    config, result = finished
    output, final = config.resolve_output_paths()
    names = [f"rec_{n}" for n in range(6)]
    assert {p.name for p in final.iterdir()} == {
        ".scopeflow", "status.json", "session_report.json",
        *(f"final_valid_idx.{end}" for end in ("png", "npz", "mat")),
        *(f"{name}_valid_idx.png" for name in names),
        *(f"{name}_valid_idx_aligned.png" for name in names),
        *(f"{name}_overlay.png" for name in names),
        *(f"aligned_{name}.tif" for name in names),
    }  # fmt: skip
    assert json.loads((final / "status.json").read_text()) == {"stage3": "done"}
    picture = imagecodecs.png_decode((final / "final_valid_idx.png").read_bytes())
    assert picture.dtype == np.uint8
    assert (picture == result.final_valid * np.uint8(255)).all()
    with np.load(final / "final_valid_idx.npz") as stored:
        bundle = dict(stored)
    shapes = {
        "final_valid": ((96, 128), "bool"),
        "aligned_valid_masks": ((6, 96, 128), "bool"),
        "per_seq_valid_masks": ((6, 96, 128), "bool"),
        "displacement_fields_u": ((6, 96, 128), "float64"),
        "displacement_fields_v": ((6, 96, 128), "float64"),
        "temporal_averages": ((6, 96, 128, 2), "float64"),
        "reference_average": ((96, 128, 2), "float64"),
        "middle_idx": ((), "int64"),
    }
    assert {k: (bundle[k].shape, str(bundle[k].dtype)) for k in shapes} == shapes
    assert bundle["compensated_h5_paths"].tolist() == [
        str(output / name / "compensated.hdf5") for name in names
    ]
    assert bundle["aligned_video_paths"].tolist() == [
        str(final / f"aligned_{name}.tif") for name in names
    ]
    assert int(bundle["middle_idx"]) == CENTER
    assert (bundle["final_valid"] == bundle["aligned_valid_masks"].all(axis=0)).all()
    matlab = scipy.io.loadmat(final / "final_valid_idx.mat")
    assert matlab["middle_idx"].tolist() == [[CENTER + 1]]
    assert matlab["final_valid"].dtype == np.uint8
    assert (matlab["final_valid"] == bundle["final_valid"]).all()
    for name in ("displacement_fields_u", "temporal_averages", "per_seq_valid_masks"):
        assert (matlab[name] == bundle[name]).all()
    assert "aligned_video_paths" not in matlab


def test_records_have_the_names_that_every_version_looks_for(finished):
    config, _ = finished
    output, final = config.resolve_output_paths()
    for n in range(6):
        state = output / f"rec_{n}" / ".scopeflow" / "session"
        products = ["temporal_average", "w_to_reference"]
        assert {p.name for p in state.iterdir()} == {"begun.json", *(f"{p}.json" for p in products)}
        assert json.loads((state / "begun.json").read_text()) == products
    state = final / ".scopeflow" / "session"
    names = [f"{kind}_rec_{n}" for kind in ("mask", "aligned") for n in range(6)]
    assert {p.stem for p in state.iterdir()} == {"begun", "final_valid_idx", *names}
    assert json.loads((state / "begun.json").read_text()) == ["stage3"]
    assert set(json.loads((state / "aligned_rec_0.json").read_text())["values"]) == {"clipped"}


def test_masks_equal_a_naive_twin(finished):
    config, _ = finished
    output, final = config.resolve_output_paths()
    with np.load(final / "final_valid_idx.npz") as stored:
        bundle = dict(stored)
    for n in range(6):
        with h5py.File(output / f"rec_{n}" / "idx.hdf") as file:
            mask = (file["ch1"][:] > 0).all(axis=0)
        assert (bundle["per_seq_valid_masks"][n] == mask).all()
        height, width = mask.shape
        expected = np.zeros_like(mask)
        for y in range(height):
            for x in range(width):
                px = np.float32(x + np.float32(bundle["displacement_fields_u"][n, y, x]))
                py = np.float32(y + np.float32(bundle["displacement_fields_v"][n, y, x]))
                if 0 <= px < width and 0 <= py < height:
                    column = int(np.rint(np.clip(px, 0, width - 1)))
                    row = int(np.rint(np.clip(py, 0, height - 1)))
                    expected[y, x] = mask[row, column]
        assert (bundle["aligned_valid_masks"][n] == expected).all()


def test_values_are_clipped_and_never_wrapped(tmp_path):
    # A bright square on black undershoots below 0 in cubic interpolation.
    frame = np.zeros((48, 64), np.uint16)
    frame[12:30, 20:40] = 4000
    frame[5:9, 6:16] = 2500
    for n, shift in enumerate((0, 3)):
        video = np.stack([np.roll(frame, shift, axis=1)] * 4)
        tifffile.imwrite(tmp_path / f"m{n}.tif", video, photometric="minisblack")
    for method in ("one_step", "two_step"):
        config = SessionConfig(
            root=tmp_path, flow_options=QUICK, align_method=method, final_results=method
        )
        run_session(config, execution=QUIET)
        aligned = tifffile.imread(tmp_path / method / "aligned_m1.tif")
        assert aligned.max() < 6000


# -- resume ---------------------------------------------------------------------------------------


def test_a_second_run_computes_nothing(small):
    first = run_session(small, execution=QUIET)
    before = times(small.root)
    second = run_session(small, execution=QUIET)
    after = times(small.root)
    small_pictures = {n for n in before if n.endswith((".png", "session_report.json"))}
    assert {k: v for k, v in after.items() if k not in small_pictures} == {
        k: v for k, v in before.items() if k not in small_pictures
    }
    assert (first.final_valid == second.final_valid).all()


def test_what_a_lost_worker_had_finished_is_read_from_its_file(small, monkeypatch):
    """A cluster repeats such a task, which then finds the record and computes nothing."""
    from scopeflow.sessions import stage2

    run_stage1(small, execution=QUIET)
    _, _, expected = run_stage2(small, execution=QUIET)
    monkeypatch.setattr(stage2, "_finished", lambda *_, **__: None)
    monkeypatch.setattr(stage2, "take_back", lambda _: None)
    _, _, found = run_stage2(small, execution=QUIET)
    assert all((a == b).all() and a.dtype == b.dtype for a, b in zip(found, expected, strict=True))


def damage(path: Path, how: str) -> None:
    if how == "removed":
        path.unlink()
    elif how == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(bytes(data))


@pytest.mark.parametrize("how", ["truncated", "changed", "removed"])
@pytest.mark.parametrize(
    "name",
    [
        "compensated_outputs/rec_1/compensated.hdf5",
        "compensated_outputs/rec_1/motion.h5",
        "compensated_outputs/rec_1/idx.hdf",
        "compensated_outputs/rec_1/temporal_average.npy",
        "compensated_outputs/rec_1/w_to_reference.npz",
        "final_results/aligned_rec_1.tif",
        "final_results/final_valid_idx.npz",
        "final_results/final_valid_idx.mat",
    ],
)
def test_a_damaged_file_is_made_again_with_the_same_bytes(small, name, how):
    run_session(small, execution=QUIET)
    expected = contents(small.root)
    damage(small.root / name, how)
    assert contents(small.root) != expected
    run_session(small, execution=QUIET)
    assert contents(small.root) == expected


def test_stage_3_refuses_a_corrected_recording_that_was_changed(small):
    run_session(small, execution=QUIET)
    output, _ = small.resolve_output_paths()
    damage(output / "rec_0" / "compensated.hdf5", "changed")
    assert session_status(small)[0].stages[0] == "done"
    assert session_status(small, verify=True)[0].stages[0] == "damaged"
    with pytest.raises(SessionError, match=r"rec_0.*was changed\. Run Stage 1 again"):
        run_stage3(small, execution=QUIET)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails to read")
def test_a_file_that_cannot_be_read_fails_its_recording_alone(small):
    run_session(small, execution=QUIET)
    corrected = small.resolve_output_paths()[0] / "rec_0" / "compensated.hdf5"
    corrected.unlink()
    corrected.symlink_to("/proc/self/mem")  # reading it is an input/output error
    with pytest.raises(SessionError, match=r"stage 3 failed for 1 of 3 recordings \(rec_0: "):
        run_stage3(small, execution=QUIET)


def test_stage_2_refuses_an_average_that_was_changed(small):
    run_stage1(small, execution=QUIET)
    damage(small.resolve_output_paths()[0] / "rec_0" / "temporal_average.npy", "changed")
    with pytest.raises(InputError, match="Run Stage 1 again"):
        run_stage2(small, execution=QUIET)


def test_other_settings_between_recordings_change_only_what_depends_on_them(small):
    run_session(small, execution=QUIET)
    before = times(small.root)
    changed = SessionConfig(
        root=small.root, flow_options=QUICK, center="rec_2.tif", alpha_between=40.0
    )
    run_session(changed, execution=QUIET)
    after = times(small.root)
    for name in ("compensated.hdf5", "temporal_average.npy", "idx.hdf"):
        for n in range(3):
            key = f"compensated_outputs/rec_{n}/{name}"
            assert after[key] == before[key]
    assert (
        after["compensated_outputs/rec_0/w_to_reference.npz"]
        > (before["compensated_outputs/rec_0/w_to_reference.npz"])
    )
    assert after["final_results/aligned_rec_0.tif"] > before["final_results/aligned_rec_0.tif"]


def test_other_settings_of_stage_1_are_refused_until_asked_for(small):
    run_stage1(small, execution=QUIET)
    changed = SessionConfig(root=small.root, flow_options={**QUICK, "alpha": 9}, center="rec_2.tif")
    with pytest.raises(SessionError, match="made with other settings"):
        run_stage1(changed, execution=QUIET)
    changed.resume = False
    before = times(small.root)
    run_session(changed, execution=QUIET)
    key = "compensated_outputs/rec_0/compensated.hdf5"
    assert times(small.root)[key] > before[key]
    changed.resume = True
    after = times(small.root)
    run_stage1(changed, execution=QUIET)
    assert times(small.root)[key] == after[key]


# -- failures -------------------------------------------------------------------------------------


def test_a_failed_recording_does_not_stop_the_others(small):
    good = (small.root / "rec_1.tif").read_bytes()
    (small.root / "rec_1.tif").write_bytes(good[: len(good) // 2])
    with pytest.raises(SessionError, match="stage 1 failed for 1 of 3 recordings") as caught:
        run_session(small, execution=QUIET)
    assert list(caught.value.failures) == ["rec_1"]
    statuses = session_status(small)
    assert [s.stages[0] for s in statuses] == ["done", "failed", "done"]
    assert "rec_1.tif" in statuses[1].reasons[0]
    output, final = small.resolve_output_paths()
    assert not (output / "rec_1" / "status.json").exists()
    assert not final.exists()
    with pytest.raises(InputNotFoundError, match=r"Missing temporal average.*rec_1.*Run Stage 1"):
        run_stage2(small, execution=QUIET)
    (small.root / "rec_1.tif").write_bytes(good)
    before = times(small.root)
    run_session(small, execution=QUIET)
    after = times(small.root)
    for n in (0, 2):
        key = f"compensated_outputs/rec_{n}/compensated.hdf5"
        assert after[key] == before[key]
    assert all(s.stages == ("done",) * 3 and not s.reasons for s in session_status(small))


def test_recordings_of_another_size_are_named(small):
    video = tifffile.imread(small.root / "rec_0.tif")
    tifffile.imwrite(small.root / "rec_9.tif", video[:, :40], photometric="minisblack")
    with pytest.raises(SessionError, match=r"rec_9: its frames have .*\(40, 64, 1\)"):
        run_stage1(small, execution=QUIET)
    assert not (small.root / "compensated_outputs" / "rec_9" / "compensated.hdf5").exists()
    without = SessionConfig(
        root=small.root, flow_options=QUICK, center="rec_2.tif", exclude=["rec_9.tif"]
    )
    assert run_session(without, execution=QUIET).final_valid.any()


def test_stages_in_the_wrong_order_say_what_is_missing(small):
    with pytest.raises(InputNotFoundError, match="Run Stage 1 first"):
        run_stage2(small, execution=QUIET)
    run_stage1(small, execution=QUIET)
    with pytest.raises(SessionError, match="Run Stage 2 first"):
        run_stage3(small, execution=QUIET)
    run_stage2(small, execution=QUIET)
    other = SessionConfig(root=small.root, flow_options=QUICK, center="rec_0.tif")
    with pytest.raises(OptionsError, match="against another center than rec_0"):
        run_stage3(other, execution=QUIET)
    with pytest.raises(OptionsError, match=r"Task index 3 out of range \[0, 2\]"):
        run_stage1(small, task_index=3, execution=QUIET)


@pytest.mark.parametrize("mismatch", ["report", "exclude"])
def test_a_recording_of_another_field_is_found_out(small, mismatch, caplog):
    from scopeflow.testing.synthetic import synthetic_recording

    stranger = synthetic_recording(8, 48, 64, 1, seed=77, photons=1000.0).video[..., 0]
    tifffile.imwrite(small.root / "rec_3.tif", stranger, photometric="minisblack")
    small.mismatch = mismatch
    result = run_session(small, execution=QUIET)
    entries = {entry["name"]: entry for entry in report_of(small)["recordings"]}
    assert [name for name, entry in entries.items() if entry["mismatch"]] == ["rec_3"]
    assert entries["rec_3"]["included"] == (mismatch == "report")
    assert "rec_3 does not match the reference" in caplog.text
    with np.load(small.root / "final_results" / "final_valid_idx.npz") as stored:
        masks = stored["aligned_valid_masks"]
    counted = masks if mismatch == "report" else masks[:3]
    assert (result.final_valid == counted.all(axis=0)).all()
    assert masks.shape[0] == 4


# -- which recordings -----------------------------------------------------------------------------


def test_same_named_files_in_different_folders_stay_apart(tmp_path):
    for day in ("day1", "day2"):
        for name in ("movie.tif", f"only_{day}.tif"):
            (tmp_path / day).mkdir(exist_ok=True)
            (tmp_path / day / name).touch()
    (tmp_path / "day1" / "movie.h5").touch()
    config = SessionConfig(root=tmp_path, pattern="*/*.*")
    names = [recording.name for recording in find_session_recordings(config)]
    assert sorted(names) == [
        "day1_movie_h5", "day1_movie_tif", "day2__movie", "only_day1", "only_day2",
    ] or len(set(names)) == 5  # fmt: skip
    assert len(set(names)) == 5
    assert "only_day1" in names
    assert "day2__movie" in names


def test_results_are_no_recordings_and_zarr_folders_are(small):
    import zarr

    run_session(small, execution=QUIET)
    everything = SessionConfig(root=small.root, pattern="**/*.tif")
    assert len(find_session_recordings(everything)) == 3
    video = tifffile.imread(small.root / "rec_0.tif")
    zarr.create_array(small.root / "deep.zarr", data=video, chunks=(1, 48, 64))
    found = find_session_recordings(SessionConfig(root=small.root, pattern="**/*"))
    assert [r.path.name for r in found if r.path.suffix != ".tif"] == ["deep.zarr"]


def test_zarr_in_and_zarr_between(small):
    """The same numbers through zarr archives as through TIFF and HDF5."""
    import zarr

    expected = run_session(small, execution=QUIET)
    root = small.root / "archives"
    root.mkdir()
    for n in range(3):
        video = tifffile.imread(small.root / f"rec_{n}.tif")
        zarr.create_array(root / f"rec_{n}.zarr", data=video, chunks=(3, 48, 64))
    config = SessionConfig(
        root=root, pattern="*.zarr", flow_options=QUICK, center="rec_2.zarr",
        stage1_output_format="ZARR", align_output_format="HDF5",
    )  # fmt: skip
    result = run_session(config, execution=QUIET)
    assert (result.final_valid == expected.final_valid).all()
    for a, b in zip(result.displacement_fields, expected.displacement_fields, strict=True):
        assert (a == b).all()
    for n in range(3):
        ours = open_video(root / "final_results" / f"aligned_rec_{n}.hdf5").values
        theirs = tifffile.imread(small.root / "final_results" / f"aligned_rec_{n}.tif")
        assert (ours[..., 0] == theirs).all()


def test_nothing_matches(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"No files found matching pattern '\*\.tif'"):
        run_session(SessionConfig(root=tmp_path))


def test_the_recording_most_similar_to_all_others_is_the_center(small):
    # rec_1 overlaps with both others most: they lie on either side of it.
    video = tifffile.imread(small.root / "rec_2.tif")
    for n, shift in enumerate((-14, 0, 14)):
        moved = np.roll(video, shift, axis=2)
        rng = np.random.default_rng(n)
        if shift > 0:
            moved[:, :, :shift] = rng.integers(100, 900, moved[:, :, :shift].shape)
        elif shift < 0:
            moved[:, :, shift:] = rng.integers(100, 900, moved[:, :, shift:].shape)
        tifffile.imwrite(small.root / f"rec_{n}.tif", moved, photometric="minisblack")
    small.center = "auto"
    run_stage1(small, execution=QUIET)
    middle, path, fields = run_stage2(small, execution=QUIET)
    assert (middle, path.name) == (1, "rec_1.tif")
    assert np.median(fields[0][..., 0]) == pytest.approx(-14, abs=0.5)
    assert run_stage3(small, execution=QUIET).any()


def test_displacements_on_a_grid_of_a_few_pixels(tmp_path):
    """Frames of 20 x 24 px have fewer than 10 px on the finest level of the preset balanced."""
    video = true_session(frames=4, height=20, width=24, channels=1, count=1).recordings[0].video
    for n in range(2):
        tifffile.imwrite(tmp_path / f"m{n}.tif", video[..., 0], photometric="minisblack")
    for kind in ("HDF5", "ZARR"):
        config = SessionConfig(
            root=tmp_path, stage1_quality_setting="balanced", stage1_output_format=kind,
            output_root=f"outputs_{kind}", final_results=f"final_{kind}",
        )  # fmt: skip
        run_session(config, execution=QUIET)
    a, b = (tifffile.imread(tmp_path / f"final_{k}" / "aligned_m1.tif") for k in ("HDF5", "ZARR"))
    assert (a == b).all()
