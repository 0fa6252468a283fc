"""How much memory one task needs, projected before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from scopeflow.errors import MemoryLimitError

_WEIGHT_BYTES = 8  # of a pixel and channel


@dataclass(frozen=True)
class MemoryProjection:
    """Bytes that one correction task needs, by part.

    `frames`, `registered`, `motion`, `masks`, `codec`, `workspace`: raw frames with halo; results;
        encoded shard while it is written; arrays of the solver.
    """

    frames: int
    registered: int
    motion: int
    masks: int
    codec: int
    workspace: int

    @property
    def total(self) -> int:
        """Bytes of one task."""
        return (
            self.frames + self.registered + self.motion + self.masks + self.codec + self.workspace
        )


def project_correction(
    frame_shape: tuple[int, int, int],
    motion_shape: tuple[int, int],
    itemsize: int,
    output_itemsize: int,
    block_length: int,
    halo: int,
) -> MemoryProjection:
    """Project the memory of one correction task.

    `frame_shape`: ``(H, W, C)``.
    `motion_shape`: rows and columns of the solver's finest grid.
    `itemsize`, `output_itemsize`: bytes per pixel and channel of the raw and the registered frames.
    `block_length`, `halo`: frames of the block, and of the halo on either side.

    Examples
    --------
    >>> project_correction((512, 512, 1), (210, 210), 2, 2, 20, 0).total < 300e6
    True
    """
    height, width, channels = frame_shape
    pixels = height * width
    n_read = block_length + 2 * halo
    registered = block_length * pixels * channels * output_itemsize
    motion = block_length * motion_shape[0] * motion_shape[1] * 8
    return MemoryProjection(
        # Temporal filters hold the whole block in float32.
        frames=n_read * pixels * channels * (itemsize + (4 if halo else 0)),
        registered=registered,
        motion=motion,
        masks=block_length * pixels,
        codec=registered + motion,
        # Full-resolution float32 planes of one frame, and the pyramid with its tensors.
        workspace=pixels * 4 * (30 + 24 * channels),
    )


def check_frames(
    name: str, frame_shape: tuple[int, int, int], projection: MemoryProjection | None, limit: int
) -> None:
    """Refuse frames that are too large to be corrected one block at a time.

    `name`: of the recording.
    `frame_shape`: ``(H, W, C)``.
    `projection`: of one task, None where tasks run on other machines; this process holds the
        weights of the channels in any case.
    `limit`: bytes that this process may use.
    Raises MemoryLimitError: if they need more than the limit; says how much and what to change.

    Examples
    --------
    >>> check_frames("a.tif", (512, 512, 1), None, 10**9)
    """
    height, width, channels = frame_shape
    needed = height * width * channels * _WEIGHT_BYTES
    needed += 0 if projection is None else projection.total
    if needed > limit:
        raise MemoryLimitError(
            f"{name}: frames of {height} × {width} px with {channels} channels need about "
            f"{needed / 1e9:.2f} GB for one block alone, {limit / 1e9:.2f} GB are available. If "
            "the size is right, crop or downsample the frames first, take fewer channels "
            "(channel_idx) or a smaller block_length, or use a machine with more memory."
        )


def check_memory(projection: MemoryProjection, limit: int, tasks_at_once: int) -> None:
    """Refuse a run whose tasks do not fit into a worker.

    `limit`: bytes that one worker process may use.
    `tasks_at_once`: tasks (threads) that one worker process runs at a time.
    Raises MemoryLimitError: if the tasks need more than the limit; says by how much and what to
        change.
    """
    needed = projection.total * tasks_at_once
    if needed > limit:
        raise MemoryLimitError(
            f"{tasks_at_once} tasks at once need about {needed / 1e9:.2f} GB, a worker may use "
            f"{limit / 1e9:.2f} GB (frames {projection.frames / 1e6:.0f} MB, results "
            f"{(projection.registered + projection.motion) / 1e6:.0f} MB, solver "
            f"{projection.workspace / 1e6:.0f} MB for each task). Use fewer threads per worker "
            "(n_jobs), a smaller block_length, or workers with more memory."
        )
