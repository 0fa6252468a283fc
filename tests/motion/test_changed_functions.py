"""A run never takes over frames that another function of the user has made.

Every run is a script of its own, as an edited one is: in this process, as a notebook runs cells, or
in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import functools, json, sys, threading
import numpy as np
from scopeflow import OFOptions, RegistrationConfig, BatchMotionCorrector, compute_motion
from scopeflow.errors import OutputExistsError

{function}

def main():
    video = np.random.default_rng(0).normal(100, 5, (6, 24, 32, 1)).astype(np.float32)
    options = OFOptions(
        input_file=video, output_path={output!r}, quality_setting="fast", reference_frames=[0],
        {option}=function,
    )
    config = RegistrationConfig(parallelization="sequential", progress=False, resume={resume})
    try:
        if {saved}:
            motion = compute_motion(video, video[0], options)
            motion.save({output!r} + "/motion.zarr", config)
            from scopeflow import Motion
            found = Motion.open({output!r} + "/motion.zarr").displacement.to_numpy().mean()
            return dict(found=float(found))
        else:
            corrector = BatchMotionCorrector(options, config)
            corrector.run()
            return dict(
                computed=corrector.computed_frames, reused=corrector.reused_frames,
                found=corrector.mean_disp,
            )
    except OutputExistsError as error:
        return dict(refused=str(error))

result = main()
print(json.dumps(result))
"""

SHIFT = "np.full((*fixed.shape[:2], 2), {value}, np.float32)"
KINDS = {
    "an edited function": "def function(fixed, moving, **_):\n    return {shift}\n",
    "a partial": (
        "def by(fixed, moving, *, n, **_):\n"
        "    return np.full((*fixed.shape[:2], 2), n, np.float32)\n"
        "function = functools.partial(by, n={value})\n"
    ),
    "a closure": (
        "def make(n):\n    return lambda fixed, moving, **_: "
        "np.full((*fixed.shape[:2], 2), n, np.float32)\nfunction = make({value})\n"
    ),
    "an attribute": (
        "class Shift:\n    def __init__(self, n):\n        self.n = n\n"
        "    def __call__(self, fixed, moving, **_):\n"
        "        return np.full((*fixed.shape[:2], 2), self.n, np.float32)\n"
        "function = Shift({value})\n"
    ),
    "a global": (
        "N = {value}\ndef function(fixed, moving, **_):\n"
        "    return np.full((*fixed.shape[:2], 2), N, np.float32)\n"
    ),
    "a default": (
        "def function(fixed, moving, uv=None, weight=None, n={value}, **_):\n"
        "    return np.full((*fixed.shape[:2], 2), n, np.float32)\n"
    ),
}


@pytest.fixture
def run(tmp_path):
    def run(function, option="get_displacement_impl", resume=True, saved=False, apart=False):
        text = SCRIPT.format(
            function=function,
            output=str(tmp_path / "out"),
            option=option,
            resume=resume,
            saved=saved,
        )
        if not apart:
            known = {"__name__": "__main__"}
            exec(compile(text, "<cell>", "exec"), known)
            return known["result"]
        (tmp_path / "script.py").write_text(text)
        command = [sys.executable, str(tmp_path / "script.py")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def source(kind, value):
    return KINDS[kind].format(value=value, shift=SHIFT.format(value=value))


@pytest.mark.parametrize(
    ("kind", "apart"), [*((kind, False) for kind in KINDS), ("a global", True)]
)
def test_a_changed_displacement_is_refused_and_the_same_is_reused(run, kind, apart):
    first = run(source(kind, 1.0), apart=apart)
    assert first["computed"] == 6
    assert run(f"# a comment\n{source(kind, 1.0)}", apart=apart)["reused"] == 6
    refused = run(source(kind, 2.0), apart=apart)["refused"]
    assert "made with other settings" in refused
    assert "functions.get_displacement_impl" in refused
    again = run(source(kind, 2.0), resume=False)
    assert again["computed"] == 6
    assert again["found"][0] == pytest.approx(2 * first["found"][0])


@pytest.mark.parametrize("kind", ["an edited function", "a closure", "a global"])
def test_saved_motion_of_a_changed_function_is_refused(run, kind):
    assert run(source(kind, 1.0), saved=True)["found"] == pytest.approx(1.0)
    assert run(source(kind, 1.0), saved=True)["found"] == pytest.approx(1.0)
    assert "functions" in run(source(kind, 2.0), saved=True)["refused"]


def test_a_changed_preprocessor_is_refused(run):
    text = "FACTOR = {}\ndef function(frame):\n    return frame * FACTOR\n"
    assert run(text.format(1), "preproc_funct")["computed"] == 6
    assert run(text.format(1), "preproc_funct")["reused"] == 6
    refused = run(text.format(2), "preproc_funct")["refused"]
    assert "functions.preproc_funct.global FACTOR: was '1', now '2'" in refused


def test_a_changed_factory_is_refused(run):
    text = (
        "def function(**_):\n    return lambda fixed, moving, **_: "
        "np.full((*fixed.shape[:2], 2), {}, np.float32)\n"
    )
    assert run(text.format(1.0), "get_displacement_factory")["computed"] == 6
    assert run(text.format(1.0), "get_displacement_factory")["reused"] == 6
    assert "functions" in run(text.format(2.0), "get_displacement_factory")["refused"]


def test_a_changed_backend_of_the_user_is_refused(run):
    text = (
        "from scopeflow import register_backend\n"
        "register_backend('mine', lambda **_: lambda fixed, moving, **_: "
        "np.full((*fixed.shape[:2], 2), {}, np.float32))\nfunction = 'mine'\n"
    )
    assert run(text.format(1.0), "flow_backend")["computed"] == 6
    assert run(text.format(1.0), "flow_backend")["reused"] == 6
    assert "functions.flow_backend" in run(text.format(2.0), "flow_backend")["refused"]


def test_what_cannot_be_compared_is_never_continued(run):
    text = "LOCK = threading.Lock()\ndef function(frame):\n    with LOCK:\n        return frame\n"
    assert run(text, "preproc_funct")["computed"] == 6
    refused = run(text, "preproc_funct")["refused"]
    assert "cannot be identified in a later run" in refused
    assert "lock" in refused
    assert run(text, "preproc_funct", resume=False)["computed"] == 6
