from __future__ import annotations

import pytest

from scopeflow.cells.config import WorkflowConfig, load_config
from scopeflow.cells.ranges import parse_ranges
from scopeflow.errors import InputNotFoundError, OptionsError


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0-5, 7", (0, 1, 2, 3, 4, 5, 7)),
        ("3", (3,)),
        (" 2 - 3 ,1,2", (1, 2, 3)),
        ([7, 0, 7], (0, 7)),
    ],
)
def test_ranges(text, numbers):
    assert parse_ranges(text) == numbers


@pytest.mark.parametrize(
    "text", ["", " ", "1;2", "0-", "4-2", "-1", "1.5", "a", "1,,2", [], [-1], True]
)
def test_bad_ranges(text):
    with pytest.raises(OptionsError):
        parse_ranges(text)


def test_attribute_and_mapping_access():
    params = WorkflowConfig(params={"min_frames": 7}).params
    assert params.min_frames == params["min_frames"] == params.get("min_frames", 30) == 7
    assert params.get("nothing", 5) == 5
    assert dict(**params)["border_margin"] == 50
    with pytest.raises(KeyError):
        params["nothing"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"params": {"min_frame": 3}}, ["params.min_frame", "'min_frames'"]),
        ({"parms": {}}, ["parms", "'params'"]),
        (
            {"channels": {"pc": {"channel": 0, "feature": []}}},
            ["channels.pc.feature", "'features'"],
        ),
        ({"channels": {"fl": [{"chanel": 0}]}}, ["chanel", "'channel'"]),
        ({"params": {"min_frames": 0}}, ["params.min_frames=0", "1"]),
        ({"params": {"morph_size": 4}}, ["params.morph_size=4", "odd"]),
        ({"params": {"min_iou": 1.5}}, ["params.min_iou=1.5", "1"]),
        ({"params": {"min_object_size": 9, "max_object_size": 8}}, ["max_object_size=8", "=9"]),
        ({"params": {"background_tile_size": 15}}, ["background_tile_size=15", "16"]),
        ({"params": {"frame_interval": 0}}, ["frame_interval=0", "0"]),
        ({"params": {"fovs": "3-1"}}, ["3-1", "falls"]),
        ({"channels": {"pc": -1}}, ["channels.pc.channel=-1", "0"]),
    ],
)
def test_errors_name_key_value_and_bound(values, words):
    with pytest.raises(OptionsError) as raised:
        WorkflowConfig(**values)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(("given", "used"), [(2.0, 1.0), (-1, 0.0), ("much", 1.0), (0.25, 0.25)])
def test_weight_is_clipped(given, used):
    assert WorkflowConfig(params={"background_weight": given}).params.background_weight == used


def test_channel_forms():
    for form in (0, [0, ["area"]], {"channel": 0, "features": ["area", "", None, "area"]}):
        assert WorkflowConfig(channels={"pc": form}).channels.pc.channel == 0
    fl = WorkflowConfig(
        channels={"fl": [[3, ["b"]], {"channel": 1, "features": ["z", "a"]}, [3, ["a"]]]}
    ).channels.fl
    assert [(one.channel, one.features) for one in fl] == [(1, ("a", "z")), (3, ("a", "b"))]
    assert WorkflowConfig(channels={"pc": None, "fl": None}).channels.fl == ()


def test_yaml_round_trip(tmp_path):
    config = WorkflowConfig(
        channels={"pc": [0, []], "fl": [1]},
        params={"fovs": "0-1,4", "time_mapping": {0: 0.0, 1: 5.5}, "iou": "mask"},
    )
    file = tmp_path / "processing_config.yaml"
    file.write_text(config.to_yaml({"n_fovs": 5}))
    read = load_config(file)
    assert read.params == config.params
    assert read.channels == config.channels
    assert read.channels.pc.features == ()
    assert read.params.fovs == (0, 1, 4)


def test_bad_files(tmp_path):
    with pytest.raises(InputNotFoundError):
        load_config(tmp_path / "none.yaml")
    for text in ("- 1", "a: [", "params: {min_frames: x}", "params: 3"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(OptionsError, match=r"bad\.yaml"):
            load_config(tmp_path / "bad.yaml")
