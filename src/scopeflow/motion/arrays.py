"""Motion correction of an array in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import InputError
from scopeflow.io.formats import OutputFormat
from scopeflow.motion.correct import BatchMotionCorrector
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.store.delivery import BatchCallback, ProgressCallback


def compensate_arr(
    c1: Any,
    c_ref: Any,
    options: OFOptions | None = None,
    progress_callback: ProgressCallback | None = None,
    *,
    flow_backend: str | None = None,
    backend_params: dict[str, Any] | None = None,
    get_displacement: Callable[..., NDArray[Any]] | None = None,
    get_displacement_factory: Callable[..., Any] | None = None,
    w_callback: BatchCallback | None = None,
    registered_callback: BatchCallback | None = None,
    registration_config: RegistrationConfig | None = None,
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Correct the motion of an array of frames against a reference.

    Parameters
    ----------
    c1 : array, shape (T, H, W, C), (T, H, W) or (H, W)
        Frames; numpy, dask or xarray. ``(H, W, C)`` is one frame if the reference has that shape.
    c_ref : ndarray, shape (H, W) or (H, W, C)
        Reference.
    options : OFOptions, optional
        Parameters; not changed. Nothing is written, whatever the output options say.
    progress_callback : callable, optional
        ``f(finished_frames, total_frames)``.
    flow_backend, backend_params, get_displacement, get_displacement_factory
        In place of the options of the same names (``get_displacement_impl``).
    w_callback, registered_callback : callable, optional
        ``f(batch, start, end)`` for every ``buffer_size`` frames, in the order of time.
    registration_config : RegistrationConfig, optional
        How to run it.

    Returns
    -------
    registered : ndarray
        Corrected frames, shape of `c1`, dtype ``options.output_typename`` (float64 by default).
    w : ndarray of float32, shape (T, H, W, 2)
        Displacements ``u`` (right), ``v`` (down), pixels; ``(H, W, 2)`` for one ``(H, W)`` frame.

    Raises
    ------
    InputError
        If shapes do not fit together, frames are missing, too small, or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from scopeflow.motion.options.of_options import OFOptions
    >>> frame = np.random.default_rng(0).normal(100, 10, (32, 40))
    >>> video = np.stack([frame, np.roll(frame, 1, axis=1)])
    >>> registered, w = compensate_arr(video, frame, OFOptions(quality_setting="fast"))
    >>> registered.shape, w.shape
    ((2, 32, 40), (2, 32, 40, 2))
    """
    frames = c1.data if isinstance(c1, xr.DataArray) else c1
    frames = frames if isinstance(frames, da.Array) else np.asarray(frames)
    reference = np.asarray(c_ref)
    if frames.size == 0:
        raise InputError(f"Input array cannot be empty, its shape is {frames.shape}")
    given_ndim = frames.ndim
    single = given_ndim == 2 or (given_ndim == 3 and frames.shape == reference.shape)
    if single:
        frames = frames[None]
    if frames.ndim == 3:
        frames = frames[..., None]
    if frames.ndim != 4:
        raise InputError(
            f"c1 has shape {c1.shape}; needed is (T, H, W), (T, H, W, C) or a single frame"
        )
    options = _for_arrays(options or OFOptions())
    if flow_backend is not None:
        options.flow_backend = flow_backend
    if backend_params:
        options.backend_params = {**options.backend_params, **backend_params}
    if get_displacement is not None:
        options.get_displacement_impl = get_displacement
    if get_displacement_factory is not None:
        options.get_displacement_factory = get_displacement_factory
    corrector = BatchMotionCorrector(options, registration_config)
    if progress_callback is not None:
        corrector.register_progress_callback(progress_callback)
    if w_callback is not None:
        corrector.register_w_callback(w_callback)
    if registered_callback is not None:
        corrector.register_registered_callback(registered_callback)
    options.input_file = xr.DataArray(frames, dims=("T", "Y", "X", "C"))
    corrector.run(reference)
    registered, flow = corrector.registered, corrector.w
    assert registered is not None
    assert flow is not None
    if given_ndim == 2:
        return registered[0, ..., 0], flow[0]
    if given_ndim == 3 and reference.ndim == 2:
        return registered[..., 0], flow
    return registered, flow


def _for_arrays(options: OFOptions) -> OFOptions:
    options = options.copy()
    options.output_format = OutputFormat.ARRAY
    return options


def compensate_pair(
    frame1: NDArray[Any], frame2: NDArray[Any], options: OFOptions | None = None
) -> NDArray[np.float32]:
    """Return the displacement of one frame against another.

    `frame1`: ``(H, W)`` or ``(H, W, C)``, reference.
    Returns: ``(H, W, 2)`` float32, displacement in pixels.
    """
    _, flow = compensate_arr(np.asarray(frame2)[None], frame1, options)
    return flow[0]
