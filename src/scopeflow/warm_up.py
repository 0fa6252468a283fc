"""All kernels of scopeflow made ready, before the first frame needs them."""

from __future__ import annotations

import importlib

from scopeflow.compiled import gateway

_WITH_KERNELS = (
    "scopeflow.flow.flow",
    "scopeflow.images.filters",
    "scopeflow.images.power",
    "scopeflow.images.register",
    "scopeflow.images.statistics",
    "scopeflow.images.temporal",
    "scopeflow.cells.methods.background",
    "scopeflow.cells.methods.components",
    "scopeflow.cells.methods.display",
    "scopeflow.cells.methods.logstd",
    "scopeflow.cells.methods.splitting",
)


def warm_up() -> int:
    """Compile or load every kernel, so that the first frame of a worker is not slow.

    Examples
    --------
    >>> warm_up() > 5
    True
    """
    for module in _WITH_KERNELS:
        importlib.import_module(module)
    return gateway.compile_all()


def start_compiling() -> None:
    """Let a second process compile half of the flow, when this machine has no compiled kernels yet.

    The halves take equally long: the solver and the warp there, the rest of a first frame here.

    For commands, to be called as soon as it is clear that there is work to do. Not for programs
    that embed Python, which cannot be started a second time.

    Examples
    --------
    >>> start_compiling()
    """
    from scopeflow.flow import median, solver
    from scopeflow.images import warp

    gateway.compile_beside([solver.solve, warp._warp_planes], [median._median_planes])
