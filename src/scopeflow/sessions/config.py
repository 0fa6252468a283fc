"""What a session is and how its recordings become one data set; opens no recording."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from scopeflow.errors import InputNotFoundError, OptionsError, nearest_name
from scopeflow.flow.parameters import FLOW_RULES, data_term_name, smoothness_weight
from scopeflow.io.addresses import expanded, local_path
from scopeflow.motion.options.enums import ConstancyAssumption, QualitySetting
from scopeflow.motion.options.json_files import read_options
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.sessions.array_job import TASK_VARIABLES, get_array_task_id
from scopeflow.sessions.files import check_parameter_names, read_session_file
from scopeflow.strict.model import Count, Flag, StrictModel
from scopeflow.strict.values import Number, Whole, shortened

__all__ = ["ROUTING_OPTIONS", "TASK_VARIABLES", "SessionConfig", "get_array_task_id"]

ROUTING_OPTIONS = (
    "input_file",
    "output_path",
    "output_format",
    "output_file_name",
    "naming_convention",
)
"""Options of `OFOptions` that the session decides for each recording."""

_NEEDED_LATER = {
    "save_valid_idx": "leaves stage 3 without masks",
    "save_motion": "leaves stages 2 and 3 without displacements",
}
"""Options of `OFOptions` that stage 1 always sets, and why it matters."""


def _width_or_none(value: Any) -> float | None:
    # TOML has no word for None.
    return None if value is None or value is False else Number(least=0)(value)


class SessionConfig(StrictModel):
    """Many recordings of one field of view that become one aligned data set.

    Names and defaults are those that PyFlowReg documents for sessions; the fields from
    `sigma_refine` on are ours. Values are checked at construction and at assignment, unknown names
    are refused.

    Parameters
    ----------
    root : Path
        Folder of the recordings; it must exist.
    pattern : str
        Which files and folders below `root` are recordings, such as ``*.tif``, ``*.zarr`` or
        ``*/movie.h5``. Recordings are counted in the order of their sorted paths.
    center : str, optional
        Recording that the others are aligned to: a file name or a path relative to `root`;
        ``"auto"`` takes the one most similar to all others; None the middle one.
    output_root, final_results : Path
        Folders of the results of each recording and of the session, relative to `root`.
    resume : bool
        Keep what an earlier run has finished; False computes everything anew.
    scheduler : {"local", "array", "dask"}
        Where stage 1 runs: here, one recording for each task of an array job, or on a dask
        cluster.
    n_workers : int
        Tasks at the same time where ``scheduler="local"``; -1 uses every available processor.
    flow_backend : str
        Registered solver of stages 1 and 2.
    backend_params : dict
        Arguments of the solver's factory.
    flow_options : dict or path, optional
        Options of `OFOptions` for stage 1, or a JSON file of them, relative to `root`.
    stage1_quality_setting : QualitySetting, optional
        ``quality_setting`` of stage 1, where `flow_options` does not give it.
    cc_upsample : int
        Rigid shifts between averages are found to 1/`cc_upsample` pixel of the images that are
        correlated, which have at most 256 × 256 px.
    sigma_smooth : float
        Gaussian width before the flow between averages, pixels.
    alpha_between : float
        Smoothness weight of the flow.
    iterations_between : int
        Its iterations on each level.
    stage2_constancy_assumption : ConstancyAssumption
        Its data term: gc (gradient), gray (brightness) or cs (census).
    align_chunk_size : int
        Frames that are aligned together.
    align_output_format : {"TIFF", "HDF5", "MAT"}
        Format of the aligned recordings.
    sigma_refine : float, optional
        Gaussian width before a second flow between averages that refines the first, pixels; None
        (``false`` in files) leaves it out, as PyFlowReg does.
    exclude : list of str
        Recordings that match `pattern` and are left out: file names or relative paths.
    stage1_output_format : {"HDF5", "ZARR"}
        Format of the corrected recordings. PyFlowReg and MATLAB read HDF5.
    align_method : {"one_step", "two_step"}
        ``one_step`` composes the motion within and between recordings and interpolates the raw
        frames once; ``two_step`` interpolates the corrected frames a second time, as documented
        for PyFlowReg.
    mismatch : {"report", "exclude"}
        What becomes of a recording that does not match the reference: it is only reported, or
        left out of the final mask too.
    min_similarity : float
        Correlation with the reference average, after alignment and without the slow background,
        below which a recording does not match; -1 to 1.
    max_loop_error : float
        Mean distance by which the displacement there and back again misses its start, pixels;
        beyond it a recording does not match.
    missing : {"error", "mask", "fill", "black"}
        What pixels of a recording are that its files lack, see :func:`scopeflow.open_video`. With
        ``mask``, frames that lack any are left out of averages and masks, and are zero in the
        corrected and aligned recordings.

    Raises
    ------
    OptionsError
        For an unknown name or a value that cannot be used; a `ValueError` too.
    InputNotFoundError
        When `root` or a file of options does not exist.

    Examples
    --------
    >>> import tempfile
    >>> config = SessionConfig(root=tempfile.mkdtemp(), pattern="rec_*.tif", alpha_between=30)
    >>> config.alpha_between, config.resolve_output_paths()[1].name
    (30.0, 'final_results')
    """

    root: Path
    pattern: str = Field(default="*.tif", min_length=1)
    center: str | None = None
    output_root: Path = Path("compensated_outputs")
    final_results: Path = Path("final_results")
    resume: Flag = True
    scheduler: Literal["local", "array", "dask"] = "local"
    n_workers: Annotated[int, Whole(-1)] = -1
    flow_backend: str = Field(default="flowreg", min_length=1)
    backend_params: dict[str, Any] = Field(default_factory=dict)
    flow_options: dict[str, Any] | Path | None = None
    stage1_quality_setting: QualitySetting | None = None
    cc_upsample: Count = 4
    sigma_smooth: Annotated[float, Number(least=0)] = 6.0
    alpha_between: Annotated[float, BeforeValidator(smoothness_weight)] = 25.0
    iterations_between: Annotated[int, FLOW_RULES["iterations"]] = 100
    stage2_constancy_assumption: Annotated[ConstancyAssumption, BeforeValidator(data_term_name)] = (
        ConstancyAssumption.GRADIENT
    )
    align_chunk_size: Count = 64
    align_output_format: Literal["TIFF", "HDF5", "MAT"] = "TIFF"
    sigma_refine: Annotated[float | None, BeforeValidator(_width_or_none)] = 1.0
    exclude: list[str] = Field(default_factory=list)
    stage1_output_format: Literal["HDF5", "ZARR"] = "HDF5"
    align_method: Literal["one_step", "two_step"] = "one_step"
    mismatch: Literal["report", "exclude"] = "report"
    min_similarity: Annotated[float, Number(least=-1, most=1)] = 0.4
    max_loop_error: Annotated[float, Number(above=0)] = 2.0
    missing: Literal["error", "mask", "fill", "black"] = "error"

    if TYPE_CHECKING:
        # Values in any form that a rule accepts, not only those of the fields.
        def __init__(self, **data: Any) -> None: ...

    @field_validator("flow_options", mode="before")
    @classmethod
    def _text_is_a_path(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        return Path(given) if given.strip() else None

    @field_validator("align_output_format", "stage1_output_format", mode="before")
    @classmethod
    def _in_capitals(cls, given: Any) -> Any:
        return given.strip().upper() if isinstance(given, str) else given

    @model_validator(mode="after")
    def _usable(self) -> Self:
        # Through __dict__: assignment would validate, and so call this, again.
        fields = self.__dict__
        for name in ("root", "output_root", "final_results"):
            fields[name] = local_path(getattr(self, name), f"SessionConfig: {name}")
        fields["root"] = self.root.absolute()
        if not self.root.exists():
            raise InputNotFoundError(f"Root directory does not exist: {self.root}")
        if not self.root.is_dir():
            raise OptionsError(f"Root path is not a directory: {self.root}")
        if self.n_workers == 0:
            raise OptionsError(
                f"SessionConfig: n_workers is {self.n_workers}; it must be a positive whole "
                "number, or -1 for every available processor"
            )
        if Path(self.pattern).is_absolute() or ".." in Path(self.pattern).parts:
            raise OptionsError(
                f"SessionConfig: pattern {shortened(self.pattern)} leaves root; give a "
                "pattern relative to "
                "root, such as '*.tif' or '*/movie.h5'"
            )
        output, final = self.resolve_output_paths()
        if output == final or self.root in (output, final):
            raise OptionsError(
                f"SessionConfig: root {self.root}, output_root {output} and final_results {final} "
                "must be three different folders"
            )
        check_parameter_names(self.backend_params, type(self).model_fields)
        self.stage1_options()
        return self

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a TOML file; `root` is relative to the folder of the file.

        Keys of the session that stand below ``[backend_params]``, where TOML gives them to that
        table, are taken for what they are.

        Raises
        ------
        InputNotFoundError
            When the file does not exist.
        OptionsError
            When it is no TOML file, or for a name or a value that cannot be used.
        """
        return cls._from_file(path, "toml")

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a YAML file; as :meth:`from_toml`."""
        return cls._from_file(path, "yaml")

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        r"""Read a ``.toml``, ``.yaml`` or ``.yml`` file.

        Examples
        --------
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "session.toml").write_text('root = "."\ncenter = "auto"\n')
        >>> SessionConfig.from_file(folder / "session.toml").center
        'auto'
        """
        return cls._from_file(path, None)

    @classmethod
    def _from_file(cls, path: str | Path, kind: str | None) -> Self:
        data = read_session_file(Path(path), kind, cls.model_fields)
        try:
            return cls(**data)
        except OptionsError as error:
            raise OptionsError(f"{path}: {error}") from None

    def resolve_output_paths(self) -> tuple[Path, Path]:
        """Return the absolute folders ``(output_root, final_results)``."""
        return (
            (self.root / expanded(self.output_root)).absolute(),
            (self.root / expanded(self.final_results)).absolute(),
        )

    def reading_choices(self) -> dict[str, Any]:
        """Return how recordings are opened, as `open_source` takes it."""
        return {} if self.missing == "error" else {"missing": self.missing}

    def get_flow_options_override(self) -> dict[str, Any]:
        """Return the options of stage 1 that `flow_options` gives, inline or in its file.

        Raises
        ------
        InputNotFoundError
            When the file does not exist.
        OptionsError
            When the file is no option file.
        """
        if self.flow_options is None:
            return {}
        if isinstance(self.flow_options, Path):
            path = self.root / expanded(self.flow_options)
            if not path.is_file():
                raise InputNotFoundError(f"Flow options file not found: {path}")
            # A file names every option; those that the session decides are not meant by it.
            return {
                name: value
                for name, value in read_options(path).items()
                if name not in ROUTING_OPTIONS and not (name in _NEEDED_LATER and value is False)
            }
        return dict(self.flow_options)

    def stage1_options(self, override: Mapping[str, Any] | None = None) -> OFOptions:
        """Return the options that every recording is corrected with, without input and output.

        Parameters
        ----------
        override : mapping, optional
            Options that win over `flow_options`.

        Returns
        -------
        OFOptions
            Checked.

        Raises
        ------
        OptionsError
            For an option that does not exist, that the session decides, or a value that cannot
            be used.
        """
        options: dict[str, Any] = {
            "output_format": self.stage1_output_format,
            "save_valid_idx": True,
            "flow_backend": self.flow_backend,
            "backend_params": self.backend_params,
        }
        if self.stage1_quality_setting is not None:
            options["quality_setting"] = self.stage1_quality_setting
        inline = self.get_flow_options_override()
        for given in (inline, dict(override or {})):
            self._check_not_decided(given)
            if "quality_setting" in given and "min_level" not in given:
                options.pop("min_level", None)
            options.update(given)
        try:
            checked = OFOptions(**options)
        except OptionsError as error:
            raise OptionsError(f"flow_options: {error}") from None
        checked.save_motion = self.stage1_output_format != "ZARR"  # which holds it in any case
        return checked

    def _check_not_decided(self, given: Mapping[str, Any]) -> None:
        for name in ROUTING_OPTIONS:
            if name in given and not (
                name == "output_format"
                and str(getattr(given[name], "value", given[name])).upper()
                == self.stage1_output_format
            ):
                raise OptionsError(
                    f"flow_options: {name} is decided by the session; leave it out"
                    + (" and use stage1_output_format" if name == "output_format" else "")
                )
        for name, reason in _NEEDED_LATER.items():
            if given.get(name) is False and (name, self.stage1_output_format) != (
                "save_motion",
                "ZARR",
            ):
                raise OptionsError(f"flow_options: {name}=False {reason}; leave it out")

    def resolve_center_file(self, files: list[Path]) -> tuple[int, Path]:
        """Return position and path of the center; not for ``center="auto"``.

        Parameters
        ----------
        files : list of Path
            The recordings in order.

        Raises
        ------
        OptionsError
            When no recording, or more than one, has the name of `center`, or it needs stage 2.

        Examples
        --------
        >>> import tempfile
        >>> config = SessionConfig(root=tempfile.mkdtemp())
        >>> config.resolve_center_file([Path("a.tif"), Path("b.tif"), Path("c.tif")])[0]
        1
        """
        if not files:
            raise OptionsError("there are no recordings to choose a center from")
        if self.center is None:
            index = (len(files) + 1) // 2 - 1
            return index, files[index]
        if self.center == "auto":
            raise OptionsError("center='auto' is decided by stage 2, from the averages")
        found = self.find_recordings(self.center, files)
        if len(found) == 1:
            return found[0], files[found[0]]
        names = [str(_relative(file, self.root)) for file in files]
        if found:
            named = ", ".join(names[n] for n in found)
            raise OptionsError(
                f"Specified center file {shortened(self.center)} may be {named}; give the "
                "path relative to "
                "root"
            )
        raise OptionsError(
            f"Specified center file {shortened(self.center)} not found among {len(files)} "
            "recordings." + (nearest_name(self.center, names) or f" They are: {', '.join(names)}")
        )

    def find_recordings(self, name: str, files: list[Path]) -> list[int]:
        """Return the positions of the recordings with a file name or a path relative to root."""
        return [
            n
            for n, file in enumerate(files)
            if name in (file.name, str(file), _relative(file, self.root).as_posix())
        ]


def _relative(path: Path, folder: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else path
