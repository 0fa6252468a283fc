"""The batch loop of motion correction, written plainly: no blocks, no graph, no dask."""

from __future__ import annotations

import numpy as np

from scopeflow.flow.flow import solve_flow
from scopeflow.flow.reference import prepare_reference
from scopeflow.images.filters import (
    gaussian_filter,
    intensity_range,
    normalize,
)
from scopeflow.images.resize import upsample_flow
from scopeflow.images.temporal import temporal_weight_table
from scopeflow.images.warp import warp
from scopeflow.motion.options.parameters import correction_parameters, weight_map


def naive_correction(video, reference, options):
    """Return (registered float32, flow float32) of a recording, batch after batch.

    The temporal filter sees the whole recording, reflected at its ends.
    """
    n_frames, height, width, channels = video.shape
    parameters = correction_parameters(options, channels)
    sigma = parameters.preprocess.sigma
    lo, hi = intensity_range(reference, parameters.preprocess.joint_normalization)
    spatial = [gaussian_filter(normalize(frame, lo, hi), sigma) for frame in video]
    table = temporal_weight_table(sigma, channels)
    radius = len(table) // 2
    processed = []
    for t in range(n_frames):
        total = np.zeros((height, width, channels), np.float32)
        for offset in range(-radius, radius + 1):
            source = t + offset
            while not 0 <= source < n_frames:
                source = -1 - source if source < 0 else 2 * n_frames - 1 - source
            total += table[offset + radius].astype(np.float32) * spatial[source]
        processed.append(total if radius else spatial[t])
    weight = weight_map(options, height, width, channels)
    reference_processed = gaussian_filter(normalize(reference, lo, hi), sigma)
    fill = reference.astype(np.float32)
    registered = np.empty(video.shape, np.float32)
    flows = np.empty((n_frames, height, width, 2), np.float32)
    start = None
    for begin in range(0, n_frames, options.buffer_size):
        end = min(begin + options.buffer_size, n_frames)
        prepared = prepare_reference(reference_processed, weight, parameters.flow)
        if begin == 0 and parameters.chain:
            first = [solve_flow(prepared, frame) for frame in processed[: min(22, end)]]
            start = np.mean(np.asarray(first, np.float64), axis=0)
        motions = []
        for t in range(begin, end):
            initial = (
                np.zeros((height, width, 2), np.float32)
                if start is None
                else upsample_flow(start, (height, width))
            )
            motion = solve_flow(prepared, processed[t], initial)
            motions.append(motion)
            flows[t] = upsample_flow(motion, (height, width))
            registered[t] = warp(video[t], flows[t], fill, parameters.interpolation)
        if parameters.chain:
            start = np.mean(np.asarray(motions[-20:], np.float64), axis=0)
        if parameters.update_reference:
            last = range(max(begin, end - 100), end)
            warped = [
                warp(processed[t], flows[t], reference_processed, parameters.interpolation)
                for t in last
            ]
            reference_processed = np.mean(np.asarray(warped, np.float64), axis=0).astype(np.float32)
    return registered, flows
