"""Synthetic two-photon recordings with known motion, made frame by frame and never held whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

from scopeflow._shapes import FlowTYX2, FlowYX2, FrameYXC, VideoTYXC
from scopeflow.errors import InputError
from scopeflow.testing.displacement import SmoothDisplacement, backward_flow, to_dtype

_CELLS_PER_PIXEL = 0.0012
_READ_NOISE = 0.008  # of the brightness
_SPLINE_REACH = 6  # pixels beyond which a cubic spline coefficient no longer matters


@dataclass(frozen=True)
class SyntheticRecording:
    """A recording of ring-shaped cells that move by a known flow.

    Nothing is computed before it is asked for. ``frame``, ``clean_frame`` and ``flow_at`` make one
    frame; ``blocks`` streams; ``video`` and ``flow`` make everything. Frame ``t`` depends on the
    parameters and ``t`` alone. Make instances with `synthetic_recording`, which checks them.

    Attributes
    ----------
    frames, height, width, channels : int
        Shape ``(T, H, W, C)``.
    seed : int
        Decides cells, motion and noise.
    displacement : SmoothDisplacement
        The motion of the content.
    photons : float or None
        Photons per pixel at unit signal (cells peak at 1 to 2); None for no noise at all.
    brightness, offset : float
        Pixel value of unit signal above the dark level, and the dark level.
    dtype : numpy.dtype
        Data type of the frames.
    """

    frames: int
    height: int
    width: int
    channels: int
    seed: int
    displacement: SmoothDisplacement
    photons: float | None
    brightness: float
    offset: float
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape ``(T, H, W, C)``."""
        return self.frames, self.height, self.width, self.channels

    @property
    def _margin(self) -> int:
        reach = self.displacement.translation_px + self.displacement.nonrigid_px
        return int(np.ceil(reach)) + _SPLINE_REACH

    @cached_property
    def _canvas(self) -> NDArray[np.float64]:
        # The scene is larger than the frame: what moves in from outside is real content.
        margin = self._margin
        size = (self.height + 2 * margin, self.width + 2 * margin)
        random = [np.random.default_rng([self.seed, 2, c]) for c in range(self.channels)]
        return np.stack([_cell_scene(size, rng) for rng in random])

    @cached_property
    def _spline(self) -> list[NDArray[np.float64]]:
        return [spline_filter(scene, order=3) for scene in self._canvas]

    @cached_property
    def reference(self) -> NDArray[np.float32]:
        """The scene without motion and noise, shape ``(H, W, C)``, float32 pixel values."""
        margin = self._margin
        inner = self._canvas[:, margin : margin + self.height, margin : margin + self.width]
        return (self.offset + self.brightness * np.moveaxis(inner, 0, -1)).astype(np.float32)

    def _check(self, frame: int) -> None:
        if not 0 <= frame < self.frames:
            raise InputError(f"Frame {frame}: the recording has frames 0 to {self.frames - 1}.")

    def _signal(self, frame: int) -> NDArray[np.float64]:
        self._check(frame)
        y, x = np.mgrid[0 : self.height, 0 : self.width].astype(np.float64)
        dx, dy = self.displacement(frame, y, x)
        positions = [y - dy + self._margin, x - dx + self._margin]
        planes = [
            map_coordinates(spline, positions, order=3, prefilter=False) for spline in self._spline
        ]
        return np.clip(np.stack(planes, axis=-1), 0, None)

    def clean_frame(self, frame: int) -> NDArray[np.float32]:
        """Return one moved frame without noise, shape ``(H, W, C)``, float32 pixel values."""
        return (self.offset + self.brightness * self._signal(frame)).astype(np.float32)

    def frame(self, frame: int) -> FrameYXC:
        """Return one moved, noisy frame, shape ``(H, W, C)``, in the recording's dtype."""
        signal = self._signal(frame)
        if self.photons is not None:
            rng = np.random.default_rng([self.seed, 3, frame])
            signal = rng.poisson(signal * self.photons) / self.photons
            signal += rng.normal(0, _READ_NOISE, signal.shape)
        return to_dtype(self.offset + self.brightness * signal, self.dtype)

    def flow_at(self, frame: int) -> FlowYX2:
        """Return the true backward flow of one frame, shape ``(H, W, 2)``, pixels."""
        self._check(frame)
        return backward_flow(self.displacement, frame, self.height, self.width)

    def blocks(self, length: int) -> Iterator[VideoTYXC]:
        """Yield the recording in blocks of at most ``length`` frames, shape ``(n, H, W, C)``."""
        for start in range(0, self.frames, length):
            stop = min(start + length, self.frames)
            yield np.stack([self.frame(t) for t in range(start, stop)])

    @cached_property
    def video(self) -> VideoTYXC:
        """All frames, shape ``(T, H, W, C)``."""
        return np.stack([self.frame(t) for t in range(self.frames)])

    @cached_property
    def flow(self) -> FlowTYX2:
        """True backward flow of all frames, shape ``(T, H, W, 2)``, pixels."""
        return np.stack([self.flow_at(t) for t in range(self.frames)])


def _cell_scene(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Background texture and ring-shaped cell bodies, about 0 to 2 in units of signal."""
    texture = gaussian_filter(rng.standard_normal(size), 2.0)
    scene = 0.15 + 0.06 * np.clip(texture / texture.std(), -1, 3)
    count = max(1, round(_CELLS_PER_PIXEL * size[0] * size[1]))
    seeds = np.zeros(size)
    rows, columns = rng.integers(0, size[0], count), rng.integers(0, size[1], count)
    seeds[rows, columns] = rng.uniform(0.3, 1.5, count)
    # A wide bump minus a narrow one is a ring: indicator outside the nucleus.
    body = gaussian_filter(seeds, 3.5) * (2 * np.pi * 3.5**2)
    nucleus = gaussian_filter(seeds, 2.0) * (2 * np.pi * 2.0**2)
    scene += np.clip(body - 0.75 * nucleus, 0, None)
    return gaussian_filter(np.clip(scene, 0.02, None), 0.7)


def synthetic_recording(
    frames: int,
    height: int,
    width: int,
    channels: int = 1,
    *,
    seed: int = 0,
    translation_px: float = 4.0,
    nonrigid_px: float = 1.5,
    wavelength_px: float = 80.0,
    photons: float | None = 30.0,
    brightness: float | None = None,
    offset: float | None = None,
    dtype: DTypeLike = np.uint16,
) -> SyntheticRecording:
    """Describe a synthetic two-photon recording whose motion is known exactly.

    Ring-shaped cells on a textured background move by a drifting translation and a smooth
    deformation; photons are counted in every pixel (Poisson), then read out with Gaussian noise.

    Parameters
    ----------
    frames, height, width, channels : int
        Shape ``(T, H, W, C)`` of the recording; channels differ in content and share the motion.
    seed : int
        Decides cells, motion and noise; not negative.
    translation_px, nonrigid_px, wavelength_px : float
        Largest translation and deformation along each axis and the shortest wavelength of the
        deformation, pixels, see `SmoothDisplacement`.
    photons : float or None
        Photons per pixel at unit signal: the background is about 0.15, cells peak at 1 to 2. The
        signal-to-noise ratio grows with its square root. None gives no noise.
    brightness, offset : float, optional
        Pixel value of unit signal above the dark level, and the dark level. By default 1000 and
        100, or 25 and 10 for 8-bit types.
    dtype : dtype
        Integer (of at least 8 bits) or floating type of the frames.

    Returns
    -------
    SyntheticRecording
        Frames, reference and true flow, computed when asked for.

    Raises
    ------
    InputError
        A size below 1, a motion that would fold, photons that are not positive, or a dtype that
        cannot hold the pixel values.

    Notes
    -----
    The convention is that of the whole package: ``reference(y, x) = clean_frame(y + v, x + u)``.

    Examples
    --------
    >>> recording = synthetic_recording(20_000, 32, 48, seed=5)
    >>> recording.frame(19_999).shape, recording.flow_at(3).shape
    ((32, 48, 1), (32, 48, 2))
    """
    names = ("frames", "height", "width", "channels")
    for name, value in zip(names, (frames, height, width, channels), strict=True):
        if value < 1:
            raise InputError(f"{name}={value}: at least 1 is needed.")
    if photons is not None and not photons > 0:
        raise InputError(f"photons={photons}: give a positive number, or None for no noise.")
    kind = np.dtype(dtype)
    if kind.kind not in "uif":
        raise InputError(f"dtype={kind}: an integer or floating type is needed.")
    small = kind.itemsize == 1
    recording = SyntheticRecording(
        frames=frames,
        height=height,
        width=width,
        channels=channels,
        seed=seed,
        displacement=SmoothDisplacement(seed, translation_px, nonrigid_px, wavelength_px),
        photons=photons,
        brightness=(25.0 if small else 1000.0) if brightness is None else brightness,
        offset=(10.0 if small else 100.0) if offset is None else offset,
        dtype=kind,
    )
    peak = recording.offset + recording.brightness * recording._canvas.max()
    limit = np.iinfo(kind).max if kind.kind in "ui" else np.finfo(kind).max
    if peak > limit:
        raise InputError(
            f"Pixel values reach {peak:.0f}, but {kind} ends at {limit:.6g}. Lower brightness or "
            "choose a wider dtype."
        )
    return recording
