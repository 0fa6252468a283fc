from __future__ import annotations

import json
import logging
import re

import numpy as np
import pytest
import tifffile

from scopeflow.errors import InputNotFoundError, OptionsError, OutputError, UnreadableFileError
from scopeflow.motion.options.json_files import MATLAB_KEYS
from scopeflow.motion.options.of_options import OFOptions


def same(first: OFOptions, second: OFOptions) -> bool:
    for name in OFOptions.model_fields:
        a, b = getattr(first, name), getattr(second, name)
        if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
            if type(a) is not type(b) or not np.array_equal(a, b):
                return False
        elif a != b:
            return False
    return True


CHANGED = {
    "input_file": "movie.h5",
    "output_path": "out",
    "output_format": "TIFF",
    "output_file_name": "out/x.tif",
    "channel_idx": [1, 0],
    "alpha": (2, 3),
    "weight": [1, 3],
    "levels": 5,
    "min_level": 3,
    "eta": 0.7,
    "update_lag": 4,
    "iterations": 20,
    "a_smooth": 0.5,
    "a_data": (0.4, 0.5),
    "gnc_schedule": [0, 0.5, 1],
    "warping_steps": 3,
    "sigma": [[1, 2, 3]],
    "bin_size": 2,
    "buffer_size": 10,
    "reference_frames": [1, 2],
    "update_reference": True,
    "verbose": True,
    "save_meta_info": False,
    "save_w": True,
    "save_motion": True,
    "save_valid_mask": True,
    "save_valid_idx": True,
    "output_typename": "uint16",
    "channel_normalization": "separate",
    "interpolation_method": "linear",
    "cc_initialization": True,
    "cc_hw": (32, 64),
    "cc_up": 4,
    "update_initialization_w": False,
    "naming_convention": "batch",
    "constancy_assumption": "census",
    "flow_backend": "other",
    "backend_params": {"device": "cpu"},
    "temporal_boundary": "batch",
    "non_finite": "mask",
}


def test_every_changed_option_survives_the_file(tmp_path):
    # Only one value is possible for these, callables are not stored, min_level decides quality.
    fixed = {"n_references", "min_frames_per_reference", "quality_setting", *OFOptions.callables}
    assert CHANGED.keys() | fixed == OFOptions.model_fields.keys()
    options, default = OFOptions(**CHANGED), OFOptions()
    for name in CHANGED:
        assert getattr(options, name) != getattr(default, name), name
    path = options.save_options(tmp_path / "deep" / "options.json")
    loaded = OFOptions.load_options(path)
    assert same(loaded, options)
    assert loaded.file_dtype == np.uint16


def test_file_form_and_default_place(tmp_path):
    path = OFOptions(output_path=tmp_path / "results").save_options()
    assert path == tmp_path / "results" / "options.json"
    lines = path.read_text().splitlines()
    assert re.fullmatch(r"Compensation options \d{4}-\d{2}-\d{2}", lines[0])
    assert lines[1] == ""
    stored = json.loads("\n".join(lines[2:]))
    assert stored["quality_setting"] == "quality"
    assert stored["output_path"] == str(tmp_path / "results")
    assert lines[3].startswith('  "')
    assert sorted(p.name for p in path.parent.iterdir()) == ["options.json"]


def test_default_typename_stays_a_default_after_the_file(tmp_path):
    path = OFOptions().save_options(tmp_path / "o.json")
    assert OFOptions.load_options(path).file_dtype is None
    path = OFOptions(output_typename="double").save_options(path)
    assert OFOptions.load_options(path).file_dtype == np.float64


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 2), (4, 5, 3)])
def test_weight_maps_survive_the_file(tmp_path, rng_seed, shape):
    options = OFOptions(weight=np.random.default_rng(rng_seed).random(shape))
    assert same(OFOptions.load_options(options.save_options(tmp_path / "o.json")), options)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 2), (6, 5, 3), (6, 5, 4)])
def test_reference_image_is_saved_beside_and_moves_with_the_folder(
    tmp_path, rng_seed, shape, dtype
):
    image = (np.random.default_rng(rng_seed).random(shape) * 1000).astype(dtype)
    OFOptions(reference_frames=image).save_options(tmp_path / "a" / "options.json")
    (tmp_path / "a").rename(tmp_path / "b")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b" / "reference_frames.tif"), image)
    loaded = OFOptions.load_options(tmp_path / "b" / "options.json").reference_frames
    np.testing.assert_array_equal(loaded, image)
    assert loaded.shape == image.shape
    assert loaded.dtype == dtype


@pytest.fixture
def rng_seed():
    return 7


def test_missing_or_damaged_reference_is_named(tmp_path):
    path = OFOptions(reference_frames=np.zeros((3, 4))).save_options(tmp_path / "o.json")
    (tmp_path / "reference_frames.tif").write_bytes(b"no image")
    with pytest.raises(UnreadableFileError, match=r"reference_frames\.tif"):
        OFOptions.load_options(path)
    (tmp_path / "reference_frames.tif").unlink()
    with pytest.raises(InputNotFoundError, match=r"reference_frames\.tif"):
        OFOptions.load_options(path)


def test_reference_path_that_exists_is_loaded_and_others_stay_paths(tmp_path):
    image = np.arange(12, dtype=np.uint16).reshape(3, 4)
    tifffile.imwrite(tmp_path / "mean.tif", image)
    path = OFOptions(reference_frames=tmp_path / "mean.tif").save_options(tmp_path / "o.json")
    np.testing.assert_array_equal(OFOptions.load_options(path).reference_frames, image)
    path = OFOptions(reference_frames="elsewhere.tif").save_options(tmp_path / "o.json")
    assert OFOptions.load_options(path).reference_frames == "elsewhere.tif"


def test_recording_in_memory_is_stored_as_null_and_said(tmp_path, caplog):
    options = OFOptions(input_file=np.zeros((3, 4, 5)))
    with caplog.at_level(logging.WARNING):
        path = options.save_options(tmp_path / "o.json")
    assert "held in memory" in caplog.text
    assert OFOptions.load_options(path).input_file is None
    assert options.input_file.shape == (3, 4, 5)


def test_callables_are_never_stored(tmp_path):
    options = OFOptions(get_displacement_impl=len)
    assert "get_displacement_impl" not in options.save_options(tmp_path / "o.json").read_text()


MATLAB = {
    "input_file": "D:\\data\\movie.h5",
    "output_path": "results",
    "output_format": "MAT",
    "alpha": 1.5,
    "weight": [1, 1],
    "sigma": [1, 1, 0.1],
    "levels": 100,
    "min_level": -1,
    "quality_setting": "quality",
    "update_reference": 0,
    "save_w": True,
    "save_motion": True,
    "reference_frames": [1, 2, 3],
    "channel_idx": [],
    "output_typename": "double",
    "datatype": "DOUBLE",
    "output_file_writer": {"bin_size": 1},
    "preproc_funct": [],
}


def write_foreign(path, data):
    path.write_text("Compensation options 2023-11-01\n\n" + json.dumps(data, indent=2))
    return path


@pytest.mark.parametrize("alpha", [1.5, [1.5], [1.5, 1.5]])
def test_matlab_file(tmp_path, alpha):
    options = OFOptions.load_options(write_foreign(tmp_path / "m.json", MATLAB | {"alpha": alpha}))
    assert options.alpha == (1.5, 1.5)
    assert options.sigma == [[1.0, 1.0, 0.1]]
    # MATLAB's first frame is our frame 0.
    assert options.reference_frames == [0, 1, 2]
    assert options.channel_idx is None
    assert options.update_reference is False
    assert options.output_format == "MAT"
    assert options.file_dtype == np.float64


def test_matlab_single_frame_and_image(tmp_path):
    path = write_foreign(tmp_path / "m.json", MATLAB | {"reference_frames": 4})
    assert OFOptions.load_options(path).reference_frames == [3]
    path = write_foreign(tmp_path / "m.json", MATLAB | {"reference_frames": [[1, 2], [3, 4]]})
    np.testing.assert_array_equal(OFOptions.load_options(path).reference_frames, [[1, 2], [3, 4]])
    path = write_foreign(tmp_path / "m.json", MATLAB | {"reference_frames": [0, 1]})
    with pytest.raises(OptionsError, match="counts from 1"):
        OFOptions.load_options(path)


def test_only_listed_matlab_keys_are_ignored(tmp_path):
    assert set(MATLAB_KEYS) == {"datatype", "output_file_writer"}
    path = write_foreign(tmp_path / "m.json", MATLAB | {"n_iterations": 3})
    with pytest.raises(OptionsError, match="unknown option 'n_iterations'"):
        OFOptions.load_options(path)


def test_file_of_the_other_program_counts_from_zero_and_keeps_the_type(tmp_path):
    data = {"reference_frames": [0, 1], "output_typename": "double", "output_format": "MAT"}
    options = OFOptions.load_options(write_foreign(tmp_path / "p.json", data))
    assert options.reference_frames == [0, 1]
    assert options.file_dtype is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no line starts with"),
        (b"Compensation options\n\n[1, 2]\n", "no line starts with"),
        (b'Compensation options\n\n{\n"alpha": ,\n}', "line 4"),
        (b"\xff\xfe\x00\x01", "not text"),
        (b'{"alhpa": 1}', "Did you mean 'alpha'"),
    ],
)
def test_files_that_are_no_options(tmp_path, content, message):
    path = tmp_path / "o.json"
    path.write_bytes(content)
    with pytest.raises(OptionsError, match=message):
        OFOptions.load_options(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"nowhere\.json"):
        OFOptions.load_options(tmp_path / "nowhere.json")


def test_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another output_path"):
        OFOptions().save_options(tmp_path / "file" / "options.json")


def test_failed_save_keeps_the_older_file(tmp_path):
    path = OFOptions(alpha=2).save_options(tmp_path / "o.json")
    for value in (float("nan"), float("inf"), object()):
        with pytest.raises(OptionsError, match="stored as JSON"):
            OFOptions(backend_params={"x": value}).save_options(path)
    assert OFOptions.load_options(path).alpha == (2.0, 2.0)
    assert [p.name for p in tmp_path.iterdir()] == ["o.json"]
