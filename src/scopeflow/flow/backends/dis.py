"""Dense inverse search (Kroeger et al. 2016) of OpenCV: fast, for large smooth motion."""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, OptionsError, nearest_name
from scopeflow.flow.arguments import check_finite
from scopeflow.strict.values import shortened

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}

_PARAMETERS: dict[str, tuple[str, int | bool]] = {
    "finest_scale": ("setFinestScale", 2),
    "gradient_descent_iterations": ("setGradientDescentIterations", 12),
    "patch_size": ("setPatchSize", 8),
    "patch_stride": ("setPatchStride", 4),
    "use_mean_normalization": ("setUseMeanNormalization", True),
    "use_spatial_propagation": ("setUseSpatialPropagation", True),
}

_thread = threading.local()


class DisoOF:
    """Displacement by dense inverse search; a function of two frames, picklable.

    OpenCV uses one thread in the whole process from the first use on, because its result depends
    on the number of its threads.

    `preset`: ``{"ultrafast", "fast", "medium"}``, OpenCV's preset, by name or number.
    `parameters`: ``finest_scale`` (2), ``gradient_descent_iterations`` (12), ``patch_size`` (8),
        ``patch_stride`` (4), ``use_mean_normalization`` and ``use_spatial_propagation`` (True).
    Raises OptionsError: for an unknown name or value.

    References
    ----------
    Kroeger, Timofte, Dai, Van Gool, "Fast optical flow using dense inverse search", ECCV 2016.

    Examples
    --------
    >>> import numpy as np
    >>> frame = np.random.default_rng(0).random((64, 64, 1))
    >>> DisoOF(preset="fast")(frame, frame).shape
    (64, 64, 2)
    """

    def __init__(self, preset: str | int = "medium", **parameters: Any) -> None:
        number = PRESETS.get(preset.lower(), -1) if isinstance(preset, str) else preset
        if number not in PRESETS.values():
            raise OptionsError(
                f"backend_params: preset is {shortened(preset)}; use one of {', '.join(PRESETS)}"
            )
        self._preset = int(number)
        self._parameters = {name: default for name, (_, default) in _PARAMETERS.items()}
        self.set_params(**parameters)

    def set_params(self, **parameters: Any) -> None:
        """Change parameters by name."""
        for name, value in parameters.items():
            if name not in _PARAMETERS:
                raise OptionsError(
                    f"backend_params: 'diso' has no parameter '{name}'."
                    + nearest_name(name, [*_PARAMETERS, "preset"])
                )
            least = 0 if name == "finest_scale" else 1
            wants_bool = isinstance(_PARAMETERS[name][1], bool)
            if isinstance(value, bool) is not wants_bool or (
                not wants_bool and (not isinstance(value, int) or value < least)
            ):
                need = "True or False" if wants_bool else f"a whole number >= {least}"
                raise OptionsError(
                    f"backend_params: {name} is {shortened(value)}; it must be {need}"
                )
            self._parameters[name] = value

    def get_params(self) -> dict[str, Any]:
        """Return the parameters by name, with the number of the preset."""
        return {"preset": self._preset, **self._parameters}

    def _solver(self) -> Any:
        """Return the OpenCV object of this thread, which is not to be shared."""
        key = tuple(self.get_params().items())
        solvers: dict[Any, Any] = _thread.__dict__.setdefault("solvers", {})
        if key not in solvers:
            cv2.setNumThreads(1)
            solver = cv2.DISOpticalFlow.create(self._preset)
            for name, (setter, _) in _PARAMETERS.items():
                getattr(solver, setter)(self._parameters[name])
            solvers.clear()
            solvers[key] = solver
        return solvers[key]

    def __call__(
        self,
        fixed: NDArray[Any],
        moving: NDArray[Any],
        *,
        uv: NDArray[Any] | None = None,
        weight: Any = None,
        const_assumption: Any = "gc",
        gnc_schedule: Any = None,
        **_: Any,
    ) -> NDArray[np.float32]:
        """Displacement between two frames of about [0, 1].

        `fixed`, `moving`: ``(H, W)`` or ``(H, W, C)``, reference and frame. Channels are averaged
            with their weights, clipped to [0, 1] and brought to 8 bits.
        `uv`: ``(H, W, 2)``, initial displacement, pixels.
        `weight`: ``(C,)``, ``(H, W)`` or ``(H, W, C)``.
        `const_assumption`, `gnc_schedule`: only ``"gc"`` and None: the method has its own data
            term.
        `_`: parameters of the variational solver, which have no meaning here.
        Returns: ``(H, W, 2)`` float32, displacement in pixels.
        Raises InputError: when shapes differ, or the frame is too small for the method.
        Raises OptionsError: for options that it cannot honour.
        """
        if str(getattr(const_assumption, "value", const_assumption)) not in ("gc", "gradient"):
            raise OptionsError(
                "flow_backend 'diso' has its own data term; leave constancy_assumption at 'gc'"
            )
        if gnc_schedule is not None:
            raise OptionsError("flow_backend 'diso' knows no gnc_schedule; leave it None")
        fixed, moving = np.asarray(fixed), np.asarray(moving)
        if fixed.shape != moving.shape or fixed.ndim not in (2, 3):
            raise InputError(
                f"a reference of shape {fixed.shape} and a frame of shape {moving.shape} were "
                "given; both need the same shape, (H, W) or (H, W, C)"
            )
        check_finite(moving, "the frame")
        planes = [_gray(image, weight) for image in (fixed, moving)]
        start = None if uv is None else np.array(uv, np.float32, order="C")
        try:
            flow: NDArray[np.float32] = self._solver().calc(*planes, start)
        except cv2.error as error:
            raise InputError(
                f"OpenCV cannot find the motion of frames of {fixed.shape[0]} × {fixed.shape[1]} "
                f"px with these parameters ({' '.join(str(error).split())}); use larger frames or "
                "a smaller patch_size, or flow_backend='flowreg'"
            ) from error
        return flow


def _gray(image: NDArray[Any], weight: Any) -> NDArray[np.uint8]:
    """One 8-bit plane of a frame."""
    values = np.asarray(image, np.float32)
    if values.ndim == 3:
        channels = values.shape[2]
        weights = np.ones(channels, np.float32) if weight is None else np.asarray(weight)
        if weights.ndim == 1:
            weights = weights[:channels]
        weights = weights[..., None] if weights.ndim == 2 else weights
        weights = np.broadcast_to(weights, values.shape).astype(np.float32)
        total = weights.sum(axis=2)
        # A mean, so that maps change the share of channels and not the brightness.
        values = (values * weights).sum(axis=2) / np.where(total > 0, total, 1)
    return np.asarray(np.rint(np.clip(values, 0, 1) * 255), np.uint8)


def make(**backend_params: Any) -> DisoOF:
    """Make the function that ``flow_backend="diso"`` stands for."""
    return DisoOF(**backend_params)
