"""How, on one frame: numpy, scipy and numba only. Arrays in, arrays out."""

from __future__ import annotations

from scopeflow.kernels.flow import get_displacement, solve_flow
from scopeflow.kernels.flow_reference import FlowReference, prepare_reference
from scopeflow.kernels.resize import upsample_flow

__all__ = [
    "KERNEL_VERSION",
    "FlowReference",
    "get_displacement",
    "prepare_reference",
    "solve_flow",
    "start_compiling",
    "upsample_flow",
    "warm_up",
]

KERNEL_VERSION = 4
"""Raised whenever the numbers that the kernels produce change; part of every fingerprint."""


def warm_up() -> int:
    """Compile or load every kernel, so that the first frame of a worker is not slow.

    Returns
    -------
    int
        Number of kernels that are ready.

    Examples
    --------
    >>> warm_up() > 5
    True
    """
    from scopeflow.kernels import (  # noqa: F401 - importing registers their kernels
        _jit,
        cells_background,
        cells_components,
        cells_logstd,
        cells_splitting,
        filters,
        power,
        statistics,
    )

    return _jit.compile_all()


def start_compiling() -> None:
    """Let a second process compile the solver, when this machine has no compiled kernels yet.

    For commands, to be called as soon as it is clear that there is work to do. Not for programs
    that embed Python, which cannot be started a second time.

    Examples
    --------
    >>> start_compiling()
    """
    from scopeflow.kernels import _jit, solver

    _jit.compile_beside([solver.solve])
