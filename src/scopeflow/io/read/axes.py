"""Which stored axis is which: from any order of axes to frames, rows, columns, channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scopeflow.errors import InputError

__all__ = [
    "AxisLayout",
    "check_frame_range",
    "check_video",
    "choose_index",
    "parse_axes",
    "resolve_layout",
]

SMALLEST_SIDE = 10
_SYNONYMS = {"H": "Y", "W": "X", "S": "C"}
_SUPPORTED = ("b1", "u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8")


@dataclass(frozen=True)
class AxisLayout:
    """How one stored array maps to ``(T, H, W, C)``.

    ``axes`` has one letter for each stored axis: ``T``, ``Y``, ``X``, ``C``, ``S`` (samples, become
    channels after ``C``); other letters have a fixed index. ``fixed`` holds pairs ``(axis, index)``
    of the axes that are not read whole.
    """

    axes: str
    shape: tuple[int, ...]
    fixed: tuple[tuple[int, int], ...] = ()

    def size(self, letter: str) -> int:
        """Return the length of a free axis, 1 where it is absent."""
        fixed = dict(self.fixed)
        return math.prod(
            n
            for axis, (name, n) in enumerate(zip(self.axes, self.shape, strict=True))
            if name == letter and axis not in fixed
        )

    @property
    def video_shape(self) -> tuple[int, int, int, int]:
        """Shape ``(T, H, W, C)`` of the recording."""
        channels = self.size("C") * self.size("S")
        return self.size("T"), self.size("Y"), self.size("X"), channels

    def index(self, start: int, stop: int) -> tuple[int | slice, ...]:
        """Return the index of frames ``start`` to ``stop`` in the stored array."""
        fixed = dict(self.fixed)
        return tuple(
            fixed[axis] if axis in fixed else (slice(start, stop) if letter == "T" else slice(None))
            for axis, letter in enumerate(self.axes)
        )

    def to_video(self, block: NDArray[Any], *, owned: bool) -> NDArray[Any]:
        """Reorder what ``index`` selected to ``(n, H, W, C)``: C-contiguous, native byte order.

        The result has memory of its own; ``owned`` says that nobody else holds that of ``block``,
        so that a view of it may be returned.
        """
        fixed = dict(self.fixed)
        letters = [letter for axis, letter in enumerate(self.axes) if axis not in fixed]
        for letter in "TYXCS":
            if letter not in letters:
                letters.append(letter)
                block = block[..., np.newaxis]
        block = block.transpose([letters.index(letter) for letter in "TYXCS"])
        frames, height, width, channels, samples = block.shape
        native = block.dtype.newbyteorder("=")
        video = np.array(block, dtype=native, order="C", copy=None if owned else True)
        return video.reshape(frames, height, width, channels * samples)


def parse_axes(axes: str, ndim: int, name: str) -> str:
    """Check the axes that a user gave; return capital letters of ``T``, ``Z``, ``C``, ``Y``, ``X``.

    ``H``, ``W``, ``S`` are taken as ``Y``, ``X``, ``C``.

    Raises InputError: wrong number of letters, an unknown or repeated letter, or ``Y`` or ``X``
        missing.

    Examples
    --------
    >>> parse_axes("hwt", 3, "movie.mat")
    'YXT'
    """
    letters = "".join(_SYNONYMS.get(letter, letter) for letter in axes.strip().upper())
    unknown = sorted(set(letters) - set("TZCYX"))
    advice = 'Give one letter for each axis in stored order, such as "TYX", "TYXC" or "TCYX".'
    if unknown:
        raise InputError(
            f"{name}: axes={axes!r} has unknown letters {', '.join(unknown)}; "
            f"known are T (frames), Y, X, C (channels), Z (planes). {advice}"
        )
    if len(letters) != ndim:
        raise InputError(
            f"{name}: axes={axes!r} names {len(letters)} axes, but the data have {ndim}. {advice}"
        )
    if len(set(letters)) != len(letters):
        raise InputError(f"{name}: axes={axes!r} names an axis twice. {advice}")
    missing = [letter for letter in "YX" if letter not in letters]
    if missing:
        raise InputError(f"{name}: axes={axes!r} lacks {' and '.join(missing)}. {advice}")
    return letters


def default_axes(ndim: int, shape: Sequence[int], name: str) -> str:
    """Return the axes of a plain array without names: TYX or TYXC, and YX for one frame."""
    try:
        return {2: "YX", 3: "TYX", 4: "TYXC"}[ndim]
    except KeyError:
        raise InputError(
            f"{name}: an array of shape {tuple(shape)} has {ndim} axes without names; "
            '2 (YX), 3 (TYX) or 4 (TYXC) are understood. Pass axes=, for example axes="TZCYX".'
        ) from None


def resolve_layout(
    axes: str,
    shape: Sequence[int],
    name: str,
    *,
    z: int | None = None,
    planes_are_frames: bool = False,
) -> tuple[AxisLayout, str]:
    """Decide how named axes become frames, rows, columns and channels.

    Letters other than ``T Y X C S Z`` may stand for frames, and ``Z`` where ``planes_are_frames``
    and there are no others; ``z`` chooses a plane. The second value is a remark for the user where
    something was inferred, else an empty string.

    Raises InputError: ``Y`` or ``X`` missing, several planes without a choice, or axes that mean
        nothing.

    Examples
    --------
    >>> resolve_layout("TCYX", (5, 2, 32, 40), "movie.tif")[0].video_shape
    (5, 32, 40, 2)
    """
    shape = tuple(int(n) for n in shape)
    letters = list(axes)
    described = f"axes {axes}, shape {shape}"
    if letters.count("Y") != 1 or letters.count("X") != 1:
        raise InputError(
            f"{name}: {described} has no single pair of image axes Y and X. "
            "Pass axes=, one letter for each stored axis."
        )
    fixed: dict[int, int] = {}
    note = ""
    for axis, letter in enumerate(letters):
        if shape[axis] == 1 and letter not in "TYXCSZ":
            fixed[axis] = 0
    if "Z" in letters:
        axis = letters.index("Z")
        planes = shape[axis]
        frames = shape[letters.index("T")] if "T" in letters else 1
        if z is not None:
            if not 0 <= z < planes:
                raise InputError(f"{name}: z={z} is not one of its planes 0 to {planes - 1}.")
            fixed[axis] = z
        elif planes == 1:
            fixed[axis] = 0
        elif planes_are_frames and frames == 1:
            if "T" in letters:
                time = letters.index("T")
                fixed[time], letters[time] = 0, "t"
            letters[axis] = "T"
            note = f"axis Z ({planes} planes) taken as frames, since there are no others"
        else:
            raise InputError(
                f"{name}: {described} holds {planes} z planes, and a video has one. "
                f"Choose one with z=0 … z={planes - 1}."
            )
    elif z:
        raise InputError(f"{name}: z={z} was given, but {described} has no z axis. Leave z out.")
    others = [
        axis for axis, letter in enumerate(letters) if letter not in "TYXCS" and axis not in fixed
    ]
    if len(others) == 1 and "T" not in letters:
        note = f"unnamed axis {others[0]} ({shape[others[0]]}) taken as frames"
        letters[others[0]] = "T"
    elif others:
        raise InputError(
            f"{name}: {described}: the meaning of {', '.join(letters[a] for a in others)} is "
            "unknown. Pass axes= with letters of T, Z, C, Y, X."
        )
    return AxisLayout("".join(letters), shape, tuple(sorted(fixed.items()))), note


def check_video(shape: tuple[int, int, int, int], dtype: DTypeLike, name: str) -> np.dtype[Any]:
    """Check that a recording ``(T, H, W, C)`` can be corrected; return its type in native order.

    Raises InputError: no frames, no channels, frames below 10 px, or an unsupported type.
    """
    kind = np.dtype(dtype)
    if kind.str[1:] not in _SUPPORTED:
        hints = {
            "c": "take its magnitude, numpy.abs(video).astype('float32')",
            "O": "store numbers of one type, for example float32",
        }
        hint = hints.get(kind.kind, "convert it, for example video.astype('float32')")
        raise InputError(
            f"{name}: pixels of type {kind} are not supported; bool, (u)int8–32 and float16–64 "
            f"are. Please {hint}."
        )
    frames, height, width, channels = shape
    if frames == 0 or channels == 0:
        what = "frames" if frames == 0 else "channels"
        raise InputError(
            f"{name}: it holds zero {what} (T, H, W, C = {shape}). At least one is needed; check "
            "that the recording was saved."
        )
    if height < SMALLEST_SIDE or width < SMALLEST_SIDE:
        raise InputError(
            f"{name}: frames of {height} × {width} px (height × width) are too small; at least "
            f"{SMALLEST_SIDE} × {SMALLEST_SIDE} are needed. If the axes were read in the wrong "
            "order (T, H, W, C = "
            f'{shape}), pass axes=, for example axes="YXT" or axes="YXC".'
        )
    return kind.newbyteorder("=")


def check_frame_range(start: int, stop: int, frames: int, name: str) -> None:
    """Raise `InputError` unless ``0 <= start <= stop <= frames``."""
    if not 0 <= start <= stop <= frames:
        raise InputError(
            f"{name}: frames {start} to {stop} were asked for, but it has {frames} frames "
            f"(0 ≤ start ≤ stop ≤ {frames})."
        )


def choose_index(
    given: int | None, count: int, key: str, what: str, names: Sequence[str], name: str
) -> int:
    """Return the chosen one of several positions or planes, the only one where there is one.

    Raises InputError: there are several and none is chosen, or the chosen one does not exist.
    """
    if given is None:
        if count > 1:
            listing = f" ({', '.join(f'{n}: {text}' for n, text in enumerate(names))})"
            raise InputError(
                f"{name}: it holds {count} {what}{listing if names else ''}, and a video has one. "
                f"Choose one with {key}=0 … {key}={count - 1}."
            )
        return 0
    if not 0 <= given < count:
        raise InputError(
            f"{name}: {key}={given} is not one of its {count} {what} (0 to {count - 1})."
        )
    return int(given)
