"""Open a recording lazily: any file format, or arrays in memory."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.base import tokenize

from scopeflow.errors import InputError
from scopeflow.io.lazy import ArrayVideo, LazyVideo, SourceVideo, lazy_array
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.open import Source, open_source
from scopeflow.io.read.axes import check_video
from scopeflow.io.read.gaps import frames_text
from scopeflow.io.read.views import BinnedSource, ChannelSelection
from scopeflow.strict.values import shortened

if TYPE_CHECKING:
    # xarray and dask.array take half a second to import, and corrections of files need neither.
    import dask.array as da
    import xarray as xr

DIMS = ("T", "Y", "X", "C")
_TARGET_CHUNK_BYTES = 64 * 2**20
_DIM_ALIASES = {
    "t": "T", "time": "T", "frame": "T", "frames": "T",
    "y": "Y", "row": "Y", "rows": "Y", "h": "Y", "height": "Y",
    "x": "X", "column": "X", "columns": "X", "w": "X", "width": "X",
    "c": "C", "channel": "C", "channels": "C",
}  # fmt: skip


@dataclass(frozen=True)
class Recording:
    """A recording ready to be processed.

    ``identify`` returns JSON-able facts that change when the data change, and hashes arrays in
    memory; ``paths`` is empty for arrays. ``absent`` are frames without pixels, in order, which are
    read as zeros: there are some only where ``missing="mask"`` was asked for.
    """

    video: LazyVideo
    identify: Callable[[], dict[str, Any]]
    paths: tuple[str, ...] = ()
    metadata: VideoMetadata = field(default_factory=VideoMetadata)
    absent: tuple[int, ...] = ()
    description: str = "the recording"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(T, H, W, C)``."""
        return self.video.shape


def open_recording(
    given: Any,
    *,
    bin_size: int = 1,
    channels: Sequence[int] | None = None,
    **selection: Any,
) -> Recording:
    """Open a path or an array as a recording; nothing but headers is read.

    ``selection`` goes to :func:`scopeflow.io.open.open_source`. ``channels`` are those to keep.

    Raises InputError: if axes, shape or dtype cannot be used.
    """
    if _is_instance(given, "xarray", "DataArray"):
        given, selection["axes"] = _from_xarray(given, selection.pop("axes", None))
    if _is_instance(given, "dask.array", "Array"):
        return _from_dask(given, selection.pop("axes", None), bin_size, channels)
    source = open_source(given, **selection)
    if channels is not None:
        source = ChannelSelection(source, tuple(channels))
    if bin_size > 1:
        source = BinnedSource(source, bin_size)
    return from_source(source)


def _is_instance(given: Any, module: str, name: str) -> bool:
    """Whether an object is of a class, without importing the module that has it."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(given, getattr(loaded, name))


def from_source(source: Source) -> Recording:
    """Return the recording of an open source."""
    video: LazyVideo = SourceVideo(source)
    if not source.paths:
        # An array here: its blocks travel with their tasks, not the whole with each of them.
        video = ArrayVideo(source.read(0, source.shape[0]))
    absent = tuple(getattr(source, "absent", ()))
    return Recording(
        video, source.identity, tuple(source.paths), source.metadata, absent, source.description
    )


def refuse_absent(source: Any, what: str) -> None:
    """Refuse a recording with frames whose pixels are not there, which are read as zeros.

    `source`: a source, or a :class:`Recording`.
    `what`: what would take them for black frames.
    Raises InputError: names the frames.
    """
    absent = tuple(getattr(source, "absent", ()))
    if absent:
        named = frames_text(*((frame, frame + 1) for frame in absent))
        raise InputError(
            f"{source.description}: {len(absent)} of its {source.shape[0]} frames are not there "
            f"({named}), and {what} would take them for black ones. Give the frames that exist, as "
            "scopeflow.io.open.FrameSelection(source, frames), or a whole copy of the recording"
        )


def _from_xarray(array: xr.DataArray, axes: str | None) -> tuple[Any, str]:
    if axes is None:
        letters = [_DIM_ALIASES.get(str(dim).lower()) for dim in array.dims]
        if None in letters or len(set(letters)) != len(letters):
            raise InputError(
                f"cannot tell the axes of an xarray.DataArray with dims {array.dims}; rename them "
                "to T, Y, X, C or pass axes='TYXC'"
            )
        axes = "".join(str(letter) for letter in letters)
    is_kept = isinstance(array.data, np.ndarray) or _is_instance(array.data, "dask.array", "Array")
    return array.data if is_kept else array.to_numpy(), axes


def _from_dask(
    array: da.Array, axes: str | None, bin_size: int, channels: Sequence[int] | None
) -> Recording:
    if axes is None:
        if array.ndim not in (3, 4):
            raise InputError(
                f"a dask array of shape {array.shape} is no video; needed is (T, H, W) or "
                "(T, H, W, C), or axes='...' that names its axes"
            )
        axes = "TYXC"[: array.ndim]
    axes = axes.upper()
    if len(axes) != array.ndim or not set(axes) <= set("TYXC") or not set(axes) >= set("YX"):
        raise InputError(
            f"axes={shortened(axes)} do not fit a dask array of shape {array.shape}; name "
            "each axis once "
            "with T, Y, X, C"
        )
    name = array.name
    for missing in set("TYXC") - set(axes):
        array, axes = array[None], missing + axes
    array = array.transpose([axes.index(letter) for letter in "TYXC"])
    check_video(tuple(array.shape), array.dtype, "dask array")
    if channels is not None:
        array = array[..., list(channels)]
    if bin_size > 1:
        array = _bin(array, bin_size)
    identity = {
        "kind": "dask array",
        "name": name,
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "token": tokenize(array),
    }
    return Recording(ArrayVideo(array), lambda: identity)


def _bin(array: da.Array, bin_size: int) -> da.Array:
    """Average bins of frames, as :class:`scopeflow.io.read.views.BinnedSource` does."""
    import dask.array as da

    dtype = array.dtype
    whole = array.shape[0] // bin_size * bin_size
    parts = []
    if whole:
        # Chunks of whole bins, about as long as before.
        length = max(1, array.chunks[0][0] // bin_size) * bin_size
        bins = array[:whole].rechunk({0: length}).astype("float64")
        parts.append(da.coarsen(np.mean, bins, {0: bin_size}))
    if whole < array.shape[0]:
        parts.append(array[whole:].mean(axis=0, dtype="float64", keepdims=True))
    binned = da.concatenate(parts)
    return (da.rint(binned) if dtype.kind in "biu" else binned).astype(dtype)


def open_video(
    path_or_array: Any,
    *,
    axes: str | None = None,
    dataset: str | Sequence[str] | None = None,
    position: int | None = None,
    channels: Sequence[int] | None = None,
    bin_size: int = 1,
    frames_per_chunk: int | None = None,
    **selection: Any,
) -> xr.DataArray:
    """Open a recording lazily, whatever its format.

    Parameters
    ----------
    path_or_array : path-like, address, list of them, ndarray, dask array or xarray.DataArray
        A zarr array or OME-Zarr, TIFF (also BigTIFF, OME, ImageJ, ScanImage), HDF5, MAT or ND2
        file, a folder or list of TIFFs, a result of scopeflow, or an array ``(T, H, W[, C])``.
        An address such as ``s3://bucket/movie.zarr`` is anything that fsspec opens; zarr, TIFF and
        HDF5 are read there.
    axes : str, optional
        One letter of ``TYXC`` (and ``Z`` of length 1) for each stored axis, where the file does
        not tell or tells wrongly.
    dataset : str or sequence of str, optional
        Dataset of an HDF5 or MAT file or array of a zarr group; several are channels.
    position : int, optional
        Stage position of an ND2 file.
    channels : sequence of int, optional
        Channels to keep, all by default.
    bin_size : int, optional
        Frames that are averaged into one.
    frames_per_chunk : int, optional
        Frames that are read together; by default about 64 MB.
    **selection
        More choices of :func:`scopeflow.io.open.open_source`, such as ``z``, ``combine``, or
        ``missing``, which says what pixels are that the file lacks.

    Returns
    -------
    xarray.DataArray
        Dimensions ``(T, Y, X, C)`` on a dask array of whole frames; nothing but headers was read.
        Coordinates are seconds, micrometres and channel names where the file has them.

    Raises
    ------
    InputNotFoundError, UnreadableFileError, DatasetNotFoundError, InputError
        If the recording cannot be opened; the message says why and what to do.

    Examples
    --------
    >>> import numpy as np
    >>> video = open_video(np.zeros((5, 16, 20), np.uint16))
    >>> video.dims, video.shape
    (('T', 'Y', 'X', 'C'), (5, 16, 20, 1))
    """
    if axes is not None:
        selection["axes"] = axes
    if dataset is not None:
        selection["dataset"] = dataset
    if position is not None:
        selection["position"] = position
    recording = open_recording(path_or_array, bin_size=bin_size, channels=channels, **selection)
    return to_dataarray(recording, frames_per_chunk)


def to_dataarray(recording: Recording, frames_per_chunk: int | None = None) -> xr.DataArray:
    """Return a recording as a lazy, labelled array; see :func:`open_video`."""
    import xarray as xr

    video = recording.video
    if isinstance(video, SourceVideo):
        source: Any = video.source
        if frames_per_chunk is None:
            frames_per_chunk = _frames_per_chunk(source)
        mark = hashlib.blake2b(repr(sorted(recording.identify().items())).encode(), digest_size=16)
        data = lazy_array(source, frames_per_chunk, name=f"video-{mark.hexdigest()}")
        attributes = {"source": source.description}
    else:
        data = video.array
        attributes = {}
    coords, physical = labels(recording.metadata, video.shape)
    attributes |= physical
    name = Path(recording.paths[0]).name if recording.paths else "video"
    return xr.DataArray(data, dims=DIMS, coords=coords, attrs=attributes, name=os.fspath(name))


def labels(
    metadata: VideoMetadata, shape: tuple[int, int, int, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return coordinates (seconds, micrometres, channel names) and attributes, where known."""
    coords: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    frames, height, width, channels = shape
    if metadata.frame_times_s is not None:
        coords["T"] = ("T", np.asarray(metadata.frame_times_s), {"units": "s"})
    elif metadata.frame_interval_s:
        coords["T"] = ("T", np.arange(frames) * metadata.frame_interval_s, {"units": "s"})
    if metadata.pixel_size_um:
        y, x = metadata.pixel_size_um
        coords["Y"] = ("Y", np.arange(height) * y, {"units": "µm"})
        coords["X"] = ("X", np.arange(width) * x, {"units": "µm"})
        attributes["pixel_size_um"] = metadata.pixel_size_um
    if metadata.frame_interval_s:
        attributes["frame_interval_s"] = metadata.frame_interval_s
    if metadata.channel_names and len(metadata.channel_names) == channels:
        coords["C"] = ("C", list(metadata.channel_names))
    return coords, attributes


def _frames_per_chunk(source: Source) -> int:
    _, height, width, channels = source.shape
    bytes_per_frame = height * width * channels * np.dtype(source.dtype).itemsize
    affordable = max(1, _TARGET_CHUNK_BYTES // bytes_per_frame)
    together = max(1, source.frames_per_chunk)
    return max(together, affordable // together * together)
