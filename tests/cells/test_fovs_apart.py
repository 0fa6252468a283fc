"""Fields of view that follow their steps beside each other, and do not wait for one another."""

from __future__ import annotations

import threading
from threading import Event

import numpy as np
import pytest
import tifffile

from scopeflow.cells import register_segmentation, run_workflow
from scopeflow.cells.methods import registered


@pytest.fixture
def plate(tmp_path):
    """Four FOVs; their first pixel is their number."""
    path = tmp_path / "plate.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for fov in range(4):
            movie = np.zeros((3, 32, 40), np.uint16)
            movie[:, 8:16, 8:16] = 3000
            movie[:, 0, 0] = fov
            writer.write(movie, metadata={"axes": "TYX"})
    return path


@pytest.fixture
def segmentation():
    def register(method):
        register_segmentation("of this test", method)

    yield register
    del registered._SEGMENTATION.registered["of this test"]


def config(**params):
    chosen = {"segmentation_method": "of this test", "min_frames": 1, "border_margin": 0}
    return {"channels": {"pc": [0, ["area"]]}, "params": {**chosen, **params}}


def test_a_slow_fov_holds_no_other_back(plate, tmp_path, segmentation):
    others_done, finished, waited = Event(), set(), []

    def slow_in_the_first(frame):
        if frame[0, 0] == 0:
            waited.append(others_done.wait(120))
        return (frame > 1000).astype(int)

    def note(event):
        if event["step"] == "caching" and event["t"] == event["T"] > 0:
            finished.add(event["fov"])
            if {1, 2, 3} <= finished:
                others_done.set()

    segmentation(slow_in_the_first)
    # One of two places is taken by the slow one, the others go through the second.
    assert run_workflow(plate, tmp_path / "out", config(n_workers=2, batch_size=2), progress=note)
    assert waited == [True] * 3
    assert finished == {0, 1, 2, 3}


def test_no_more_fovs_than_batch_size_are_in_work(plate, tmp_path, segmentation):
    segmentation(lambda frame: (frame > 1000).astype(int))
    begun, done, most = set(), set(), 0
    active = threading.Lock()

    def note(event):
        nonlocal most
        # Never called by two threads at once.
        assert active.acquire(blocking=False)
        begun.add(event["fov"])
        most = max(most, len(begun - done))
        if event["step"] == "extraction" and event["t"] == event["T"]:
            done.add(event["fov"])  # all but its pictures
        active.release()

    settings = config(n_workers=4, batch_size=2)
    assert run_workflow(plate, tmp_path / "out", settings, progress=note)
    assert done == {0, 1, 2, 3}
    assert most <= 2


@pytest.mark.parametrize("n_workers", [1, 3])
def test_errors_of_the_callback_end_the_run(plate, tmp_path, segmentation, n_workers):
    segmentation(lambda frame: (frame > 1000).astype(int))

    def broken(event):
        if event["step"] == "segmentation":
            raise ZeroDivisionError("of the caller")

    settings = config(n_workers=n_workers, batch_size=3)
    with pytest.raises(ZeroDivisionError, match="of the caller"):
        run_workflow(plate, tmp_path / "out", settings, progress=broken)
    assert run_workflow(plate, tmp_path / "out", settings)


def test_cancelled_between_fovs(plate, tmp_path, segmentation):
    segmentation(lambda frame: (frame > 1000).astype(int))
    event, seen = Event(), set()

    def stop(report):
        seen.add(report["fov"])
        event.set()

    settings = config(n_workers=2, batch_size=1)
    assert not run_workflow(plate, tmp_path / "out", settings, progress=stop, cancel_event=event)
    assert seen == {0}
    assert run_workflow(plate, tmp_path / "out", settings)
