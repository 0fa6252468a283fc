"""A synthetic session whose motion within and between recordings is known exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import tifffile
from scipy.ndimage import binary_dilation

from scopeflow.testing.synthetic import SyntheticRecording, synthetic_recording

SHIFTS = [(0.0, 0.0), (5.3, -3.6), (0.0, 0.0), (-7.8, 4.4), (2.5, 9.2), (-4.1, -6.7)]
CENTER = 2


@dataclass(frozen=True)
class SessionMotion:
    """Where the content of one recording is moved to; nothing moves in frame 0 but by `between`."""

    index: int
    shift: tuple[float, float]
    within_px: float = 1.5
    nonrigid_px: float = 0.5
    translation_px: float = 14.0  # for the margin of the scene only

    def between(self, y, x):
        if self.index == CENTER:
            return 0 * x, 0 * y
        k = 2 * np.pi / 90.0
        return (
            self.shift[0] + self.nonrigid_px * np.sin(k * y + self.index),
            self.shift[1] + self.nonrigid_px * np.cos(k * x + 2 * self.index),
        )

    def within(self, frame, y, x):
        k = 2 * np.pi / 80.0
        swing = np.sin(0.7 * frame + 0.0), np.sin(0.45 * frame)
        return (
            self.within_px * swing[0] * (1 + 0.3 * np.sin(k * x + self.index)),
            self.within_px * swing[1] * (1 + 0.3 * np.cos(k * y - self.index)),
        )

    def __call__(self, frame, y, x):
        bx, by = self.between(y, x)
        mx, my = self.within(frame, y, x)
        return bx + mx, by + my


def _solve(displacement, target_y, target_x):
    """Positions p with ``p - displacement(p) = target``."""
    y, x = target_y.copy(), target_x.copy()
    for _ in range(15):  # the displacement changes by less than 0.1 px per pixel
        dx, dy = displacement(y, x)
        y, x = target_y + dy, target_x + dx
    return y, x


@dataclass(frozen=True)
class TrueSession:
    """Recordings and the truth about them."""

    recordings: list[SyntheticRecording]
    motions: list[SessionMotion]

    @property
    def shape(self):
        return self.recordings[0].height, self.recordings[0].width

    def _grid(self):
        return np.mgrid[0 : self.shape[0], 0 : self.shape[1]].astype(float)

    def between(self, n):
        """True ``w_to_reference`` of a recording, ``(H, W, 2)``."""
        y, x = self._grid()
        py, px = _solve(self.motions[n].between, y, x)
        return np.stack([px - x, py - y], axis=-1)

    def total(self, n, frame):
        """True displacement of a raw frame against the session's reference, ``(H, W, 2)``."""
        y, x = self._grid()
        py, px = _solve(lambda y, x: self.motions[n](frame, y, x), y, x)
        return np.stack([px - x, py - y], axis=-1)

    def within(self, n, frame):
        """True displacement of a raw frame against frame 0 of its recording, ``(H, W, 2)``."""
        y, x = self._grid()
        bx, by = self.motions[n].between(y, x)
        py, px = _solve(lambda y, x: self.motions[n](frame, y, x), y - by, x - bx)
        return np.stack([px - x, py - y], axis=-1)

    @cached_property
    def final_mask(self):
        """Pixels whose content is inside of every frame of every recording."""
        height, width = self.shape
        y, x = self._grid()
        mask = np.ones(self.shape, bool)
        for n, recording in enumerate(self.recordings):
            w = self.between(n)
            mask &= _inside(x + w[..., 0], y + w[..., 1], width, height)
            for frame in range(recording.frames):
                total = self.total(n, frame)
                mask &= _inside(x + total[..., 0], y + total[..., 1], width, height)
        return mask


def _inside(x, y, width, height):
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


def true_session(frames=16, height=96, width=128, channels=2, photons=1000.0, count=6):
    scene = synthetic_recording(frames, height, width, channels, seed=11, photons=photons)
    motions = [SessionMotion(n, SHIFTS[n]) for n in range(count)]
    recordings = [
        replace(scene, displacement=motion, seed=scene.seed) for n, motion in enumerate(motions)
    ]
    return TrueSession(recordings, motions)


def write_session(session: TrueSession, root: Path) -> list[Path]:
    root.mkdir(parents=True, exist_ok=True)
    paths = []
    for n, recording in enumerate(session.recordings):
        path = root / f"rec_{n}.tif"
        video = np.moveaxis(recording.video, -1, 1)
        tifffile.imwrite(path, video, imagej=True, metadata={"axes": "TCYX"})
        paths.append(path)
    return paths


def border_band(mask, pixels=1):
    """Pixels within some distance of the border of a mask."""
    ring = np.ones((3, 3), bool)
    grown = binary_dilation(mask, ring, iterations=pixels)
    shrunk = ~binary_dilation(~mask, ring, iterations=pixels)
    return grown & ~shrunk
