"""Numbers that say how well a recording is registered, streamed over recordings of any length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from scopeflow.errors import InputError

_TRUNCATE = 4.0  # in standard deviations: where Gaussian kernels end
_BLOCK_BYTES = 64 * 2**20  # float64 bytes of one block of frames


class VideoLike(Protocol):
    """Anything with a shape and slicing along frames: numpy, memory map, zarr, HDF5."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(T, H, W)`` or ``(T, H, W, C)``."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return the frames of a slice."""


def endpoint_error(flow: ArrayLike, truth: ArrayLike, *, border: int = 0) -> NDArray[np.float64]:
    """Return the mean distance between estimated and true displacement of each frame, pixels.

    Displacements ``(..., H, W, 2)`` give errors ``(...)``, a 0-d array for one frame. Left out are
    `border` pixels along each edge, and those where the truth is NaN (unknown).

    Raises InputError: shapes differ, are not fields of two components, or the border leaves
        nothing.

    References
    ----------
    S. Baker et al., "A database and evaluation methodology for optical flow", International
    Journal of Computer Vision 92, 1-31 (2011).

    Examples
    --------
    >>> truth = np.zeros((4, 5, 2))
    >>> float(endpoint_error(truth + [3.0, 4.0], truth))
    5.0
    """
    flow, truth = np.asarray(flow, np.float64), np.asarray(truth, np.float64)
    if flow.shape != truth.shape or flow.ndim < 3 or flow.shape[-1] != 2:
        raise InputError(
            f"Flow of shape {flow.shape} against truth of shape {truth.shape}: both need the same "
            "shape (..., H, W, 2)."
        )
    _check_border(border, flow.shape[-3], flow.shape[-2])
    inner = (..., slice(border, flow.shape[-3] - border), slice(border, flow.shape[-2] - border))
    distance = np.hypot(*np.moveaxis((flow - truth)[(*inner, slice(None))], -1, 0))
    known = ~np.isnan(truth[(*inner, slice(None))]).any(axis=-1)
    total = np.where(known, distance, 0).sum(axis=(-2, -1))
    count = known.sum(axis=(-2, -1))
    if not np.all(count):
        raise InputError("The truth is NaN everywhere in a frame: nothing can be compared.")
    return np.asarray(total / count)


def correlation_with_mean(
    video: VideoLike,
    *,
    border: int = 10,
    smooth_frames: float = 0.0,
    smooth_pixels: float = 0.0,
    channel: int = 0,
) -> NDArray[np.float64]:
    """Return the Pearson correlation of every frame with the mean frame.

    Raw frames of a dim recording are mostly photon noise; smoothing in time and in space before
    correlating lets motion show. Sums are double precision, because in single precision the
    correlation of large frames is inaccurate.

    `video`: ``(T, H, W)`` or ``(T, H, W, C)``, the recording; it is read twice, in blocks.
    `border`: pixels left out along each edge, after smoothing.
    `smooth_frames`, `smooth_pixels`: standard deviations of the Gaussian filter in time (frames)
        and in space (pixels); 0 is off. The ends are mirrored; the kernel ends at four standard
        deviations.
    Returns: ``(T,)`` float64, -1 to 1; NaN for a frame without contrast.
    Raises InputError: the recording is empty, has the wrong axes or is not finite, the channel does
        not exist, or the border leaves nothing.

    References
    ----------
    E. A. Pnevmatikakis and A. Giovannucci, "NoRMCorre: An online algorithm for piecewise rigid
    motion correction of calcium imaging data", Journal of Neuroscience Methods 291, 83-94 (2017).

    Examples
    --------
    >>> frame = np.random.default_rng(0).random((32, 32))
    >>> correlation_with_mean(np.stack([frame, 2 * frame + 1]), border=4).round(6).tolist()
    [1.0, 1.0]
    """
    _check_video(video, channel)
    height, width = video.shape[1:3]
    _check_border(border, height, width)
    if smooth_frames < 0 or smooth_pixels < 0:
        raise InputError(
            f"smooth_frames={smooth_frames}, smooth_pixels={smooth_pixels}: 0 or more is needed."
        )

    def smoothed() -> Iterator[tuple[int, NDArray[np.float64]]]:
        halo = int(_TRUNCATE * smooth_frames + 0.5)
        for start, stop in _blocks(video):
            first, last = max(0, start - halo), min(video.shape[0], stop + halo)
            block = _channel_block(video, first, last, channel)
            if smooth_frames > 0:
                # The halo holds the true neighbours; only the recording's own ends are mirrored.
                block = gaussian_filter1d(block, smooth_frames, axis=0, truncate=_TRUNCATE)
            block = block[start - first : stop - first]
            if smooth_pixels > 0:
                sigma = (0, smooth_pixels, smooth_pixels)
                block = gaussian_filter(block, sigma, truncate=_TRUNCATE)
            block = block[:, border : height - border, border : width - border]
            yield start, block.reshape(len(block), -1)

    total = np.zeros((height - 2 * border) * (width - 2 * border))
    for _, frames in smoothed():
        total += frames.sum(axis=0)
    template = total / video.shape[0]
    template -= template.mean()
    correlation = np.empty(video.shape[0])
    for start, frames in smoothed():
        centred = frames - frames.mean(axis=1, keepdims=True)
        scale = np.sqrt((centred**2).sum(axis=1) * (template @ template))
        correlation[start : start + len(frames)] = np.divide(
            centred @ template, scale, out=np.full(len(frames), np.nan), where=scale > 0
        )
    return correlation


def crispness(image: ArrayLike, *, border: int = 0) -> float:
    """Return the root of the summed squared gradient of an image, larger is sharper.

    Only images ``(H, W)`` or ``(H, W, C)`` of the same crop and the same intensity scale may be
    compared, usually means of recordings; `border` pixels along each edge are left out first.

    Raises InputError: wrong number of axes, or fewer than 2 × 2 pixels remain.

    References
    ----------
    Pnevmatikakis and Giovannucci (2017), see `correlation_with_mean`.

    Examples
    --------
    >>> round(crispness(np.tile(np.arange(5.0), (4, 1))) ** 2, 9)
    20.0
    """
    values = np.asarray(image, np.float64)
    if values.ndim not in (2, 3):
        raise InputError(f"An image of shape {values.shape}: (H, W) or (H, W, C) is needed.")
    height, width = values.shape[:2]
    _check_border(border, height, width, least=2)
    values = values[border : height - border, border : width - border]
    along_y, along_x = np.gradient(values, axis=(0, 1))
    return float(np.sqrt((along_y**2 + along_x**2).sum()))


@dataclass(frozen=True)
class RegistrationFactors:
    """How many times smaller two numbers became by correction; above 1 is better.

    ``mse_factor`` is of the mean squared difference to the reference, ``std_factor`` of the mean
    standard deviation over time.
    """

    mse_factor: float
    std_factor: float


def registration_factors(
    raw: VideoLike,
    corrected: VideoLike,
    reference: ArrayLike,
    *,
    border: int = 25,
    smooth_pixels: float = 3.0,
) -> RegistrationFactors:
    """Return the performance factors by which Flow-Registration was published.

    All frames and the reference are smoothed in space (`smooth_pixels`, standard deviation). The
    MSE factor leaves out the border, the STD factor does not. Both are means over channels, and
    infinite when nothing remains after correction. The recordings ``(T, H, W)`` or
    ``(T, H, W, C)``, without the reference frames, are read in blocks.

    Raises InputError: shapes do not fit together, or the border leaves nothing.

    References
    ----------
    P. Flotho et al., "Flow-Registration: Efficient motion compensation of functional two-photon
    imaging data", Journal of Biophotonics 15, e202100330 (2022), Figure 2.

    Examples
    --------
    >>> noise = np.random.default_rng(0).random((8, 60, 60))
    >>> factors = registration_factors(2 * noise, noise, np.zeros((60, 60)))
    >>> round(factors.mse_factor, 6), round(factors.std_factor, 6)
    (4.0, 2.0)
    """
    template = np.asarray(reference, np.float64)
    if raw.shape != corrected.shape or raw.shape[1:] != template.shape:
        raise InputError(
            f"raw {raw.shape}, corrected {corrected.shape}, reference {template.shape}: the two "
            "recordings need equal shapes and the reference the shape of one frame."
        )
    _check_video(raw)
    _check_border(border, *template.shape[:2])
    sigma = (smooth_pixels, smooth_pixels) + (0,) * (template.ndim - 2)
    template = gaussian_filter(template, sigma, truncate=_TRUNCATE)
    inner = (slice(border, template.shape[0] - border), slice(border, template.shape[1] - border))
    errors, fluctuations = [], []
    for video in (raw, corrected):
        squares, count = 0.0, 0
        mean, spread = np.zeros(template.shape), np.zeros(template.shape)
        for start, stop in _blocks(video):
            block = np.asarray(video[start:stop], np.float64)
            block = gaussian_filter(block, (0, *sigma), truncate=_TRUNCATE)
            squares += float(((block - template)[(slice(None), *inner)] ** 2).sum())
            # Chan's update joins the moments of blocks without cancellation.
            block_mean = block.mean(axis=0)
            shift, joint = block_mean - mean, count + len(block)
            spread += ((block - block_mean) ** 2).sum(axis=0)
            spread += shift**2 * (count * len(block) / joint)
            mean += shift * (len(block) / joint)
            count = joint
        errors.append(squares / (count * template[inner].size))
        fluctuations.append(float(np.sqrt(spread / count).mean()))
    return RegistrationFactors(
        mse_factor=errors[0] / errors[1] if errors[1] > 0 else float("inf"),
        std_factor=fluctuations[0] / fluctuations[1] if fluctuations[1] > 0 else float("inf"),
    )


def _check_border(border: int, height: int, width: int, least: int = 1) -> None:
    if border < 0 or min(height, width) - 2 * border < least:
        raise InputError(
            f"border={border} of {height} × {width} pixels: at least {least} × {least} pixels must "
            "remain. Give a border of 0 or more that is smaller."
        )


def _check_video(video: VideoLike, channel: int = 0) -> None:
    shape = tuple(video.shape)
    if len(shape) not in (3, 4) or 0 in shape:
        raise InputError(
            f"A recording of shape {shape}: (T, H, W) or (T, H, W, C) without empty axes is needed."
        )
    channels = shape[3] if len(shape) == 4 else 1
    if not 0 <= channel < channels:
        raise InputError(f"Channel {channel}: the recording has channels 0 to {channels - 1}.")


def _blocks(video: VideoLike) -> Iterator[tuple[int, int]]:
    frame_bytes = 8 * int(np.prod(video.shape[1:]))
    length = max(1, _BLOCK_BYTES // frame_bytes)
    for start in range(0, video.shape[0], length):
        yield start, min(start + length, video.shape[0])


def _channel_block(video: VideoLike, start: int, stop: int, channel: int) -> NDArray[np.float64]:
    block = video[start:stop, :, :, channel] if len(video.shape) == 4 else video[start:stop]
    values = np.asarray(block, np.float64)
    if not np.isfinite(values).all():
        raise InputError(
            f"Frames {start} to {stop - 1} hold NaN or infinite values: correlations need finite "
            "ones. Replace them first."
        )
    return values
