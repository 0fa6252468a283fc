"""The options a user writes for motion correction; decides names and defaults, runs nothing."""

from __future__ import annotations

import copy as copying
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field, field_serializer, model_validator
from pydantic_core import PydanticSerializationError

from scopeflow.errors import OptionsError
from scopeflow.flow.arguments import weight_at
from scopeflow.flow.parameters import FLOW_RULES, need_smoothness
from scopeflow.io.formats import OutputFormat
from scopeflow.motion.options import rules
from scopeflow.motion.options.enums import (
    ChannelNormalization,
    ConstancyAssumption,
    InterpolationMethod,
    NamingConvention,
    QualitySetting,
)
from scopeflow.motion.options.json_files import options_path, read_options, write_options
from scopeflow.motion.parameters import TemporalBoundary
from scopeflow.strict.model import Count, Flag, StrictModel
from scopeflow.strict.values import is_integer

_MIN_LEVELS = {QualitySetting.QUALITY: 0, QualitySetting.BALANCED: 4, QualitySetting.FAST: 6}
_LEAVE_TO_QUALITY = -1


def _level(value: Any) -> int:
    unset = is_integer(value) and value == _LEAVE_TO_QUALITY
    return _LEAVE_TO_QUALITY if unset else FLOW_RULES["min_level"](value)


class OFOptions(StrictModel):
    """Options of one motion correction: data, reference, flow, and what is written.

    Names and defaults are those of the Flow-Registration toolbox and of PyFlowReg, except that
    ``output_format`` is ``ZARR`` and that every field has an effect or is refused. Values are
    checked at construction and at assignment. A run never changes the options it is given.

    Parameters
    ----------
    input_file : path, address, list of them, array or video
        The recording; frame arrays are ``(T, H, W, C)`` or ``(T, H, W)``. What it is gets decided
        when it is opened. An address is one such as ``s3://bucket/movie.zarr``.
    output_path : Path or str
        Folder of the results, or an address such as ``s3://bucket/results`` (formats ``ZARR`` and
        ``NULL``).
    output_format : OutputFormat
        How the registered recording is stored.
    output_file_name : str or Path, optional
        Full path of the registered recording instead of a name in ``output_path``.
    channel_idx : int or list of int, optional
        Channels to read, counted from 0; all when None.
    alpha : float or (float, float)
        Smoothness weights ``(alpha_x, alpha_y)``, larger is smoother.
    weight : sequence of float or ndarray, optional
        Weight of each channel (normalised to sum 1), or a map ``(H, W)`` or ``(H, W, C)``. None
        counts all channels alike.
    levels : int
        Upper limit of pyramid steps.
    min_level : int
        Finest pyramid level that is solved, 0 is full resolution; -1 leaves it to
        ``quality_setting``. From 0 on it makes ``quality_setting`` custom.
    quality_setting : QualitySetting
        quality, balanced or fast solve down to level 0, 4 or 6.
    eta : float
        Scale between neighbouring pyramid levels, in (0, 1].
    update_lag, iterations : int
        Iterations between updates of the nonlinear weights, and of each level.
    a_smooth : float
        Exponent of the smoothness penalty, 0 to 1.25 (from 0.01 for gray); 1 is quadratic.
    a_data : float or tuple of float
        Exponent of the data penalty in (0, 1], one for all channels or one for each.
    gnc_schedule : sequence of float, optional
        Stage weights of graduated non-convexity, monotone from 0 to 1.
    warping_steps : int, optional
        Warps per level, with ``gnc_schedule`` only; 10 when None.
    sigma : (3,) or (n, 3) sequence of float
        Gaussian widths ``[sx, sy, st]`` in pixels, pixels and frames, one row a channel.
    bin_size : int
        Frames averaged into one on reading; all frame indices count binned frames.
    buffer_size : int
        Frames that share one initial displacement.
    reference_frames : list of int, path or ndarray
        Frames that make the reference (from 0), or the reference image ``(H, W)``/``(H, W, C)``.
    update_reference : bool
        Renew the reference after every ``buffer_size`` frames.
    n_references, min_frames_per_reference : int
        Only 1 and 20: one reference a recording.
    verbose : bool
        More log messages.
    save_meta_info : bool
        Write ``statistics.npz`` and ``reference_frame.npy``.
    save_w : bool
        Write the displacements as ``w.h5``, pixels.
    save_motion : bool
        Write them on the solver's grid as ``motion.h5``, as they were computed: smaller than
        ``w.h5``, in pixels of the frame. Results in ``ZARR`` hold them in any case.
    save_valid_idx, save_valid_mask : bool
        Either one writes ``idx.hdf``, 255 where a pixel comes from inside its raw frame.
    output_typename : str, optional
        single, double, uint8, uint16, int16 or int32. The default "double" acts on in-memory
        results only; a value set explicitly acts on files too; None keeps the input's type.
    channel_normalization : ChannelNormalization
        One intensity range for all channels, or one for each.
    interpolation_method : InterpolationMethod
        How raw frames are resampled.
    cc_initialization : bool
        Start each frame from a rigid cross-correlation.
    cc_hw : int or (int, int)
        Rows and columns that images are reduced to for it, pixels.
    cc_up : int
        Its upsampling: shifts are found to 1/``cc_up`` reduced pixel.
    update_initialization_w : bool
        Start each batch from the displacements at the end of the one before.
    naming_convention : NamingConvention
        ``compensated.<ext>``, or ``<input>_compensated.<ext>``.
    constancy_assumption : ConstancyAssumption
        gc (gradient), gray (brightness) or cs (census).
    flow_backend : str
        Name of the registered solver; checked when a run starts.
    backend_params : dict
        Arguments of the solver's factory.
    temporal_boundary : {"halo", "batch"}
        Temporal filters see the neighbouring frames, or stop at every ``buffer_size`` frames.
    non_finite : {"error", "mask"}
        NaN and infinite pixels stop the run, or are filled from the reference and become invalid.
    preproc_funct : callable, optional
        ``f(frame (H, W, C)) -> (H, W, C)``, applied to each frame before normalisation; what is
        registered and written is still the raw frame. Never stored in files.
    get_displacement_impl : callable, optional
        ``f(reference, moving, *, uv, weight, **parameters) -> (H, W, 2)`` in place of the solver.
    get_displacement_factory : callable, optional
        ``f(**backend_params)`` that makes such a function.

    Raises
    ------
    OptionsError
        For an unknown name or a value that cannot be used; a `ValueError` too.

    References
    ----------
    Flotho et al., "Flow-Registration", J. Biophotonics 2022, and its documented options.

    Examples
    --------
    >>> options = OFOptions(quality_setting="balanced", alpha=4)
    >>> options.alpha, options.effective_min_level
    ((4.0, 4.0), 4)
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        # Not null, so that saving refuses them.
        ser_json_inf_nan="constants",
    )

    callables: ClassVar[tuple[str, ...]] = (
        "preproc_funct",
        "get_displacement_impl",
        "get_displacement_factory",
    )

    input_file: Any = None
    output_path: Annotated[Path | str, BeforeValidator(rules.place)] = Path("results")
    output_format: OutputFormat = OutputFormat.ZARR
    output_file_name: str | Path | None = None
    channel_idx: Annotated[Any, BeforeValidator(rules.channel_choice)] = None

    alpha: Annotated[Any, BeforeValidator(FLOW_RULES["alpha"])] = (1.5, 1.5)
    weight: Annotated[Any, BeforeValidator(rules.channel_weights)] = Field(
        default_factory=lambda: [0.5, 0.5]
    )
    levels: Annotated[int, FLOW_RULES["levels"]] = 100
    min_level: Annotated[int, BeforeValidator(_level)] = -1
    quality_setting: QualitySetting = QualitySetting.QUALITY
    eta: Annotated[float, FLOW_RULES["eta"]] = 0.8
    update_lag: Annotated[int, FLOW_RULES["update_lag"]] = 5
    iterations: Annotated[int, FLOW_RULES["iterations"]] = 50
    a_smooth: Annotated[float, FLOW_RULES["a_smooth"]] = 1.0
    a_data: Annotated[Any, BeforeValidator(FLOW_RULES["a_data"])] = 0.45
    gnc_schedule: Annotated[Any, BeforeValidator(FLOW_RULES["gnc_schedule"])] = None
    warping_steps: Annotated[int | None, BeforeValidator(FLOW_RULES["warping_steps"])] = None

    sigma: Annotated[Any, BeforeValidator(rules.sigma_rows)] = Field(
        default_factory=lambda: [[1.0, 1.0, 0.1], [1.0, 1.0, 0.1]]
    )
    bin_size: Count = 1
    buffer_size: Count = 400
    reference_frames: Annotated[Any, BeforeValidator(rules.reference_choice)] = Field(
        default_factory=lambda: list(range(50, 500))
    )
    update_reference: Flag = False
    n_references: Annotated[int, BeforeValidator(rules.available_number("n_references"))] = 1
    min_frames_per_reference: Annotated[
        int, BeforeValidator(rules.available_number("min_frames_per_reference"))
    ] = 20

    verbose: Flag = False
    save_meta_info: Flag = True
    save_w: Flag = False
    save_motion: Flag = False
    save_valid_mask: Flag = False
    save_valid_idx: Flag = False
    output_typename: Annotated[Any, BeforeValidator(rules.typename)] = "double"
    channel_normalization: ChannelNormalization = ChannelNormalization.JOINT
    interpolation_method: InterpolationMethod = InterpolationMethod.CUBIC
    cc_initialization: Flag = False
    cc_hw: Annotated[Any, BeforeValidator(rules.correlation_size)] = 256
    cc_up: Count = 1
    update_initialization_w: Flag = True
    naming_convention: NamingConvention = NamingConvention.DEFAULT
    constancy_assumption: Annotated[
        ConstancyAssumption, BeforeValidator(FLOW_RULES["data_term"])
    ] = ConstancyAssumption.GRADIENT
    flow_backend: str = Field(default="flowreg", min_length=1)
    backend_params: dict[str, Any] = Field(default_factory=dict)
    temporal_boundary: TemporalBoundary = "halo"
    non_finite: Literal["error", "mask"] = "error"

    preproc_funct: Callable[..., Any] | None = Field(default=None, exclude=True)
    get_displacement_impl: Callable[..., Any] | None = Field(default=None, exclude=True)
    get_displacement_factory: Callable[..., Any] | None = Field(default=None, exclude=True)

    if TYPE_CHECKING:
        # Values in any form that a rule accepts, not only those of the fields.
        def __init__(self, **data: Any) -> None: ...

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "quality_setting":
            super().__setattr__(name, value)
            return
        min_level = self.min_level
        # The later assignment holds; an older min_level would undo it unseen.
        self.__dict__["min_level"] = _LEAVE_TO_QUALITY
        try:
            super().__setattr__(name, value)
        except OptionsError:
            self.__dict__["min_level"] = min_level
            raise
        if self.quality_setting is QualitySetting.CUSTOM:
            self.__dict__["min_level"] = min_level

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        need_smoothness(self.constancy_assumption.value, self.a_smooth)
        if self.min_level >= 0:
            # Not through __setattr__: that would validate, and so call this, again.
            self.__dict__["quality_setting"] = QualitySetting.CUSTOM
        return self

    @field_serializer("weight", "reference_frames", when_used="json")
    def _arrays_as_lists(self, value: Any) -> Any:
        if value is None or isinstance(value, (list, str)):
            return value
        return str(value) if isinstance(value, Path) else np.asarray(value).tolist()

    @field_serializer("input_file", when_used="json")
    def _input_as_path(self, value: Any) -> Any:
        if isinstance(value, (str, Path)):
            return str(value)
        if isinstance(value, (list, tuple)) and all(isinstance(x, (str, Path)) for x in value):
            return [str(entry) for entry in value]
        return None

    @property
    def effective_min_level(self) -> int:
        """Finest pyramid level that is solved: ``min_level``, or that of the quality setting."""
        if self.min_level >= 0:
            return self.min_level
        return _MIN_LEVELS.get(self.quality_setting, 0)

    @property
    def array_dtype(self) -> np.dtype[Any] | None:
        """Dtype of in-memory results; None keeps that of the input."""
        return None if self.output_typename is None else rules.TYPENAMES[self.output_typename]

    @property
    def file_dtype(self) -> np.dtype[Any] | None:
        """Dtype of written recordings: None, the input's, unless ``output_typename`` was set."""
        return self.array_dtype if "output_typename" in self.model_fields_set else None

    @property
    def writes_valid_idx(self) -> bool:
        """Whether ``idx.hdf`` is written."""
        return self.save_valid_idx or self.save_valid_mask

    def get_sigma_at(self, i: int) -> NDArray[np.float64]:
        """Gaussian widths ``[sx, sy, st]`` of channel ``i``: its row, or row 0 beyond the table.

        Examples
        --------
        >>> OFOptions(sigma=[[1, 1, 0.1], [2, 2, 0.5]]).get_sigma_at(1).tolist()
        [2.0, 2.0, 0.5]
        """
        return np.array(self.sigma[i if 0 <= i < len(self.sigma) else 0], dtype=np.float64)

    def get_weight_at(self, i: int, n_channels: int) -> float | NDArray[np.float64]:
        """Weight of channel ``i`` of ``n_channels``; the options stay as they are.

        Returns
        -------
        float or ndarray
            A number, or a map ``(H, W)``. Numbers for fewer channels than there are leave
            ``1 / n_channels`` to the others; for more, the first ones are scaled to sum 1.

        Examples
        --------
        >>> options = OFOptions()
        >>> options.get_weight_at(0, 1), options.get_weight_at(0, 2)
        (1.0, 0.5)
        """
        return weight_at(self.weight, i, n_channels)

    def to_dict(self) -> dict[str, Any]:
        """Arguments of `get_displacement` that these options stand for.

        Examples
        --------
        >>> OFOptions(quality_setting="fast").to_dict()["min_level"]
        6
        """
        return {
            "alpha": self.alpha,
            "weight": copying.deepcopy(self.weight),
            "levels": self.levels,
            "min_level": self.effective_min_level,
            "eta": self.eta,
            "iterations": self.iterations,
            "update_lag": self.update_lag,
            "a_data": self.a_data,
            "a_smooth": self.a_smooth,
            "gnc_schedule": self.gnc_schedule,
            "warping_steps": self.warping_steps,
            "const_assumption": self.constancy_assumption.value,
        }

    def copy(self) -> Self:  # type: ignore[override]
        """Independent copy; only the recording and callables are shared, never duplicated."""
        shared = {"input_file", *self.callables}
        duplicate = self.model_copy()
        for name in type(self).model_fields:
            if name not in shared:
                duplicate.__dict__[name] = copying.deepcopy(self.__dict__[name])
        return duplicate

    def save_options(self, path: str | Path | None = None) -> Path:
        """Write the options as JSON, and a reference array as ``reference_frames.tif`` beside.

        Parameters
        ----------
        path : path, optional
            The file; ``<output_path>/options.json`` when None.

        Returns
        -------
        Path
            The file that was written. A recording held in memory is stored as null.

        Raises
        ------
        OptionsError
            When ``backend_params`` holds what JSON cannot.
        OutputError
            When the file cannot be written.
        """
        target = options_path(path, self.output_path)
        try:
            data = self.model_dump(mode="json", exclude={"reference_frames"})
        except PydanticSerializationError as error:
            raise OptionsError(
                f"backend_params cannot be stored as JSON: {error}. Use numbers, strings and lists"
            ) from error
        if "output_typename" not in self.model_fields_set:
            # Reading it back would make the default an explicit wish for files of doubles.
            del data["output_typename"]
        write_options(data, self.reference_frames, target, in_memory=self.input_file is not None)
        return target

    @classmethod
    def load_options(cls, path: str | Path) -> Self:
        """Read options that `save_options`, PyFlowReg or the MATLAB toolbox wrote.

        Raises
        ------
        InputNotFoundError
            When the file, or the reference it names, does not exist.
        OptionsError
            When it is no option file, or holds a value that cannot be used.
        """
        data: Mapping[str, Any] = read_options(path)
        return cls(**data)
