"""Frames without pixels take no part in a correction and are nowhere valid in its result."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from scopeflow import open_video
from scopeflow.errors import InputError
from scopeflow.io.open import open_source
from scopeflow.motion.correct import BatchMotionCorrector, compensate_recording
from scopeflow.motion.grid import make_grid
from scopeflow.motion.motion import Motion
from scopeflow.motion.plan import plan_correction
from tests.absent_source import WithGaps, with_gaps
from tests.conftest import same_bits
from tests.motion.test_changed_input import at_the_end_of, change, write

N = 44  # frames: batches of 20, 20 and 4
GAPS = {
    "in the middle": (30, 31, 37),
    "start of a block": (24, 25),
    "a whole block": (24, 25, 26, 27),
    "first and last": (0, N - 1),
    "the first block": (0, 1, 2, 3, 4),
    "end of a batch": (17, 18, 19),
    "start of a batch": (20, 21),
    "a whole batch": tuple(range(20, 40)),
    "the first batch": tuple(range(20)),
    "the last batch": (40, 41, 42, 43),
    "every other": tuple(range(0, N, 2)),
    "all but one": tuple(n for n in range(N) if n != 22),
}


@pytest.fixture
def video(small_recording):
    return np.round(small_recording.video[:, :28, :36, :1]).astype(np.uint16)


@pytest.fixture
def run(quick_options, quiet, tmp_path):
    def run(source, name="out", block_length=4, callbacks=(), **changes):
        places = {k: changes.pop(k) for k in ("parallelization", "n_jobs") if k in changes}
        options = quick_options(input_file=source, output_path=tmp_path / name, **changes)
        config = quiet(block_length=block_length, **places)
        corrector = BatchMotionCorrector(options, config)
        corrector.run()
        store = tmp_path / name / "compensated.zarr"
        return corrector, zarr.open_group(store, mode="r") if store.exists() else None

    return run


def arrays(group):
    names = ("registered", "motion", "valid", "stats/mean_disp", "stats/max_disp", "stats/mean_div")
    return {name: group[name][:] for name in names}


def equal(one, other):
    return {name for name, values in one.items() if not same_bits(values, other[name])} == set()


@pytest.mark.parametrize("name", ["in the middle", "first and last", "all but one"])
def test_absent_frames_are_zero_invalid_and_without_numbers(name, video, run, tmp_path):
    absent = GAPS[name]
    corrector, group = run(with_gaps(tmp_path, video, absent), reference_frames=[5, 22, 23, 39])
    gone = list(absent)
    there = np.setdiff1d(np.arange(N), gone)
    found = arrays(group)
    assert not found["registered"][gone].any()
    assert not found["motion"][gone].any()
    assert not found["valid"][gone].any()
    assert found["registered"][there].any(axis=(1, 2, 3)).all()
    assert found["valid"][there].any(axis=(1, 2)).all()
    for name in ("mean_disp", "max_disp", "mean_div", "mean_translation"):
        statistics = np.asarray(getattr(corrector, name))
        assert np.isnan(statistics[gone]).all()
        assert np.isfinite(statistics[there]).all()
        assert same_bits(group["stats"][name][:], statistics)


@pytest.mark.parametrize("name", GAPS)
def test_frames_that_are_there_are_as_if_the_others_had_been_removed(name, video, run, tmp_path):
    """In one batch; whole batches and the end of the last may be absent from several, too."""
    absent = list(GAPS[name])
    there = np.setdiff1d(np.arange(N), absent)
    batch = 20 if name in ("a whole batch", "the first batch", "the last batch") else 60
    reference = [n for n in (5, 22, 23, 39) if n in there]
    how = {"buffer_size": batch, "sigma": [[1.0, 1.0, 0.6]], "update_reference": True}
    _, gaps = run(with_gaps(tmp_path, video, absent), "gaps", reference_frames=reference, **how)
    chosen = [int(np.searchsorted(there, n)) for n in reference]
    removed = with_gaps(tmp_path, video[there], (), "removed.npy")
    _, whole = run(removed, "whole", reference_frames=chosen, **how)
    expected = arrays(whole)
    assert equal({key: values[there] for key, values in arrays(gaps).items()}, expected)
    assert same_bits(gaps["reference/raw"][:], whole["reference/raw"][:])


@pytest.mark.parametrize(
    ("name", "boundary"),
    [
        ("a whole block", "halo"),
        ("end of a batch", "batch"),
        ("a whole batch", "halo"),
        ("every other", "batch"),
    ],
)
def test_results_do_not_depend_on_blocks_workers_and_schedulers(
    name, boundary, video, run, tmp_path
):
    source = with_gaps(tmp_path, video, GAPS[name])
    how = {"sigma": [[1.0, 1.0, 0.6]], "temporal_boundary": boundary, "reference_frames": [5, 23]}
    _, first = run(source, "first", **how)
    expected = arrays(first)
    others = {"block_length": 1}, {"block_length": 5, "parallelization": "threading", "n_jobs": 3}
    for number, place in enumerate(others):
        _, group = run(source, f"other{number}", **place, **how)
        assert equal(arrays(group), expected)


def test_what_stands_at_absent_frames_changes_nothing(video, run, tmp_path):
    """Values at absent frames reach no range, mean or neighbour."""
    absent = GAPS["in the middle"]
    _, first = run(with_gaps(tmp_path, video, absent), "first", sigma=[[1.0, 1.0, 0.6]])
    other = video.copy()
    other[list(absent)] = 60000

    class Loud(WithGaps):
        def read(self, start, stop):
            return np.load(self.name, mmap_mode="r")[start:stop].copy()

    quiet_source = with_gaps(tmp_path, other, absent, "other.npy")
    loud = Loud(quiet_source.name, quiet_source.shape, quiet_source.absent, "uint16")
    _, second = run(loud, "second", sigma=[[1.0, 1.0, 0.6]])
    assert equal(arrays(second), arrays(first))


def test_arrays_in_memory_have_the_same_values(video, run, tmp_path):
    source = with_gaps(tmp_path, video, GAPS["a whole block"])
    kept, group = run(source, reference_frames=[5, 23])
    options = {"output_format": "ARRAY", "output_typename": "uint16", "reference_frames": [5, 23]}
    memory, _ = run(source, block_length=5, **options)
    stored = np.moveaxis(group["registered"][:], 1, -1)
    assert same_bits(memory.registered, stored)
    assert not memory.w[list(GAPS["a whole block"])].any()
    assert same_bits(np.asarray(memory.mean_disp), np.asarray(kept.mean_disp))


def test_a_finished_run_and_an_interrupted_one_are_continued(video, run, tmp_path):
    source = with_gaps(tmp_path, video, GAPS["in the middle"])
    _, first = run(source, reference_frames=[5, 23])
    expected = arrays(first)
    again, _ = run(source, reference_frames=[5, 23])
    assert (again.computed_frames, again.reused_frames) == (0, N)
    for record in (tmp_path / "out" / ".scopeflow").rglob("block-000000028-*.json"):
        record.unlink()
    continued, group = run(source, reference_frames=[5, 23])
    assert continued.computed_frames == 4
    assert equal(arrays(group), expected)


@pytest.mark.parametrize("output_format", ["HDF5", "TIFF"])
def test_exports_are_continued_with_numbers_that_are_not_there(
    output_format, video, quick_options, quiet, tmp_path
):
    source = with_gaps(tmp_path, video, GAPS["in the middle"])
    options = quick_options(
        input_file=source, output_path=tmp_path / "out", output_format=output_format,
        reference_frames=[5, 23],
    )  # fmt: skip
    for computed in (N, 0):
        corrector = BatchMotionCorrector(options, quiet())
        corrector.run()
        assert corrector.computed_frames == computed
        assert np.flatnonzero(np.isnan(corrector.mean_disp)).tolist() == [30, 31, 37]


def test_run_json_names_them_and_is_silent_about_whole_recordings(video, run, tmp_path):
    run(with_gaps(tmp_path, video, (3, 9)), "gaps", reference_frames=[5, 23])
    run(with_gaps(tmp_path, video, (), "whole.npy"), "whole", reference_frames=[5, 23])
    gaps, whole = (json.loads((tmp_path / n / "run.json").read_text()) for n in ("gaps", "whole"))
    assert gaps["recording"]["absent"] == [3, 9] == gaps["settings"]["absent"]
    assert "absent" not in json.dumps(whole)


def test_other_absent_frames_are_other_settings(video, quick_options, tmp_path):
    def settings(absent):
        source = with_gaps(tmp_path, video, absent)
        plan = plan_correction(quick_options(input_file=source, output_path=tmp_path / "out"))
        return plan.settings

    assert settings(()) != settings((3,)) != settings((4,))
    assert "absent" not in settings(())
    assert "absent" not in settings(())["input"]


def test_absent_frames_make_no_reference(video, quick_options, tmp_path):
    source = with_gaps(tmp_path, video, (3, 4, 5))
    frames = plan_correction(
        quick_options(input_file=source, output_path=tmp_path / "a", reference_frames=[2, 3, 5, 6])
    ).reference.frames
    assert frames == (2, 6)
    short = plan_correction(quick_options(input_file=source, output_path=tmp_path / "b"))
    assert 3 not in short.reference.frames
    assert len(short.reference.frames) > 1
    with pytest.raises(InputError, match=r"none of the 2 reference frames.*the first that has is"):
        plan_correction(
            quick_options(input_file=source, output_path=tmp_path / "c", reference_frames=[3, 5])
        )
    assert not (tmp_path / "c").exists()


def test_a_recording_without_any_frame_is_refused(video, quick_options, tmp_path):
    source = with_gaps(tmp_path, video, range(N))
    with pytest.raises(InputError, match=f"none of its {N} frames has pixels"):
        plan_correction(quick_options(input_file=source, output_path=tmp_path / "out"))


@pytest.mark.parametrize("policy", ["error", "mask"])
def test_nan_frames_are_named_by_their_number_in_the_recording(
    policy, video, quick_options, quiet, tmp_path
):
    frames = video.astype(np.float32)
    frames[20] = np.nan  # absent
    frames[30, 4:9, 5] = np.nan
    source = with_gaps(tmp_path, frames, (10, 11, 20, 21))
    options = quick_options(
        input_file=source, output_path=tmp_path / "out", non_finite=policy, reference_frames=[5, 23]
    )
    if policy == "error":
        with pytest.raises(InputError, match="frame 30 has 5 pixels"):
            compensate_recording(options, config=quiet())
        return
    compensate_recording(options, config=quiet())
    valid = zarr.open_group(tmp_path / "out" / "compensated.zarr", mode="r")["valid"][:]
    assert not valid[30, 4:9, 5].any()
    assert valid[30].any()
    assert not valid[20].any()


def test_user_functions_and_callbacks_see_frames_that_are_there(
    video, quick_options, quiet, tmp_path
):
    source = with_gaps(tmp_path, video, (6, 7))
    seen = []

    def look(frame):
        assert frame.any(), "an absent frame was handed to a function of the user"
        return frame

    corrector = BatchMotionCorrector(
        quick_options(
            input_file=source, output_format="ARRAY", preproc_funct=look, reference_frames=[5, 23]
        ),
        quiet(),
    )
    corrector.register_registered_callback(lambda frames, start, stop: seen.append((start, stop)))
    corrector.run()
    assert seen == [(0, 20), (20, 40), (40, 44)]


def test_blocks_count_the_frames_that_are_there():
    grid = make_grid(40, 20, 4, halo=2, seed_tail=5, absent=(3, 4, 5, 6, 7, 18, 19, 39))
    assert [block.length for block in grid.blocks] == [4] * 10
    computed = [block.computed for block in grid.blocks]
    assert [(one.start, one.stop) for one in computed[:5]] == [
        (0, 3), (3, 3), (3, 7), (7, 11), (11, 13)
    ]  # fmt: skip
    tails = [number for one in computed for number in range(one.seed_tail_start, one.stop)]
    assert tails == [8, 9, 10, 11, 12]
    assert computed[2].numbers == (1, 2, 8, 9, 10, 11, 12, 13)
    assert [block.in_tail for block in grid.blocks[:6]] == [False] * 3 + [True] * 2 + [False]
    whole = make_grid(40, 20, 4, halo=2, seed_tail=5)
    assert all(block.present is None and block.computed is block for block in whole.blocks)


@given(
    absent=st.sets(st.integers(0, 39), max_size=39),
    block_length=st.sampled_from([1, 2, 5, 10]),
    halo=st.integers(0, 3),
    tails=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    in_batches=st.booleans(),
)
def test_every_frame_that_is_there_is_computed_once(absent, block_length, halo, tails, in_batches):
    grid = make_grid(
        40, 10, block_length, halo=halo, halo_stops_at_batches=in_batches,
        seed_tail=tails[0], reference_tail=tails[1], absent=tuple(sorted(absent)),
    )  # fmt: skip
    seen, wanted = [], [n for n in range(40) if n not in absent]
    starts = {"seed": [], "reference": []}
    for block in grid.blocks:
        one = block.computed if absent else block
        mine = wanted[one.start : one.stop]
        assert mine == [n for n in range(block.start, block.stop) if n not in absent]
        assert block.absent == tuple(n for n in range(block.start, block.stop) if n in absent)
        seen += mine
        if absent:
            assert one.numbers == tuple(wanted[one.read_start : one.read_stop])
        assert one.read_start <= one.start <= one.stop <= one.read_stop <= len(wanted)
        starts["seed"] += wanted[one.seed_tail_start : one.stop]
        starts["reference"] += wanted[one.reference_tail_start : one.stop]
        assert block.in_tail == one.in_tail
    assert seen == wanted
    for length, found in zip(tails, starts.values(), strict=True):
        batches = [[n for n in wanted if b <= n < b + 10] for b in range(0, 30, 10)]
        assert found == [n for batch in batches for n in (batch[-length:] if length else [])]


def test_a_frame_that_changes_during_the_run_has_its_number_in_the_recording(
    video, quick_options, quiet, tmp_path
):
    path = write("zarr", tmp_path, video)
    (path / "c" / "0" / "0" / "0").unlink()  # frames 0 to 3
    options = quick_options(
        input_file=str(path), output_path=tmp_path / "out", reference_frames=[4, 5]
    )
    config = quiet(block_length=4)
    plan = plan_correction(options, config, selection={"missing": "mask"})
    corrector = BatchMotionCorrector(options, config)
    hook = at_the_end_of(20, lambda: change("zarr", path))  # frames 8 to 11
    corrector.register_progress_callback(hook)
    with pytest.raises(InputError, match=r"changed.*frames 8 to 11\b"):
        corrector.run_plan(plan)
    assert not (tmp_path / "out" / "run.json").exists()


def test_results_are_opened_as_usual(video, run, tmp_path):
    run(with_gaps(tmp_path, video, GAPS["a whole block"]), reference_frames=[5, 23])
    opened = open_video(tmp_path / "out" / "compensated.zarr")
    assert opened.shape == video.shape
    assert not opened.values[24:28].any()


@pytest.mark.parametrize("kept", ["compensated.zarr", "w.h5"])
def test_motion_of_a_result_knows_them(kept, video, quick_options, quiet, tmp_path):
    absent = GAPS["in the middle"]
    options = quick_options(
        input_file=with_gaps(tmp_path, video, absent),
        output_path=tmp_path / "out",
        reference_frames=[5, 23],
        save_w=True,
    )
    compensate_recording(options, config=quiet())
    motion = Motion.open(tmp_path / "out" / kept)
    assert motion.absent == absent
    stored = zarr.open_group(tmp_path / "out" / "compensated.zarr", mode="r")["valid"][:]
    assert same_bits(motion.valid.values, stored)
    assert np.flatnonzero(np.isnan(motion.statistics.mean_disp.values)).tolist() == list(absent)
    assert not motion.displacement[30].values.any()
    part = motion.isel(T=slice(29, 33))
    assert part.absent == (1, 2)
    assert part.valid.values.any(axis=(1, 2)).tolist() == [True, False, False, True]
    for use in (
        lambda: motion.apply(video, fill=0),
        lambda: motion.compose(motion),
        lambda: motion.save(tmp_path / "motion.zarr"),
    ):
        with pytest.raises(InputError, match="frames 30 to 31 and 37"):
            use()
    assert not (tmp_path / "motion.zarr").exists()
    there = motion.isel(T=[n for n in range(N) if n not in absent])
    assert there.apply(np.delete(video, absent, axis=0)).sizes["T"] == N - len(absent)


def test_a_result_that_is_corrected_again_still_knows_them(video, run, tmp_path):
    run(with_gaps(tmp_path, video, (30, 31)), reference_frames=[5, 22])
    result = tmp_path / "out" / "compensated.zarr"
    assert open_source(result).absent == (30, 31)
    _, group = run(str(result), "again", reference_frames=[5, 22])
    assert np.isnan(group["stats/mean_disp"][30:32]).all()
    assert not group["valid"][30:32].any()
    assert group["valid"][29].any()
