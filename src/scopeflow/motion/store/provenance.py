"""What a run leaves as a record of itself: versions, options, input, place, timings."""

from __future__ import annotations

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from scopeflow._version import __version__
from scopeflow.compiled.version import KERNEL_VERSION
from scopeflow.engine.executor import Executor
from scopeflow.engine.fingerprint import settings_dict
from scopeflow.io.recording import Recording
from scopeflow.io.state import State
from scopeflow.motion.options.of_options import OFOptions


class RunOptions(BaseModel):
    """Those options of a run that decide how its recording is opened again."""

    model_config = ConfigDict(extra="allow", strict=True)

    channel_idx: int | list[int] | None
    bin_size: Annotated[int, Field(ge=1)]
    interpolation_method: Literal["cubic", "linear", "nearest"]


class RunRecording(BaseModel):
    """What a run says of its recording; `absent` are the frames without pixels, in order."""

    model_config = ConfigDict(extra="allow", strict=True)

    absent: list[Annotated[int, Field(ge=0)]] = []


class RunFacts(State):
    """What ``run.json`` says of a run, for people and for the stages that follow."""

    model_config = ConfigDict(extra="allow")

    options: RunOptions
    recording: RunRecording = Field(default_factory=RunRecording)


_PACKAGES = ("numpy", "scipy", "numba", "dask", "distributed", "zarr", "h5py", "tifffile", "nd2")


def package_versions() -> dict[str, str]:
    """Return the versions of scopeflow and of what its results rest on."""
    versions = {"scopeflow": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def cpu_name() -> str:
    """Return the name of the processor; results have the same bits on processors of one family."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def run_facts(
    options: OFOptions,
    recording: Recording,
    executor: Executor,
    *,
    settings: dict[str, Any],
    started: float,
    **facts: Any,
) -> dict[str, Any]:
    """Return the contents of ``run.json``.

    `started`: when the run began, seconds since the epoch.
    """
    now = time.time()
    frames, height, width, channels = recording.video.shape
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
        "seconds": round(now - started, 3),
        "recording": {
            "paths": list(recording.paths),
            "frames": frames,
            "height": height,
            "width": width,
            "channels": channels,
            "dtype": str(recording.video.dtype),
            **({"absent": list(recording.absent)} if recording.absent else {}),
        },
        "options": settings_dict(
            options.model_dump(mode="json", exclude={"reference_frames", "weight", "input_file"})
        ),
        "settings": settings,
        "executor": {"name": executor.name, "n_workers": executor.n_workers},
        "kernel_version": KERNEL_VERSION,
        "cpu": cpu_name(),
        "versions": package_versions(),
        **facts,
    }
