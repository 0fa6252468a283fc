"""Motion correction of one recording: make the reference, correct, write, export."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.engine.executor import Executor, open_executor
from scopeflow.engine.ledger import Ledger
from scopeflow.engine.messages import debug_messages
from scopeflow.engine.place import RegistrationConfig
from scopeflow.engine.progress import FrameProgress
from scopeflow.engine.sharing import shared_video
from scopeflow.errors import OutputError
from scopeflow.io.files import (
    atomic_save_npz,
    load_arrays,
    load_json,
    remove_tree,
    save_json,
    writing,
)
from scopeflow.io.formats import OutputFormat
from scopeflow.io.shared import shared_folder
from scopeflow.motion.block.correct import make_reference
from scopeflow.motion.block.values import STATISTICS, Reference
from scopeflow.motion.graph.block_task import BlockOutcome
from scopeflow.motion.graph.checks import finite_checks
from scopeflow.motion.graph.correct import CorrectionJob, grid_of
from scopeflow.motion.graph.memory import check_memory
from scopeflow.motion.graph.run import batches_ahead, run_job, tasks_per_window
from scopeflow.motion.grid import Block, Grid
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.place import supported_config
from scopeflow.motion.plan import CorrectionPlan, plan_correction
from scopeflow.motion.reference import (
    build_reference_image,
)
from scopeflow.motion.store.delivery import (
    BatchCallback,
    Callbacks,
    Delivery,
    FramesInMemory,
    ProgressCallback,
    StoredFrames,
)
from scopeflow.motion.store.exports import export_results
from scopeflow.motion.store.layout import (
    MOTION,
    REGISTERED,
    ResultStore,
    StoreLayout,
    create_store,
    layout_attributes,
    read_layout,
)
from scopeflow.motion.store.outputs import (
    OutputFiles,
    claim,
    find_finished,
    record_finished,
)
from scopeflow.motion.store.provenance import package_versions, run_facts
from scopeflow.motion.store.sinks import ArraySink, LedgerSink, SharedArraySink, StoreSink

logger = logging.getLogger(__name__)


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
    >>> from scopeflow.motion.options.of_options import OFOptions
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

    def run_plan(
        self, plan: CorrectionPlan, executor: Executor | None = None
    ) -> NDArray[np.float64]:
        """Carry out a plan of :func:`plan_correction`.

        Parameters
        ----------
        plan : CorrectionPlan
            What to do.
        executor : Executor, optional
            Where, if a place is open already; otherwise the one that the configuration names.
        """
        started = time.time()
        if plan.files is not None:
            finished = self._take_finished(plan, plan.files)
            if finished is not None:
                return finished
        verbose = self.config.verbose or self.options.verbose
        with contextlib.ExitStack() as stack:
            if verbose:
                stack.enter_context(debug_messages())
            if executor is None:
                config = supported_config(self.config, plan.options.flow_backend)
                executor = stack.enter_context(open_executor(config))
            executor.check_functions(
                {
                    "get_displacement": plan.request.displacement_function,
                    "preproc_funct": plan.request.frame_function,
                }
            )
            self._check_memory(plan, executor)
            video = stack.enter_context(shared_video(plan.recording.video, executor))
            recording = dataclasses.replace(plan.recording, video=video)
            plan = dataclasses.replace(plan, recording=recording)
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
        stored = load_arrays(files.reference)
        if stored is None:
            return None
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
        keep: ArraySink | SharedArraySink | None = None,
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
        dtype = np.dtype(plan.request.output_dtype)
        with contextlib.ExitStack() as stack:
            sink: ArraySink | SharedArraySink
            if executor.shares_files:
                size = int(np.prod(shape[:3])) * (shape[3] * dtype.itemsize + 8)
                folder = stack.enter_context(shared_folder(size))
                sink = SharedArraySink(
                    folder.empty("registered", shape, dtype),
                    folder.empty("flow", (*shape[:3], 2), np.float32),
                )
                self.registered, self.w = sink.registered.open(), sink.flow.open()
            else:
                self.registered = np.empty(shape, dtype=dtype)
                self.w = np.empty((*shape[:3], 2), dtype=np.float32)
                sink = ArraySink(self.registered, self.w)
            keeps_itself = executor.shares_memory or executor.shares_files
            job = CorrectionJob(
                plan.recording.video,
                plan.grid,
                reference,
                plan.request,
                sink if keeps_itself else None,
                tasks_per_window=tasks_per_window(executor.n_workers),
                batches_ahead=batches_ahead(plan.grid, executor.n_workers),
            )
            delivery = Delivery(self._callbacks, plan.grid, FramesInMemory(self.registered, self.w))
            self._run_blocks(job, executor, delivery, None if keeps_itself else sink)
            if executor.shares_files:
                # Copied: the shared files go away.
                self.registered, self.w = self.registered.copy(), self.w.copy()
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
            tasks_per_window=tasks_per_window(executor.n_workers),
            batches_ahead=batches_ahead(grid, executor.n_workers),
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
            for folder in (files.store, ledger.folder):
                # Results stand; what is left of the work is no reason to fail.
                with contextlib.suppress(OutputError), writing(folder):
                    remove_tree(folder)
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
        with writing(files.target):
            remove_tree(files.ledger("").folder)
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
