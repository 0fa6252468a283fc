"""One correction carried out: reference, blocks, results in memory or in files, exports."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from scopeflow.engine.executor import Executor, open_executor
from scopeflow.engine.inputs import check_inputs, frames_state
from scopeflow.engine.ledger import Form, Ledger
from scopeflow.engine.lock import Lock, one_writer
from scopeflow.engine.messages import debug_messages
from scopeflow.engine.pieces import Outcome
from scopeflow.engine.place import RegistrationConfig
from scopeflow.engine.progress import FrameProgress
from scopeflow.engine.sharing import shared_video
from scopeflow.errors import OutputError
from scopeflow.io.files import atomic_save_npz, remove_tree, writing
from scopeflow.io.formats import OutputFormat
from scopeflow.io.lazy import LazyVideo, SourceVideo
from scopeflow.io.shared import shared_folder
from scopeflow.io.state import load_arrays, save_state
from scopeflow.motion.block.correct import make_reference
from scopeflow.motion.block.values import STATISTICS, Reference
from scopeflow.motion.graph.block_task import CLIPPED, BlockSink, all_statistics
from scopeflow.motion.graph.checks import finite_checks
from scopeflow.motion.graph.correct import CorrectionJob, grid_of
from scopeflow.motion.graph.memory import check_memory
from scopeflow.motion.graph.run import batches_ahead, run_job, tasks_per_window
from scopeflow.motion.grid import Block, Grid
from scopeflow.motion.place import supported_config
from scopeflow.motion.plan import CorrectionPlan
from scopeflow.motion.reference import (
    build_reference_image,
)
from scopeflow.motion.store.delivery import (
    Callbacks,
    Delivery,
    FinishedFrames,
    FramesInMemory,
    StoredFrames,
)
from scopeflow.motion.store.exports import export_results, exported_files
from scopeflow.motion.store.layout import (
    MOTION,
    REGISTERED,
    ResultStore,
    StoreLayout,
)
from scopeflow.motion.store.outputs import (
    OutputFiles,
    continue_store,
    find_finished,
    record_finished,
    take_claim,
)
from scopeflow.motion.store.provenance import package_versions, run_facts
from scopeflow.motion.store.sinks import ArraySink, LedgerSink, StoreSink

logger = logging.getLogger(__name__)


@dataclass
class CorrectionResult:
    """What a corrected recording leaves in memory.

    `reference`: ``(H, W, C)`` float64, the reference, in units of the recording.
    `statistics`: numbers of each frame by name, see `STATISTICS`.
    `registered`, `flow`: corrected frames ``(T, H, W, C)`` and displacements ``(T, H, W, 2)`` in
        pixels, where the results go into memory.
    `computed_frames`, `reused_frames`: frames that this run computed, and that an earlier run had
        finished.
    `clipped_values`: values that did not fit the type of the output; None where finished exports
        were found.
    """

    reference: NDArray[np.float64]
    statistics: dict[str, NDArray[Any]]
    registered: NDArray[Any] | None = None
    flow: NDArray[np.float32] | None = None
    computed_frames: int = 0
    reused_frames: int = 0
    clipped_values: int | None = None


def run_correction(
    plan: CorrectionPlan,
    config: RegistrationConfig,
    executor: Executor | None = None,
    callbacks: Callbacks | None = None,
) -> CorrectionResult:
    """Carry out a plan of :func:`plan_correction`.

    `executor`: where, if a place is open already; otherwise the one that the configuration names.
    `callbacks`: functions of the user to call as frames and batches finish.
    Raises ScopeflowError: one clear error, before anything is written where that is possible.
    Raises OutputLockedError: another run writes there.
    """
    started = time.time()
    callbacks = callbacks or Callbacks()

    def finished() -> CorrectionResult | None:
        if plan.files is None or not config.resume or callbacks.want_batches:
            return None
        return _finished(plan, plan.files)

    found = finished()
    if found is not None:
        return found
    with contextlib.ExitStack() as stack:
        lock = None
        if plan.files is not None:
            places = plan.files.written_together()
            lock = stack.enter_context(one_writer(*places, wait=config.wait))
            # Another run may have finished it while this one waited.
            found = finished() if config.wait else None
            if found is not None:
                return found
        if config.verbose or plan.options.verbose:
            stack.enter_context(debug_messages())
        if executor is None:
            place = supported_config(config, plan.options.flow_backend)
            executor = stack.enter_context(open_executor(place))
        executor.check_functions(
            {
                "get_displacement": plan.request.displacement_function,
                "preproc_funct": plan.request.frame_function,
            }
        )
        _check_memory(plan, config, executor)
        video = stack.enter_context(shared_video(plan.recording.video, executor))
        recording = dataclasses.replace(plan.recording, video=video)
        plan = dataclasses.replace(plan, recording=recording)
        run = _Run(plan, config, executor, callbacks, lock)
        return run.to_arrays() if plan.files is None else run.to_files(plan.files, started)


def _finished(plan: CorrectionPlan, files: OutputFiles) -> CorrectionResult | None:
    """Return the result of an exported run that needs nothing more, else None."""
    if files.format is OutputFormat.ZARR:
        return None
    mark = files.claim(plan.settings).mark
    stored, facts = (
        files.stored_settings(),
        find_finished(files, exported_files(plan.options, files)),
    )
    # Earlier versions proved by the settings file alone which settings the exports are of.
    proofs = {None if stored is None else stored.fingerprint, facts and facts.fingerprint} - {None}
    reference = (load_arrays(files.reference) or {}).get("raw")
    if facts is None or proofs != {mark} or not _is_reference(reference, plan):
        return None
    if any(len(facts.statistics.get(name, ())) != plan.grid.n_frames for name in STATISTICS):
        return None
    if stored is None:
        take_claim(files, plan.settings, resume=True)  # writes the damaged file again
    logger.info("%s is complete; nothing to do.", files.target)
    statistics = {name: np.asarray(facts.statistics[name]) for name in STATISTICS}
    return CorrectionResult(reference, statistics, reused_frames=plan.grid.n_frames)


def _is_reference(raw: NDArray[Any] | None, plan: CorrectionPlan) -> TypeGuard[NDArray[np.float64]]:
    """Tell whether a stored array can be the reference of a recording."""
    shape = plan.recording.video.shape[1:]
    return raw is not None and raw.dtype == np.float64 and raw.shape == shape


def _check_memory(plan: CorrectionPlan, config: RegistrationConfig, executor: Executor) -> None:
    per_worker = executor.memory_per_worker()
    limit = config.memory_limit_bytes
    if per_worker is not None:
        bytes_of_worker, threads = per_worker
        limit = bytes_of_worker if limit is None else min(limit, bytes_of_worker)
        check_memory(plan.memory, limit, threads)
    elif limit is not None:
        check_memory(plan.memory, limit, 1)


@dataclass(frozen=True)
class _Run:
    """One plan in one place: the steps that results in memory and in files have in common."""

    plan: CorrectionPlan
    config: RegistrationConfig
    executor: Executor
    callbacks: Callbacks
    lock: Lock | None

    def to_arrays(self) -> CorrectionResult:
        """Correct into arrays of this process."""
        plan, executor = self.plan, self.executor
        self._check_finite()
        read = self._reference_state()
        reference = self._reference(None)
        shape = plan.recording.video.shape
        dtype = np.dtype(plan.request.output_dtype)
        with contextlib.ExitStack() as stack:
            if executor.shares_files:
                size = int(np.prod(shape[:3])) * (shape[3] * dtype.itemsize + 8)
                folder = stack.enter_context(shared_folder(size))
                shared = folder.empty("registered", shape, dtype)
                shared_flow = folder.empty("flow", (*shape[:3], 2), np.float32)
                registered, flow = shared.open(), shared_flow.open()
                sink = ArraySink(shared, shared_flow)
            else:
                registered = np.empty(shape, dtype=dtype)
                flow = np.empty((*shape[:3], 2), dtype=np.float32)
                sink = ArraySink(registered, flow)
            keeps_itself = executor.shares_memory or executor.shares_files
            job = self._job(plan.grid, reference, sink if keeps_itself else None)
            frames = FramesInMemory(registered, flow)
            keep = None if keeps_itself else sink
            result = self._blocks(job, frames, reference, keep, read=read)
            if executor.shares_files:
                registered, flow = registered.copy(), flow.copy()  # the shared files go away
        return dataclasses.replace(result, registered=registered, flow=flow)

    def to_files(self, files: OutputFiles, started: float) -> CorrectionResult:
        """Correct into a result store, export it, and write down what was done."""
        plan = self.plan
        if files.stored_settings() is None or not self.config.resume:
            self._check_finite()
        mark = take_claim(files, plan.settings, resume=self.config.resume)
        store, grid = self._store(files)
        ledger = files.ledger(mark)
        reference = self._stored_reference(files, ledger)
        job = self._job(
            grid, reference, StoreSink(store, ledger), LedgerSink(ledger, "first-start")
        )
        result = self._blocks(job, StoredFrames(store), reference, ledger=ledger)
        statistics = result.statistics
        lost = ledger.lost("block-*")
        if lost:
            raise OutputError(
                f"{files.store / lost[0]} was removed or changed during the run, the first of "
                f"{len(lost)} files; run it again to make them anew, and let nothing else write "
                "there"
            )
        written = export_results(
            plan.options, files, store, reference, statistics, plan.recording.metadata
        )
        facts = run_facts(
            plan.options,
            plan.recording,
            self.executor,
            settings=plan.settings,
            started=started,
            computed_frames=result.computed_frames,
            reused_frames=result.reused_frames,
            block_length=grid.block_length,
        )
        save_state(files.side_file("run.json"), facts)
        if files.format is not OutputFormat.ZARR:
            proof = {name: statistics[name].tolist() for name in STATISTICS}
            record_finished(files, mark, written, statistics=proof)
            for folder in (files.store, ledger.folder):
                # Results stand; what is left of the work is no reason to fail.
                with contextlib.suppress(OutputError), writing(folder):
                    remove_tree(folder)
        return result

    def _job(
        self,
        grid: Grid,
        reference: Reference,
        sink: BlockSink | None,
        seed_sink: BlockSink | None = None,
    ) -> CorrectionJob:
        return CorrectionJob(
            self._present_video,
            grid,
            reference,
            self.plan.request,
            sink,
            seed_sink,
            tasks_per_window=tasks_per_window(self.executor.n_workers),
            batches_ahead=batches_ahead(grid, self.executor.n_workers),
        )

    @property
    def _present_video(self) -> LazyVideo:
        """The frames that are there; what records say of frames that were read counts these."""
        video, grid = self.plan.recording.video, self.plan.grid
        return video.select(grid.present) if grid.absent else video

    def _check_finite(self) -> None:
        # All of it before the first block, so that hours of work are not lost to one bad frame.
        if self.plan.options.non_finite == "error":
            video, length = self.plan.recording.video, self.plan.grid.block_length
            checks = finite_checks(video, length, self.plan.recording.absent)
            self.executor.run(checks, lambda *_: None)

    def _reference(self, ledger: Ledger | None) -> Reference:
        plan = self.plan
        n_frames = len(plan.reference.frames)
        show = self.config.progress if n_frames > 1 else False
        with FrameProgress(n_frames, "building the reference", show) as progress:
            raw = build_reference_image(
                plan.reference,
                plan.recording.video,
                plan.options,
                plan.weight,
                self.executor,
                ledger,
                lambda block, outcome: progress.advance(block.length, reused=outcome.reused),
            )
        return make_reference(raw, plan.parameters.preprocess, plan.weight)

    def _stored_reference(self, files: OutputFiles, ledger: Ledger) -> Reference:
        """Return the reference that an interrupted run had built, or build it."""
        plan = self.plan
        record = ledger.find("reference", Form(files=(), arrays={"raw": 3}))
        if record is not None and _is_reference(record.arrays["raw"], plan):
            return make_reference(record.arrays["raw"], plan.parameters.preprocess, plan.weight)
        read = self._reference_state()
        reference = self._reference(ledger)
        ledger.complete("reference", read, arrays={"raw": reference.raw})
        atomic_save_npz(files.reference, raw=reference.raw)
        return reference

    def _reference_state(self) -> dict[str, Any]:
        """Return what a record keeps of the files of the frames that make the reference."""
        video = self.plan.recording.video
        if not (self._makes_one and isinstance(video, SourceVideo)):
            return {}
        return frames_state(video.select(self.plan.reference.frames).source)

    def _blocks(
        self,
        job: CorrectionJob,
        frames: FinishedFrames,
        reference: Reference,
        keep: ArraySink | None = None,
        ledger: Ledger | None = None,
        read: dict[str, Any] | None = None,
    ) -> CorrectionResult:
        """Compute all blocks; `keep` takes arrays that travelled here.

        Raises InputError: the recording is not the same any more; nothing is kept in `ledger`.
        """
        delivery = Delivery(self.callbacks, job.grid, frames)
        with FrameProgress(job.grid.n_frames, "correcting", self.config.progress) as progress:

            def on_finish(block: Block, outcome: Outcome) -> None:
                if self.lock is not None:
                    self.lock.check()
                if keep is not None and outcome.content is not None:
                    keep.keep(block, outcome.content)
                progress.advance(block.length, reused=outcome.reused)
                delivery.count(block)
                how = "reused" if outcome.reused else "computed"
                logger.debug("frames %d to %d %s", block.start, block.stop - 1, how)

            outcomes = run_job(job, self.executor, on_finish, delivery.block, keep is None)
        self._check_input(outcomes, ledger, read or {})
        statistics = all_statistics(outcomes, (*STATISTICS, CLIPPED))
        clipped = int(statistics[CLIPPED].sum())
        if clipped:
            logger.warning(
                "%d of %d values did not fit %s after interpolation and were clipped.",
                clipped,
                int(np.prod(job.video.shape)),
                job.request.output_dtype,
            )
        return CorrectionResult(
            reference.raw,
            statistics,
            computed_frames=progress.done - progress.reused,
            reused_frames=progress.reused,
            clipped_values=clipped,
        )

    def _check_input(
        self, outcomes: Sequence[Outcome], ledger: Ledger | None, reference: dict[str, Any]
    ) -> None:
        video, present = self.plan.recording.video, self._present_video
        if not (isinstance(video, SourceVideo) and isinstance(present, SourceVideo)):
            return
        read = present.source
        reads: list[tuple[Any, dict[str, Any]]] = [(read, one.values) for one in outcomes]
        if ledger is not None:
            reads += [(read, one) for one in ledger.values("first-start-*")]
        if self._makes_one:
            chosen = video.select(self.plan.reference.frames).source
            recorded = [reference] if ledger is None else ledger.values("reference*")
            reads += [(chosen, one) for one in recorded]
        check_inputs(reads, None if ledger is None else ledger.clear)

    @property
    def _makes_one(self) -> bool:
        """Whether the reference is made of frames."""
        return self.plan.reference.image is None

    def _store(self, files: OutputFiles) -> tuple[ResultStore, Grid]:
        """Continue the store that stands there, with its block length, or create it."""
        plan = self.plan
        arrays = plan.arrays
        if self.callbacks.registered:
            arrays = tuple(dict.fromkeys((*arrays, REGISTERED)))
        if self.callbacks.displacement:
            arrays = tuple(dict.fromkeys((*arrays, MOTION)))
        shape = plan.recording.video.shape
        wanted = StoreLayout(
            shape,
            plan.request.output_dtype,
            plan.request.motion_shape(*shape[1:3]),
            plan.grid.block_length,
            arrays,
        )
        facts = {"settings": plan.settings, "versions": package_versions()}
        store = continue_store(files, wanted, facts)
        length = store.layout.block_length
        if length == plan.grid.block_length:
            return store, plan.grid
        absent = plan.grid.absent
        return store, grid_of(shape[0], length, plan.request, plan.parameters, absent)
