from __future__ import annotations

import json
from pathlib import Path

import dask.array as da
import h5py
import numpy as np
import pytest
import tifffile
import zarr

from scopeflow.errors import InputError, OptionsError, OutputError, OutputExistsError
from scopeflow.images.resize import upsample_flow
from scopeflow.images.warp import valid_mask
from scopeflow.io.recording import open_video
from scopeflow.motion.arrays import compensate_arr
from scopeflow.motion.correct import BatchMotionCorrector, compensate_recording
from scopeflow.report.metrics import crispness
from scopeflow.testing.synthetic import synthetic_recording
from tests.conftest import same_bits


@pytest.fixture
def raw(small_recording, tmp_path) -> Path:
    path = tmp_path / "raw" / "day1.tif"
    path.parent.mkdir()
    tifffile.imwrite(
        path, np.moveaxis(small_recording.video, -1, 1), imagej=True, metadata={"axes": "TCYX"}
    )
    return path


@pytest.fixture
def reference(small_recording):
    return small_recording.reference


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_zarr_result_holds_video_motion_masks_statistics_and_reference(
    small_recording, raw, reference, tmp_path, quick_options, quiet
):
    options = quick_options(
        input_file=raw, output_path=tmp_path / "out", reference_frames=reference
    )
    returned = compensate_recording(options, config=quiet())
    assert same_bits(returned, reference.astype(float))
    expected, flow = compensate_arr(
        small_recording.video,
        reference,
        quick_options(output_typename="uint16"),
        registration_config=quiet(),
    )
    opened = open_video(tmp_path / "out" / "compensated.zarr")
    assert same_bits(opened.values, expected)
    group = zarr.open_group(tmp_path / "out" / "compensated.zarr", mode="r")
    motion = np.moveaxis(group["motion"][:], 1, -1)
    assert same_bits(np.stack([upsample_flow(m, (40, 52)) for m in motion]), flow)
    assert same_bits(group["valid"][:], np.stack([valid_mask(w) for w in flow]))
    lengths = np.linalg.norm(flow.astype(float), axis=-1)
    np.testing.assert_allclose(group["stats/mean_disp"][:], lengths.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(group["stats/max_disp"][:], lengths.max(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(group["reference/raw"][:], np.moveaxis(reference, -1, 0))
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["computed_frames"] == 44
    assert run["versions"]["numpy"] == np.__version__


@pytest.mark.parametrize("output_format", ["HDF5", "TIFF", "MAT"])
def test_exports_hold_the_same_video_and_open_again(
    raw, reference, tmp_path, quick_options, quiet, output_format
):
    common = {"input_file": raw, "reference_frames": reference}
    native = quick_options(**common, output_path=tmp_path / "native")
    compensate_recording(native, config=quiet())
    expected = open_video(tmp_path / "native" / "compensated.zarr").values
    options = quick_options(
        **common,
        output_path=tmp_path / "out",
        output_format=output_format,
        save_w=True,
        save_valid_idx=True,
    )
    compensate_recording(options, config=quiet())
    path = tmp_path / "out" / f"compensated.{output_format.lower()}"
    assert same_bits(open_video(path).values, expected)
    group = zarr.open_group(tmp_path / "native" / "compensated.zarr", mode="r")
    with h5py.File(tmp_path / "out" / "idx.hdf") as masks:
        np.testing.assert_array_equal(masks["ch1"][:], np.where(group["valid"][:], 255, 0))
    motion = np.moveaxis(group["motion"][:], 1, -1)
    flow = np.stack([upsample_flow(m, (40, 52)) for m in motion])
    with h5py.File(tmp_path / "out" / "w.h5") as w:
        assert same_bits(w["u"][:], flow[..., 0])
        assert same_bits(w["v"][:], flow[..., 1])
    with np.load(tmp_path / "out" / "statistics.npz") as statistics:
        assert set(statistics.files) == {"mean_disp", "max_disp", "mean_div", "mean_translation"}
        np.testing.assert_array_equal(statistics["mean_disp"], group["stats/mean_disp"][:])
    assert same_bits(np.load(tmp_path / "out" / "reference_frame.npy"), reference.astype(float))
    leftovers = [name for name in everything_below(tmp_path / "out") if "work.zarr" in name]
    assert leftovers == []


def test_our_tiff_is_one_series_for_other_readers(raw, reference, tmp_path, quick_options, quiet):
    options = quick_options(
        input_file=raw, reference_frames=reference, output_path=tmp_path / "o", output_format="TIFF"
    )
    compensate_recording(options, config=quiet())
    with tifffile.TiffFile(tmp_path / "o" / "compensated.tiff") as file:
        assert len(file.series) == 1
        assert file.series[0].shape == (44, 2, 40, 52)


def test_null_keeps_no_video_but_calls_back(raw, reference, tmp_path, quick_options, quiet):
    seen = []
    options = quick_options(
        input_file=raw, reference_frames=reference, output_path=tmp_path / "o", output_format="NULL"
    )
    compensate_recording(
        options,
        config=quiet(),
        registered_callback=lambda frames, start, end: seen.append((frames.shape, start, end)),
        w_callback=lambda w, start, end: seen.append((w.shape, start, end)),
    )
    assert seen == [
        ((20, 40, 52, 2), 0, 20),
        ((20, 40, 52, 2), 0, 20),
        ((20, 40, 52, 2), 20, 40),
        ((20, 40, 52, 2), 20, 40),
        ((4, 40, 52, 2), 40, 44),
        ((4, 40, 52, 2), 40, 44),
    ]
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert names == {".scopeflow", "statistics.npz", "reference_frame.npy", "run.json"}


def test_array_keeps_everything_in_memory(raw, reference, tmp_path, quick_options, quiet):
    options = quick_options(
        input_file=raw, output_path=tmp_path / "o", output_format="ARRAY", output_typename=None
    )
    corrector = BatchMotionCorrector(options, quiet())
    corrector.run(reference)
    assert corrector.registered.dtype == np.uint16
    assert corrector.w.shape == (44, 40, 52, 2)
    assert len(corrector.mean_disp) == 44
    assert not (tmp_path / "o").exists()


def test_names_follow_the_convention_and_the_explicit_file(
    raw, reference, tmp_path, quick_options, quiet
):
    common = {"input_file": raw, "reference_frames": reference, "iterations": 1}
    compensate_recording(
        quick_options(**common, output_path=tmp_path / "o", naming_convention="batch"),
        config=quiet(),
    )
    assert (tmp_path / "o" / "day1_compensated.zarr").is_dir()
    assert (tmp_path / "o" / "day1_statistics.npz").is_file()
    compensate_recording(
        quick_options(
            **common,
            output_path=tmp_path / "p",
            output_format="HDF5",
            output_file_name=tmp_path / "q" / "mine.h5",
        ),
        config=quiet(),
    )
    assert (tmp_path / "q" / "mine.h5").is_file()


def test_output_typename_acts_on_files_when_it_is_set(
    raw, reference, tmp_path, quick_options, quiet
):
    options = quick_options(
        input_file=raw,
        reference_frames=reference,
        output_path=tmp_path / "o",
        output_typename="single",
        iterations=1,
    )
    compensate_recording(options, config=quiet())
    assert open_video(tmp_path / "o" / "compensated.zarr").dtype == np.float32


def test_channels_and_bins_are_selected(small_recording, raw, tmp_path, quick_options, quiet):
    options = quick_options(
        input_file=raw,
        output_path=tmp_path / "o",
        channel_idx=1,
        bin_size=4,
        reference_frames=[0, 1, 2],
        iterations=2,
    )
    reference = compensate_recording(options, config=quiet())
    assert reference.shape == (40, 52, 1)
    assert open_video(tmp_path / "o" / "compensated.zarr").shape == (11, 40, 52, 1)


def test_a_second_run_reuses_everything_and_never_changes_it(
    raw, reference, tmp_path, quick_options, quiet
):
    options = quick_options(input_file=raw, reference_frames=reference, output_path=tmp_path / "o")
    first = BatchMotionCorrector(options, quiet())
    first.run()
    stamps = {
        p: p.stat().st_mtime_ns for p in (tmp_path / "o/compensated.zarr/registered").rglob("*")
    }
    second = BatchMotionCorrector(options, quiet(block_length=7))
    second.run()
    assert (first.computed_frames, first.reused_frames) == (44, 0)
    assert (second.computed_frames, second.reused_frames) == (0, 44)
    assert second.mean_disp == first.mean_disp
    assert stamps == {
        p: p.stat().st_mtime_ns for p in (tmp_path / "o/compensated.zarr/registered").rglob("*")
    }


@pytest.mark.parametrize("damage", ["deleted", "truncated", "flipped", "record lost"])
def test_damaged_shards_are_found_and_only_they_are_redone(
    raw, reference, tmp_path, quick_options, quiet, damage
):
    options = quick_options(input_file=raw, reference_frames=reference, output_path=tmp_path / "o")
    compensate_recording(options, config=quiet(block_length=10))
    store = tmp_path / "o" / "compensated.zarr"
    before = open_video(store).values.copy()
    shard = store / "registered" / "c" / "2" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    if damage == "deleted":
        shard.unlink()
    elif damage == "truncated":
        shard.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 3] ^= 0xFF
        shard.write_bytes(content)
    else:
        (record,) = (tmp_path / "o" / ".scopeflow").rglob("block-000000020-*.json")
        record.unlink()
    again = BatchMotionCorrector(options, quiet())
    again.run()
    assert (again.computed_frames, again.reused_frames) == (10, 34)
    assert same_bits(open_video(store).values, before)


def test_a_damaged_export_is_made_again(raw, reference, tmp_path, quick_options, quiet):
    options = quick_options(
        input_file=raw, reference_frames=reference, output_path=tmp_path / "o", output_format="HDF5"
    )
    compensate_recording(options, config=quiet())
    target = tmp_path / "o" / "compensated.hdf5"
    expected = open_video(target).values.copy()
    target.write_bytes(target.read_bytes()[:-4096])
    compensate_recording(options, config=quiet())
    assert same_bits(open_video(target).values, expected)


def test_other_settings_and_other_input_are_refused_by_name(
    small_recording, raw, reference, tmp_path, quick_options, quiet
):
    common = {"input_file": raw, "reference_frames": reference, "output_path": tmp_path / "o"}
    compensate_recording(quick_options(**common, iterations=2), config=quiet())
    before = everything_below(tmp_path / "o")
    named = r"flow\.alpha: was \(1\.5, 1\.5\), now \(4\.0, 4\.0\).*no-resume"
    with pytest.raises(OutputExistsError, match=named):
        compensate_recording(quick_options(**common, iterations=2, alpha=4), config=quiet())
    with pytest.raises(OutputExistsError, match="reference"):
        compensate_recording(
            quick_options(**{**common, "reference_frames": reference + 1}, iterations=2),
            config=quiet(),
        )
    tifffile.imwrite(raw, small_recording.video[:30, :, :, 0])
    with pytest.raises(OutputExistsError, match="input"):
        compensate_recording(
            quick_options(**{**common, "reference_frames": reference[..., 0]}, iterations=2),
            config=quiet(),
        )
    assert everything_below(tmp_path / "o") == before


def test_without_resume_our_results_are_replaced(raw, reference, tmp_path, quick_options, quiet):
    common = {"input_file": raw, "reference_frames": reference, "output_path": tmp_path / "o"}
    compensate_recording(quick_options(**common, iterations=2), config=quiet())
    replaced = BatchMotionCorrector(quick_options(**common, iterations=3), quiet(resume=False))
    replaced.run()
    assert replaced.computed_frames == 44


def test_files_of_others_are_never_overwritten(raw, reference, tmp_path, quick_options, quiet):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "compensated.hdf5").write_text("somebody's")
    options = quick_options(
        input_file=raw, reference_frames=reference, output_path=tmp_path / "o", output_format="HDF5"
    )
    for resume in (True, False):
        with pytest.raises(OutputExistsError, match="no record that scopeflow wrote it"):
            compensate_recording(options, config=quiet(resume=resume))
    assert (tmp_path / "o" / "compensated.hdf5").read_text() == "somebody's"


def test_bad_runs_write_nothing(small_recording, raw, reference, tmp_path, quick_options, quiet):
    good = {"input_file": raw, "reference_frames": reference, "output_path": tmp_path / "o"}
    floating = small_recording.video.astype(np.float32)
    floating[30, 5, 5] = np.nan
    (tmp_path / "file").write_text("")
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "text.tif").write_text("no image at all")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(raw.read_bytes()[:20000])
    cases = [
        ({"input_file": None}, OptionsError, "input_file is not set"),
        ({"input_file": tmp_path / "nowhere.tif"}, FileNotFoundError, "nowhere.tif"),
        ({"input_file": tmp_path / "empty.tif"}, OSError, "empty.tif"),
        ({"input_file": tmp_path / "text.tif"}, OSError, "text.tif"),
        ({"input_file": cut}, OSError, "cut.tif"),
        ({"input_file": floating}, InputError, "frame 30 has 1 pixels"),
        ({"input_file": small_recording.video[:0]}, InputError, "zero frames"),
        ({"input_file": small_recording.video[:, :9]}, InputError, "at least 10"),
        ({"reference_frames": reference[:30]}, InputError, r"\(30, 52, 2\)"),
        ({"reference_frames": [100, 101]}, InputError, "frames 0 to 43"),
        ({"reference_frames": [0, 100]}, InputError, "1 of the reference frames do not exist"),
        ({"output_format": "BEGONIA"}, OptionsError, "BEGONIA"),
        ({"output_path": tmp_path / "file" / "o"}, OutputError, "is a file"),
        ({"output_path": raw.parent}, OutputError, "inside the output folder"),
        ({"channel_idx": 5}, ValueError, "channel"),
    ]
    before = everything_below(tmp_path)
    for changes, error, match in cases:
        with pytest.raises(error, match=match):
            compensate_recording(quick_options(**{**good, **changes}), config=quiet())
        assert everything_below(tmp_path) == before, match


def test_a_zarr_input_that_holds_the_output_is_refused(
    small_recording, reference, tmp_path, quick_options, quiet
):
    store = tmp_path / "raw.zarr"
    zarr.create_array(store, data=small_recording.video, chunks=(5, 40, 52, 2))
    options = quick_options(
        input_file=store, reference_frames=reference, output_path=store / "corrected"
    )
    with pytest.raises(OutputError, match="inside the input"):
        compensate_recording(options, config=quiet())


def test_too_little_memory_is_refused_before_the_run(
    raw, reference, tmp_path, quick_options, quiet
):
    options = quick_options(input_file=raw, reference_frames=reference, output_path=tmp_path / "o")
    with pytest.raises(MemoryError, match="block_length"):
        compensate_recording(options, config=quiet(memory_limit_bytes=100_000))
    assert not (tmp_path / "o").exists()


def test_a_built_reference_is_sharper_than_the_plain_mean(tmp_path, quick_options, quiet):
    moved = synthetic_recording(30, 64, 72, seed=5, translation_px=4.0, photons=200.0)
    options = quick_options(
        input_file=moved.video,
        output_path=tmp_path / "o",
        output_format="NULL",
        quality_setting="balanced",
        iterations=50,
        reference_frames=list(range(30)),
    )
    reference = compensate_recording(options, config=quiet())
    assert crispness(reference) > 1.1 * crispness(moved.video.mean(axis=0))


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_a_reference_file_is_read(small_recording, raw, tmp_path, quick_options, quiet, kind):
    image = small_recording.reference[..., 0].astype(np.float32)
    path = tmp_path / f"reference.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, image)
    else:
        np.save(path, image)
    options = quick_options(
        input_file=small_recording.video[..., :1],
        reference_frames=path,
        output_path=tmp_path / "o",
        output_format="NULL",
        iterations=1,
    )
    assert same_bits(compensate_recording(options, config=quiet())[..., 0], image.astype(float))


def test_other_results_in_one_folder_are_kept(raw, reference, tmp_path, quick_options, quiet):
    common = {"input_file": raw, "reference_frames": reference, "output_path": tmp_path / "o"}
    compensate_recording(quick_options(**common, iterations=1), config=quiet())
    with pytest.raises(OutputExistsError, match=r"belongs to the results compensated\.zarr"):
        compensate_recording(
            quick_options(**common, iterations=1, output_format="HDF5"), config=quiet()
        )


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("bin_size", [2, 5, 50])
def test_bins_of_lazy_arrays_are_those_of_files(small_recording, tmp_path, dtype, bin_size):
    video = small_recording.video.astype(dtype)
    zarr.create_array(tmp_path / "raw.zarr", data=video, chunks=(4, 40, 52, 2))
    stored = open_video(tmp_path / "raw.zarr", axes="TYXC", bin_size=bin_size).values
    lazy = open_video(da.from_array(video, chunks=(3, 40, 52, 2)), bin_size=bin_size).values
    assert stored.shape == (-(-44 // bin_size), 40, 52, 2)
    assert same_bits(lazy, stored)


def test_a_result_keeps_pixel_size_interval_and_channel_names(
    small_recording, reference, tmp_path, quick_options, quiet
):
    path = tmp_path / "raw" / "day.ome.tif"
    path.parent.mkdir()
    tifffile.imwrite(
        path,
        np.moveaxis(small_recording.video, -1, 1),
        ome=True,
        metadata={
            "axes": "TCYX",
            "PhysicalSizeX": 0.5,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": 0.25,
            "PhysicalSizeYUnit": "µm",
            "TimeIncrement": 0.1,
            "TimeIncrementUnit": "s",
            "Channel": {"Name": ["GCaMP", "tdTomato"]},
        },
    )
    options = quick_options(
        input_file=path, reference_frames=reference, output_path=tmp_path / "o", iterations=1
    )
    compensate_recording(options, config=quiet())
    for opened in (open_video(path), open_video(tmp_path / "o" / "compensated.zarr")):
        assert opened.attrs["pixel_size_um"] == (0.25, 0.5)
        assert opened.attrs["frame_interval_s"] == pytest.approx(0.1)
        assert list(opened.coords["C"].values) == ["GCaMP", "tdTomato"]
        np.testing.assert_allclose(opened.coords["X"].values[:3], [0, 0.5, 1.0])
