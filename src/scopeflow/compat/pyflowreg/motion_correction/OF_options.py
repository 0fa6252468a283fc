"""Options with the default of PyFlowReg for ``output_format``, and its methods for readers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compat.pyflowreg._errors import validation_error
from scopeflow.compat.pyflowreg.util.io import factory
from scopeflow.compat.pyflowreg.util.io._base import VideoReader, VideoWriter
from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import ScopeflowError
from scopeflow.io.formats import OutputFormat
from scopeflow.motion.motion import compute_motion
from scopeflow.motion.options import of_options as native
from scopeflow.motion.options.enums import (
    ChannelNormalization,
    ConstancyAssumption,
    InterpolationMethod,
    NamingConvention,
    QualitySetting,
)
from scopeflow.motion.plan import given_displacement
from scopeflow.motion.store.outputs import output_files

__all__ = [
    "ChannelNormalization",
    "ConstancyAssumption",
    "InterpolationMethod",
    "NamingConvention",
    "OFOptions",
    "OutputFormat",
    "QualitySetting",
    "get_mcp_schema",
]


class OFOptions(native.OFOptions):
    """Options as :class:`scopeflow.OFOptions`; ``output_format`` is ``MAT`` unless it is given.

    Examples
    --------
    >>> OFOptions(quality_setting="fast").output_format.value
    'MAT'
    """

    output_format: OutputFormat = OutputFormat.MAT

    def __init__(self, **data: Any) -> None:
        if data.get("output_typename") == "":  # means the input's type there
            data["output_typename"] = None
        try:
            super().__init__(**data)
        except ScopeflowError as error:
            raise validation_error("OFOptions", error) from None

    def get_video_reader(self) -> VideoReader:
        """Return a reader of ``input_file``."""
        return factory.get_video_file_reader(
            self.input_file, buffer_size=self.buffer_size, bin_size=self.bin_size
        )

    def get_video_writer(self) -> VideoWriter:
        """Return a writer of the registered recording."""
        first = [str(self.input_file)] if isinstance(self.input_file, str) else []
        target = output_files(self, first).target
        return factory.get_video_file_writer(str(target), self.output_format.value)

    def get_reference_frame(self, video_reader: VideoReader | None = None) -> NDArray[np.float64]:
        """Return the raw reference ``(H, W, C)``: given, or registered and averaged frames."""
        video = self.input_file if video_reader is None else video_reader.video
        config = RegistrationConfig(progress=False)
        reference = compute_motion(video, None, self, config).reference
        assert reference is not None
        return reference

    def resolve_get_displacement(self) -> Callable[..., NDArray[Any]]:
        """Return the function that solves for displacements: given, or that of the backend."""
        return given_displacement(self)


def get_mcp_schema() -> dict[str, Any]:
    """Return the options as JSON schema."""
    return OFOptions.model_json_schema()
