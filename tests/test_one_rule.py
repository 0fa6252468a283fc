"""Every option, every entrance: the same values are refused, with the same sentence.

The tables below are compared with the fields of the models, so that a new option needs a row.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from scipy.ndimage import gaussian_filter

from scopeflow import FlowRegLive, get_displacement
from scopeflow.cells import ProcessingParams, WorkflowConfig, load_config
from scopeflow.cli.cells import _configured
from scopeflow.cli.settings import FORMATS, make_options, parse_assignments
from scopeflow.compat.pyflowreg.motion_correction import OF_options
from scopeflow.errors import OptionsError
from scopeflow.io.formats import OutputFormat
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.options.parameters import check_supported
from scopeflow.sessions.config import SessionConfig

MOTION = ("keyword", "mapping", "assignment", "live")
FILES = ("json",)
WORDS = ("set",)
SESSIONS = ("session", "toml", "yaml", "of_params")

NAN, INF = float("nan"), float("inf")
SHAPE = (12, 14, 2)


@dataclass
class Row:
    """Values that an option takes and refuses; exceptions say where else one is decided."""

    good: list[Any]
    bad: list[Any]
    elsewhere: dict[str, list[Any]] = field(default_factory=dict)
    """Good values that an entrance refuses, by the name of the entrance."""


# What no number is: text that looks like one, truth, nothing, tables.
NO_NUMBER = ["1", "one", "", True, False, None, {}, {"a": 1}, [], NAN, INF, -INF, 1j]
NO_COUNT = [0, -1, 2.5, 2.0, np.float64(3.0), [3], (3, 4), *NO_NUMBER]
COUNT = Row([1, 3, np.int64(2), np.uint8(3), np.array(2)], NO_COUNT)
FLAG = Row([True, False, np.True_], [0, 1, "yes", "true", None, [], 1.0, NAN, {}])
TEXT_BAD = ["nonsense", "", 1, True, None, [], {}, NAN]


def number(good: list[Any], bad: list[Any]) -> Row:
    return Row([*good, np.float32(0.5), np.array(0.5)], [*bad, *NO_NUMBER, [0.5], (0.5, 0.5)])


def optional(row: Row) -> Row:
    return Row([*row.good, None], [value for value in row.bad if value is not None])


def names(good: list[str]) -> Row:
    return Row(good, TEXT_BAD)


FUNCTION = Row([len, None], ["len", 3, [], True])
MIN_LEVEL = Row(
    # -1 leaves the level to the quality setting, which only option models have.
    [0, 2, np.int16(3), -1],
    [value for value in NO_COUNT if value not in (0, -1) or value is False] + [-2, -1.0],
    {"get_displacement": [-1]},
)
ALPHA = Row(
    [4, 0.5, [2], (1, 4), [1.5, 2], np.array([1.0, 2.0]), np.float32(2), np.array(3), range(1, 3)],
    [0, -1, (1, 0), [1, -2], [1, 2, 3], [1, NAN], [True, 2], ["1", "2"], [[1, 2]], *NO_NUMBER],
)
WEIGHT = Row(
    [
        [1, 3], (2, 2), 5, [1], [1, 2, 3], np.array([1.0, 2.0]), np.float32(2), None,
        np.ones(SHAPE[:2]), np.ones(SHAPE), np.ones(SHAPE[:2], bool), True,
    ],
    [
        0, -1, [], [0, 0], [1, -1], [NAN, 1], [1, INF], "1", ["1", "2"], {}, {"a": 1},
        [[1, 2], [3]], np.ones((2, 2, 2, 2)), np.zeros(SHAPE[:2]), [None, 1], 1j,
    ],
)  # fmt: skip
SIGMA = Row(
    [[1, 1, 0.1], (1, 2, 3), [[1, 1, 0.1], [2, 2, 0.5]], np.ones((3, 3)), [0, 0, 0]],
    [
        1, [1, 1], [[1, 1], [1, 1]], [1, -1, 0], [1, NAN, 1], [1, INF, 1], "1", ["1", "1", "1"],
        None, {}, [], True, [True, True, True], np.ones((1, 1, 3)), [[1, 1, 1], [1]],
    ],
)  # fmt: skip
GNC = Row(
    [None, [0, 1], (0, 0.5, 1.0), np.array([0.0, 1.0])],
    [
        1, [0], [[0, 1]], [0, 2], [0, NAN, 1], [0, 0.7, 0.5, 1], [0.2, 1], [0, 0.8], "01",
        ["0", "1"], True, [False, True], {}, [],
    ],
)  # fmt: skip
REFERENCE = Row(
    [[3, 4], (3, 4), range(3, 5), np.array([3, 4]), np.zeros((4, 5)), "mean.png", [[1, 2], [3, 4]]],
    [5, [], [0.5], [True, False], b"ab", None, NAN, {}, True, [[[[1]]]], np.array([0.5])],
)
CHANNELS = Row(
    [None, 0, 1, [0, 1], np.int64(1), np.array([1, 0])],
    [-1, [0, 0], "0", [], 0.5, True, [0.5], [-1], NAN, {}],
)
CC_HW = Row(
    [64, np.int32(64), [32, 64], (32, 64), np.array([32, 64])],
    [0, -1, 2.5, [1, 2, 3], [0, 4], [2.5, 3], "64", True, None, NAN, {}, [], np.array(2.5)],
)
PLACE = Row(["out", Path("out")], [3, None, True, [], NAN, {}])

OPTIONS: dict[str, Row] = {
    "input_file": Row(["movie.tif", None], []),
    "output_path": PLACE,
    "output_format": names(["ZARR", "hdf5", "Suite2p_Tiff", "BEGONIA"]),
    "output_file_name": optional(PLACE),
    "channel_idx": CHANNELS,
    "alpha": ALPHA,
    "weight": WEIGHT,
    "levels": COUNT,
    "min_level": MIN_LEVEL,
    "quality_setting": names(["quality", "BALANCED", "fast", "custom"]),
    "eta": number([0.8, 1], [0, -0.5, 1.01]),
    "update_lag": COUNT,
    "iterations": COUNT,
    "a_smooth": number([0, 0.5, 1, 1.25], [-0.1, 1.5, 2]),
    "a_data": Row(
        [0.45, 1, [0.4, 0.5], (0.4, 0.5), [0.5], np.array([0.3, 0.4]), np.float32(0.5)],
        [0, -1, 1.5, [0.4, 1.5], [0.4, NAN], ["0.4", "0.5"], [True, 0.5], *NO_NUMBER],
    ),
    "gnc_schedule": GNC,
    "warping_steps": optional(COUNT),
    "sigma": SIGMA,
    "bin_size": COUNT,
    "buffer_size": COUNT,
    "reference_frames": REFERENCE,
    "update_reference": FLAG,
    "n_references": Row([1, np.int64(1)], [2, *NO_COUNT]),
    "min_frames_per_reference": Row([20, np.int64(20)], [1, 19, *NO_COUNT]),
    "verbose": FLAG,
    "save_meta_info": FLAG,
    "save_w": FLAG,
    "save_motion": Row(FLAG.good, FLAG.bad, {way: [False] for way in SESSIONS}),
    "save_valid_mask": FLAG,
    "save_valid_idx": Row(FLAG.good, FLAG.bad, {way: [False] for way in SESSIONS}),
    "output_typename": Row(
        ["single", "double", "uint16", None], ["singel", "", 1, True, [], {}, NAN]
    ),
    "channel_normalization": names(["joint", "Separate"]),
    "interpolation_method": names(["nearest", "LINEAR", "cubic"]),
    "cc_initialization": FLAG,
    "cc_hw": CC_HW,
    "cc_up": COUNT,
    "update_initialization_w": FLAG,
    "naming_convention": names(["default", "BATCH"]),
    "constancy_assumption": Row(["gc", "Gradient", "BRIGHTNESS", "gray", " census "], TEXT_BAD),
    "flow_backend": Row(["flowreg", "other"], ["", 1, True, None, [], {}]),
    "backend_params": Row([{}, {"device": "cpu"}], [1, "x", None, True, []]),
    "temporal_boundary": names(["halo", "batch"]),
    "non_finite": names(["error", "mask"]),
    "preproc_funct": FUNCTION,
    "get_displacement_impl": FUNCTION,
    "get_displacement_factory": FUNCTION,
}

SESSION: dict[str, Row] = {
    "root": Row([], [3, None, True, [], {}]),
    "pattern": Row(["*.tif", "*/m.h5"], ["", "../*.tif", "/a/*.tif", 1, None, True, [], {}]),
    "center": Row([None, "auto", "a.tif"], [1, True, [], {}]),
    "output_root": Row(["out"], ["final_results", ".", 3, None, True, [], {}]),
    "final_results": Row(["out"], ["compensated_outputs", ".", 3, None, True, [], {}]),
    "resume": FLAG,
    "scheduler": names(["local", "array", "dask"]),
    "missing": names(["error", "mask", "fill", "black"]),
    "n_workers": Row([-1, 2, np.int64(2)], [0, -2, 2.0, "2", True, None, NAN, [], {}]),
    "flow_backend": OPTIONS["flow_backend"],
    "backend_params": OPTIONS["backend_params"],
    "flow_options": Row([{}, {"alpha": 4}, "", None], [3, True, {"alhpa": 4}, {"alpha": 0}]),
    "stage1_quality_setting": optional(OPTIONS["quality_setting"]),
    "cc_upsample": COUNT,
    "sigma_smooth": number([0, 6.0], [-1]),
    # One number: averages are matched with the same smoothness along both axes.
    "alpha_between": Row([25, 0.5, np.float32(2)], [0, -1, [1, 2], (1, 2), *NO_NUMBER]),
    "iterations_between": OPTIONS["iterations"],
    "stage2_constancy_assumption": OPTIONS["constancy_assumption"],
    "align_chunk_size": COUNT,
    "align_output_format": names(["TIFF", "hdf5", "MAT"]),
    # false stands for None, for which TOML has no word.
    "sigma_refine": Row(
        [0, 1.5, None, False, np.float32(0.5)],
        [-1, [1, 2], *(value for value in NO_NUMBER if value is not None and value is not False)],
    ),
    "exclude": Row([[], ["a.tif"]], [3, "a.tif", [3], None, True, {}]),
    "stage1_output_format": names(["HDF5", "zarr"]),
    "align_method": names(["one_step", "two_step"]),
    "mismatch": names(["report", "exclude"]),
    "min_similarity": number([-1, 0.4, 1], [-1.5, 2]),
    "max_loop_error": number([2.0], [0, -1]),
}
SAME_AS = {
    "alpha_between": "alpha",
    "iterations_between": "iterations",
    "stage2_constancy_assumption": "constancy_assumption",
    "stage1_quality_setting": "quality_setting",
}
"""Fields of a session that are options of the flow under another name."""

AMOUNT = Row([0, 3, np.int64(2)], [-1, *(value for value in NO_COUNT[2:])])
CELLS: dict[str, Row] = {
    "fovs": Row(["all", "0-5, 7", 3, [0, 1], None, ""], ["4-2", "1;2", [-1], [], True, 0.5, [0.5]]),
    "batch_size": COUNT,
    "n_workers": COUNT,
    "copy_only": FLAG,
    "convert": names(["exact", "clip", "scale"]),
    "z": Row([0, 2, "max", None, np.int64(1)], [-1, "mean", 0.5, True, [], {}, NAN]),
    "segmentation_method": Row(["logstd", "own"], [1, None, True, [], {}]),
    "tracking_method": Row(["iou", "own"], [1, None, True, [], {}]),
    "segmentation_options": Row([{}, {"a": 1}], [1, "x", None, True, []]),
    "tracking_options": Row([{}, {"a": 1}], [1, "x", None, True, []]),
    "drift_correction": names(["none", "rigid", "flow"]),
    "logstd_window_size": Row([3, 5, np.int64(7)], [1, 2, 4, *NO_COUNT]),
    "threshold_method": names(["valley", "mode_3sigma", "otsu"]),
    "morph_size": Row([1, 7, np.int64(3)], [2, 4, *NO_COUNT]),
    "morph_shape": names(["disk", "square"]),
    "morph_iterations": AMOUNT,
    "min_object_size": COUNT,
    "max_object_size": Row([50, np.int64(60)], [49, *NO_COUNT]),
    "threshold_offset": number([0, -0.5, 2], []),
    "object_erosion": AMOUNT,
    "split": names(["none", "distance", "bright", "dark"]),
    "split_smoothing": number([0, 1.5, 100], [-1, 101]),
    "split_depth": optional(number([0.5], [0, -1])),
    "min_iou": number([0, 0.1, 1], [-0.1, 1.5]),
    "iou": names(["bbox", "mask"]),
    "min_frames": COUNT,
    "border_margin": AMOUNT,
    # PyAmA clips what is outside 0..1 and takes 1 for what is no number, with a warning.
    "background_weight": Row([0, 0.5, 2, -1, "much", None, NAN], []),
    "background_tile_size": Row([16, 100, np.int64(20)], [15, *NO_COUNT]),
    "background_dilation": AMOUNT,
    "frame_interval": number([10], [0, -1]),
    "time_mapping": Row(
        [None, {0: 0.0, 1: 5.5}], [3, "x", True, [], {}, {0: "x"}, {-1: 0.0}, {0: NAN}]
    ),
    "crop_min_frames": COUNT,
    "crop_padding": AMOUNT,
    "crop_context": FLAG,
    "corrected_crops": FLAG,
    "mask_margin": Row([0, -100, 100, np.int64(5)], [-101, 101, *NO_COUNT[2:]]),
    "features": Row(
        [{}, {"phase": ["area"]}, {"fluorescence": []}], [1, "x", None, True, [], {"phase": 3}]
    ),
}
FLOW_ARGUMENTS = {"constancy_assumption": "const_assumption"}
ROUTING = {"input_file", "output_path", "output_format", "output_file_name", "naming_convention"}
PLACES = {"input_file", "output_path", "output_file_name"}


class NotWritable(Exception):
    """A file or a word on the command line cannot hold the value."""


def plain(value: Any) -> Any:
    """The value as a file can hold it: no numpy, no tuples, no functions."""
    if isinstance(value, (tuple, list)):
        return [plain(entry) for entry in value]
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise NotWritable


def in_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {in_toml(one)}' for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(in_toml, value)) + "]"
    if value is None:
        raise NotWritable
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


def as_word(name: str, value: Any) -> str:
    text = yaml.safe_dump(plain(value), default_flow_style=True, width=10**6)
    return f"{name}={text.removesuffix('...' + chr(10)).strip()}"


class Entrances:
    """The ways to give one option; each returns the value that is used, or raises."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.session_file = folder / "session"
        frames = np.random.default_rng(0).random((2, *SHAPE))
        self.fixed, self.moving = frames

    # The options of a motion correction.

    def keyword(self, name, value):
        return getattr(OFOptions(**{name: value}), name)

    def mapping(self, name, value):
        return getattr(OFOptions.model_validate({name: value}), name)

    def assignment(self, name, value):
        options = OFOptions()
        setattr(options, name, value)
        return getattr(options, name)

    def live(self, name, value):
        return getattr(FlowRegLive(**{name: value}).options, name)

    def json(self, name, value):
        path = self.folder / "options.json"
        text = json.dumps({"temporal_boundary": "halo", name: plain(value)})
        path.write_text(f"Compensation options 2026-01-01\n\n{text}\n")
        return getattr(OFOptions.load_options(path), name)

    def set(self, name, value):
        word = as_word(name, value)
        options = make_options("in.tif", "out", options_file=None, flags={}, assignments=[word])
        return getattr(options, name)

    def of_params(self, name, value):
        override = parse_assignments([as_word(name, value)], "--of-params")
        return getattr(SessionConfig(root=self.folder).stage1_options(override), name)

    def session(self, name, value):
        config = SessionConfig(root=self.folder, flow_options={name: value})
        return getattr(config.stage1_options(), name)

    def toml(self, name, value):
        path = self.session_file.with_suffix(".toml")
        path.write_text(f'root = "."\n[flow_options]\n{name} = {in_toml(plain(value))}\n')
        return getattr(SessionConfig.from_toml(path).stage1_options(), name)

    def yaml(self, name, value):
        path = self.session_file.with_suffix(".yaml")
        path.write_text(yaml.safe_dump({"root": ".", "flow_options": {name: plain(value)}}))
        return getattr(SessionConfig.from_yaml(path).stage1_options(), name)

    def get_displacement(self, name, value):
        argument = FLOW_ARGUMENTS.get(name, name)
        # A solver's result is no option: it is only looked at.
        found = get_displacement(self.fixed, self.moving, **{"iterations": 5, argument: value})
        assert np.isfinite(found).all()

    # The fields of a session.

    def field(self, name, value):
        return getattr(SessionConfig(**{"root": self.folder, name: value}), name)

    def field_assignment(self, name, value):
        config = SessionConfig(root=self.folder)
        setattr(config, name, value)
        return getattr(config, name)

    def field_toml(self, name, value):
        path = self.session_file.with_suffix(".toml")
        root = "" if name == "root" else 'root = "."\n'
        path.write_text(f"{root}{name} = {in_toml(plain(value))}\n")
        return getattr(SessionConfig.from_file(path), name)

    def field_yaml(self, name, value):
        path = self.session_file.with_suffix(".yaml")
        path.write_text(yaml.safe_dump({"root": ".", name: plain(value)}))
        return getattr(SessionConfig.from_file(path), name)

    # The parameters of a cell workflow.

    def params(self, name, value):
        return ProcessingParams(**{name: value})[name]

    def params_assignment(self, name, value):
        params = ProcessingParams()
        setattr(params, name, value)
        return params[name]

    def config(self, name, value):
        return WorkflowConfig(params={name: value}).params[name]

    def config_file(self, name, value):
        path = self.folder / "processing_config.yaml"
        path.write_text(yaml.safe_dump({"params": {name: plain(value)}}))
        try:
            return load_config(path).params[name]
        finally:
            path.unlink()

    def config_set(self, name, value):
        words = [as_word(name, value)]
        return _configured(None, self.folder, None, None, words).params[name]


def entrances(name: str) -> tuple[str, ...]:
    """The ways to give an option of `OFOptions`."""
    if name in OFOptions.callables:
        return MOTION
    found = (*MOTION, *FILES)
    if name not in PLACES:
        found += WORDS
    if name not in ROUTING:
        found += SESSIONS
    if FLOW_ARGUMENTS.get(name, name) in inspect.signature(get_displacement).parameters:
        found += ("get_displacement",)
    return found


def outcome(way: Any, name: str, value: Any) -> tuple[str, Any]:
    """("taken", value), ("refused", sentence), ("impossible", why) or ("broken", error)."""
    try:
        return "taken", way(name, value)
    except NotWritable as error:
        return "impossible", error
    except (OptionsError, typer.BadParameter) as error:
        text = str(error)
    except Exception as error:
        return "broken", repr(error)
    shown = FLOW_ARGUMENTS.get(name, name) if way.__name__ == "get_displacement" else name
    match = re.search(rf"\b{shown}(?:\.\w+)*(?:=[^:]*)?: (.+)", text)
    # What concerns several options stands behind the file and the model alone.
    models = "SessionConfig|ProcessingParams|WorkflowConfig|params"
    sentence = match[1] if match else re.sub(rf"^(?:/\S+: )?(?:(?:{models}): )*", "", text)
    return "refused", sentence.replace(shown, SAME_AS.get(name, name))


def same(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return np.array_equal(first, second)
    return type(first) is type(second) and first == second


def walk(ways: list[Any], name: str, row: Row) -> list[str]:
    """What differs between entrances, or from the table."""
    faults = []
    for value in row.good:
        first = None
        for way in ways:
            kind, found = outcome(way, name, value)
            refused_here = any(value is one for one in row.elsewhere.get(way.__name__, ()))
            if kind == "impossible":
                continue
            if refused_here:
                if kind != "refused":
                    faults.append(f"{way.__name__}: {value!r} is {kind}, {found}")
            elif kind != "taken":
                faults.append(f"{way.__name__}: {value!r} is {kind}: {found}")
            elif way.__name__ != "get_displacement" and first is None:
                first = [found]
            elif way.__name__ not in ("get_displacement", "json") and not same(first[0], found):
                faults.append(f"{way.__name__}: {value!r} becomes {found!r}, not {first[0]!r}")
    for value in row.bad:
        sentences: dict[str, list[str]] = {}
        for way in ways:
            kind, found = outcome(way, name, value)
            if kind == "impossible":
                continue
            if kind != "refused":
                faults.append(f"{way.__name__}: {value!r} is {kind}: {found!r}")
                continue
            sentences.setdefault(found, []).append(way.__name__)
        if len(sentences) > 1:
            faults.append(f"{value!r} is refused with several sentences: {sentences}")
    return faults


@pytest.fixture
def ways(tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    return Entrances(tmp_path)


@pytest.mark.parametrize(
    ("model", "table"),
    [(OFOptions, OPTIONS), (SessionConfig, SESSION), (ProcessingParams, CELLS)],
    ids=["motion", "session", "cells"],
)
def test_every_option_has_a_row(model, table):
    assert set(table) == set(model.model_fields)
    assert set(OF_options.OFOptions.model_fields) == set(OFOptions.model_fields)


def test_every_argument_of_get_displacement_is_an_option():
    arguments = set(inspect.signature(get_displacement).parameters) - {"fixed", "moving", "uv"}
    names_here = {FLOW_ARGUMENTS.get(name, name) for name in OPTIONS}
    assert arguments <= names_here
    assert {FLOW_ARGUMENTS.get(name, name) for name in OFOptions().to_dict()} == arguments


def test_formats_of_the_command_line_are_those_that_a_run_writes():
    written = set()
    for name in OutputFormat:
        try:
            check_supported(OFOptions(output_format=name))
        except OptionsError:
            continue
        written.add(name.lower())
    assert set(FORMATS) == written - {"array"}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_of_motion_has_one_rule(ways, name):
    chosen = [getattr(ways, way) for way in entrances(name)]
    assert walk(chosen, name, OPTIONS[name]) == []


@pytest.mark.parametrize("name", SESSION)
def test_a_field_of_a_session_has_one_rule(ways, name):
    chosen = [ways.field, ways.field_assignment, ways.field_toml, ways.field_yaml]
    assert walk(chosen, name, SESSION[name]) == []


@pytest.mark.parametrize("a_smooth", [0, 1e-6])
def test_brightness_without_smoothness_is_refused_everywhere(ways, a_smooth):
    """Its flow would run to 1e12 px: brightness leaves the motion along edges open."""
    sentence = "a_smooth must be at least 0.01 with the constancy assumption gray"
    options = OFOptions(constancy_assumption="gray")
    with pytest.raises(OptionsError, match=sentence):
        options.a_smooth = a_smooth
    assert options.a_smooth == 1
    gray = {"a_smooth": a_smooth, "constancy_assumption": "gray"}
    with pytest.raises(OptionsError, match=sentence):
        OFOptions(**gray)
    with pytest.raises(OptionsError, match=sentence):
        SessionConfig(root=ways.folder, flow_options=gray)
    words = [as_word(name, value) for name, value in gray.items()]
    with pytest.raises(typer.BadParameter, match=sentence):
        make_options("in.tif", "out", options_file=None, flags={}, assignments=words)
    with pytest.raises(OptionsError, match=sentence):
        get_displacement(ways.fixed, ways.moving, a_smooth=a_smooth, const_assumption="gray")


@pytest.mark.parametrize("term", ["gc", "gray", "cs"])
@pytest.mark.parametrize("a_smooth", [0, 0.01, 0.3, 1.25])
def test_every_smoothness_that_is_taken_keeps_the_flow_bounded(term, a_smooth):
    if term == "gray" and a_smooth == 0:
        a_smooth = 0.02
    rng = np.random.default_rng(0)
    image = gaussian_filter(rng.random((60, 70)), 2)
    image = (image - image.min()) / np.ptp(image)
    step = np.zeros((48, 52))
    step[18:28, 18:28] = 1
    for fixed, moving in (
        (image[5:55, 5:65], image[5:55, 3:63]), (step, np.roll(step, 2, 1)),
    ):  # fmt: skip
        found = get_displacement(fixed, moving, a_smooth=a_smooth, const_assumption=term)
        assert np.abs(found).max() < 20


@pytest.mark.parametrize("name", SAME_AS)
def test_a_field_of_a_session_follows_the_option_of_the_flow(ways, name):
    option = SAME_AS[name]
    for value in SESSION[name].bad:
        kind, sentence = outcome(ways.field, name, value)
        assert kind == "refused"
        expected = outcome(ways.keyword, option, value)
        if not (name == "alpha_between" and isinstance(value, (list, tuple))):
            assert expected == (kind, sentence), value
    for value in SESSION[name].good:
        if value is not None:
            assert outcome(ways.keyword, option, value)[0] == "taken", value


@pytest.mark.parametrize("name", CELLS)
def test_a_parameter_of_cells_has_one_rule(ways, name):
    chosen = [
        ways.params, ways.config, ways.params_assignment, ways.config_file, ways.config_set,
    ]  # fmt: skip
    assert walk(chosen, name, CELLS[name]) == []
