"""The variational flow of `kernels.flow` in torch: whole frames, many at once, on any device."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scopeflow.config.option_values import is_integer
from scopeflow.config.specs import FlowParameters
from scopeflow.errors import InputError, OptionsError
from scopeflow.kernels.filters import sigma_rows
from scopeflow.kernels.flow import flow_parameters
from scopeflow.kernels.flow_arguments import channel_weights, check_finite
from scopeflow.kernels.methods import torch_planes as planes
from scopeflow.kernels.methods.torch_solver import motion_tensor, solve_level
from scopeflow.kernels.pyramid import Level, pyramid_levels
from scopeflow.kernels.resize import full_resolution_tables, pyramid_tables

_SMALLEST_FILTERED = 6
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class TorchRegistration:
    """A reference prepared on a device, to which frames are registered many at once.

    Parameters
    ----------
    reference : ndarray, shape (H, W, C)
        Normalised and filtered reference.
    weight : array_like or None
        Weights of channels or pixels, see `channel_weights`.
    params : FlowParameters
        The solver's parameters; no ``gnc_schedule``.
    device : torch.device
        Where everything is computed.
    dtype : torch.dtype
        float32 or float64.
    """

    def __init__(
        self,
        reference: NDArray[Any],
        weight: Any,
        params: FlowParameters,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        if params.gnc_schedule is not None:
            raise OptionsError("flow_backend 'flowreg_torch' knows no gnc_schedule; leave it None")
        check_finite(reference, "The reference")
        self._params = params
        self._like: dict[str, Any] = {"device": device, "dtype": dtype}
        height, width, channels = reference.shape
        self.shape = (height, width, channels)
        self.levels = pyramid_levels((height, width), params)
        fixed = self.upload(reference[None])
        weights, maps = channel_weights(weight, self.shape)
        data = [float(a) for a in np.broadcast_to(np.asarray(params.a_data), (channels,))]
        self._a_data = torch.tensor(data, **self._like)
        self._matrices: dict[Any, tuple[torch.Tensor, torch.Tensor] | None] = {}
        self._images, self._weights = [], []
        for level in self.levels:
            self._images.append(self._resized(fixed, (level.rows, level.cols)))
            here = torch.as_tensor(weights, **self._like)[None, :, None, None]
            if maps is not None:
                full = torch.as_tensor(maps, **self._like)[None]
                here = here * self._resized(full, (level.rows, level.cols))
            self._weights.append(here)

    def upload(self, frames: NDArray[Any]) -> torch.Tensor:
        """Bring frames ``(n, H, W, C)`` to the device as planes ``(n, C, H, W)``."""
        values = np.ascontiguousarray(np.moveaxis(frames, -1, 1))
        if values.dtype.kind in "bu" and values.dtype != np.uint8:
            values = values.astype(np.float64 if values.dtype.itemsize > 2 else np.float32)
        return torch.as_tensor(values).to(**self._like)

    def _resized(
        self, stack: torch.Tensor, shape: tuple[int, int], *, upsampling: bool = False
    ) -> torch.Tensor:
        size = (stack.shape[-2], stack.shape[-1])
        key = (size, shape, upsampling)
        if key not in self._matrices:
            make = full_resolution_tables if upsampling else pyramid_tables
            tables = make(size, shape)
            self._matrices[key] = None
            if tables is not None:
                rows, columns = (
                    planes.matrix_of(table, n, self._like)
                    for table, n in zip(tables, size, strict=True)
                )
                self._matrices[key] = rows, columns
        matrices = self._matrices[key]
        return stack if matrices is None else planes.separable(stack, *matrices)

    def preprocess(self, raw: torch.Tensor, low: Any, high: Any, sigma: Any) -> torch.Tensor:
        """Normalise and filter planes ``(n, C, H, W)`` in space, see `preprocess_frame`."""
        height, width, channels = self.shape
        bounds = [
            torch.as_tensor(
                np.broadcast_to(np.asarray(b, np.float64), (channels,)).copy(), **self._like
            )
            for b in (low, high)
        ]
        low_, high_ = (b[None, :, None, None] for b in bounds)
        scaled = (raw - low_) / (high_ - low_ + 1e-8)
        parts = []
        for c, (sigma_x, sigma_y, _) in enumerate(sigma_rows(sigma, channels)):
            rows = planes.gaussian_matrix(sigma_y, height, self._like)
            columns = planes.gaussian_matrix(sigma_x, width, self._like)
            parts.append(planes.separable(scaled[:, c : c + 1], rows, columns))
        return torch.cat(parts, dim=1)

    def solve(self, moving: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
        """Displacements ``(n, 2, h, w)`` on the finest grid of planes ``(n, C, H, W)``.

        `start` is ``(n or 1, 2, H, W)``; all in full-resolution pixels.
        """
        first = self.levels[0]
        count = moving.shape[0]
        flow = moving.new_zeros((count, 2, first.rows, first.cols))
        if start is not None:
            flow = flow + self._resized(start.to(**self._like), (first.rows, first.cols))
        for position, level in enumerate(self.levels):
            flow = self._resized(flow, (level.rows, level.cols))
            increment = self._increment(position, level, moving, flow)
            if min(level.rows, level.cols) >= _SMALLEST_FILTERED:
                increment = planes.median_5x5(increment)
            flow = flow + increment
        return flow

    def _increment(
        self, position: int, level: Level, moving: torch.Tensor, flow: torch.Tensor
    ) -> torch.Tensor:
        params = self._params
        image = self._resized(moving, (level.rows, level.cols))
        fixed = self._images[position].expand_as(image)
        if position > 0:
            image = planes.warp_planes(
                image, flow[:, 0] / level.h_col, flow[:, 1] / level.h_row, fixed
            )
        return solve_level(
            motion_tensor(fixed, image, level.h_row, level.h_col, params.data_term),
            self._weights[position],
            flow,
            alpha=(params.alpha[0] * level.alpha_scale, params.alpha[1] * level.alpha_scale),
            h_row=level.h_row,
            h_col=level.h_col,
            iterations=params.iterations,
            update_lag=params.update_lag,
            a_data=self._a_data,
            a_smooth=params.a_smooth,
        )

    def upsampled(self, flow: torch.Tensor) -> torch.Tensor:
        """Displacements ``(n, 2, H, W)`` at full resolution."""
        return self._resized(flow, self.shape[:2], upsampling=True)

    def register(
        self,
        frames: NDArray[Any],
        fill: NDArray[Any],
        low: Any,
        high: Any,
        sigma: Any,
        *,
        start: NDArray[Any] | None = None,
        interpolation: str = "cubic",
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Register raw frames without leaving the device in between.

        Parameters
        ----------
        frames : ndarray, shape (n, H, W, C)
            Raw frames.
        fill : ndarray, shape (H, W, C)
            Raw reference, for pixels from outside.
        low, high : float or array_like
            Range of the raw reference.
        sigma : array_like
            Rows ``(sigma_x, sigma_y, sigma_t)``; the filter in time is not applied.
        start : ndarray, shape (H, W, 2), optional
            Initial displacement of all frames, pixels.
        interpolation : {"cubic", "linear", "nearest"}
            Interpolation of the raw frames.

        Returns
        -------
        registered : ndarray of float32, shape (n, H, W, C)
            Registered frames.
        flow : ndarray of float32, shape (n, H, W, 2)
            Displacements, pixels.
        """
        with torch.inference_mode():
            raw = self.upload(frames)
            initial = None if start is None else self.upload(start[None])
            flow = self.upsampled(self.solve(self.preprocess(raw, low, high, sigma), initial))
            outside = self.upload(fill[None]).expand_as(raw)
            moved = planes.warp_planes(raw, flow[:, 0], flow[:, 1], outside, interpolation)
            return _download(moved), _download(flow)


def _download(stack: torch.Tensor) -> NDArray[np.float32]:
    values = stack.permute(0, 2, 3, 1).to(torch.float32).contiguous().cpu().numpy()
    return np.asarray(values, np.float32)


class TorchDisplacement:
    """The function of two frames that ``flow_backend="flowreg_torch"`` stands for; picklable.

    Its arithmetic is that of the built-in solver: pyramid, sweep order, cadence of the robust
    weights. Displacements differ by less than 0.01 px where the problem is well posed.

    Parameters
    ----------
    device : str, optional
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; None takes CUDA where there is one. A CUDA device
        that is not there is replaced by the CPU, with a warning.
    dtype : {"float32", "float64"}
        Of the arithmetic.

    frames_at_once : int
        Frames of a recording that are solved together.

    Raises
    ------
    OptionsError
        For an unknown device or dtype.
    """

    def __init__(
        self, device: str | None = None, dtype: str = "float32", frames_at_once: int = 16
    ) -> None:
        if not is_integer(frames_at_once) or frames_at_once < 1:
            raise OptionsError(
                f"backend_params: frames_at_once is {frames_at_once!r}; it must be a whole number "
                ">= 1"
            )
        self.frames_at_once = int(frames_at_once)
        if dtype not in _DTYPES:
            raise OptionsError(f"backend_params: dtype is {dtype!r}; use float32 or float64")
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            kind = torch.device(device).type
        except (RuntimeError, TypeError) as error:
            raise OptionsError(
                f"backend_params: device is {device!r}; use 'cpu', 'cuda' or 'cuda:0'"
            ) from error
        if kind == "cuda" and not torch.cuda.is_available():
            warnings.warn(
                f"device '{device}' was asked for, torch sees none: using the CPU.",
                UserWarning,
                stacklevel=3,
            )
            device = "cpu"
        self._device, self._dtype = device, dtype
        self._kept: tuple[Any, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    @property
    def device(self) -> str:
        """The device in use."""
        return self._device

    def prepare(self, fixed: NDArray[Any], weight: Any = None, **options: Any) -> TorchRegistration:
        """Prepare a reference ``(H, W, C)``, kept for calls with the very same arrays."""
        key = (fixed, weight, options)
        if self._kept is not None:
            known_fixed, known_weight, known_options, prepared = self._kept
            if known_fixed is fixed and known_weight is weight and known_options == options:
                registration: TorchRegistration = prepared
                return registration
        with torch.inference_mode():
            registration = TorchRegistration(
                fixed,
                weight,
                flow_parameters(**options),
                torch.device(self._device),
                _DTYPES[self._dtype],
            )
        self._kept = (*key, registration)
        return registration

    def many(
        self,
        fixed: NDArray[Any],
        moving: Sequence[NDArray[Any]] | NDArray[Any],
        *,
        uv: NDArray[Any] | None = None,
        weight: Any = None,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Displacements ``(n, H, W, 2)`` of frames ``(n, H, W, C)`` against one reference.

        Parameters
        ----------
        fixed : ndarray, shape (H, W, C)
            Normalised and filtered reference.
        moving : ndarray, shape (n, H, W, C)
            Frames, likewise.
        uv : ndarray, shape (H, W, 2), optional
            Initial displacement of all, pixels.
        weight : array_like, optional
            Weights of channels or pixels.
        **options
            As in `get_displacement`.

        Raises
        ------
        InputError
            When shapes differ, or values are not finite.
        """
        frames = np.asarray(moving)
        if frames.ndim != 4 or frames.shape[1:] != fixed.shape:
            raise InputError(
                f"frames of shape {frames.shape[1:]} were given for a reference of shape "
                f"{fixed.shape}; both need the same shape (H, W, C)"
            )
        check_finite(frames, "The frames")
        prepared = self.prepare(fixed, weight, **options)
        with torch.inference_mode():
            start = None if uv is None else prepared.upload(np.asarray(uv)[None])
            flow = prepared.solve(prepared.upload(frames), start)
            return _download(prepared.upsampled(flow))

    def __call__(
        self,
        fixed: NDArray[Any],
        moving: NDArray[Any],
        *,
        uv: NDArray[Any] | None = None,
        weight: Any = None,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Displacement ``(H, W, 2)`` of one frame ``(H, W)`` or ``(H, W, C)``; see `many`."""
        fixed, moving = np.asarray(fixed), np.asarray(moving)
        if fixed.ndim == 2:
            fixed, moving = fixed[..., None], moving[..., None]
        return self.many(fixed, moving[None], uv=uv, weight=weight, **options)[0]


def make(**backend_params: Any) -> TorchDisplacement:
    """Make the function that ``flow_backend="flowreg_torch"`` stands for."""
    unknown = set(backend_params) - {"device", "dtype", "frames_at_once"}
    if unknown:
        raise OptionsError(
            f"backend_params: 'flowreg_torch' has no parameter '{min(unknown)}'; it has device, "
            "dtype and frames_at_once"
        )
    return TorchDisplacement(**backend_params)
