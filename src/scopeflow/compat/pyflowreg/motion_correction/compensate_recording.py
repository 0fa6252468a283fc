"""Correction of files under its documented module path, in processes unless told otherwise."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compat.pyflowreg._context import RuntimeContext
from scopeflow.compat.pyflowreg.util.io._arr import ArrayWriter
from scopeflow.engine import place as registration
from scopeflow.engine.executor import active_client
from scopeflow.motion import correct
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.place import preferred_place, supported_config

__all__ = ["BatchMotionCorrector", "RegistrationConfig", "compensate_recording"]


@dataclasses.dataclass(frozen=True)
class RegistrationConfig(registration.RegistrationConfig):
    """As :class:`scopeflow.RegistrationConfig`; ``n_jobs=0`` means all processors, too.

    Examples
    --------
    >>> RegistrationConfig(n_jobs=0).n_jobs
    -1
    """

    def __post_init__(self) -> None:
        if self.n_jobs == 0:
            object.__setattr__(self, "n_jobs", -1)
        super().__post_init__()


def _chosen(
    options: OFOptions, config: registration.RegistrationConfig | None
) -> registration.RegistrationConfig:
    """Return the configuration with the documented choice where none was made."""
    available = RuntimeContext.get_available_parallelization()
    config = config or RegistrationConfig()
    if config.parallelization is not None:
        return supported_config(config, options.flow_backend, available)
    if config.client is not None or config.scheduler_address is not None:
        return config
    if "distributed" in sys.modules and active_client() is not None:
        return config
    chosen = preferred_place(options.flow_backend, available)
    return dataclasses.replace(config, parallelization=chosen)


class BatchMotionCorrector(correct.BatchMotionCorrector):
    """As :class:`scopeflow.BatchMotionCorrector`; results in memory also come as writers."""

    def __init__(
        self, options: OFOptions, config: registration.RegistrationConfig | None = None
    ) -> None:
        super().__init__(options, _chosen(options, config))

    @property
    def video_writer(self) -> ArrayWriter:
        """The registered frames, after a run with ``output_format="ARRAY"``."""
        return ArrayWriter(self.registered)

    @property
    def w_writer(self) -> ArrayWriter:
        """The displacements, after a run with ``output_format="ARRAY"``."""
        return ArrayWriter(self.w)


def compensate_recording(
    options: OFOptions,
    reference_frame: Any = None,
    config: registration.RegistrationConfig | None = None,
) -> NDArray[np.float64]:
    """Correct one recording from file to file, see :func:`scopeflow.compensate_recording`."""
    return BatchMotionCorrector(options, config).run(reference_frame)
