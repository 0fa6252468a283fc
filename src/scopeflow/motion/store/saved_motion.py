"""Motion on disk: a zarr store written block by block with records, and every place it is found."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scopeflow.engine.executor import Executor, open_executor
from scopeflow.engine.inputs import check_inputs
from scopeflow.engine.ledger import Form
from scopeflow.engine.lock import Lock, one_writer
from scopeflow.engine.pieces import Outcome, Piece, Result, find_piece, task_of
from scopeflow.engine.place import RegistrationConfig
from scopeflow.engine.progress import FrameProgress
from scopeflow.engine.sharing import shared_video
from scopeflow.errors import UnreadableFileError
from scopeflow.io.arrays import read_array
from scopeflow.io.formats import OutputFormat
from scopeflow.io.lazy import SourceVideo, lazy_array
from scopeflow.io.locations import Location, location
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.files import not_found, stamp_folder
from scopeflow.io.state import Text, load_state
from scopeflow.io.zarr.completeness import refuse_incomplete
from scopeflow.io.zarr.ngff import motion_attributes
from scopeflow.motion.block.apply import result_of_motion
from scopeflow.motion.block.values import STATISTICS
from scopeflow.motion.graph.block_task import BlockNumbers, all_statistics
from scopeflow.motion.graph.correct import CorrectionJob, grid_of
from scopeflow.motion.graph.lazy import is_solved_when_read
from scopeflow.motion.graph.run import batches_ahead, run_job, tasks_per_window
from scopeflow.motion.grid import Block, Grid, choose_block_length, make_grid
from scopeflow.motion.store.displacements import StoredMotion, open_motion
from scopeflow.motion.store.layout import (
    MOTION,
    ResultStore,
    StoreLayout,
    open_result,
    read_layout,
)
from scopeflow.motion.store.outputs import OutputFiles, continue_store, take_claim
from scopeflow.motion.store.provenance import RunFacts, package_versions
from scopeflow.motion.store.sinks import LedgerSink, StoreSink

if TYPE_CHECKING:
    import dask.array as da

_FRAMES_READ_TOGETHER = 4
_FRAMES_SUBMITTED = 1000


@dataclass(frozen=True)
class MotionFacts:
    """What belongs to displacements besides their numbers.

    `frame_shape`: ``(H, W)`` of the frames.
    `reference`: ``(H, W, C)`` float64, the image that was registered to.
    `interpolation`, `non_finite`: how frames are resampled, and what NaN pixels do.
    `metadata`: pixel size and times, where known.
    `absent`: frames that had no pixels, whose displacements mean nothing.
    """

    frame_shape: tuple[int, int]
    reference: NDArray[np.float64] | None
    interpolation: str = "cubic"
    non_finite: str = "error"
    metadata: VideoMetadata = field(default_factory=VideoMetadata)
    absent: tuple[int, ...] = ()


_Listed = Field(strict=False)  # JSON has no tuples


class _StoredMetadata(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    pixel_size_um: Annotated[tuple[float, float] | None, _Listed] = None
    frame_times_s: Annotated[tuple[float, ...] | None, _Listed] = None
    frame_interval_s: float | None = None
    channel_names: Annotated[tuple[Text, ...] | None, _Listed] = None


class _StoredFacts(BaseModel):
    """Those of :class:`MotionFacts` that stand in attributes; settings hold others besides."""

    model_config = ConfigDict(strict=True)

    interpolation: Literal["cubic", "linear", "nearest"] = "cubic"
    non_finite: Literal["error", "mask"] = "error"
    metadata: _StoredMetadata = Field(default_factory=_StoredMetadata)
    absent: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)


class _Recorded(BaseModel):
    """The attributes of a store that say what belongs to its displacements."""

    settings: _StoredFacts = Field(default_factory=_StoredFacts)
    motion: _StoredFacts | None = None


@dataclass(frozen=True)
class OpenedMotion:
    """Motion found on disk.

    `array`: ``(T, h, w, 2)`` float32, the displacements, lazy.
    `statistics`: statistics of each frame, where kept.
    """

    array: da.Array
    facts: MotionFacts
    settings: Callable[[], dict[str, Any]]
    statistics: dict[str, NDArray[Any]] | None


def save_motion(
    path: Location,
    array: da.Array,
    facts: MotionFacts,
    settings: Callable[[], dict[str, Any]],
    job: CorrectionJob | None,
    config: RegistrationConfig,
) -> None:
    """Write motion as a zarr store; continues what an interrupted call has begun.

    `array`: the displacements, ``(T, h, w, 2)``.
    `settings`: returns everything that decides the bytes.
    `job`: how to solve them in blocks; None evaluates `array`.
    """
    target = location(path).absolute()
    # The store is all that is written here: other results in the folder are no concern of it.
    files = OutputFiles(target.parent, target, OutputFormat.ZARR, side_prefix=f".{target.name}.")
    everything = {
        "motion": settings(),
        "interpolation": facts.interpolation,
        "non_finite": facts.non_finite,
    }
    with one_writer(target, wait=config.wait) as lock:
        _write(files, array, facts, everything, job, config, lock)


def _write(
    files: OutputFiles,
    array: da.Array,
    facts: MotionFacts,
    settings: dict[str, Any],
    job: CorrectionJob | None,
    config: RegistrationConfig,
    lock: Lock,
) -> None:
    mark = take_claim(files, settings, resume=config.resume)
    ledger = files.ledger(mark)
    store, grid = _open_store(files, array, facts, job, config, settings)
    sink = StoreSink(store, ledger)
    with (
        contextlib.ExitStack() as stack,
        open_executor(config) as executor,
        FrameProgress(grid.n_frames, "computing motion", config.progress) as progress,
    ):

        def on_finish(block: Block, outcome: Outcome) -> None:
            lock.check()
            progress.advance(block.length, reused=outcome.reused)

        if job is None:
            outcomes = _evaluate(array, facts.frame_shape, grid, sink, executor, on_finish)
        else:
            video = stack.enter_context(shared_video(job.video, executor))
            job = replace(
                job,
                video=video,
                grid=grid,
                sink=sink,
                seed_sink=LedgerSink(ledger, "first-start"),
                tasks_per_window=tasks_per_window(executor.n_workers),
                batches_ahead=batches_ahead(grid, executor.n_workers),
            )
            outcomes = run_job(job, executor, on_finish)
            if isinstance(job.video, SourceVideo):
                reads = [one.values for one in outcomes] + ledger.values("first-start-*")
                check_inputs([(job.video.source, one) for one in reads], ledger.clear)
    store.write_statistics(all_statistics(outcomes, STATISTICS))
    if facts.reference is not None:
        store.write_reference(facts.reference)
    # Last: a store without this is not complete.
    store.set_attributes(
        **motion_attributes(
            files.target.stem,
            MOTION,
            store.layout.shape[1:3],
            store.layout.motion_shape,
            facts.metadata,
        )
    )


def _open_store(
    files: OutputFiles,
    array: da.Array,
    facts: MotionFacts,
    job: CorrectionJob | None,
    config: RegistrationConfig,
    settings: dict[str, Any],
) -> tuple[ResultStore, Grid]:
    """Continue the store that stands there, with its block length, or create it."""
    frames, rows, columns, _ = array.shape
    channels = 1 if facts.reference is None else facts.reference.shape[2]
    shape = (frames, *facts.frame_shape, channels)
    batch = frames if job is None else job.request.parameters.batch_length
    # Raw frames are in memory while displacements are solved.
    bytes_per_frame = int(np.prod(shape[1:])) * 8
    length = choose_block_length(frames, batch, bytes_per_frame, config.block_length)
    wanted = StoreLayout(shape, "float32", (rows, columns), length, (MOTION,))
    metadata = asdict(facts.metadata)
    del metadata["origins"]
    attributes = {
        "settings": settings,
        "versions": package_versions(),
        "motion": {
            "interpolation": facts.interpolation,
            "non_finite": facts.non_finite,
            "metadata": metadata,
        },
    }
    store = continue_store(files, wanted, attributes)
    length = store.layout.block_length
    if job is None:
        return store, make_grid(frames, frames, length, seed_tail=0)
    return store, grid_of(frames, length, job.request, job.request.parameters)


def _evaluate(
    array: da.Array,
    shape: tuple[int, int],
    grid: Grid,
    sink: StoreSink,
    executor: Executor,
    on_finish: Callable[[Block, Outcome], None],
) -> list[Outcome]:
    pieces = [
        Piece(
            sink.name(block),
            _keep_motion,
            (block, shape, sink),
            sink.ledger,
            isolated=False,
            form=Form(sink.files(block), BlockNumbers, block.length),
        )
        for block in grid.blocks
    ]
    outcomes = [find_piece(piece) for piece in pieces]
    for block, outcome in zip(grid.blocks, outcomes, strict=True):
        if outcome is not None:
            on_finish(block, outcome)
    left = [number for number, outcome in enumerate(outcomes) if outcome is None]
    # A few blocks at a time, because a graph has several tasks for each frame; but all together
    # where displacements are solved on the way, whose starts are shared.
    at_once = max(2 * executor.n_workers, _FRAMES_SUBMITTED // max(1, grid.block_length))
    at_once = len(grid.blocks) if is_solved_when_read(array) else at_once
    run = uuid.uuid4().hex[:8]
    for first in range(0, len(left), at_once):
        numbers = left[first : first + at_once]
        tasks = [
            task_of(
                pieces[number],
                array[grid.blocks[number].start : grid.blocks[number].stop],
                key=f"save-motion-{number:06d}-{run}",
            )
            for number in numbers
        ]

        def take(position: int, outcome: Outcome, numbers: Sequence[int] = numbers) -> None:
            outcomes[numbers[position]] = outcome
            on_finish(grid.blocks[numbers[position]], outcome)

        executor.run(tasks, take)
    return [outcome for outcome in outcomes if outcome is not None]


def _keep_motion(
    block: Block, shape: tuple[int, int], sink: StoreSink, motion: NDArray[np.float32]
) -> Result:
    return sink.keep(block, result_of_motion(np.asarray(motion), shape))


def open_stored(path: Location) -> OpenedMotion:
    """Find motion on disk, see `Motion.open`.

    Raises InputNotFoundError, UnreadableFileError: if there is none, or it is incomplete or
        damaged.
    """
    path = location(path).absolute()
    if not path.exists():
        raise not_found(path)
    for store in (path, path / "motion.zarr"):
        refuse_incomplete(store)
    if path.is_dir() and read_layout(path) is not None:
        return _from_store(path)
    if path.is_dir() and (path / "motion.zarr").is_dir():
        return _from_store(path / "motion.zarr")
    found = open_motion(path)
    if found is None:
        raise UnreadableFileError(
            f"{path} holds no motion. Give what Motion.save wrote, or results that keep "
            "displacements: compensated.zarr, w.h5 (save_w=True) or motion.h5 (save_motion=True)"
        )
    place = location(found.stamp.path)
    if place.name == MOTION:
        return _from_store(place.parent)
    return _from_file(found)


def _from_store(path: Location) -> OpenedMotion:
    store = open_result(path)
    attributes = store.attributes()
    if MOTION not in store.layout.arrays:
        raise UnreadableFileError(f"{path} is a result without displacements")
    if "ome" not in attributes:
        raise UnreadableFileError(
            f"{path} is not complete: its run was interrupted. Repeat the call that writes it; it "
            "goes on where it stopped"
        )
    layout = store.layout
    try:
        recorded = _Recorded.model_validate(attributes["scopeflow"])
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise UnreadableFileError(
            f"{path}: what its attributes say of the motion is damaged (scopeflow.{place}). Repeat "
            "the call that writes it, to another folder"
        ) from None
    own = recorded.motion or recorded.settings  # settings: the result of a correction
    kept = MotionFacts(
        layout.shape[1:3],
        store.read_reference(),
        own.interpolation,
        own.non_finite,
        VideoMetadata(**dict(own.metadata)),
        tuple(frame for frame in own.absent if frame < layout.shape[0]),
    )
    shape = (layout.shape[0], *layout.motion_shape, 2)
    stored = StoredMotion(stamp_folder(path / MOTION), shape)
    statistics = store.read_statistics()
    return OpenedMotion(
        _lazy(stored),
        kept,
        stored.identity,
        statistics if set(STATISTICS) <= set(statistics) else None,
    )


def _from_file(stored: StoredMotion) -> OpenedMotion:
    """Displacements in HDF5, whose neighbours say what belongs to them."""
    path = location(stored.stamp.path)
    kind = "motion.h5" if path.name.endswith("motion.h5") else "w.h5"
    # With naming_convention="batch" both names begin with that of the recording.
    image = path.with_name(path.name.removesuffix(kind) + "reference_frame.npy")
    reference = None
    if path.name.endswith(kind) and image.is_file():
        reference = np.asarray(read_array(image), np.float64)
        reference = reference[..., None] if reference.ndim == 2 else reference
    if reference is None and kind == "motion.h5":
        raise UnreadableFileError(
            f"{path} is kept on the solver's grid, and the size of the frames is not known: "
            f"{image.name} is missing beside it. Restore it, or use w.h5 or compensated.zarr"
        )
    rows, columns = stored.shape[1:3] if reference is None else reference.shape[:2]
    absent: list[int] = []
    if path.name.endswith(kind):
        run = load_state(path.with_name(path.name.removesuffix(kind) + "run.json"), RunFacts)
        absent = [] if run is None else run.recording.absent
    kept = tuple(frame for frame in absent if frame < stored.shape[0])
    facts = MotionFacts((rows, columns), reference, absent=kept)
    return OpenedMotion(_lazy(stored), facts, stored.identity, None)


def _lazy(stored: StoredMotion) -> da.Array:
    together = min(_FRAMES_READ_TOGETHER, stored.shape[0])
    return lazy_array(stored, together).rechunk({0: 1})
