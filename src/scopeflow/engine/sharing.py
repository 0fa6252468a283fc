"""Arrays in memory shared with processes of this machine, so that no pixel passes the client."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from scopeflow.engine.executor import Executor
from scopeflow.io.lazy import ArrayVideo, LazyVideo, SourceVideo
from scopeflow.io.shared import SharedSource, shared_folder


@contextlib.contextmanager
def shared_video(video: LazyVideo, executor: Executor) -> Iterator[LazyVideo]:
    """Give a video whose frames the workers of an executor read by themselves, where they can.

    Yields: an array in memory is copied once to where processes of this machine map it; everything
        else is given back as it is.
    """
    if not (
        executor.shares_files
        and isinstance(video, ArrayVideo)
        and isinstance(video.array, np.ndarray)
    ):
        yield video
        return
    with shared_folder(video.array.nbytes) as folder:
        shared = folder.put("video", video.array)
        yield SourceVideo(SharedSource(shared, video.shape, video.dtype))
