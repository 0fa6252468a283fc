"""Real recordings that are moved by a known flow, and the one that is shipped with the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

import scopeflow
from scopeflow._shapes import FlowTYX2, VideoTYXC
from scopeflow.errors import InputError
from scopeflow.testing.displacement import (
    DisplacementFunction,
    SmoothDisplacement,
    backward_flow,
    to_dtype,
)


@dataclass(frozen=True)
class MovedRecording:
    """A real recording, moved by a known flow.

    Attributes
    ----------
    video : ndarray, shape (T, H, W, C)
        The moved recording, dtype of the original.
    still : ndarray, shape (T, H, W, C)
        The original.
    flow : ndarray of float32, shape (T, H, W, 2)
        True backward flow, pixels: ``still(y, x) = video(y + v, x + u)``.
    """

    video: VideoTYXC
    still: VideoTYXC
    flow: FlowTYX2

    @property
    def reference(self) -> NDArray[np.float32]:
        """Mean of the still recording, shape ``(H, W, C)``, float32."""
        return self.still.mean(axis=0, dtype=np.float64).astype(np.float32)


def move_recording(video: VideoTYXC, displacement: DisplacementFunction) -> MovedRecording:
    """Move a real recording by a known, smooth displacement.

    Parameters
    ----------
    video : ndarray, shape (T, H, W, C)
        The recording that is taken as still; integer or floating type.
    displacement : callable
        ``displacement(t, y, x) -> (dx, dy)`` in pixels, for any real ``y`` and ``x``, such as
        `SmoothDisplacement`.

    Returns
    -------
    MovedRecording
        Moved frames (cubic spline interpolation, mirrored at the border, rounded half to even and
        kept inside the dtype), the original, and the true flow.

    Raises
    ------
    InputError
        The video is not four-dimensional, or the displacement folds the image.

    Examples
    --------
    >>> import numpy as np
    >>> still = np.random.default_rng(0).integers(0, 900, (2, 24, 24, 1), np.uint16)
    >>> moved = move_recording(still, lambda t, y, x: (0 * x + 3.0, 0 * y))
    >>> bool((moved.video[0, :, 3:] == still[0, :, :-3]).all())
    True
    """
    if video.ndim != 4:
        raise InputError(
            f"The video has shape {video.shape}: four axes (T, H, W, C) are needed. Add the "
            "channel axis with video[..., None]."
        )
    frames, height, width, channels = video.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    moved = np.empty_like(video)
    flow = np.empty((frames, height, width, 2), np.float32)
    for t in range(frames):
        flow[t] = backward_flow(displacement, t, height, width)
        dx, dy = displacement(t, y, x)
        for c in range(channels):
            plane = map_coordinates(
                video[t, ..., c].astype(np.float64), [y - dy, x - dx], order=3, mode="mirror"
            )
            moved[t, ..., c] = to_dtype(plane, video.dtype)
    return MovedRecording(video=moved, still=video, flow=flow)


def demo_recording_path() -> Path:
    """Return the path of the two-photon excerpt that is shipped with the package.

    Returns
    -------
    Path
        A TIFF file of 200 frames, 64 × 64 pixels, int16; its README.md states source and licence.

    Examples
    --------
    >>> demo_recording_path().name
    'mouse_two_photon.tif'
    """
    return Path(scopeflow.__file__).parent / "data" / "mouse_two_photon.tif"


def make_demo_recording(
    frames: int = 200,
    *,
    seed: int = 0,
    translation_px: float = 4.0,
    nonrigid_px: float = 1.0,
    wavelength_px: float = 48.0,
) -> MovedRecording:
    """Return the shipped two-photon excerpt, moved by a known flow.

    Parameters
    ----------
    frames : int
        How many of its frames, 1 to 200.
    seed : int
        Decides the motion.
    translation_px, nonrigid_px, wavelength_px : float
        Largest translation and deformation along each axis and the shortest wavelength of the
        deformation, pixels, see `SmoothDisplacement`.

    Returns
    -------
    MovedRecording
        Video of shape ``(frames, 64, 64, 1)``, int16, and its true flow.

    Raises
    ------
    InputError
        More frames than there are, or a motion that would fold.

    Examples
    --------
    >>> demo = make_demo_recording(5)
    >>> demo.video.shape, demo.flow.shape
    ((5, 64, 64, 1), (5, 64, 64, 2))
    """
    still = tifffile.imread(demo_recording_path())[..., np.newaxis]
    if not 1 <= frames <= len(still):
        raise InputError(f"frames={frames}: the demo recording has 1 to {len(still)} frames.")
    displacement = SmoothDisplacement(seed, translation_px, nonrigid_px, wavelength_px)
    return move_recording(still[:frames], displacement)
