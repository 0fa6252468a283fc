"""Recordings as HDF5 and MATLAB v7.3 files, one 3-D dataset a channel; writes, never reads."""

from __future__ import annotations

import datetime
from abc import abstractmethod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from scopeflow.errors import InputError
from scopeflow.io.locations import Location
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.write.protocol import StreamedFile

_CHUNK_BYTES = 1 << 20
_MATLAB_CLASSES = {
    "bool": "logical",
    "float32": "single",
    "float64": "double",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class _ChannelFile(StreamedFile):
    """One dataset a channel in one HDF5 file."""

    _userblock = 0
    _names: tuple[str, ...] = ()

    def __init__(
        self,
        path: str | Location,
        shape: tuple[int, int, int, int],
        dtype: DTypeLike,
        metadata: VideoMetadata | None = None,
        dataset_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(path, shape, dtype, metadata)
        count = self.shape[3]
        names = tuple(f"ch{n}" for n in range(1, count + 1))
        self.dataset_names = dataset_names or self._names or names
        if len(set(self.dataset_names)) != count:
            raise InputError(
                f"{count} channel(s) need as many dataset names, given {self.dataset_names}"
            )
        self._file: h5py.File | None = None
        self._datasets: list[h5py.Dataset] = []

    @property
    def _chunk_length(self) -> int:
        frame_bytes = self.shape[1] * self.shape[2] * self.dtype.itemsize
        return max(1, min(self.shape[0], _CHUNK_BYTES // frame_bytes))

    def _create(self, partial: Path) -> None:
        # Without a chunk cache a full disk fails the write at fault, not the closing of the file.
        self._file = h5py.File(partial, "w", userblock_size=self._userblock, rdcc_nbytes=0)
        self._datasets = [self._dataset(self._file, n) for n in range(self.shape[3])]

    @abstractmethod
    def _dataset(self, file: h5py.File, channel: int) -> h5py.Dataset:
        """Make the dataset of one channel."""

    def _close(self) -> None:
        file, self._file, self._datasets = self._file, None, []
        if file is not None:
            file.close()


class Hdf5Writer(_ChannelFile):
    """Streamed HDF5 export: ``ch1`` … ``chN``, or ``dataset_names``, each ``(T, H, W)``.

    The datasets can grow in T, and file and datasets carry the attributes of the layout that
    PyFlowReg documents (``n_channels``, ``frame_count``, ``dimension_ordering`` …).
    """

    def _create(self, partial: Path) -> None:
        super()._create(partial)
        frames, height, width, channels = self.shape
        assert self._file is not None
        attributes: dict[str, Any] = {
            "n_channels": channels,
            "frame_count": frames,
            "height": height,
            "width": width,
            # Positions of H, W and T among the axes of a dataset.
            "dimension_ordering": (1, 2, 0),
            "format": "scopeflow_hdf5_v1",
            "dataset_names": list(self.dataset_names),
        }
        if self.metadata.pixel_size_um is not None:
            attributes["pixel_size_um"] = self.metadata.pixel_size_um
        if self.metadata.frame_interval_s is not None:
            attributes["frame_interval_s"] = self.metadata.frame_interval_s
        if self.metadata.channel_names is not None:
            attributes["channel_names"] = list(self.metadata.channel_names)
        self._file.attrs.update(attributes)

    def _dataset(self, file: h5py.File, channel: int) -> h5py.Dataset:
        frames, height, width, _ = self.shape
        dataset = file.create_dataset(
            self.dataset_names[channel],
            shape=(frames, height, width),
            maxshape=(None, height, width),
            chunks=(self._chunk_length, height, width),
            dtype=self.dtype,
        )
        dataset.attrs["dimension_ordering"] = (1, 2, 0)
        dataset.attrs["original_shape_THWC"] = self.shape
        return dataset

    def _append(self, frames: NDArray[Any], start: int) -> None:
        for channel, dataset in enumerate(self._datasets):
            dataset[start : start + len(frames)] = np.ascontiguousarray(frames[..., channel])


class CaimanWriter(Hdf5Writer):
    """Streamed HDF5 export as CaImAn loads it: one channel, dataset ``mov``, ``(T, H, W)``.

    The dataset carries CaImAn's attributes ``fr``, frames in a second, where the frame interval is
    known, and ``start_time``, 0 s.
    """

    _names = ("mov",)

    def _dataset(self, file: h5py.File, channel: int) -> h5py.Dataset:
        dataset = super()._dataset(file, channel)
        dataset.attrs["start_time"] = 0.0
        if self.metadata.frame_interval_s:
            dataset.attrs["fr"] = 1 / self.metadata.frame_interval_s
        return dataset


class MatWriter(_ChannelFile):
    """Streamed MATLAB v7.3 export: variables ``ch1`` … ``chN``, each ``(H, W, T)`` in MATLAB.

    Memory does not grow with the recording, unlike v5 files, which MATLAB and SciPy write at once.
    Read it with ``load`` or ``matfile`` in MATLAB, in Python with h5py (axes reversed:
    ``(T, W, H)``); `scipy.io.loadmat` reads no v7.3 files. Known pixel size and frame interval are
    the variables ``pixel_size_um`` (height, width) and ``frame_interval_s``.

    References
    ----------
    MathWorks, "MAT-File Versions": v7.3 is HDF5 with a 512-byte header, reversed axes, and the
    class of each variable in the attribute ``MATLAB_class``.
    """

    _userblock = 512

    def _check(self) -> None:
        if self.dtype.name not in _MATLAB_CLASSES:
            raise InputError(
                f"MATLAB has no class for {self.dtype}. Set output_typename='single', "
                "or use output_format HDF5"
            )

    def _create(self, partial: Path) -> None:
        super()._create(partial)
        assert self._file is not None
        variables = {
            "pixel_size_um": self.metadata.pixel_size_um,
            "frame_interval_s": self.metadata.frame_interval_s,
        }
        for name, value in variables.items():
            if value is not None:
                # A MATLAB row vector (1, n) has the axes (n, 1) in the file.
                column = np.atleast_1d(np.asarray(value, dtype=np.float64))[:, np.newaxis]
                self._file[name] = column
                self._file[name].attrs["MATLAB_class"] = np.bytes_("double")

    def _dataset(self, file: h5py.File, channel: int) -> h5py.Dataset:
        frames, height, width, _ = self.shape
        logical = self.dtype == np.bool_
        dataset = file.create_dataset(
            self.dataset_names[channel],
            shape=(frames, width, height),
            chunks=(self._chunk_length, width, height),
            dtype=np.uint8 if logical else self.dtype,
        )
        dataset.attrs["MATLAB_class"] = np.bytes_(_MATLAB_CLASSES[self.dtype.name])
        if logical:
            dataset.attrs["MATLAB_int_decode"] = np.int32(1)
        if self.metadata.channel_names is not None:
            dataset.attrs["channel_name"] = self.metadata.channel_names[channel]
        return dataset

    def _append(self, frames: NDArray[Any], start: int) -> None:
        for channel, dataset in enumerate(self._datasets):
            plane = np.ascontiguousarray(frames[..., channel].transpose(0, 2, 1))
            dataset[start : start + len(frames)] = (
                plane.view(np.uint8) if plane.dtype == np.bool_ else plane
            )

    def _close(self) -> None:
        was_open = self._file is not None
        super()._close()
        if was_open:
            with self._partial.open("r+b") as file:
                file.write(matlab_header())


def matlab_header() -> bytes:
    r"""First 128 bytes of a MATLAB v7.3 file: text, no subsystem, version 0x0200, little-endian."""
    now = datetime.datetime.now().strftime("%a %b %d %H:%M:%S %Y")
    text = f"MATLAB 7.3 MAT-file, Platform: scopeflow, Created on: {now} HDF5 schema 1.00 ."
    return text.encode("ascii")[:116].ljust(116) + b"\x00" * 8 + b"\x00\x02IM"
