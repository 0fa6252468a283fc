"""The flow of ``flowreg`` in torch, on any device: the function that the backend makes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scopeflow.backends import (
    FlowParameters,
    InputError,
    OptionsError,
    check_finite,
    flow_parameters,
    nearest_name,
)
from scopeflow_torch.frames import TorchFrames

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class TorchDisplacement:
    """The function of two frames that ``flow_backend="flowreg_torch"`` stands for; picklable.

    Its arithmetic is that of the built-in solver: pyramid, order of the sweeps, cadence of the
    robust weights, graduated non-convexity. Displacements differ by rounding only: on average by
    less than 0.001 px with the presets fast and balanced, by some thousandths with quality, where
    sweeps that have not converged carry rounding far (an input changed by 1e-7 changes the
    built-in solver's result as much). In a correction whole frames stay on the device: raw frames
    go there many at once; registered frames, motion and masks come back. The bits of a frame do
    not depend on the frames that it is solved with.

    `device`: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; None takes CUDA where there is one. A CUDA
        device that is not there is replaced by the CPU, with a warning.
    `dtype`: ``{"float32", "float64"}``, of the arithmetic.
    `frames_at_once`: frames of a recording that are on the device together.
    Raises OptionsError: for an unknown device or dtype.
    """

    def __init__(
        self, device: str | None = None, dtype: str = "float32", frames_at_once: int = 16
    ) -> None:
        is_whole = isinstance(frames_at_once, int | np.integer)
        if not is_whole or isinstance(frames_at_once, bool) or frames_at_once < 1:
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

    def prepare_frames(
        self, fixed: NDArray[Any], weight: Any, params: FlowParameters
    ) -> TorchFrames:
        """Prepare a reference ``(H, W, C)``, kept for calls with the very same arrays.

        `fixed`: ``(H, W, C)``, normalised and filtered reference.
        `weight`: weights of channels or pixels.
        Returns: registers whole frames, many at once, without leaving the device.
        """
        if self._kept is not None:
            known_fixed, known_weight, known_params, frames = self._kept
            if known_fixed is fixed and known_weight is weight and known_params == params:
                prepared: TorchFrames = frames
                return prepared
        prepared = TorchFrames(
            fixed, weight, params, torch.device(self._device), _DTYPES[self._dtype]
        )
        self._kept = (fixed, weight, params, prepared)
        return prepared

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

        `fixed`: ``(H, W, C)``, normalised and filtered reference.
        `moving`: ``(n, H, W, C)``, frames, likewise.
        `uv`: ``(H, W, 2)``, initial displacement of all, pixels.
        `weight`: weights of channels or pixels.
        Raises InputError: when shapes differ, or values are not finite.
        Raises OptionsError: for options out of range, or frames that do not fit into the memory of
            the device.
        """
        frames = np.asarray(moving)
        if frames.ndim != 4 or frames.shape[1:] != fixed.shape:
            raise InputError(
                f"frames of shape {frames.shape[1:]} were given for a reference of shape "
                f"{fixed.shape}; both need the same shape (H, W, C)"
            )
        check_finite(frames, "The frames")
        prepared = self.prepare_frames(fixed, weight, flow_parameters(**options))
        start = None
        if uv is not None:
            uv = np.asarray(uv)
            if uv.shape != (*fixed.shape[:2], 2):
                raise InputError(
                    f"An initial displacement of shape {uv.shape} was given for frames of shape "
                    f"{fixed.shape}; the shape (H, W, 2) is needed."
                )
            check_finite(uv, "The initial displacement")
            start = prepared.upload(uv[None])
        parts = []
        for first in range(0, len(frames), self.frames_at_once):
            group = prepared.upload(frames[first : first + self.frames_at_once])
            parts.append(prepared.download(prepared.upsampled(prepared.solve(group, start))))
        return np.concatenate(parts) if parts else np.empty((0, *fixed.shape[:2], 2), np.float32)

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
    known = ("device", "dtype", "frames_at_once")
    for name in backend_params:
        if name not in known:
            raise OptionsError(
                f"backend_params: 'flowreg_torch' has no parameter '{name}'; it has "
                f"{', '.join(known)}." + nearest_name(name, known)
            )
    return TorchDisplacement(**backend_params)
