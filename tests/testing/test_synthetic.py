"""Recordings with known motion really move by the flow they state."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy.ndimage import map_coordinates

import scopeflow
from scopeflow.errors import InputError
from scopeflow.testing import (
    SmoothDisplacement,
    backward_flow,
    demo_recording_path,
    make_demo_recording,
    move_recording,
    synthetic_recording,
)


def warped_back(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """out(y, x) = frame(y + v, x + u), one plane, by scipy."""
    y, x = np.mgrid[0 : frame.shape[0], 0 : frame.shape[1]]
    positions = [y + flow[..., 1], x + flow[..., 0]]
    return map_coordinates(frame.astype(float), positions, order=3, mode="mirror")


class TestDisplacement:
    def test_flow_is_the_fixed_point(self):
        displacement = SmoothDisplacement(3, translation_px=4, nonrigid_px=3, wavelength_px=40)
        flow = backward_flow(displacement, 11, 60, 70).astype(float)
        y, x = np.mgrid[0:60, 0:70].astype(float)
        dx, dy = displacement(11, y + flow[..., 1], x + flow[..., 0])
        np.testing.assert_allclose(flow, np.stack([dx, dy], -1), atol=2e-5)
        assert np.ptp(flow) > 1

    @pytest.mark.parametrize("seed", range(4))
    def test_amplitudes_are_bounds_that_are_approached(self, seed):
        y, x = np.mgrid[0:80, 0:80].astype(float)
        rigid = SmoothDisplacement(seed, translation_px=5, nonrigid_px=0)
        shifts = np.array([rigid(t, np.zeros(1), np.zeros(1)) for t in range(3000)])
        assert 3 < np.abs(shifts).max() <= 5
        bent = SmoothDisplacement(seed, translation_px=0, nonrigid_px=2, wavelength_px=40)
        extent = np.abs([bent(t, y, x) for t in range(0, 300, 3)]).max()
        assert 1 < extent <= 2

    def test_neighbouring_frames_move_little(self):
        displacement = SmoothDisplacement(1, translation_px=4, nonrigid_px=0)
        shifts = np.array([displacement(t, np.zeros(1), np.zeros(1)) for t in range(1000)])
        assert np.abs(np.diff(shifts, axis=0)).max() < 4

    def test_folding_is_refused(self):
        with pytest.raises(InputError, match="at most 3 px"):
            SmoothDisplacement(nonrigid_px=3.1, wavelength_px=30)
        with pytest.raises(InputError, match="no inverse"):
            backward_flow(lambda t, y, x: (2.0 * x, 0.0 * y), 0, 8, 8)

    @pytest.mark.parametrize(
        "wrong", [{"seed": -1}, {"translation_px": -1}, {"nonrigid_px": -1}, {"wavelength_px": 0}]
    )
    def test_wrong_parameters(self, wrong):
        with pytest.raises(InputError, match="needed"):
            SmoothDisplacement(**wrong)


class TestSyntheticRecording:
    def test_flow_takes_clean_frames_back_to_the_reference(self):
        recording = synthetic_recording(40, 72, 61, 2, seed=2, nonrigid_px=2, wavelength_px=50)
        for t in (0, 39):
            for channel in range(2):
                reference = recording.reference[..., channel]
                frame = recording.clean_frame(t)[..., channel]
                back = warped_back(frame, recording.flow_at(t))
                inner = (slice(9, -9), slice(9, -9))
                contrast = reference[inner].std()
                assert np.abs(back - reference)[inner].mean() < 0.01 * contrast
                assert np.abs(frame - reference)[inner].mean() > 0.1 * contrast

    def test_frames_do_not_depend_on_length_order_or_process(self):
        short = synthetic_recording(6, 24, 32, seed=9)
        long = synthetic_recording(20_000, 24, 32, seed=9)
        np.testing.assert_array_equal(short.frame(5), long.frame(5))
        np.testing.assert_array_equal(np.concatenate(list(short.blocks(4))), short.video)
        np.testing.assert_array_equal(short.flow[4], long.flow_at(4))
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            np.testing.assert_array_equal(pool.submit(short.frame, 3).result(), short.video[3])

    def test_seed_and_frame_decide_the_noise(self):
        still = synthetic_recording(2, 32, 32, seed=1, translation_px=0, nonrigid_px=0)
        other = synthetic_recording(2, 32, 32, seed=8, translation_px=0, nonrigid_px=0)
        assert (still.frame(0) != still.frame(1)).mean() > 0.5
        assert (still.frame(0) != other.frame(0)).mean() > 0.5

    def test_noise_is_that_of_the_photons(self):
        recording = synthetic_recording(
            400, 24, 24, translation_px=0, nonrigid_px=0, photons=50, dtype=np.float32
        )
        signal = (recording.reference - 100) / 1000
        measured = (recording.video.astype(float) / 1000).var(axis=0)
        expected = signal / 50 + 0.008**2
        assert (measured / expected).mean() == pytest.approx(1, abs=0.02)
        assert (recording.video.mean(axis=0) - recording.reference).mean() == pytest.approx(
            0, abs=2
        )

    def test_no_noise(self):
        recording = synthetic_recording(2, 24, 24, photons=None, dtype=np.float32)
        np.testing.assert_array_equal(recording.frame(1), recording.clean_frame(1))

    @pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
    def test_dtypes(self, dtype):
        recording = synthetic_recording(1, 40, 40, dtype=dtype)
        frame = recording.frame(0)
        assert frame.dtype == dtype
        assert np.ptp(frame) > 20
        error = frame.astype(float) - recording.clean_frame(0)
        assert np.abs(error).mean() < 0.2 * recording.brightness

    def test_pickles_and_compares(self):
        recording = synthetic_recording(3, 16, 16)
        again = pickle.loads(pickle.dumps(recording))
        assert again == recording

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"channels": 0}, "channels=0"),
            ({"photons": 0}, "photons=0"),
            ({"dtype": "bool"}, "integer or floating"),
            ({"dtype": "uint8", "brightness": 1000}, "uint8 ends at 255"),
        ],
    )
    def test_wrong_parameters(self, wrong, message):
        with pytest.raises(InputError, match=message):
            synthetic_recording(1, 32, 32, **wrong)

    def test_frame_that_does_not_exist(self):
        recording = synthetic_recording(3, 16, 16)
        for call in (recording.frame, recording.clean_frame, recording.flow_at):
            with pytest.raises(InputError, match="0 to 2"):
                call(3)


class TestMovedRecordings:
    def test_demo_moves_by_its_flow(self):
        demo = make_demo_recording(4, nonrigid_px=2)
        assert demo.video.dtype == np.int16
        inner = (slice(8, -8), slice(8, -8))
        before = after = 0.0
        for moved, still, flow in zip(demo.video, demo.still, demo.flow, strict=True):
            target = still[..., 0].astype(float)
            before += np.abs(moved[..., 0] - target)[inner].mean()
            after += np.abs(warped_back(moved[..., 0], flow) - target)[inner].mean()
        # Two interpolations of real, sharp noise lose detail; motion costs far more.
        assert after < 0.5 * before

    def test_whole_pixels_are_exact_for_every_channel(self):
        rng = np.random.default_rng(0)
        video = rng.integers(0, 65536, (2, 20, 24, 3)).astype(np.uint16)
        moved = move_recording(video, lambda t, y, x: (0 * x - 2.0, 0 * y + t))
        np.testing.assert_array_equal(moved.video[1, 1:, :-2], video[1, :-1, 2:])
        np.testing.assert_array_equal(moved.flow[1], np.broadcast_to([-2, 1], (20, 24, 2)))

    def test_overshoot_stays_inside_the_dtype(self):
        video = np.zeros((1, 16, 16, 1), np.uint16)
        video[:, 5:10, 5:10] = 65535
        moved = move_recording(video, lambda t, y, x: (0 * x + 0.5, 0 * y)).video[0, ..., 0]
        # A wrapped undershoot would be near the maximum where the square is not.
        assert moved[:, :3].max() < 5000
        assert moved[7, 6:9].min() > 60000

    def test_wrong_axes(self):
        with pytest.raises(InputError, match="four axes"):
            move_recording(np.zeros((3, 16, 16)), SmoothDisplacement())

    @pytest.mark.parametrize("frames", [0, 201])
    def test_demo_length(self, frames):
        with pytest.raises(InputError, match="1 to 200"):
            make_demo_recording(frames)


class TestShippedData:
    def test_file_is_small_and_one_series(self):
        path = demo_recording_path()
        assert path.stat().st_size < 1_000_000
        with tifffile.TiffFile(path) as file:
            assert len(file.series) == 1
            assert file.series[0].shape == (200, 64, 64)
            assert file.series[0].dtype == np.int16

    def test_licence_and_source_stand_beside_it(self):
        folder = Path(scopeflow.__file__).parent / "data"
        assert "Version 2.0, January 2004" in (folder / "LICENSE-Apache-2.0.txt").read_text()
        assert "Apache License" in (folder / "README.md").read_text()

    def test_pixels_are_those_of_the_source(self, shared_data):
        source = shared_data / "thunder_mouse2p" / "mouse_64x64_500frames.tif"
        if not source.is_file():
            pytest.skip(f"{source.name} is not present")
        np.testing.assert_array_equal(
            tifffile.imread(demo_recording_path()), tifffile.imread(source)[:200]
        )
