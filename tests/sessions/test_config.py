from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from scopeflow.errors import InputNotFoundError, OptionsError
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.sessions.config import SessionConfig, get_array_task_id
from scopeflow.sessions.template import session_template

SEED_EXAMPLE = """\
root = "{root}"
pattern = "*.tif"
center = "recording_03.tif" # Optional, auto-selects middle if not specified
output_root = "compensated_outputs"
final_results = "final_results"
resume = true
scheduler = "local" # or "array" for HPC
n_workers = -1 # Stage 1 workers (-1 = all CPU cores)
# Flow backend configuration
flow_backend = "flowreg" # or "flowreg_torch", "flowreg_cuda", "diso"
[backend_params]
device = "cuda:0" # For flowreg_torch backend
# Stage 2 parameters
cc_upsample = 8
sigma_smooth = 5.0
alpha_between = 20.0
iterations_between = 80
stage2_constancy_assumption = "cs" # Options: "gc", "gray", "cs"
"""


def test_the_documented_toml_example_gives_what_it_says(tmp_path):
    path = tmp_path / "session.toml"
    path.write_text(SEED_EXAMPLE.format(root=tmp_path))
    config = SessionConfig.from_toml(path)
    # TOML gives the last five lines to the table above them; they are meant for the session.
    assert (config.cc_upsample, config.sigma_smooth, config.alpha_between) == (8, 5.0, 20.0)
    assert config.iterations_between == 80
    assert config.stage2_constancy_assumption.value == "cs"
    assert config.backend_params == {"device": "cuda:0"}
    assert config.center == "recording_03.tif"


def test_documented_defaults(tmp_path):
    config = SessionConfig(root=tmp_path)
    assert config.resolve_output_paths() == (
        tmp_path / "compensated_outputs",
        tmp_path / "final_results",
    )
    expected = {
        "pattern": "*.tif", "center": None, "resume": True, "scheduler": "local",
        "n_workers": -1, "flow_backend": "flowreg", "backend_params": {}, "cc_upsample": 4,
        "sigma_smooth": 6.0, "alpha_between": 25.0, "iterations_between": 100,
        "align_chunk_size": 64, "align_output_format": "TIFF", "flow_options": None,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.stage2_constancy_assumption.value == "gc"


def test_yaml_and_unknown_suffixes(tmp_path):
    path = tmp_path / "session.yml"
    path.write_text("root: .\npattern: '*.h5'\nflow_options:\n  alpha: 4\n")
    config = SessionConfig.from_file(path)
    assert (config.root, config.pattern) == (tmp_path, "*.h5")
    assert config.stage1_options().alpha == (4.0, 4.0)
    with pytest.raises(OptionsError, match=r"Unsupported config file format: \.ini"):
        SessionConfig.from_file(tmp_path / "session.ini")
    with pytest.raises(InputNotFoundError, match="Configuration file not found"):
        SessionConfig.from_file(tmp_path / "none.toml")


def test_root_is_relative_to_the_file_and_outputs_to_root(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    path = tmp_path / "session.toml"
    path.write_text('root = "data"\noutput_root = "out"\n')
    monkeypatch.chdir("/")
    config = SessionConfig.from_file(path)
    assert config.root == tmp_path / "data"
    assert config.resolve_output_paths()[0] == tmp_path / "data" / "out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cc_upsampel = 4\n", "Did you mean 'cc_upsample'"),
        ("[backend_params]\ncc_upsampel = 4\n", "Did you mean 'cc_upsample', above that table"),
        ("cc_upsample = 2\n[backend_params]\ncc_upsample = 4\n", "given twice"),
        ("[flow_options]\ncc_upsample = 4\n", "unknown option 'cc_upsample'"),
        ("[flow_options]\nalhpa = 4\n", "Did you mean 'alpha'"),
        ("[flow_options]\noutput_path = 'x'\n", "output_path is decided by the session"),
        ("[flow_options]\noutput_format = 'MAT'\n", "use stage1_output_format"),
        ("[flow_options]\nsave_valid_idx = false\n", "without masks"),
        ("n_workers = 0\n", "n_workers is 0"),
        ("scheduler = 'slurm'\n", "scheduler"),
        ("pattern = '../*.tif'\n", "leaves root"),
        ("output_root = '.'\n", "three different folders"),
        ("alpha_between = -1\n", "alpha_between"),
        ("align_output_format = 'AVI'\n", "align_output_format"),
        ("root = [\n", "cannot be read as TOML"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, message):
    path = tmp_path / "session.toml"
    path.write_text((f'root = "{tmp_path}"\n' if not text.startswith("root") else "") + text)
    with pytest.raises(OptionsError, match=message):
        SessionConfig.from_file(path)


def test_assignment_is_checked_and_a_refused_one_changes_nothing(tmp_path):
    config = SessionConfig(root=tmp_path)
    config.n_workers = 3
    config.flow_options = {"quality_setting": "fast", "save_w": True, "buffer_size": 1000}
    assert config.stage1_options().save_w
    for name, value in (
        ("n_workers", 0), ("flow_options", {"qualty": 1}), ("root", "/none"), ("resumee", True),
    ):  # fmt: skip
        with pytest.raises((OptionsError, InputNotFoundError)):
            setattr(config, name, value)
    assert (config.n_workers, config.root) == (3, tmp_path)
    assert config.flow_options["quality_setting"] == "fast"


def test_a_file_of_flow_options_gives_no_routing(tmp_path):
    OFOptions(
        input_file="a.tif", output_path="/elsewhere", output_format="MAT", alpha=4, bin_size=2
    ).save_options(tmp_path / "options.json")
    config = SessionConfig(root=tmp_path, flow_options="options.json")
    options = config.stage1_options()
    assert (options.alpha, options.bin_size) == ((4.0, 4.0), 2)
    assert options.output_format.value == "HDF5"
    assert options.writes_valid_idx
    assert options.output_path == Path("results")
    with pytest.raises(InputNotFoundError, match="Flow options file not found"):
        SessionConfig(root=tmp_path, flow_options="none.json")
    assert SessionConfig(root=tmp_path, flow_options="  ").flow_options is None


def test_options_of_another_program_in_a_file(tmp_path):
    text = json.dumps({"quality_setting": "fast", "save_valid_idx": False, "output_format": "MAT"})
    (tmp_path / "o.json").write_text(f"Compensation options 2026-01-01\n\n{text}\n")
    config = SessionConfig(root=tmp_path, flow_options=tmp_path / "o.json")
    assert config.stage1_options().writes_valid_idx


def test_runtime_options_win_over_the_file(tmp_path):
    config = SessionConfig(root=tmp_path, flow_options={"alpha": 4, "min_level": 3})
    assert config.stage1_options({"quality_setting": "fast"}).quality_setting.value == "fast"
    assert config.stage1_options().effective_min_level == 3
    assert config.stage1_options({"alpha": 9}).alpha == (9.0, 9.0)


@pytest.mark.parametrize(("count", "middle"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (6, 2)])
def test_the_middle_recording_is_the_documented_one(tmp_path, count, middle):
    files = [tmp_path / f"{n}.tif" for n in range(count)]
    assert SessionConfig(root=tmp_path).resolve_center_file(files) == (middle, files[middle])


def test_named_centers(tmp_path):
    files = [tmp_path / "a" / "m.tif", tmp_path / "b" / "m.tif", tmp_path / "c.tif"]
    assert SessionConfig(root=tmp_path, center="c.tif").resolve_center_file(files)[0] == 2
    assert SessionConfig(root=tmp_path, center="b/m.tif").resolve_center_file(files)[0] == 1
    with pytest.raises(OptionsError, match=r"may be a/m\.tif, b/m\.tif"):
        SessionConfig(root=tmp_path, center="m.tif").resolve_center_file(files)
    with pytest.raises(OptionsError, match=r"not found among 3 recordings.* Did you mean 'c\.tif'"):
        SessionConfig(root=tmp_path, center="cc.tif").resolve_center_file(files)


def test_task_numbers_of_batch_systems(monkeypatch):
    for name in ("SLURM_ARRAY_TASK_ID", "SGE_TASK_ID", "PBS_ARRAY_INDEX"):
        monkeypatch.delenv(name, raising=False)
    assert get_array_task_id() is None
    monkeypatch.setenv("PBS_ARRAY_INDEX", "7")
    assert get_array_task_id() == 7
    monkeypatch.setenv("SGE_TASK_ID", "undefined")
    assert get_array_task_id() == 7
    monkeypatch.setenv("SGE_TASK_ID", "5")
    assert get_array_task_id() == 5
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert get_array_task_id() == 3
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3-5")
    with pytest.raises(OptionsError, match="SLURM_ARRAY_TASK_ID"):
        get_array_task_id()


def test_the_template_names_every_field_with_its_default(tmp_path):
    text = session_template(".", "*.tif", ["a.tif: 3 × 4 × 5 × 1, uint8"])
    given = tomllib.loads(text)
    fields = set(SessionConfig.model_fields)
    # center is in a comment: it has no default that TOML could write.
    assert set(given) == fields - {"center", "stage1_quality_setting"}
    assert "# center" in text
    path = tmp_path / "session.toml"
    path.write_text(text)
    config, default = SessionConfig.from_file(path), SessionConfig(root=tmp_path)
    for name in fields - {"flow_options", "stage1_quality_setting"}:
        assert getattr(config, name) == getattr(default, name), name


def test_documented_module_paths_lead_to_the_public_names():
    import scopeflow
    from scopeflow import session
    from scopeflow.session import (
        config,
        stage1_compensate,
        stage2_between_avgs,
        stage3_valid_mask,
    )

    assert config.SessionConfig is session.SessionConfig is scopeflow.SessionConfig
    assert config.get_array_task_id is scopeflow.get_array_task_id
    assert stage1_compensate.run_stage1 is scopeflow.run_stage1
    assert stage1_compensate.run_stage1_array is scopeflow.run_stage1_array
    assert stage2_between_avgs.run_stage2 is scopeflow.run_stage2
    assert stage3_valid_mask.run_stage3 is scopeflow.run_stage3
    assert callable(stage1_compensate.atomic_save_npy)
    assert callable(stage1_compensate.atomic_save_npz)
