from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from scopeflow.errors import OptionsError
from scopeflow.io.formats import OutputFormat
from scopeflow.motion.options.enums import (
    ChannelNormalization,
    ConstancyAssumption,
    InterpolationMethod,
    NamingConvention,
    QualitySetting,
)
from scopeflow.motion.options.of_options import OFOptions

# The documented defaults of the program whose scripts must run here (spec, section 3).
DOCUMENTED = {
    "input_file": None,
    "output_path": Path("results"),
    "output_file_name": None,
    "channel_idx": None,
    "alpha": (1.5, 1.5),
    "weight": [0.5, 0.5],
    "levels": 100,
    "min_level": -1,
    "quality_setting": "quality",
    "eta": 0.8,
    "update_lag": 5,
    "iterations": 50,
    "a_smooth": 1.0,
    "a_data": 0.45,
    "gnc_schedule": None,
    "warping_steps": None,
    "sigma": [[1, 1, 0.1], [1, 1, 0.1]],
    "bin_size": 1,
    "buffer_size": 400,
    "reference_frames": list(range(50, 500)),
    "update_reference": False,
    "n_references": 1,
    "min_frames_per_reference": 20,
    "verbose": False,
    "save_meta_info": True,
    "save_w": False,
    "save_valid_mask": False,
    "save_valid_idx": False,
    "output_typename": "double",
    "channel_normalization": "joint",
    "interpolation_method": "cubic",
    "cc_initialization": False,
    "cc_hw": 256,
    "cc_up": 1,
    "update_initialization_w": True,
    "naming_convention": "default",
    "constancy_assumption": "gc",
    "flow_backend": "flowreg",
    "backend_params": {},
    "preproc_funct": None,
    "get_displacement_impl": None,
    "get_displacement_factory": None,
}


def test_fields_and_defaults_are_the_documented_ones():
    options = OFOptions()
    found = {name: getattr(options, name) for name in OFOptions.model_fields}
    ours = {
        "output_format": OutputFormat.ZARR,
        "temporal_boundary": "halo",
        "non_finite": "error",
        "save_motion": False,
    }
    assert found == DOCUMENTED | ours


def test_defaults_are_not_shared_between_objects():
    first = OFOptions()
    first.weight.append(3.0)
    first.sigma[0][0] = 9.0
    first.reference_frames.clear()
    first.backend_params["device"] = "cpu"
    second = OFOptions()
    assert second.weight == [0.5, 0.5]
    assert second.sigma[0][0] == 1.0
    assert len(second.reference_frames) == 450
    assert second.backend_params == {}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (3, (3.0, 3.0)),
        (0.5, (0.5, 0.5)),
        ([2], (2.0, 2.0)),
        ((1, 4), (1.0, 4.0)),
        (np.array([1, 4]), (1.0, 4.0)),
        (np.float32(2), (2.0, 2.0)),
    ],
)
def test_alpha_forms(given, kept):
    assert OFOptions(alpha=given).alpha == kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0}, "alpha=0: Alpha must be positive"),
        ({"alpha": (1, -1)}, "All alpha values must be positive"),
        ({"alpha": (1, 1, 1)}, "Alpha must be scalar or 2-element tuple"),
        ({"alpha": float("nan")}, "finite"),
        ({"alpha": True}, "number"),
        ({"alpha": "1.5"}, "number"),
        ({"weight": np.ones((2, 2, 2, 2))}, "weight must be 1-D"),
        ({"weight": [1, -1]}, "not negative"),
        ({"weight": [0, 0]}, "positive somewhere"),
        ({"weight": []}, "finite numbers"),
        ({"weight": [[1, 2], [3]]}, "weight must be numbers"),
        ({"sigma": [1, 1]}, r"1D sigma must be \[sx, sy, st\]"),
        ({"sigma": [[1, 1], [1, 1]]}, r"2D sigma must be \(n_channels, 3\)"),
        ({"sigma": [1, -1, 0]}, "not negative"),
        ({"levels": 0}, "levels"),
        ({"levels": 2.0}, "levels"),
        ({"levels": True}, "whole number"),
        ({"min_level": -2}, "min_level"),
        ({"eta": 0}, "eta"),
        ({"eta": 1.01}, "eta"),
        ({"eta": float("nan")}, "eta"),
        ({"a_smooth": -0.1}, "a_smooth"),
        ({"a_data": 0}, "a_data must be greater than 0"),
        ({"a_data": 1.1}, "at most 1"),
        ({"buffer_size": 0}, "buffer_size"),
        ({"bin_size": 1.5}, "bin_size"),
        ({"gnc_schedule": [[0, 1]]}, "must be a 1D sequence"),
        ({"gnc_schedule": 1}, "must be a 1D sequence"),
        ({"gnc_schedule": [0]}, "at least two stages"),
        ({"gnc_schedule": [0, 1.2]}, r"lie in \[0, 1\]"),
        ({"gnc_schedule": [0, float("nan"), 1]}, r"lie in \[0, 1\]"),
        ({"gnc_schedule": [0, 0.6, 0.4, 1]}, "monotone nondecreasing"),
        ({"gnc_schedule": [0.1, 1]}, r"start at 0\.0"),
        ({"gnc_schedule": [0, 0.9]}, r"end at 1\.0"),
        ({"warping_steps": 0}, "warping_steps"),
        ({"reference_frames": 5}, r"write \[5\]"),
        ({"reference_frames": []}, "names no frame"),
        ({"reference_frames": [0.5]}, "reference_frames must be"),
        ({"reference_frames": [True, False]}, "reference_frames must be"),
        ({"reference_frames": np.zeros((2, 2, 2, 2))}, "shape"),
        ({"reference_frames": b"ab"}, "reference_frames must be"),
        ({"reference_frames": None}, "reference_frames must be"),
        ({"channel_idx": -1}, "not negative"),
        ({"channel_idx": [0, 0]}, "twice"),
        ({"channel_idx": "0"}, "whole number"),
        ({"output_typename": "singel"}, "Did you mean 'single'"),
        ({"quality_setting": "balancd"}, "Did you mean 'balanced'"),
        ({"output_format": "hdf6"}, "Did you mean 'HDF5'"),
        ({"constancy_assumption": "gm"}, "constancy_assumption"),
        ({"cc_hw": (1, 2, 3)}, "cc_hw"),
        ({"cc_hw": 0}, "cc_hw"),
        ({"save_w": "yes"}, "save_w"),
        ({"temporal_boundary": "reflect"}, "temporal_boundary"),
        ({"alhpa": 2}, "unknown option 'alhpa'. Did you mean 'alpha'"),
        ({"compression": "zlib"}, "unknown option 'compression'"),
        ({"n_references": 2}, "set update_reference=True"),
        ({"min_frames_per_reference": 10}, "leave min_frames_per_reference out"),
    ],
)
def test_bad_values_are_named_in_one_message(arguments, message):
    with pytest.raises(OptionsError, match=message) as caught:
        OFOptions(**arguments)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_every_bad_option_is_named_at_once():
    with pytest.raises(OptionsError) as caught:
        OFOptions(eta=2, itertions=3)
    assert "eta" in str(caught.value)
    assert "'iterations'" in str(caught.value)


def test_model_validate_raises_the_same_error():
    assert OFOptions.model_validate({"alpha": 2}).alpha == (2.0, 2.0)
    with pytest.raises(OptionsError, match="alpha"):
        OFOptions.model_validate({"alhpa": 2})


def test_numpy_integers_are_integers():
    options = OFOptions(levels=np.int64(7), cc_hw=np.int32(64), channel_idx=np.array([1, 0]))
    assert (options.levels, options.cc_hw, options.channel_idx) == (7, 64, [1, 0])
    assert type(options.levels) is int


def test_assignment_is_checked_and_normalised():
    options = OFOptions()
    options.alpha = 3
    assert options.alpha == (3.0, 3.0)
    with pytest.raises(OptionsError, match="Alpha must be positive"):
        options.alpha = -3
    assert options.alpha == (3.0, 3.0)
    with pytest.raises(OptionsError, match="Did you mean 'buffer_size'"):
        options.bufer_size = 3


def test_refused_assignment_leaves_no_trace():
    options = OFOptions()
    with pytest.raises(OptionsError, match="n_references"):
        options.n_references = 2
    assert options.n_references == 1


@pytest.mark.parametrize(("name", "level"), [("quality", 0), ("balanced", 4), ("fast", 6)])
def test_quality_decides_the_finest_level(name, level):
    assert OFOptions(quality_setting=name).effective_min_level == level
    assert OFOptions(quality_setting=name.upper()).effective_min_level == level


def test_explicit_level_is_custom_and_later_assignment_holds():
    options = OFOptions(quality_setting="fast", min_level=2)
    assert options.quality_setting is QualitySetting.CUSTOM
    assert options.effective_min_level == 2
    options.quality_setting = "balanced"
    assert (options.min_level, options.effective_min_level) == (-1, 4)
    options.min_level = 1
    assert (options.quality_setting, options.effective_min_level) == (QualitySetting.CUSTOM, 1)
    assert OFOptions(quality_setting="custom").effective_min_level == 0


@pytest.mark.parametrize(
    ("enum", "names"),
    [
        (OutputFormat, {"hdf5": "HDF5", "ZARR": "ZARR", "Suite2p_Tiff": "SUITE2P_TIFF"}),
        (QualitySetting, {"FAST": "fast", "custom": "custom"}),
        (ChannelNormalization, {"Joint": "joint"}),
        (InterpolationMethod, {"CUBIC": "cubic", "nearest": "nearest"}),
        (
            ConstancyAssumption,
            {"gradient": "gc", "BRIGHTNESS": "gray", "census": "cs", " GC ": "gc", "gray": "gray"},
        ),
        (NamingConvention, {"BATCH": "batch"}),
    ],
)
def test_enum_names_and_aliases(enum, names):
    for given, value in names.items():
        assert enum(given) == value
    with pytest.raises(ValueError, match="nonsense"):
        enum("nonsense")


def test_weights_are_normalised():
    assert OFOptions(weight=[1, 3]).weight == [0.25, 0.75]
    assert OFOptions(weight=np.array([2.0, 2.0])).weight == [0.5, 0.5]
    assert OFOptions(weight=(5,)).weight == [1.0]
    kept = np.arange(1.0, 7.0).reshape(2, 3)
    np.testing.assert_array_equal(OFOptions(weight=kept).weight, kept)


def test_weight_of_each_channel_and_nothing_is_stored():
    options = OFOptions(weight=[1, 1, 2])
    assert options.get_weight_at(0, 3) == 0.25
    assert options.get_weight_at(2, 3) == 0.5
    # Truncated to two channels: 1/4 and 1/4 become 1/2 each.
    assert options.get_weight_at(0, 2) == 0.5
    assert options.weight == [0.25, 0.25, 0.5]
    default = OFOptions()
    assert [default.get_weight_at(c, 3) for c in range(3)] == [0.5, 0.5, 1 / 3]
    assert default.get_weight_at(0, 1) == 1.0
    with pytest.raises(OptionsError, match="0 for all 1 channel"):
        OFOptions(weight=[0, 1]).get_weight_at(0, 1)


def test_weight_maps_of_each_channel():
    plane = np.arange(6.0).reshape(2, 3)
    options = OFOptions(weight=plane)
    np.testing.assert_array_equal(options.get_weight_at(0, 2), plane)
    np.testing.assert_array_equal(options.get_weight_at(1, 2), np.full((2, 3), 0.5))
    volume = np.stack([plane, plane * 2], axis=-1)
    options = OFOptions(weight=volume)
    np.testing.assert_array_equal(options.get_weight_at(1, 3), plane * 2)
    np.testing.assert_array_equal(options.get_weight_at(2, 3), np.full((2, 3), 1 / 3))
    options.get_weight_at(0, 2)[:] = -1
    np.testing.assert_array_equal(options.weight, volume)


def test_sigma_rows():
    options = OFOptions(sigma=(1, 2, 3))
    assert options.sigma == [[1.0, 2.0, 3.0]]
    options = OFOptions(sigma=[[1, 2, 3], [4, 5, 6]])
    assert options.get_sigma_at(1).tolist() == [4, 5, 6]
    assert options.get_sigma_at(2).tolist() == [1, 2, 3]


@pytest.mark.parametrize("frames", [[3, 4], (3, 4), range(3, 5), np.array([3, 4])])
def test_reference_frame_lists(frames):
    assert OFOptions(reference_frames=frames).reference_frames == [3, 4]


def test_reference_images_and_paths_are_kept():
    image = np.zeros((4, 5, 2))
    assert OFOptions(reference_frames=image).reference_frames is image
    assert OFOptions(reference_frames="a.tif").reference_frames == "a.tif"
    nested = OFOptions(reference_frames=[[1, 2], [3, 4]]).reference_frames
    np.testing.assert_array_equal(nested, [[1, 2], [3, 4]])


def test_input_may_be_anything_that_a_source_opens():
    array = np.zeros((3, 4, 5))
    assert OFOptions(input_file=array).input_file is array
    assert OFOptions(input_file=["a.tif", Path("b.tif")]).input_file == ["a.tif", Path("b.tif")]


def test_typename_acts_on_files_only_when_set():
    assert OFOptions().file_dtype is None
    assert OFOptions().array_dtype == np.float64
    assert OFOptions(output_typename="double").file_dtype == np.float64
    assert OFOptions(output_typename="uint16").file_dtype == np.uint16
    assert OFOptions(output_typename=None).array_dtype is None
    options = OFOptions()
    options.output_typename = "single"
    assert options.file_dtype == np.float32
    assert options.copy().file_dtype == np.float32
    assert OFOptions().copy().file_dtype is None


def test_either_mask_option_writes_the_index():
    assert not OFOptions().writes_valid_idx
    assert OFOptions(save_valid_mask=True).writes_valid_idx
    assert OFOptions(save_valid_idx=True).writes_valid_idx


def test_copy_is_independent_and_shares_only_the_recording():
    recording = np.zeros((3, 4, 5))
    options = OFOptions(input_file=recording, weight=np.ones((2, 2)), backend_params={"a": [1]})
    duplicate = options.copy()
    duplicate.alpha = 9
    duplicate.weight[0, 0] = 5
    duplicate.backend_params["a"].append(2)
    duplicate.sigma[0][0] = 7.0
    assert options.alpha == (1.5, 1.5)
    assert options.weight[0, 0] == 1
    assert options.backend_params == {"a": [1]}
    assert options.sigma[0][0] == 1.0
    assert duplicate.input_file is recording


def test_to_dict_has_the_solver_arguments():
    assert OFOptions(quality_setting="fast", constancy_assumption="brightness").to_dict() == {
        "alpha": (1.5, 1.5),
        "weight": [0.5, 0.5],
        "levels": 100,
        "min_level": 6,
        "eta": 0.8,
        "iterations": 50,
        "update_lag": 5,
        "a_data": 0.45,
        "a_smooth": 1.0,
        "gnc_schedule": None,
        "warping_steps": None,
        "const_assumption": "gray",
    }


def test_options_travel_between_processes():
    options = OFOptions(alpha=(1, 2), weight=np.ones((2, 3)), output_typename="single")
    received = pickle.loads(pickle.dumps(options))
    assert received.alpha == (1.0, 2.0)
    assert received.file_dtype == np.float32
    np.testing.assert_array_equal(received.weight, options.weight)
