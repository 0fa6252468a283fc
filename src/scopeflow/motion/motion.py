"""Motion as an object of its own: estimate it once, then apply it lazily to any recording."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.base import tokenize
from numpy.typing import NDArray

from scopeflow.engine.executor import open_executor
from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import InputError
from scopeflow.images.warp import cast_frames
from scopeflow.io.formats import OutputFormat
from scopeflow.io.locations import location
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.gaps import frames_text
from scopeflow.io.recording import DIMS, labels, open_recording, refuse_absent, to_dataarray
from scopeflow.motion.block.correct import make_reference
from scopeflow.motion.block.values import STATISTICS
from scopeflow.motion.graph.correct import CorrectionJob
from scopeflow.motion.graph.lazy import (
    full_resolution,
    lazy_composition,
    lazy_motion,
    lazy_registered,
    lazy_statistics,
    lazy_valid,
)
from scopeflow.motion.options.enums import InterpolationMethod
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.place import supported_config
from scopeflow.motion.plan import correction_settings, plan_correction
from scopeflow.motion.reference import build_reference_image
from scopeflow.motion.store.layout import MOTION
from scopeflow.motion.store.saved_motion import MotionFacts, open_stored, save_motion
from scopeflow.strict.values import shortened

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

COMPONENTS = ("u", "v")
"""Displacement to the right (x) and down (y)."""


@dataclass(frozen=True, eq=False)
class Motion:
    """How every pixel of every frame is displaced against a reference; made by `compute_motion`.

    Everything is lazy: what is read is computed, or read from disk, then and only then.

    Attributes
    ----------
    grid_displacement : dask.array.Array of float32, shape (T, h, w, 2)
        Displacements as they were solved: on the solver's finest grid, in pixels of the frame.
    frame_shape : tuple of int
        ``(H, W)`` of whole frames.
    reference : ndarray of float64, shape (H, W, C), or None
        The image that was registered to, in units of the recording.
    interpolation : str
        How frames are resampled.
    non_finite : str
        What NaN and infinite pixels do, see `OFOptions`.
    metadata : VideoMetadata
        Pixel size and times, where known.
    absent : tuple of int
        Frames that had no pixels when a recording was corrected: nowhere valid, without statistics,
        with zeros for displacements.

    References
    ----------
    Backward displacements as in Flotho et al., "Flow-Registration", J. Biophotonics 2022:
    registered(y, x) = raw(y + v, x + u).

    Examples
    --------
    >>> import numpy as np
    >>> from scopeflow import OFOptions, compute_motion
    >>> video = np.random.default_rng(0).normal(100, 5, (6, 24, 32)).astype(np.float32)
    >>> motion = compute_motion(video, video[0], OFOptions(quality_setting="fast"))
    >>> corrected = motion.apply(video)
    >>> corrected.isel(T=slice(2, 4)).to_numpy().shape  # only these two are resampled
    (2, 24, 32, 1)
    """

    grid_displacement: da.Array
    frame_shape: tuple[int, int]
    reference: NDArray[np.float64] | None = None
    interpolation: str = "cubic"
    non_finite: str = "error"
    metadata: VideoMetadata = field(default_factory=VideoMetadata)
    absent: tuple[int, ...] = ()
    _settings: Callable[[], dict[str, Any]] | None = field(default=None, repr=False)
    _job: CorrectionJob | None = field(default=None, repr=False)
    _statistics: dict[str, NDArray[Any]] | None = field(default=None, repr=False)
    _backend: str = field(default="flowreg", repr=False)

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return int(self.grid_displacement.shape[0])

    def __repr__(self) -> str:
        height, width = self.frame_shape
        rows, columns = self.grid_displacement.shape[1:3]
        return (
            f"Motion({self.n_frames} frames of {height} × {width} px, "
            f"kept on a grid of {rows} × {columns})"
        )

    @property
    def displacement(self) -> xr.DataArray:
        """Full-resolution displacements ``(T, Y, X, component)``, float32, pixels, lazy.

        Component ``u`` is to the right, ``v`` is down.
        """
        return self._labelled(
            full_resolution(self.grid_displacement, self.frame_shape),
            ("T", "Y", "X", "component"),
            "displacement",
            {"units": "pixel"},
        )

    @property
    def valid(self) -> xr.DataArray:
        """Where a registered pixel comes from inside its raw frame, ``(T, Y, X)`` bool, lazy."""
        valid = lazy_valid(self.grid_displacement, self.frame_shape)
        if self.absent:
            valid = valid & self._there[:, None, None]
        return self._labelled(valid, DIMS[:3], "valid", {})

    @property
    def _there(self) -> NDArray[np.bool_]:
        """Which frames had pixels, ``(T,)``."""
        return ~np.isin(np.arange(self.n_frames), self.absent)

    def _refuse_absent(self, what: str) -> None:
        if self.absent:
            named = frames_text(*((frame, frame + 1) for frame in self.absent))
            raise InputError(
                f"the motion has no displacements for {len(self.absent)} of its {self.n_frames} "
                f"frames, which had no pixels ({named}), so it cannot be {what}; choose the others "
                "with motion.isel(T=[...])"
            )

    @property
    def statistics(self) -> xr.Dataset:
        """``mean_disp``, ``max_disp``, ``mean_div``, ``mean_translation`` of each frame, float64.

        Lazy where the motion is; read from disk where it was saved.
        """
        import dask.array as da
        import xarray as xr

        if self._statistics is not None:
            columns: dict[str, Any] = {name: self._statistics[name] for name in STATISTICS}
        else:
            table = lazy_statistics(self.grid_displacement, self.frame_shape)
            if self.absent:
                table = da.where(self._there[:, None], table, np.nan)
            columns = {name: table[:, number] for number, name in enumerate(STATISTICS)}
        units = {"mean_div": "1"}
        return xr.Dataset(
            {
                name: self._labelled(values, ("T",), name, {"units": units.get(name, "pixel")})
                for name, values in columns.items()
            }
        )

    def _identity(self) -> dict[str, Any]:
        """Return what decides the bits, where it is not known how they were made."""
        return {"displacement": tokenize(self.grid_displacement), "shape": list(self.frame_shape)}

    def _labelled(
        self, data: Any, dims: Sequence[str], name: str, attributes: dict[str, Any]
    ) -> xr.DataArray:
        import xarray as xr

        coords, _ = labels(self.metadata, (self.n_frames, *self.frame_shape, 1))
        kept = {dim: coord for dim, coord in coords.items() if dim in dims and dim != "C"}
        if "component" in dims:
            kept["component"] = list(COMPONENTS)
        return xr.DataArray(data, dims=dims, coords=kept, name=name, attrs=attributes)

    def to_dataset(self) -> xr.Dataset:
        """Return displacement, valid mask and statistics as one lazy, labelled data set.

        Returns
        -------
        xarray.Dataset
            ``displacement (T, Y, X, component)``, ``valid (T, Y, X)``, the statistics ``(T,)``,
            and ``reference (Y, X, C)`` where there is one.
        """
        import xarray as xr

        variables: dict[str, Any] = {"displacement": self.displacement, "valid": self.valid}
        if self.reference is not None:
            variables["reference"] = xr.DataArray(self.reference, dims=DIMS[1:])
        data = xr.Dataset({**variables, **self.statistics.data_vars})
        data.attrs["interpolation"] = str(self.interpolation)
        return data

    def isel(self, T: slice | Sequence[int]) -> Motion:
        """Return the motion of some frames, for recordings that hold only these.

        Parameters
        ----------
        T : slice or sequence of int
            Which frames.

        Returns
        -------
        Motion
            Lazy.
        """
        chosen = np.arange(self.n_frames)[T]
        if chosen.size == 0:
            raise InputError(f"{T} selects none of the {self.n_frames} frames; choose at least one")
        statistics = self._statistics
        if statistics is not None:
            statistics = {name: values[chosen] for name, values in statistics.items()}
        absent = tuple(np.flatnonzero(np.isin(chosen, self.absent)).tolist())
        times = self.metadata.frame_times_s
        metadata = self.metadata
        if times is not None:
            metadata = dataclasses.replace(
                metadata, frame_times_s=tuple(times[n] for n in chosen.tolist())
            )
        index = T if isinstance(T, slice) else chosen.tolist()
        return dataclasses.replace(
            self,
            grid_displacement=self.grid_displacement[index],
            metadata=metadata,
            absent=absent,
            _settings=functools.partial(
                _part_settings, self._settings or self._identity, chosen.tolist()
            ),
            _job=None,
            _statistics=statistics,
        )

    def apply(
        self,
        video: Any,
        *,
        fill: Any = "reference",
        origin: tuple[int, int] | None = None,
        dtype: Any = None,
        interpolation: str | None = None,
        frames_per_chunk: int = 1,
        **selection: Any,
    ) -> xr.DataArray:
        """Register a recording along this motion; nothing is read before it is looked at.

        Parameters
        ----------
        video : path-like, array or xarray.DataArray
            The same frames in any form: the recording itself, another channel, a part of the
            field of view, a copy in another format. See :func:`scopeflow.open_video`.
        fill : "reference", number or ndarray, optional
            Values of pixels that come from outside of their frame: those of the reference, one
            number, or an image ``(h, w)`` or ``(h, w, C)``. Give it for other channels than those
            that the motion was computed from; :attr:`valid` tells which pixels these are.
        origin : tuple of int, optional
            Row and column of the first pixel of `video` in whole frames, for a part of them.
            What lies outside of the part is filled, too.
        dtype : dtype, optional
            Of the result; that of `video` by default. Values are rounded half to even and clipped.
        interpolation : {"cubic", "linear", "nearest"}, optional
            That of the options by default.
        frames_per_chunk : int, optional
            Frames that are computed together. One computes exactly the frames that are looked at;
            use more, such as 50, to convert a whole recording.
        **selection
            How a file is read, see :func:`scopeflow.open_video`.

        Returns
        -------
        xarray.DataArray
            ``(T, Y, X, C)``, lazy. ``isel(T=slice(a, b))`` computes only these frames.

        Raises
        ------
        InputError
            If frames, sizes or channels do not fit to the motion or to `fill`.
        """
        import xarray as xr

        recording = open_recording(video, **selection)
        self._refuse_absent("applied")
        refuse_absent(recording, "registered frames")
        shape = recording.video.shape
        begin = self._check_fit(shape, origin)
        output = np.dtype(recording.video.dtype if dtype is None else dtype)
        how = InterpolationMethod(interpolation or self.interpolation).value
        if frames_per_chunk < 1:
            raise InputError(f"frames_per_chunk is {frames_per_chunk}; it must be 1 or more")
        data = lazy_registered(
            recording.video,
            self.grid_displacement,
            frames_per_chunk,
            str(output),
            fill=self._fill_image(fill, shape[1:], begin, output),
            frame_shape=self.frame_shape,
            origin=begin,
            interpolation=how,
            non_finite=self.non_finite,
        )
        if isinstance(video, xr.DataArray) and video.dims == DIMS:
            return video.copy(data=data)
        return to_dataarray(recording).copy(data=data)

    def _check_fit(
        self, shape: tuple[int, int, int, int], origin: tuple[int, int] | None
    ) -> tuple[int, int]:
        if shape[0] != self.n_frames:
            raise InputError(
                f"the recording has {shape[0]} frames, the motion is that of {self.n_frames}; "
                "choose the frames that belong together with motion.isel(T=...)"
            )
        height, width = self.frame_shape
        if origin is None and shape[1:3] != (height, width):
            raise InputError(
                f"the recording has {shape[1]} × {shape[2]} px, the motion is that of frames of "
                f"{height} × {width} px; if it is a part of them, give the row and column where it "
                "begins as origin=(row, column)"
            )
        row, column = origin or (0, 0)
        if row < 0 or column < 0 or row + shape[1] > height or column + shape[2] > width:
            raise InputError(
                f"a part of {shape[1]} × {shape[2]} px with origin {(row, column)} is not inside "
                f"frames of {height} × {width} px; correct the origin (row, column)"
            )
        return row, column

    def _fill_image(
        self, fill: Any, shape: tuple[int, int, int], origin: tuple[int, int], dtype: np.dtype[Any]
    ) -> NDArray[np.float64]:
        height, width, channels = shape
        if isinstance(fill, str):
            if fill != "reference":
                raise InputError(
                    f"fill is {shortened(fill)}; give 'reference', a number or an image"
                )
            known = 0 if self.reference is None else self.reference.shape[2]
            if self.reference is None or known != channels:
                raise InputError(
                    f"the recording has {channels} channels, the reference of the motion {known}; "
                    "say what pixels from outside of the frame become: fill=0, another number, or "
                    f"an image of shape {shape}"
                )
            row, column = origin
            return self.reference[row : row + height, column : column + width]
        image = np.asarray(fill, dtype=np.float64)
        if image.ndim == 0:
            if cast_frames(image[None], dtype)[1]:
                raise InputError(
                    f"fill is {fill}, which {dtype} cannot hold; give another number, or a dtype "
                    "for the result"
                )
            return np.full(shape, float(image))
        if image.ndim == 2:
            image = image[..., None]
        if image.shape != shape:
            raise InputError(
                f"fill has shape {image.shape}, the frames of the recording have {shape}; give a "
                "number or an image of the same size and channels"
            )
        return image

    def compose(self, second: Motion) -> Motion:
        """Chain the motion of a second correction, one of the result of this one, behind it.

        Parameters
        ----------
        second : Motion
            Computed from frames that this motion had registered.

        Returns
        -------
        Motion
            Lazy: ``second(p) + self(p + second(p))``. It registers raw frames with a single
            interpolation. Pixels that the second takes from outside have no displacement (NaN);
            they are filled and not valid.

        Raises
        ------
        InputError
            If the two have other frames.

        Examples
        --------
        >>> import dask.array as da, numpy as np
        >>> def shift(u):
        ...     field = np.zeros((3, 16, 16, 2), np.float32)
        ...     field[..., 0] = u
        ...     return Motion(da.from_array(field), (16, 16))
        >>> both = shift(1.0).compose(shift(0.5))
        >>> both.displacement[0, 8, 8].values.tolist()
        [1.5, 0.0]
        """
        for one in (self, second):
            one._refuse_absent("composed")
        mine, others = (self.n_frames, *self.frame_shape), (second.n_frames, *second.frame_shape)
        if mine != others:
            raise InputError(
                f"the motions are of {mine} and {others} (frames, rows, columns); only motions of "
                "the same frames can be composed"
            )
        return dataclasses.replace(
            self,
            grid_displacement=lazy_composition(
                self.grid_displacement, second.grid_displacement, self.frame_shape
            ),
            reference=self.reference if second.reference is None else second.reference,
            _settings=functools.partial(
                _composed_settings,
                self._settings or self._identity,
                second._settings or second._identity,
            ),
            _job=None,
            _statistics=None,
        )

    def save(
        self, path: str | os.PathLike[str], config: RegistrationConfig | None = None
    ) -> Motion:
        """Compute all frames and keep them on disk; the same call goes on after an interruption.

        Parameters
        ----------
        path : path-like
            Folder of a zarr store, such as ``results/motion.zarr``, or an address such as
            ``s3://bucket/motion.zarr``. Records of finished blocks stand beside it in
            ``.scopeflow``.
        config : RegistrationConfig, optional
            Where to compute, how many frames at once, whether to resume. The bytes do not depend
            on it.

        Returns
        -------
        Motion
            The same, read from disk.

        Raises
        ------
        OutputExistsError
            If something else stands there.
        OutputLockedError
            If another run writes there.
        OutputError
            If it cannot be written.
        """
        self._refuse_absent("saved")
        save_motion(
            location(path),
            self.grid_displacement,
            MotionFacts(
                self.frame_shape,
                self.reference,
                str(self.interpolation),
                self.non_finite,
                self.metadata,
            ),
            self._settings or self._identity,
            self._job,
            supported_config(config or RegistrationConfig(), self._backend),
        )
        return Motion.open(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Motion:
        """Open motion that was saved, or that a correction has kept.

        Parameters
        ----------
        path : path-like
            What :meth:`save` wrote; a ``compensated.zarr``; ``w.h5`` or ``motion.h5``, also of
            PyFlowReg; or a folder with one of them. Also an address such as
            ``s3://bucket/results``.

        Returns
        -------
        Motion
            Lazy; only headers and small arrays are read.

        Raises
        ------
        InputNotFoundError, UnreadableFileError
            If there is none, or it is incomplete or damaged.
        """
        stored = open_stored(location(path))
        facts = stored.facts
        return cls(
            stored.array,
            facts.frame_shape,
            facts.reference,
            facts.interpolation,
            facts.non_finite,
            facts.metadata,
            facts.absent,
            _settings=stored.settings,
            _statistics=stored.statistics,
        )


def _part_settings(settings: Callable[[], dict[str, Any]], frames: list[int]) -> dict[str, Any]:
    return {"frames": frames, "of": settings()}


def _composed_settings(
    first: Callable[[], dict[str, Any]], second: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    return {"first": first(), "second": second()}


def compute_motion(
    video: Any,
    reference: Any = None,
    options: OFOptions | None = None,
    config: RegistrationConfig | None = None,
    **selection: Any,
) -> Motion:
    """Estimate the motion of a recording, apart from applying it.

    Parameters
    ----------
    video : path-like, address, list of them, array or xarray.DataArray
        The recording, see :func:`scopeflow.open_video`.
    reference : ndarray, path-like or list of int, optional
        Image ``(H, W)`` or ``(H, W, C)``, or frames to make one of; ``options.reference_frames``
        by default. One that is made of several frames is computed here.
    options : OFOptions, optional
        Parameters of the flow; not changed. Those about output have no effect.
    config : RegistrationConfig, optional
        Where a reference of several frames is computed.
    **selection
        How a file is read, see :func:`scopeflow.open_video`.

    Returns
    -------
    Motion
        Lazy: displacements are solved when they are read, those that are saved never again. They
        have the bits of :func:`scopeflow.compensate_arr`.

    Raises
    ------
    ScopeflowError
        One clear error for bad input.

    References
    ----------
    Flotho et al., "Flow-Registration", J. Biophotonics 2022, doi 10.1002/jbio.202100330.

    Examples
    --------
    >>> import numpy as np
    >>> from scopeflow import OFOptions
    >>> video = np.random.default_rng(0).normal(100, 5, (6, 24, 32, 2)).astype(np.float32)
    >>> options = OFOptions(quality_setting="fast")
    >>> motion = compute_motion(video[..., :1], video[0, ..., :1], options)  # from one channel
    >>> motion.apply(video[..., 1:], fill=0).sizes["T"]  # applied to the other
    6
    """
    options = (options or OFOptions()).copy()
    options.output_format = OutputFormat.ARRAY
    options.input_file = video
    plan = plan_correction(options, config, reference, selection=selection)
    refuse_absent(plan.recording, "lazy displacements")
    if plan.reference.image is None:
        place = supported_config(config or RegistrationConfig(), plan.options.flow_backend)
        with open_executor(place) as executor:
            raw = build_reference_image(
                plan.reference, plan.recording.video, plan.options, plan.weight, executor
            )
    else:
        raw = plan.reference.image
    job = CorrectionJob(
        plan.recording.video,
        plan.grid,
        make_reference(raw, plan.parameters.preprocess, plan.weight),
        dataclasses.replace(plan.request, register=False),
    )
    request = dataclasses.replace(plan.request, output_dtype="float32")
    return Motion(
        lazy_motion(job),
        plan.recording.video.shape[1:3],
        raw,
        plan.parameters.interpolation,
        plan.options.non_finite,
        plan.recording.metadata,
        _settings=functools.partial(
            correction_settings,
            plan.options,
            plan.recording,
            plan.parameters,
            request,
            plan.weight,
            plan.reference,
            (MOTION,),
        ),
        _job=job,
        _backend=plan.options.flow_backend,
    )
