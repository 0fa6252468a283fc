"""Public helpers for tests, demonstrations and benchmarks: recordings whose motion is known."""

from __future__ import annotations

from scopeflow.testing.displacement import SmoothDisplacement, backward_flow
from scopeflow.testing.recordings import (
    MovedRecording,
    demo_recording_path,
    make_demo_recording,
    move_recording,
)
from scopeflow.testing.synthetic import SyntheticRecording, synthetic_recording

__all__ = [
    "MovedRecording",
    "SmoothDisplacement",
    "SyntheticRecording",
    "backward_flow",
    "demo_recording_path",
    "make_demo_recording",
    "move_recording",
    "synthetic_recording",
]
