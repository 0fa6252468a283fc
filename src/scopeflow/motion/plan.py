"""What a correction will do, decided before it runs: checks everything, writes nothing."""

from __future__ import annotations

import dataclasses
import functools
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.version import KERNEL_VERSION
from scopeflow.engine.executor import runs_here
from scopeflow.engine.fingerprint import settings_dict
from scopeflow.engine.identity import identity_or_reason
from scopeflow.engine.memory import memory_limit
from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import InputError, OptionsError
from scopeflow.flow.backends.registry import get_backend, is_built_in, offered_by
from scopeflow.io.formats import OutputFormat
from scopeflow.io.recording import Recording, open_recording
from scopeflow.io.write.exports import STREAMED_FORMATS, open_writer
from scopeflow.motion.block.values import BlockRequest, DisplacementFunction
from scopeflow.motion.graph.correct import grid_of
from scopeflow.motion.graph.memory import MemoryProjection, check_frames, project_correction
from scopeflow.motion.grid import Grid, choose_block_length
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.options.parameters import check_supported, correction_parameters, weight_map
from scopeflow.motion.parameters import CorrectionParameters
from scopeflow.motion.reference import ReferenceRequest, reference_request
from scopeflow.motion.store.layout import MOTION, REGISTERED, VALID
from scopeflow.motion.store.outputs import OutputFiles, check_writable, output_files
from scopeflow.strict.values import shortened

logger = logging.getLogger(__name__)

_IN_MEMORY = (OutputFormat.ARRAY,)
# Their names tell them apart; a key for them would disown results of earlier versions.
_OLD_NAMES = (
    OutputFormat.ZARR,
    OutputFormat.HDF5,
    OutputFormat.TIFF,
    OutputFormat.MAT,
    OutputFormat.NULL,
)


@dataclass(frozen=True)
class CorrectionPlan:
    """Everything that is decided before a run, made without writing or reading pixels.

    `request`: the same with dtype and user functions, as tasks get it.
    `weight`: ``(H, W, C)``, channel weights.
    `files`: names of the output; None keeps results in memory.
    """

    options: OFOptions
    recording: Recording
    parameters: CorrectionParameters
    request: BlockRequest
    weight: NDArray[np.float64]
    reference: ReferenceRequest
    grid: Grid
    memory: MemoryProjection
    files: OutputFiles | None
    arrays: tuple[str, ...]
    settings: dict[str, Any]


def plan_correction(
    options: OFOptions,
    config: RegistrationConfig | None = None,
    reference_frame: Any = None,
    *,
    selection: Mapping[str, Any] | None = None,
) -> CorrectionPlan:
    """Check everything about a correction and work out what it will do; writes nothing.

    `reference_frame`: ``(H, W)`` or ``(H, W, C)``, reference in place of
        ``options.reference_frames``.
    `selection`: how the file is read where it does not tell by itself: ``axes``, ``dataset``,
        ``position`` and others, see :func:`scopeflow.open_video`. Frames without pixels that
        ``missing="mask"`` lets pass take no part: they make no reference, start and filter no
        other frame, and become zeros that are nowhere valid.
    Raises ScopeflowError: one clear error for whatever is wrong with input, options or output.
    """
    options = options.copy()
    config = config or RegistrationConfig()
    check_supported(options)
    if options.input_file is None:
        raise OptionsError("input_file is not set; give the recording that is to be corrected")
    channels = options.channel_idx
    recording = open_recording(
        options.input_file,
        bin_size=options.bin_size,
        channels=[channels] if isinstance(channels, int) else channels,
        **(selection or {}),
    )
    shape, dtype = recording.video.shape, recording.video.dtype
    frames, height, width, channel_count = shape
    if len(recording.absent) == frames:
        raise InputError(
            f"{recording.description}: none of its {frames} frames has pixels; give a whole copy "
            "of the recording"
        )
    parameters = correction_parameters(options, channel_count)
    in_memory = options.output_format in _IN_MEMORY
    output_dtype = (options.array_dtype if in_memory else options.file_dtype) or dtype
    request = BlockRequest(
        parameters,
        str(output_dtype),
        options.non_finite,
        displacement_function=displacement_function(options),
        frame_function=options.preproc_funct,
    )
    given = options.reference_frames if reference_frame is None else reference_frame
    # Also when an option file names the default: short recordings have not all of these frames.
    is_default = isinstance(given, list) and given == OFOptions().reference_frames
    reference = reference_request(given, shape, is_default=is_default, absent=recording.absent)
    motion_shape = request.motion_shape(height, width)
    bytes_per_frame = height * width * channel_count * max(dtype.itemsize, output_dtype.itemsize)
    block_length = choose_block_length(
        frames, parameters.batch_length, bytes_per_frame, config.block_length
    )
    if config.block_length not in (None, block_length):
        logger.info(
            "Blocks have %d frames instead of %d, so that they fill batches of %d frames.",
            block_length,
            config.block_length,
            parameters.batch_length,
        )
    grid = grid_of(frames, block_length, request, parameters, recording.absent)
    memory = project_correction(
        (height, width, channel_count),
        motion_shape,
        dtype.itemsize,
        output_dtype.itemsize,
        block_length,
        grid.halo,
    )
    check_frames(
        str(recording.paths[0]) if recording.paths else "the recording",
        (height, width, channel_count),
        memory if runs_here(config) else None,
        min(memory_limit(), config.memory_limit_bytes or sys.maxsize),
    )
    weight = weight_map(options, height, width, channel_count)
    arrays = _kept_arrays(options)
    files = None
    settings: dict[str, Any] = {}
    if not in_memory:
        files = output_files(options, recording.paths, channel_count)
        if files.format in STREAMED_FORMATS and isinstance(files.target, Path):
            # Refuses what the format cannot hold now, not after hours.
            open_writer(
                files.target,
                files.format,
                shape=shape,
                dtype=output_dtype,
                metadata=recording.metadata,
            )
        check_writable(files, recording.paths, frames * bytes_per_frame // 10)
        settings = correction_settings(
            options, recording, parameters, request, weight, reference, arrays
        )
        if files.format not in _OLD_NAMES:
            # Other bytes under a name that another format uses too.
            settings["output_format"] = files.format.value
        files.claim(settings).check(resume=config.resume, strangers=files.strangers)
    return CorrectionPlan(
        options, recording, parameters, request, weight, reference, grid, memory, files, arrays,
        settings,
    )  # fmt: skip


def given_displacement(options: OFOptions) -> Callable[..., NDArray[Any]]:
    """Return the function that solves for displacements: given, made by a factory, or a backend's.

    `options`: ``get_displacement_impl``, ``get_displacement_factory``, ``flow_backend``.
    Raises OptionsError: if the backend is not there, or has no use for an option that is set.
    """
    if options.get_displacement_impl is not None:
        return options.get_displacement_impl
    if options.get_displacement_factory is None and options.flow_backend == "diso":
        _refuse_unused(options)
    factory = options.get_displacement_factory or get_backend(options.flow_backend)
    function: Callable[..., NDArray[Any]] = factory(**options.backend_params)
    return function


def _refuse_unused(options: OFOptions) -> None:
    own = OFOptions()
    for name in ("constancy_assumption", "gnc_schedule", "warping_steps"):
        if getattr(options, name) != getattr(own, name):
            raise OptionsError(
                f"Backend '{options.flow_backend}' does not support {name}="
                f"{shortened(getattr(options, name))}; leave it out, or use flow_backend='flowreg'"
            )


def displacement_function(options: OFOptions) -> DisplacementFunction | None:
    """Return the function that solves in place of our solver, or None for our solver."""
    function = given_displacement(options)
    is_given = options.get_displacement_impl or options.get_displacement_factory
    if not is_given and options.flow_backend == "flowreg":
        return None
    given = {name: value for name, value in options.to_dict().items() if name != "weight"}
    return functools.partial(function, **given)


def _kept_arrays(options: OFOptions) -> tuple[str, ...]:
    if options.output_format is OutputFormat.ZARR:
        return (REGISTERED, MOTION, VALID)
    kept = []
    if options.output_format is not OutputFormat.NULL:
        kept.append(REGISTERED)
    if options.save_w or options.save_motion:
        kept.append(MOTION)
    if options.writes_valid_idx:
        kept.append(VALID)
    return tuple(kept)


def correction_settings(
    options: OFOptions,
    recording: Recording,
    parameters: CorrectionParameters,
    request: BlockRequest,
    weight: NDArray[np.float64],
    reference: ReferenceRequest,
    arrays: tuple[str, ...],
) -> dict[str, Any]:
    """Return everything that decides the bytes of a result, JSON-able; reads arrays in memory."""
    settings: dict[str, Any] = settings_dict(
        {
            "input": recording.identify(),
            **{
                field.name: getattr(parameters, field.name)
                for field in dataclasses.fields(parameters)
            },
            "weight": weight,
            "reference": reference,
            # The third entry named functions of users, which say what they are below.
            "backend": [options.flow_backend, options.backend_params, {}],
            "non_finite": options.non_finite,
            "output_dtype": request.output_dtype,
            "arrays": arrays,
            "kernel_version": KERNEL_VERSION,
        }
    )
    if recording.absent:
        settings["absent"] = list(recording.absent)
    functions = user_functions(options)
    if functions:
        settings["functions"] = functions
    return settings


def user_functions(options: OFOptions) -> dict[str, dict[str, str]]:
    """Return what each function of the user is that takes part; backends of ours have a name."""
    given = {name: getattr(options, name) for name in options.callables}
    facts = {
        name: identity_or_reason(function)
        for name, function in given.items()
        if function is not None
    }
    solves_itself = options.get_displacement_impl or options.get_displacement_factory
    backend = None if solves_itself else backend_facts(options.flow_backend)
    return facts if backend is None else {**facts, "flow_backend": backend}


def backend_facts(name: str) -> dict[str, str] | None:
    """Return what a flow backend of the user or of another package is; None for ours."""
    if is_built_in(name):
        return None
    package = offered_by(name)
    return {"package": package} if package else identity_or_reason(get_backend(name))
