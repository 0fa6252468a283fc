from __future__ import annotations

import dataclasses
import json
import logging
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from scopeflow.engine.fingerprint import diff_settings, fingerprint, settings_dict
from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import OptionsError
from scopeflow.flow.parameters import FlowParameters
from scopeflow.io.formats import OutputFormat
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.options.parameters import check_supported, correction_parameters, weight_map
from scopeflow.motion.parameters import (
    CorrectionParameters,
    PreprocessParameters,
    RigidStartParameters,
)


def test_default_options_are_the_default_parameters():
    expected = CorrectionParameters(preprocess=PreprocessParameters(sigma=((1.0, 1.0, 0.1),)))
    assert correction_parameters(OFOptions(), 1) == expected


def test_every_number_reaches_the_parameters():
    options = OFOptions(
        alpha=(2, 3),
        levels=7,
        quality_setting="balanced",
        eta=0.7,
        update_lag=4,
        iterations=20,
        a_smooth=0.5,
        a_data=(0.4, 0.5),
        constancy_assumption="cs",
        gnc_schedule=(0, 1),
        warping_steps=3,
        sigma=[[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        channel_normalization="separate",
        temporal_boundary="batch",
        interpolation_method="linear",
        cc_initialization=True,
        cc_hw=(32, 64),
        cc_up=5,
        buffer_size=11,
        update_initialization_w=False,
        update_reference=True,
    )
    assert correction_parameters(options, 2) == CorrectionParameters(
        flow=FlowParameters(
            alpha=(2.0, 3.0),
            levels=7,
            min_level=4,
            eta=0.7,
            update_lag=4,
            iterations=20,
            a_smooth=0.5,
            a_data=(0.4, 0.5),
            data_term="cs",
            gnc_schedule=(0.0, 1.0),
            warping_steps=3,
        ),
        preprocess=PreprocessParameters(
            sigma=((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
            joint_normalization=False,
            temporal_boundary="batch",
        ),
        interpolation="linear",
        rigid_start=RigidStartParameters(target_shape=(32, 64), upsample_factor=5),
        batch_length=11,
        chain=False,
        update_reference=True,
    )


def test_parameters_are_frozen_hashable_and_plain():
    parameters = correction_parameters(
        OFOptions(constancy_assumption="gray", cc_initialization=True), 3
    )
    assert hash(parameters) == hash(
        correction_parameters(OFOptions(constancy_assumption="gray", cc_initialization=True), 3)
    )
    assert type(parameters.flow.data_term) is str
    assert type(parameters.interpolation) is str
    assert parameters.rigid_start.target_shape == (256, 256)


def test_options_without_effect_do_not_change_the_fingerprint():
    plain = fingerprint(correction_parameters(OFOptions(), 1))
    same = OFOptions(warping_steps=3, cc_hw=64, verbose=True, sigma=[[1, 1, 0.1], [9, 9, 9]])
    assert fingerprint(correction_parameters(same, 1)) == plain
    assert fingerprint(correction_parameters(same, 2)) != fingerprint(
        correction_parameters(OFOptions(), 2)
    )


def test_channel_counts_that_do_not_fit_are_refused():
    with pytest.raises(OptionsError, match="2 exponents, the recording 3"):
        correction_parameters(OFOptions(a_data=(0.4, 0.5)), 3)
    with pytest.raises(OptionsError, match="at least one channel"):
        correction_parameters(OFOptions(), 0)


@pytest.mark.parametrize("name", list(OutputFormat))
def test_formats_are_available_or_refused_with_the_choice(name):
    options = OFOptions(output_format=name)
    if name != "BEGONIA":
        check_supported(options)
    else:
        with pytest.raises(OptionsError, match=r"not published.* use one of ZARR, TIFF, OME_TIFF"):
            check_supported(options)


def test_options_that_would_do_nothing_are_said(caplog):
    with caplog.at_level(logging.WARNING):
        check_supported(OFOptions(warping_steps=4, gnc_schedule=(0, 1)))
        assert not caplog.records
        check_supported(OFOptions(warping_steps=4))
    assert "gnc_schedule only" in caplog.text


def test_weight_map_of_numbers_and_images(caplog):
    np.testing.assert_array_equal(
        weight_map(OFOptions(), 2, 3, 3), np.broadcast_to([0.5, 0.5, 1 / 3], (2, 3, 3))
    )
    np.testing.assert_array_equal(weight_map(OFOptions(), 2, 3, 1), np.ones((2, 3, 1)))
    plane = np.arange(6.0).reshape(2, 3)
    found = weight_map(OFOptions(weight=plane), 2, 3, 2)
    np.testing.assert_array_equal(found[..., 0], plane)
    np.testing.assert_array_equal(found[..., 1], 0.5)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        weight_map(OFOptions(weight=[1, 2, 3]), 2, 3, 2)
    assert "first 2 are used" in caplog.text
    with pytest.raises(OptionsError, match="2 x 3 pixels, frames have 3 x 2"):
        weight_map(OFOptions(weight=plane), 3, 2, 1)


def test_registration_defaults_are_the_documented_ones():
    config = RegistrationConfig()
    assert (config.n_jobs, config.verbose, config.parallelization) == (-1, False, None)
    assert RegistrationConfig(8, True, "threading").parallelization == "threading"
    assert config.resume is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_jobs": 0}, "n_jobs is 0"),
        ({"n_jobs": -2}, "n_jobs is -2"),
        ({"n_jobs": 2.5}, "n_jobs"),
        ({"n_jobs": True}, "n_jobs"),
        ({"parallelization": "thread"}, "Did you mean 'threading'"),
        ({"parallelization": "Dask"}, "must be one of"),
        ({"block_length": 0}, "block_length is 0"),
        ({"memory_limit_bytes": -1}, "memory_limit_bytes is -1"),
        ({"memory_limit_bytes": "4GB"}, "memory_limit_bytes is '4GB'"),
        ({"verbose": 1}, "verbose"),
        ({"resume": None}, "resume"),
        ({"progress": "bar"}, "progress"),
        ({"client": object(), "scheduler_address": "tcp://a:1"}, "both given"),
        ({"client": object(), "parallelization": "threading"}, "parallelization='dask'"),
        ({"scheduler_address": "tcp://a:1", "parallelization": "sequential"}, "leave scheduler"),
    ],
)
def test_bad_run_settings_are_refused(arguments, message):
    with pytest.raises(OptionsError, match=message):
        RegistrationConfig(**arguments)


def test_run_settings_do_not_change_by_assignment():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RegistrationConfig().n_jobs = 0


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass
class Nested:
    alpha: tuple[float, float]
    image: np.ndarray


def test_settings_dict_is_json_and_stable():
    settings = {
        "nested": Nested((1.5, 2.0), np.arange(4, dtype=np.uint16)),
        "colour": Colour.RED,
        "path": Path("a/b"),
        "number": np.float32(0.5),
        "missing": float("nan"),
        "set": {2, 1},
        "none": None,
    }
    plain = settings_dict(settings)
    stored = json.loads(json.dumps(plain, allow_nan=False))
    assert stored == plain
    assert settings_dict(stored) == stored
    assert fingerprint(stored) == fingerprint(settings)
    assert diff_settings(stored, settings) == []
    assert plain["set"] == [1, 2]
    assert plain["nested"]["image"]["shape"] == [4]


def test_fingerprint_ignores_form_only():
    base = fingerprint({"a": 1, "b": [1.5, 2]})
    assert base == fingerprint({"b": (1.5, 2.0), "a": np.int16(1)})
    assert len(base) == 32
    for other in (
        {"a": 1, "b": [1.5, 2, 0]},
        {"a": 1, "b": [2, 1.5]},
        {"a": 1},
        {"a": "1", "b": [1.5, 2]},
        {"a": True, "b": [1.5, 2]},
        {"a": 1, "b": [1.5000000000000002, 2]},
    ):
        assert fingerprint(other) != base


def test_fingerprint_of_arrays_sees_values_dtype_and_shape():
    image = np.arange(12, dtype=np.float64).reshape(3, 4)
    base = fingerprint(image)
    assert fingerprint(np.asfortranarray(image)) == base
    assert fingerprint(image.astype(">f8")) == base
    assert fingerprint(np.pad(image, 1)[1:-1, 1:-1]) == base
    changed = image.copy()
    changed[2, 3] += 1e-9
    for other in (changed, image.reshape(4, 3), image.astype(np.float32)):
        assert fingerprint(other) != base
    assert fingerprint(np.float64(3)) == fingerprint(3)
    assert fingerprint(np.array(3.0)) != fingerprint(np.array([3.0]))


def test_fingerprint_is_the_same_in_every_process():
    # BLAKE2b-128 of the canonical text, computed with another tool (b2sum -l 128).
    import shutil
    import subprocess

    if shutil.which("b2sum") is None:
        pytest.skip("b2sum is not installed")
    text = b'{"a":[1,2.5],"b":"\\u00b5"}'
    done = subprocess.run(["b2sum", "-l", "128"], input=text, capture_output=True, check=True)
    assert fingerprint({"b": "µ", "a": (1.0, 2.5)}) == done.stdout.split()[0].decode()


def test_things_without_identity_are_refused_with_their_place():
    with pytest.raises(TypeError, match=r"settings\.solver\[1\] is a object"):
        fingerprint({"solver": [1, object()]})
    with pytest.raises(TypeError, match="keys of settings are strings"):
        fingerprint({1: 2})
    with pytest.raises(TypeError, match="array of objects"):
        fingerprint(np.array([object()]))


def test_differences_are_named():
    old = settings_dict(correction_parameters(OFOptions(), 1))
    new = OFOptions(alpha=4, interpolation_method="linear", cc_initialization=True)
    assert diff_settings(old, settings_dict(correction_parameters(new, 1))) == [
        "flow.alpha: was (1.5, 1.5), now (4.0, 4.0)",
        "interpolation: was 'cubic', now 'linear'",
        "rigid_start: was None, now {target_shape: (256, 256), upsample_factor: 1}",
    ]
    assert diff_settings({"a": 1}, {"b": 2}) == [
        "a: was 1, now not set",
        "b: was not set, now 2",
    ]
    image = np.zeros((2, 3))
    (line,) = diff_settings({"reference": image}, {"reference": image + 1})
    assert line.startswith("reference: was array float64 (2, 3) #")
    frames = list(range(50, 500))
    (line,) = diff_settings({"f": frames}, {"f": [*frames[:200], 0, *frames[201:]]})
    assert line.count("450 entries") == 2
    was, now = line.removeprefix("f: was ").split(", now ")
    assert was != now


def test_options_themselves_have_a_fingerprint():
    assert fingerprint(OFOptions()) == fingerprint(OFOptions(get_displacement_impl=len))
    assert fingerprint(OFOptions()) != fingerprint(OFOptions(bin_size=2))
