"""Motion correction while a recording goes on: a reference first, then frame after frame."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import InputError, OptionsError
from scopeflow.flow.pyramid import SMALLEST_FRAME
from scopeflow.motion.arrays import compensate_arr
from scopeflow.motion.block.stream import (
    FrameStream,
    LiveParameters,
    make_live_reference,
    past_weights,
)
from scopeflow.motion.block.values import BlockRequest
from scopeflow.motion.options.enums import QualitySetting
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.options.parameters import correction_parameters, weight_map
from scopeflow.motion.plan import displacement_function
from scopeflow.strict import is_integer
from scopeflow.strict.values import shortened

logger = logging.getLogger(__name__)


class FlowRegLive:
    """Corrects frames one by one, as a camera gives them.

    Each frame starts from the displacement of the frame before, and the reference follows slow
    changes of the sample. Frames may have any scale: camera counts or values of about [0, 1].
    Memory does not grow with the number of frames. One instance serves one stream and one thread.

    Parameters
    ----------
    options : OFOptions, optional
        Parameters; a copy is used, with ``quality_setting="fast"`` unless ``min_level`` is given.
        Options about files, batches and the reference have no meaning here.
    reference_buffer_size : int
        Frames that are kept while there is no reference, see `set_reference`.
    reference_update_interval : int
        The reference is renewed after this many frames; 0 never.
    reference_update_weight : float
        Share of the newest corrected frame in the renewed reference, 0 to 1.
    truncate : float
        Standard deviations that the temporal filter looks back; it never looks ahead.
    **kwargs
        Options by name, in place of those in `options`.

    Attributes
    ----------
    options : OFOptions
        The copy in use.
    reference_buffer : collections.deque
        Frames seen while there is no reference.

    Raises
    ------
    OptionsError
        For an unknown option or a value that cannot be used.

    Notes
    -----
    The method is that of whole recordings (`compensate_recording`) with a temporal filter that
    sees the past only; frames are normalised by the range of the raw reference. Flotho et al.,
    "Flow-Registration", J. Biophotonics 2022, doi 10.1002/jbio.202100330.

    Examples
    --------
    >>> import numpy as np
    >>> camera = np.random.default_rng(0).poisson(100, (4, 32, 40)).astype(np.uint16)
    >>> live = FlowRegLive()
    >>> live.set_reference(camera[0])
    >>> corrected, flow = live(camera[1])
    >>> corrected.shape, corrected.dtype, flow.shape
    ((32, 40), dtype('float32'), (32, 40, 2))
    """

    _reference_may_be_flat = False

    def __init__(
        self,
        options: OFOptions | None = None,
        reference_buffer_size: int = 50,
        reference_update_interval: int = 20,
        reference_update_weight: float = 0.2,
        truncate: float = 4.0,
        **kwargs: Any,
    ) -> None:
        self.options = _live_options(options, kwargs)
        _check_whole("reference_buffer_size", reference_buffer_size, 1)
        _check_whole("reference_update_interval", reference_update_interval, 0)
        if not 0 <= reference_update_weight <= 1:
            raise OptionsError(
                f"reference_update_weight is {shortened(reference_update_weight)}; it must "
                "lie in [0, 1]"
            )
        if not 0 < truncate < np.inf:
            raise OptionsError(f"truncate is {shortened(truncate)}; it must be a positive number")
        self.reference_buffer: deque[NDArray[Any]] = deque(maxlen=reference_buffer_size)
        self._live = LiveParameters(
            int(reference_update_interval), float(reference_update_weight), float(truncate)
        )
        self._stream: FrameStream | None = None
        self._given: NDArray[np.float32] | None = None
        self._told_to_set = False

    # -- what there is --------------------------------------------------------------------------

    @property
    def reference_buffer_size(self) -> int:
        """Frames that are kept while there is no reference."""
        return self.reference_buffer.maxlen or 0

    @property
    def reference_update_interval(self) -> int:
        """Frames between renewals of the reference."""
        return self._live.update_interval

    @property
    def reference_update_weight(self) -> float:
        """Share of the newest corrected frame in the renewed reference."""
        return self._live.update_weight

    @property
    def reference_raw(self) -> NDArray[np.float64] | None:
        """The reference ``(H, W, C)`` in units of the camera, or None."""
        return None if self._stream is None else self._stream.reference.raw

    @property
    def reference_proc(self) -> NDArray[np.float32] | None:
        """The reference ``(H, W, C)`` as the solver sees it, or None."""
        return None if self._stream is None else self._stream.reference.processed

    @property
    def intensity_range(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Values of the reference that become 0 and 1, ``(C,)`` each, or None."""
        if self._stream is None:
            return None
        scale = self._stream.reference.normalization
        return scale.low.copy(), scale.high.copy()

    @property
    def temporal_buffer(self) -> deque[NDArray[np.float32]]:
        """Preprocessed frames ``(H, W, C)`` that the temporal filter still needs, newest first."""
        if self._stream is not None:
            return self._stream.recent
        sigma = self.options.sigma
        return deque(maxlen=len(past_weights(sigma, len(sigma), self._live.truncate)))

    @property
    def frame_count(self) -> int:
        """Frames corrected since the reference was set."""
        return 0 if self._stream is None else self._stream.frame_count

    def get_current_flow(self) -> NDArray[np.float32] | None:
        """Return the displacement ``(H, W, 2)`` of the newest frame in pixels, a copy, or None."""
        if self._stream is None:
            return None
        return self._stream.flow() if self._given is None else self._given.copy()

    def set_flow_init(self, w: NDArray[Any] | None) -> None:
        """Let the next frame start from a displacement.

        Parameters
        ----------
        w : ndarray, shape (H, W, 2), or None
            Pixels; None starts from zero.

        Raises
        ------
        InputError
            Before a reference is set, for a wrong shape, or for values that are not finite.
        """
        stream = self._need_stream("set_flow_init")
        if w is not None:
            w = np.asarray(w, np.float32)
            needed = (*stream.reference.raw.shape[:2], 2)
            if w.shape != needed or not np.isfinite(w).all():
                raise InputError(
                    f"w has shape {w.shape}; needed are finite displacements of shape {needed}"
                )
        stream.start_from(w)
        self._given = w

    # -- the reference --------------------------------------------------------------------------

    def set_reference(self, frames: Any = None) -> None:
        """Set the reference and begin anew.

        Parameters
        ----------
        frames : array_like, optional
            One image ``(H, W)`` or ``(H, W, C)``; or frames ``(T, H, W, C)`` or ``(T, H, W)``,
            which are registered to their mean (preset balanced) and averaged. Leading axes of
            length 1 are dropped; three axes are an image if the last one is shorter than 10. None
            takes the frames that were seen while there was no reference.

        Raises
        ------
        InputError
            Without frames, and for frames that are too small, constant or not finite.
        """
        if frames is None:
            if not self.reference_buffer:
                raise InputError(
                    "Reference buffer is empty, cannot initialize reference. Give frames, or call "
                    "the object with some first"
                )
            frames = np.stack(self.reference_buffer)
        self._planar, image = self._image_of(np.asarray(frames))
        height, width, channels = image.shape
        request = BlockRequest(
            correction_parameters(self.options, channels),
            "float32",
            self.options.non_finite,
            displacement_function=displacement_function(self.options),
            frame_function=self.options.preproc_funct,
        )
        weight = weight_map(self.options, height, width, channels)
        reference = make_live_reference(
            image, request, weight, may_be_flat=self._reference_may_be_flat
        )
        self._stream = FrameStream(reference, request, self._live)
        self._given = None
        self.reference_buffer.clear()

    def reset_reference(self, new_reference: Any = None) -> None:
        """Take another reference, or none.

        Parameters
        ----------
        new_reference : array_like, optional
            As in `set_reference`. None forgets the reference: frames that follow are returned as
            they are and kept, until `set_reference` makes a reference from them.
        """
        if new_reference is not None:
            self.set_reference(new_reference)
            return
        self._stream = None
        self._told_to_set = False
        self.reference_buffer.clear()

    def _image_of(self, frames: NDArray[Any]) -> tuple[bool, NDArray[Any]]:
        """Return whether frames have two axes, and the reference image with channels."""
        given = frames.shape
        while frames.ndim > 4 and frames.shape[0] == 1:
            frames = frames[0]
        if frames.size == 0 or frames.ndim not in (2, 3, 4) or frames.dtype.kind not in "biuf":
            raise InputError(
                f"a reference of shape {given} and type {frames.dtype} was given; needed are "
                "numbers of shape (H, W), (H, W, C), (T, H, W) or (T, H, W, C)"
            )
        if frames.ndim == 2:
            return True, frames[..., None]
        planar = False
        if frames.ndim == 3:
            if frames.shape[2] < SMALLEST_FRAME:
                return False, frames
            planar, frames = True, frames[..., None]
        if len(frames) == 1:
            return planar, frames[0]
        return planar, self._registered_mean(frames)

    def _registered_mean(self, frames: NDArray[Any]) -> NDArray[Any]:
        options = self.options.copy()
        options.quality_setting = QualitySetting.BALANCED
        options.output_typename = "single"
        options.buffer_size = max(options.buffer_size, len(frames))
        config = RegistrationConfig(parallelization="threading", progress=False)
        registered, _ = compensate_arr(
            frames, frames.mean(axis=0, dtype=np.float64), options, registration_config=config
        )
        mean: NDArray[np.float64] = registered.mean(axis=0, dtype=np.float64)
        return mean

    def _need_stream(self, what: str) -> FrameStream:
        if self._stream is None:
            raise InputError(f"{what} needs a reference; call set_reference first")
        return self._stream

    # -- frames ---------------------------------------------------------------------------------

    def __call__(
        self, frame: Any, normalize: bool = True
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Correct one frame.

        `frame`: ``(H, W)`` or ``(H, W, C)``, raw frame, in the units of the reference.
        `normalize`: False for a frame that is already scaled as the reference is after
            normalisation.
        Returns `corrected`: float32, pixels from outside the frame come from the reference. Without
            a reference: the frame itself, which is also kept for `set_reference`.
        Returns `flow`: ``(H, W, 2)`` float32, displacements ``u`` (right), ``v`` (down), pixels;
            zeros without a reference.
        Raises InputError: if the frame does not fit the reference, or is not finite.
        """
        frame = np.asarray(frame)
        if self._stream is None:
            return self._collect(frame)
        corrected, flow = self._stream.register(self._checked(frame), normalize=normalize)
        self._given = None
        return corrected.reshape(frame.shape), flow

    def register_frames(
        self, frames: Any, normalize: bool = True
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Correct several frames in turn.

        Parameters
        ----------
        frames : array_like, shape (T, H, W, C) or (T, H, W)
            Raw frames.
        normalize : bool
            As in `__call__`.

        Returns
        -------
        registered : ndarray, shape and dtype of `frames`
            Corrected frames; integers are rounded and clipped to their range.
        flow : ndarray of float32, shape (T, H, W, 2)
            Displacements, pixels.

        Raises
        ------
        InputError
            If frames do not fit the reference, or are not finite.
        """
        frames = np.asarray(frames)
        if frames.ndim not in (3, 4):
            raise InputError(
                f"frames of shape {frames.shape} were given; needed is (T, H, W) or (T, H, W, C)"
            )
        registered = np.empty_like(frames)
        flows = np.empty((*frames.shape[:3], 2), np.float32)
        for position, frame in enumerate(frames):
            if self._stream is None:
                registered[position], flows[position] = self._collect(frame)
                continue
            raw = self._checked(frame)
            target = registered[position].reshape(raw.shape)
            _, flows[position] = self._stream.register(raw, target, normalize=normalize)
            self._given = None
        return registered, flows

    def _checked(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Return a frame with channels, if it fits the reference."""
        shape = self._need_stream("a frame").reference.raw.shape
        fits = frame.shape == shape or (frame.ndim == 2 and (*frame.shape, 1) == shape)
        if not fits or frame.dtype.kind not in "biuf":
            raise InputError(
                f"a frame of shape {frame.shape} and type {frame.dtype} was given for a reference "
                f"of shape {shape}; needed are numbers of the same shape (H, W, C)"
                + (", or (H, W)" if shape[2] == 1 else "")
            )
        return frame.reshape(shape)

    def _collect(self, frame: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        if frame.ndim not in (2, 3):
            raise InputError(f"a frame of shape {frame.shape} was given; needed is (H, W[, C])")
        if self.reference_buffer and self.reference_buffer[-1].shape != frame.shape:
            raise InputError(
                f"a frame of shape {frame.shape} was given after frames of shape "
                f"{self.reference_buffer[-1].shape}; frames of a stream have one shape"
            )
        # A copy: cameras use their memory again.
        self.reference_buffer.append(frame.copy())
        if len(self.reference_buffer) == self.reference_buffer_size and not self._told_to_set:
            self._told_to_set = True
            logger.warning(
                "%d frames went by without a reference and were not corrected; set_reference() "
                "makes one from them.",
                self.reference_buffer_size,
            )
        return frame, np.zeros((*frame.shape[:2], 2), np.float32)


def _live_options(options: OFOptions | None, changes: Mapping[str, Any]) -> OFOptions:
    options = OFOptions() if options is None else options.copy()
    if options.min_level < 0:
        options.quality_setting = QualitySetting.FAST
    for name, value in changes.items():
        setattr(options, name, value)
    return options


def _check_whole(name: str, value: Any, least: int) -> None:
    if not is_integer(value) or value < least:
        raise OptionsError(f"{name} is {shortened(value)}; it must be a whole number >= {least}")
