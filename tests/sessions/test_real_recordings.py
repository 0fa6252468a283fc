"""Sessions of real recordings: one recording cut in four, and two with a real jump between them."""

from __future__ import annotations

import json

import imagecodecs
import numpy as np
import pytest
import tifffile
from skimage.registration import phase_cross_correlation

from scopeflow import (
    RegistrationConfig,
    SessionConfig,
    run_session,
    run_stage1,
    run_stage2,
    run_stage3,
)

QUIET = RegistrationConfig(progress=False, n_jobs=2)


def report_of(config) -> dict[str, dict]:
    path = config.resolve_output_paths()[1] / "session_report.json"
    return {entry["name"]: entry for entry in json.loads(path.read_text())["recordings"]}


@pytest.mark.slow
def test_a_recording_cut_in_four_comes_together_again(shared_data, tmp_path):
    video = tifffile.imread(shared_data / "optinist_mouse2p" / "mouse2p_frames1350-1869.tif")
    for part in range(4):
        frames = video[part * 130 : (part + 1) * 130]
        tifffile.imwrite(tmp_path / f"part_{part}.tif", frames, photometric="minisblack")
    config = SessionConfig(
        root=tmp_path,
        center="auto",
        flow_options={"quality_setting": "balanced", "sigma": [[1, 1, 0.5]]},
    )
    result = run_session(config, execution=QUIET)
    report = report_of(config)
    for entry in report.values():
        assert entry["mismatch"] is None
        assert entry["similarity_after"] >= entry["similarity_before"]
        assert entry["similarity_after"] > 0.85
        assert entry["loop_error"] < 0.3
    # The same field of view, so little is lost at its border.
    assert result.final_valid.mean() > 0.75
    means = [
        tifffile.imread(tmp_path / "final_results" / f"aligned_part_{n}.tif").mean(axis=0)
        for n in range(4)
    ]
    raw = [video[n * 130 : (n + 1) * 130].mean(axis=0) for n in range(4)]

    def agreement(images):
        inside = [image[result.final_valid] for image in images]
        return np.corrcoef(inside)[np.triu_indices(4, 1)]

    assert agreement(means).min() > agreement(raw).min()
    assert agreement(means).mean() > agreement(raw).mean()


def test_the_real_jump_between_two_yeast_recordings(shared_data, tmp_path):
    folder = shared_data / "pie_yeast_timelapse"
    raw = {}
    for name in ("GR", "AT"):
        video = tifffile.imread(folder / f"SL_180519_2_{name}_xy0401_crop.tif")[:, 0]
        raw[name] = video
        tifffile.imwrite(tmp_path / f"{name}.tif", video, photometric="minisblack")
    config = SessionConfig(root=tmp_path, center="GR.tif")
    # The jump is between the last frame of the first and the first frame of the second recording.
    quick = {"quality_setting": "balanced", "cc_initialization": True}
    run_stage1(config, {**quick, "reference_frames": [0]}, task_index=0, execution=QUIET)
    run_stage1(config, {**quick, "reference_frames": [4]}, task_index=1, execution=QUIET)
    center, path, fields = run_stage2(config, execution=QUIET)
    assert path.name == "GR.tif"
    u, v = np.median(fields[0], axis=(0, 1))
    # Displacement of the content is the opposite of the shift that undoes it: rows, columns.
    assert (-v, -u) == pytest.approx((-37, 32), abs=0.5)
    # An independent measurement on the raw frames, without what moves in from outside.
    dy, dx = round(v), round(u)
    first = raw["GR"][4][: 330 - dy, -dx:].astype(float)
    second = raw["AT"][0][dy:, : 420 + dx].astype(float)
    window = np.outer(np.hanning(first.shape[0]), np.hanning(first.shape[1]))
    rest, _, _ = phase_cross_correlation(
        (first - first.mean()) * window, (second - second.mean()) * window, upsample_factor=20
    )
    assert (v, u) == pytest.approx((dy - rest[0], dx - rest[1]), abs=1.0)
    final = run_stage3(config, center, fields, execution=QUIET)
    entry = report_of(config)["AT"]
    assert entry["similarity_before"] < 0.1
    assert entry["similarity_after"] > 0.35
    # At the least what the jump moves out of the frame is not valid.
    assert final.mean() < (330 - 36) * (420 - 31) / (330 * 420)
    assert final.mean() > 0.6
    picture = imagecodecs.png_decode((tmp_path / "final_results" / "AT_overlay.png").read_bytes())
    assert picture.shape == (330, 2 * 420 + 4, 3)
