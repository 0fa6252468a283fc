"""Motion correction of one recording: open, check, make the reference, correct, write, export."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.blocks.correct import (
    STATISTICS,
    BlockRequest,
    DisplacementFunction,
    Reference,
    make_reference,
)
from scopeflow.config.enums import OutputFormat
from scopeflow.config.fingerprint import settings_dict
from scopeflow.config.options import OFOptions
from scopeflow.config.parameters import check_supported, weight_map
from scopeflow.config.registration import RegistrationConfig
from scopeflow.config.specs import CorrectionParameters
from scopeflow.errors import OptionsError
from scopeflow.graph.block_task import BlockOutcome
from scopeflow.graph.checks import finite_checks
from scopeflow.graph.correct import CorrectionJob, grid_of
from scopeflow.kernels import KERNEL_VERSION
from scopeflow.kernels.backends import get_backend
from scopeflow.pipelines.delivery import (
    BatchCallback,
    Callbacks,
    Delivery,
    FramesInMemory,
    ProgressCallback,
    StoredFrames,
)
from scopeflow.pipelines.exports import export_results
from scopeflow.pipelines.outputs import (
    OutputFiles,
    check_claim,
    check_writable,
    claim,
    find_finished,
    output_files,
    record_finished,
)
from scopeflow.pipelines.provenance import package_versions, run_facts
from scopeflow.pipelines.reference import (
    ReferenceRequest,
    build_reference_image,
    reference_request,
)
from scopeflow.pipelines.run_graph import run_job
from scopeflow.pipelines.sinks import ArraySink, LedgerSink, StoreSink
from scopeflow.pipelines.video import Recording, open_recording
from scopeflow.plan.grid import Block, Grid, choose_block_length
from scopeflow.plan.memory import MemoryProjection, check_memory, project_correction
from scopeflow.runtime.executor import Executor, open_executor
from scopeflow.runtime.progress import FrameProgress
from scopeflow.store.files import atomic_save_npz, load_json, save_json
from scopeflow.store.layout import (
    MOTION,
    REGISTERED,
    VALID,
    ResultStore,
    StoreLayout,
    create_store,
    layout_attributes,
    read_layout,
)
from scopeflow.store.ledger import Ledger

logger = logging.getLogger(__name__)

_IN_MEMORY = (OutputFormat.ARRAY,)


@dataclass(frozen=True)
class CorrectionPlan:
    """Everything that is decided before a run, made without writing or reading pixels.

    Attributes
    ----------
    options : OFOptions
        A private copy of the user's options.
    recording : Recording
        What is corrected.
    parameters : CorrectionParameters
        Everything that decides the numbers.
    request : BlockRequest
        The same with dtype and user functions, as tasks get it.
    weight : ndarray, shape (H, W, C)
        Channel weights.
    reference : ReferenceRequest
        What the reference is made of.
    grid : Grid
        Blocks and batches.
    memory : MemoryProjection
        Bytes of one task.
    files : OutputFiles or None
        Names of the output; None keeps results in memory.
    arrays : tuple of str
        Arrays that the run keeps on disk.
    settings : dict
        What the fingerprint is made of.
    """

    options: OFOptions
    recording: Recording
    parameters: CorrectionParameters
    request: BlockRequest
    weight: NDArray[np.float64]
    reference: ReferenceRequest
    grid: Grid
    memory: MemoryProjection
    files: OutputFiles | None
    arrays: tuple[str, ...]
    settings: dict[str, Any]


def plan_correction(
    options: OFOptions,
    config: RegistrationConfig | None = None,
    reference_frame: Any = None,
    *,
    selection: Mapping[str, Any] | None = None,
) -> CorrectionPlan:
    """Check everything about a correction and work out what it will do; writes nothing.

    Parameters
    ----------
    options : OFOptions
        What to do; not changed.
    config : RegistrationConfig, optional
        How to run it.
    reference_frame : ndarray, shape (H, W) or (H, W, C), optional
        Reference in place of ``options.reference_frames``.
    selection : mapping, optional
        How the file is read where it does not tell by itself: ``axes``, ``dataset``, ``position``
        and others, see :func:`scopeflow.open_video`.

    Returns
    -------
    CorrectionPlan
        For :func:`run_correction`.

    Raises
    ------
    ScopeflowError
        One clear error for whatever is wrong with input, options or output.
    """
    options = options.copy()
    config = config or RegistrationConfig()
    check_supported(options)
    if options.input_file is None:
        raise OptionsError("input_file is not set; give the recording that is to be corrected")
    channels = options.channel_idx
    recording = open_recording(
        options.input_file,
        bin_size=options.bin_size,
        channels=[channels] if isinstance(channels, int) else channels,
        **(selection or {}),
    )
    shape, dtype = recording.video.shape, recording.video.dtype
    frames, height, width, channel_count = shape
    parameters = options.to_parameters(channel_count)
    in_memory = options.output_format in _IN_MEMORY
    output_dtype = (options.array_dtype if in_memory else options.file_dtype) or dtype
    request = BlockRequest(
        parameters,
        str(output_dtype),
        options.non_finite,
        displacement_function=_displacement_function(options),
        frame_function=options.preproc_funct,
    )
    weight = weight_map(options, height, width, channel_count)
    given = options.reference_frames if reference_frame is None else reference_frame
    # Also when an option file names the default: short recordings have not all of these frames.
    is_default = isinstance(given, list) and given == OFOptions().reference_frames
    reference = reference_request(given, shape, is_default=is_default)
    motion_shape = request.motion_shape(height, width)
    bytes_per_frame = height * width * channel_count * max(dtype.itemsize, output_dtype.itemsize)
    block_length = choose_block_length(
        frames, parameters.batch_length, bytes_per_frame, config.block_length
    )
    if config.block_length not in (None, block_length):
        logger.info(
            "Blocks have %d frames instead of %d, so that they fill batches of %d frames.",
            block_length,
            config.block_length,
            parameters.batch_length,
        )
    grid = grid_of(frames, block_length, request, parameters)
    memory = project_correction(
        (height, width, channel_count),
        motion_shape,
        dtype.itemsize,
        output_dtype.itemsize,
        block_length,
        grid.halo,
    )
    arrays = _kept_arrays(options)
    files = None
    settings: dict[str, Any] = {}
    if not in_memory:
        files = output_files(options, recording.paths)
        check_writable(files, recording.paths, frames * bytes_per_frame // 10)
        settings = _settings(options, recording, parameters, request, weight, reference, arrays)
        check_claim(files, settings, resume=config.resume)
    return CorrectionPlan(
        options, recording, parameters, request, weight, reference, grid, memory, files, arrays,
        settings,
    )  # fmt: skip


def _displacement_function(options: OFOptions) -> DisplacementFunction | None:
    if options.get_displacement_impl is not None:
        function = options.get_displacement_impl
    elif options.get_displacement_factory is not None:
        function = options.get_displacement_factory(**options.backend_params)
    else:
        factory = get_backend(options.flow_backend)
        if options.flow_backend == "flowreg":
            return None
        function = factory(**options.backend_params)
    given = {name: value for name, value in options.to_dict().items() if name != "weight"}
    return functools.partial(function, **given)


def _kept_arrays(options: OFOptions) -> tuple[str, ...]:
    if options.output_format is OutputFormat.ZARR:
        return (REGISTERED, MOTION, VALID)
    kept = []
    if options.output_format is not OutputFormat.NULL:
        kept.append(REGISTERED)
    if options.save_w:
        kept.append(MOTION)
    if options.writes_valid_idx:
        kept.append(VALID)
    return tuple(kept)


def _settings(
    options: OFOptions,
    recording: Recording,
    parameters: CorrectionParameters,
    request: BlockRequest,
    weight: NDArray[np.float64],
    reference: ReferenceRequest,
    arrays: tuple[str, ...],
) -> dict[str, Any]:
    functions = {
        name: f"{function.__module__}.{function.__qualname__}"
        for name in options.callables
        if (function := getattr(options, name)) is not None and hasattr(function, "__qualname__")
    }
    settings: dict[str, Any] = settings_dict(
        {
            "input": recording.identify(),
            **{
                field.name: getattr(parameters, field.name)
                for field in dataclasses.fields(parameters)
            },
            "weight": weight,
            "reference": reference,
            "backend": [options.flow_backend, options.backend_params, functions],
            "non_finite": options.non_finite,
            "output_dtype": request.output_dtype,
            "arrays": arrays,
            "kernel_version": KERNEL_VERSION,
        }
    )
    return settings


class BatchMotionCorrector:
    """Corrects one recording; keeps statistics and, for ``ARRAY``, the results.

    Parameters
    ----------
    options : OFOptions
        What to do; never changed, so it can be used again.
    config : RegistrationConfig, optional
        How to run it.

    Attributes
    ----------
    mean_disp, max_disp, mean_div, mean_translation : list of float
        Statistics of each frame, after the run.
    reference_raw : ndarray of float64, shape (H, W, C)
        The reference, after the run.
    registered, w : ndarray or None
        Corrected frames ``(T, H, W, C)`` and displacements ``(T, H, W, 2)``, after a run with
        ``output_format="ARRAY"``.
    computed_frames, reused_frames : int
        Frames that this run computed, and that an earlier run had finished.
    clipped_values : int or None
        Values that did not fit the output's type; None before a run, and after a run that found
        finished exports.

    Examples
    --------
    >>> import numpy as np
    >>> from scopeflow.config.options import OFOptions
    >>> video = np.random.default_rng(0).normal(100, 5, (6, 24, 32))
    >>> options = OFOptions(input_file=video, output_format="ARRAY", quality_setting="fast")
    >>> corrector = BatchMotionCorrector(options)
    >>> _ = corrector.run()
    >>> corrector.w.shape
    (6, 24, 32, 2)
    """

    def __init__(self, options: OFOptions, config: RegistrationConfig | None = None) -> None:
        self.options = options
        self.config = config or RegistrationConfig()
        self._callbacks = Callbacks()
        self.mean_disp: list[float] = []
        self.max_disp: list[float] = []
        self.mean_div: list[float] = []
        self.mean_translation: list[float] = []
        self.reference_raw: NDArray[np.float64] | None = None
        self.registered: NDArray[Any] | None = None
        self.w: NDArray[np.float32] | None = None
        self.computed_frames = 0
        self.reused_frames = 0
        self.clipped_values: int | None = None

    def register_progress_callback(self, callback: ProgressCallback) -> None:
        """Have ``callback(finished_frames, total_frames)`` called for every finished frame."""
        if callback not in self._callbacks.progress:
            self._callbacks.progress.append(callback)

    def register_w_callback(self, callback: BatchCallback) -> None:
        """Have ``callback(w, start, end)`` called for every batch, in the order of time."""
        if callback not in self._callbacks.displacement:
            self._callbacks.displacement.append(callback)

    def register_registered_callback(self, callback: BatchCallback) -> None:
        """Have ``callback(frames, start, end)`` called for every batch, in the order of time."""
        if callback not in self._callbacks.registered:
            self._callbacks.registered.append(callback)

    def run(self, reference_frame: Any = None) -> NDArray[np.float64]:
        """Correct the recording and write what the options ask for.

        Parameters
        ----------
        reference_frame : ndarray, shape (H, W) or (H, W, C), optional
            Reference in place of ``options.reference_frames``.

        Returns
        -------
        ndarray of float64, shape (H, W, C)
            The reference, in units of the recording.

        Raises
        ------
        ScopeflowError
            One clear error for bad input, before anything is written.
        """
        plan = plan_correction(self.options, self.config, reference_frame)
        return self.run_plan(plan)

    def run_plan(self, plan: CorrectionPlan) -> NDArray[np.float64]:
        """Carry out a plan of :func:`plan_correction`."""
        started = time.time()
        if plan.files is not None:
            finished = self._take_finished(plan, plan.files)
            if finished is not None:
                return finished
        verbose = self.config.verbose or self.options.verbose
        with _more_messages(verbose), open_executor(self.config) as executor:
            self._check_memory(plan, executor)
            if plan.files is None:
                self.reference_raw = self._run_to_arrays(plan, executor)
            else:
                self.reference_raw = self._run_to_files(plan, plan.files, executor, started)
        return self.reference_raw

    # -- parts of the story -------------------------------------------------------------------

    def _take_finished(
        self, plan: CorrectionPlan, files: OutputFiles
    ) -> NDArray[np.float64] | None:
        """Return the reference of an exported run that needs nothing more."""
        callbacks = self._callbacks
        if files.format is OutputFormat.ZARR or not self.config.resume:
            return None
        if callbacks.want_batches or load_json(files.settings) is None:
            return None
        facts = find_finished(files)
        if facts is None:
            return None
        with np.load(files.reference) as stored:
            self.reference_raw = stored["raw"]
        self._keep_statistics({name: np.asarray(facts["statistics"][name]) for name in STATISTICS})
        self.reused_frames = plan.grid.n_frames
        logger.info("%s is complete; nothing to do.", files.target)
        return self.reference_raw

    def _check_memory(self, plan: CorrectionPlan, executor: Executor) -> None:
        per_worker = executor.memory_per_worker()
        limit = self.config.memory_limit_bytes
        if per_worker is not None:
            bytes_of_worker, threads = per_worker
            limit = bytes_of_worker if limit is None else min(limit, bytes_of_worker)
            check_memory(plan.memory, limit, threads)
        elif limit is not None:
            check_memory(plan.memory, limit, 1)

    def _check_finite(self, plan: CorrectionPlan, executor: Executor) -> None:
        if plan.options.non_finite == "error":
            tasks = finite_checks(plan.recording.video, plan.grid.block_length)
            executor.run(tasks, lambda *_: None)

    def _reference(
        self, plan: CorrectionPlan, executor: Executor, ledger: Ledger | None
    ) -> Reference:
        n_frames = len(plan.reference.frames)
        show = self.config.progress if n_frames > 1 else False
        with FrameProgress(n_frames, "building the reference", show) as progress:
            raw = build_reference_image(
                plan.reference,
                plan.recording.video,
                plan.options,
                plan.weight,
                executor,
                ledger,
                lambda block, outcome: progress.advance(block.length, reused=outcome.reused),
            )
        return make_reference(raw, plan.parameters.preprocess, plan.weight)

    def _run_blocks(
        self,
        job: CorrectionJob,
        executor: Executor,
        delivery: Delivery,
        keep: ArraySink | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Compute all blocks and return the statistics of all frames."""
        with FrameProgress(job.grid.n_frames, "correcting", self.config.progress) as progress:

            def on_finish(block: Block, outcome: BlockOutcome) -> None:
                if keep is not None and outcome.result is not None:
                    keep.save(block, outcome.result)
                    outcome.result = None
                progress.advance(block.length, reused=outcome.reused)
                delivery.count(block)
                how = "reused" if outcome.reused else "computed"
                logger.debug("frames %d to %d %s", block.start, block.stop - 1, how)

            outcomes = run_job(job, executor, on_finish, delivery.block)
        self.reused_frames = progress.reused
        self.computed_frames = progress.done - progress.reused
        names = (*STATISTICS, "clipped")
        statistics = {
            name: np.concatenate([outcome.statistics[name] for outcome in outcomes])
            for name in names
        }
        self._keep_statistics(statistics)
        clipped = int(statistics["clipped"].sum())
        self.clipped_values = clipped
        if clipped:
            logger.warning(
                "%d of %d values did not fit %s after interpolation and were clipped.",
                clipped,
                int(np.prod(job.video.shape)),
                job.request.output_dtype,
            )
        return statistics

    def _keep_statistics(self, statistics: dict[str, NDArray[Any]]) -> None:
        for name in STATISTICS:
            setattr(self, name, statistics[name].tolist())

    def _run_to_arrays(self, plan: CorrectionPlan, executor: Executor) -> NDArray[np.float64]:
        self._check_finite(plan, executor)
        reference = self._reference(plan, executor, None)
        shape = plan.recording.video.shape
        self.registered = np.empty(shape, dtype=plan.request.output_dtype)
        self.w = np.empty((*shape[:3], 2), dtype=np.float32)
        sink = ArraySink(self.registered, self.w)
        job = CorrectionJob(
            plan.recording.video,
            plan.grid,
            reference,
            plan.request,
            sink if executor.shares_memory else None,
            batches_ahead=_batches_ahead(plan.grid, executor.n_workers),
        )
        delivery = Delivery(self._callbacks, plan.grid, FramesInMemory(self.registered, self.w))
        self._run_blocks(job, executor, delivery, sink)
        return reference.raw

    def _run_to_files(
        self, plan: CorrectionPlan, files: OutputFiles, executor: Executor, started: float
    ) -> NDArray[np.float64]:
        if load_json(files.settings) is None or not self.config.resume:
            self._check_finite(plan, executor)
        mark = claim(files, plan.settings, resume=self.config.resume)
        store, grid = self._open_store(plan, files)
        ledger = files.ledger(mark)
        reference = self._stored_reference(plan, files, executor, ledger)
        job = CorrectionJob(
            plan.recording.video,
            grid,
            reference,
            plan.request,
            StoreSink(store, ledger),
            LedgerSink(ledger, "first-start"),
            batches_ahead=_batches_ahead(grid, executor.n_workers),
        )
        delivery = Delivery(self._callbacks, grid, StoredFrames(store))
        statistics = self._run_blocks(job, executor, delivery)
        written = export_results(
            plan.options, files, store, reference, statistics, plan.recording.metadata
        )
        facts = run_facts(
            plan.options,
            plan.recording,
            executor,
            settings=plan.settings,
            started=started,
            computed_frames=self.computed_frames,
            reused_frames=self.reused_frames,
            block_length=grid.block_length,
        )
        save_json(files.side_file("run.json"), facts)
        if files.format is not OutputFormat.ZARR:
            record_finished(
                files,
                written,
                statistics={name: statistics[name].tolist() for name in STATISTICS},
            )
            shutil.rmtree(files.store, ignore_errors=True)
            shutil.rmtree(ledger.folder, ignore_errors=True)
        return reference.raw

    def _open_store(self, plan: CorrectionPlan, files: OutputFiles) -> tuple[ResultStore, Grid]:
        """Continue the store that stands there, with its block length, or create it."""
        arrays = plan.arrays
        if self._callbacks.registered:
            arrays = tuple(dict.fromkeys((*arrays, REGISTERED)))
        if self._callbacks.displacement:
            arrays = tuple(dict.fromkeys((*arrays, MOTION)))
        shape = plan.recording.video.shape
        wanted = StoreLayout(
            shape,
            plan.request.output_dtype,
            plan.request.motion_shape(*shape[1:3]),
            plan.grid.block_length,
            arrays,
        )
        existing = read_layout(files.store)
        if existing is not None and set(existing.arrays) >= set(arrays):
            comparable = dataclasses.replace(
                existing, block_length=wanted.block_length, arrays=wanted.arrays
            )
            if comparable == wanted:
                grid = grid_of(shape[0], existing.block_length, plan.request, plan.parameters)
                return ResultStore(str(files.store), existing), grid
        shutil.rmtree(files.ledger("").folder, ignore_errors=True)
        attributes = {
            "scopeflow": {
                "layout": layout_attributes(wanted),
                "settings": plan.settings,
                "versions": package_versions(),
            },
        }
        create_store(files.store, wanted, attributes)
        return ResultStore(str(files.store), wanted), plan.grid

    def _stored_reference(
        self, plan: CorrectionPlan, files: OutputFiles, executor: Executor, ledger: Ledger
    ) -> Reference:
        """Return the reference that an interrupted run had built, or build it."""
        record = ledger.find("reference")
        if record is not None:
            return make_reference(record.arrays["raw"], plan.parameters.preprocess, plan.weight)
        reference = self._reference(plan, executor, ledger)
        ledger.complete("reference", {}, arrays={"raw": reference.raw})
        atomic_save_npz(files.reference, raw=reference.raw)
        return reference


@contextlib.contextmanager
def _more_messages(verbose: bool) -> Iterator[None]:
    """Let debug messages of the package through while a run goes on."""
    package = logging.getLogger("scopeflow")
    before = package.level
    if verbose:
        package.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        package.setLevel(before)


def _batches_ahead(grid: Grid, n_workers: int) -> int:
    """Return how far the spine may run ahead so that every worker has leaves to work on."""
    blocks_per_batch = max(1, grid.batch_length // grid.block_length)
    return 2 + -(-2 * n_workers // blocks_per_batch)


def compensate_recording(
    options: OFOptions,
    reference_frame: Any = None,
    config: RegistrationConfig | None = None,
    *,
    progress_callback: ProgressCallback | None = None,
    w_callback: BatchCallback | None = None,
    registered_callback: BatchCallback | None = None,
) -> NDArray[np.float64]:
    """Correct the motion of one recording, from file to file.

    Parameters
    ----------
    options : OFOptions
        Recording, reference, parameters and output; not changed, so it can be used again.
    reference_frame : ndarray, shape (H, W) or (H, W, C), optional
        Reference in place of ``options.reference_frames``.
    config : RegistrationConfig, optional
        Workers, block length, resume.
    progress_callback : callable, optional
        ``f(finished_frames, total_frames)``.
    w_callback, registered_callback : callable, optional
        ``f(batch, start, end)`` for every ``buffer_size`` frames, in the order of time.

    Returns
    -------
    ndarray of float64, shape (H, W, C)
        The reference, in units of the recording.

    Raises
    ------
    ScopeflowError
        One clear error for bad input, before anything is written.

    References
    ----------
    Flotho et al., "Flow-Registration", J. Biophotonics 2022, doi 10.1002/jbio.202100330.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from scopeflow import OFOptions, open_video
    >>> video = np.random.default_rng(0).normal(100, 5, (6, 24, 32)).astype(np.float32)
    >>> folder = tempfile.mkdtemp()
    >>> options = OFOptions(input_file=video, output_path=folder, quality_setting="fast")
    >>> compensate_recording(options).shape
    (24, 32, 1)
    >>> open_video(folder + "/compensated.zarr").shape
    (6, 24, 32, 1)
    """
    corrector = BatchMotionCorrector(options, config)
    if progress_callback is not None:
        corrector.register_progress_callback(progress_callback)
    if w_callback is not None:
        corrector.register_w_callback(w_callback)
    if registered_callback is not None:
        corrector.register_registered_callback(registered_callback)
    return corrector.run(reference_frame)
