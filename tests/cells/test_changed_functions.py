"""Functions of users that changed: never reused by a later run, in a process of its own.

Real scripts in real processes, as people run them: the first run, the same again, the same with
other comments, and one in which everything is changed that can change under the same name.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
import tifffile

from scopeflow.cells import claim as cells_claim
from scopeflow.cells import plan as cells_plan
from scopeflow.cells import register_segmentation, run_workflow
from scopeflow.cells.methods import registered
from scopeflow.cells.methods.features import PHASE_FEATURES
from scopeflow.errors import OutputExistsError

SOURCES = Path(__file__).resolve().parents[2] / "src"
FIRST_STEP = {
    "segmentation": "segmentation",
    "preprocessor": "segmentation",
    "tracking": "tracking",
    "feature": "extraction",
}
# What is looked at is the same for all kinds; each change is tried with some of them.
KINDS = {
    "edited": [*FIRST_STEP],
    "lambda": ["preprocessor", "feature"],
    "partial": ["tracking", "feature"],
    "closure": ["segmentation", "tracking"],
    "attribute": ["preprocessor", "tracking"],
    "global": ["segmentation", "feature"],
    "helper": ["segmentation", "preprocessor"],
    "class": ["tracking", "feature"],
    "default": ["segmentation", "preprocessor"],
    "locked": [*FIRST_STEP],
}

HELPERS = """
COMMENT
def amount():
    COMMENT
    return AMOUNT
"""

SCRIPT = '''
import functools, json, sys, threading
import numpy as np
import helpers
from scopeflow.cells import register_preprocessor, register_segmentation, register_tracking
from scopeflow.cells import run_workflow
from scopeflow.cells.methods import registered
from scopeflow.cells.methods.features import PHASE_FEATURES

LEVEL = AMOUNT


def work(kind, given, amount):
    if kind == "segmentation":
        return (given > 1000).astype(int)
    if kind == "tracking":
        return np.where(given > 0, amount, 0)
    return float(amount) if kind == "feature" else given + amount


def scaled(amount, kind, given):
    return work(kind, given, amount)


def edited(kind):
    def method(given):
        """Documentation: COMMENT."""
        COMMENT
        return work(kind, given, AMOUNT)
    return method


def closure(kind):
    amount = AMOUNT
    return lambda given: work(kind, given, amount)


class Holder:
    def __init__(self, kind, amount):
        self.kind, self.amount = kind, amount

    def __call__(self, given):
        return work(self.kind, given, self.amount)


class OfClass:
    amount = AMOUNT

    def __init__(self, kind):
        self.kind = kind

    def __call__(self, given):
        return work(self.kind, given, self.amount)


class Locked(Holder):
    def __init__(self, kind, amount):
        super().__init__(kind, amount)
        self.lock = threading.Lock()


def with_default(kind):
    def method(given, *more, amount=AMOUNT):
        return work(kind, given, amount)
    return method


MAKERS = {
    "edited": edited,
    "lambda": lambda kind: lambda given: work(kind, given, AMOUNT),
    "partial": lambda kind: functools.partial(scaled, AMOUNT, kind),
    "closure": closure,
    "attribute": lambda kind: Holder(kind, AMOUNT),
    "global": lambda kind: lambda given: work(kind, given, LEVEL),
    "helper": lambda kind: lambda given: work(kind, given, helpers.amount()),
    "class": OfClass,
    "default": with_default,
    "locked": lambda kind: Locked(kind, AMOUNT),
}


class Before:
    def __init__(self, process):
        self.process = process


def run(name, kind, method, output):
    params = {"segmentation_method": "plain", "min_frames": 1, "border_margin": 0, "n_workers": 1}
    features = ["area"]
    if kind == "segmentation":
        register_segmentation(name, method)
        params["segmentation_method"] = name
    elif kind == "tracking":
        register_tracking(name, method)
        params["tracking_method"] = name
    elif kind == "feature":
        PHASE_FEATURES[name] = method
        features = [name]
    else:
        register_preprocessor(Before(method))
    movie = np.zeros((2, 32, 40, 1), "uint16")
    movie[:, 8:16, 8:16] = 3000
    messages = {}
    done = run_workflow(
        movie, f"{output}/{name}-{kind}", {"channels": {"pc": [0, features]}, "params": params},
        progress=lambda event: messages.setdefault(event["step"], []).append(event["message"]),
    )
    assert done, (name, kind)
    registered._PREPROCESSORS.clear()
    return messages


if __name__ == "__main__":
    register_segmentation("plain", lambda frame: (frame > 1000).astype(int))
    found = {
        f"{name}-{kind}": run(name, kind, MAKERS[name](kind), sys.argv[1])
        for name, kinds in json.loads(sys.argv[2]).items() for kind in kinds
    }
    print(json.dumps(found))
'''


def run_script(folder: Path, amount: int, comment: str) -> tuple[dict, str]:
    for name, text in (("helpers.py", HELPERS), ("script.py", SCRIPT)):
        filled = text.replace("AMOUNT", str(amount))
        filled = filled.replace("Documentation: COMMENT", f"Documentation: {comment}")
        (folder / name).write_text(filled.replace("COMMENT", f"# {comment}"))
    done = subprocess.run(
        [sys.executable, "script.py", str(folder / "out"), json.dumps(KINDS)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCES), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, tuple[dict, str]]:
    folder = tmp_path_factory.mktemp("scripts")
    return {
        "first": run_script(folder, 1, "once"),
        "again": run_script(folder, 1, "once"),
        "comments": run_script(folder, 1, "twice,\n    # on more lines"),
        "changed": run_script(folder, 2, "once"),
    }


@pytest.mark.parametrize(
    ("change", "kind"),
    [(change, kind) for change in KINDS if change != "locked" for kind in KINDS[change]],
)
def test_changed_functions_are_never_reused_and_others_always(runs, change, kind):
    step, name = FIRST_STEP[kind], f"{change}-{kind}"
    assert set(runs["first"][0][name][step]) == {""}
    for same in ("again", "comments"):
        assert {m for ms in runs[same][0][name].values() for m in ms} == {"reused"}, same
    changed = runs["changed"][0][name]
    assert set(changed["copy"]) == {"reused"}
    assert set(changed[step]) == {""}


@pytest.mark.parametrize("kind", FIRST_STEP)
def test_what_cannot_be_identified_is_never_reused(runs, kind):
    step, name = FIRST_STEP[kind], f"locked-{kind}"
    for each in runs:
        assert set(runs[each][0][name][step]) == {""}
    assert set(runs["again"][0][name]["copy"]) == {"reused"}


def test_reasons_are_told(runs):
    again, changed = runs["again"][1], runs["changed"][1]
    # The one that holds a lock, once in each of its four runs; nothing else was made again.
    assert again.count("A later run cannot keep all results") == 4
    assert again.count("made again, as") == again.count("cannot be identified") - 4 == 4
    assert "methods.tracking.locked" in again
    assert "lock" in again
    for place in (
        "methods.segmentation.closure.closure amount: was '1', now '2'",
        "methods.features.partial.argument 0: was '1', now '2'",
        "methods.tracking.attribute.attribute amount: was '1', now '2'",
        "methods.segmentation.global.global LEVEL: was '1', now '2'",
        "methods.preprocessors.0.attribute process",
    ):
        assert place in changed, place


@pytest.fixture
def named():
    """Registers a segmentation under one name, in the place of the one before."""

    def again(method):
        registered._SEGMENTATION.registered.pop("named", None)
        register_segmentation("named", method)

    yield again
    registered._SEGMENTATION.registered.pop("named", None)


MOVIE = np.zeros((2, 32, 40, 1), np.uint16)
MOVIE[:, 8:16, 8:16] = 3000


def config(method="named", **params):
    chosen = {"min_frames": 1, "border_margin": 0, "n_workers": 1, "segmentation_method": method}
    return {"channels": {"pc": [0, ["area"]]}, "params": {**chosen, **params}}


def above(least, frame):
    return (frame > least).astype(int)


def test_an_older_version_is_the_reason(named, tmp_path, caplog, monkeypatch):
    named(partial(above, 1000))
    assert run_workflow(MOVIE, tmp_path, config())
    for module in (cells_plan, cells_claim):
        monkeypatch.setattr(module, "CELLS_VERSION", 1)
    assert run_workflow(MOVIE, tmp_path, config())
    assert "made again, as settings changed (program.cells: was 2, now 1): recording" in caplog.text


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"crop_padding": 2}, "params.crop_padding: was 0, now 2"),
        ({}, "another version of the program, or another method of the same name"),
    ],
)
def test_results_from_before_settings_were_kept(named, tmp_path, caplog, params, reason):
    named(partial(above, 1000))
    assert run_workflow(MOVIE, tmp_path, config())
    file = tmp_path / ".scopeflow" / "settings.json"
    facts = json.loads(file.read_text())
    del facts["settings"]
    file.write_text(json.dumps(facts))
    messages = []
    assert run_workflow(MOVIE, tmp_path, config(), progress=lambda e: messages.append(e["message"]))
    assert set(messages) == {"reused"}
    assert not caplog.records
    file.write_text(json.dumps(facts))
    if not params:
        named(partial(above, 2000))
    assert run_workflow(MOVIE, tmp_path, config(**params))
    assert f"made again, as settings changed ({reason})" in caplog.text


def test_one_plan_knows_a_function_as_one(named, tmp_path):
    """Without an identity it is another one whenever it is looked at, so that is done once."""

    class Locked:
        def __init__(self):
            self.lock = Lock()

        def __call__(self, *given):
            return above(1000, given[0])

    named(Locked())
    PHASE_FEATURES["locked"] = lambda context, lock=Lock(): 1.0  # noqa: B008
    try:
        chosen = config()
        chosen["channels"]["pc"] = [0, ["locked"]]
        plan = cells_plan.plan_workflow(MOVIE, tmp_path, chosen)
        assert plan.fovs[0].made == plan.fovs[0].made
        cells_claim.take_output(plan)
        # The same plan may continue what it began.
        cells_claim.take_output(plan)
        other = cells_plan.plan_workflow(MOVIE, tmp_path, chosen)
        assert other.fovs[0].made["measure"] != plan.fovs[0].made["measure"]
    finally:
        del PHASE_FEATURES["locked"]


def test_fovs_that_are_left_alone_refuse_another_function(named, tmp_path):
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for _ in range(2):
            writer.write(MOVIE[..., 0], metadata={"axes": "TYX"})
    named(partial(above, 1000))
    assert run_workflow(path, tmp_path / "out", config())
    named(partial(above, 2000))
    with pytest.raises(OutputExistsError) as raised:
        run_workflow(path, tmp_path / "out", config(fovs=[0]))
    assert "methods.segmentation.named.argument 0: was '1000', now '2000'" in str(raised.value)
    assert "leaves FOV 1 alone" in str(raised.value)


def test_scaled_fovs_that_are_left_alone_are_kept(tmp_path, caplog):
    """Factors of ``convert=scale`` are part of what results depend on, for all FOVs."""
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for _ in range(2):
            writer.write(MOVIE[..., 0].astype(np.float32), metadata={"axes": "TYX"})
    chosen = config("logstd", convert="scale")
    assert run_workflow(path, tmp_path / "out", chosen)
    with caplog.at_level(logging.WARNING):
        assert run_workflow(path, tmp_path / "out", config("logstd", convert="scale", fovs=[0]))
    assert "made again" not in caplog.text
