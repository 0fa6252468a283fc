"""Frame after frame as the method of live correction is written down; keeps everything it saw."""

from __future__ import annotations

import numpy as np

from scopeflow.flow.flow import get_displacement
from scopeflow.images.filters import gaussian_filter
from scopeflow.images.warp import warp
from scopeflow.motion.options.parameters import weight_map


def naive_live(frames, reference, options, *, interval=20, share=0.2, truncate=4.0):
    """Return (registered, flows, last raw reference) of frames ``(T, H, W, C)``."""
    height, width, channels = reference.shape
    sigma = [options.get_sigma_at(c) for c in range(channels)]
    space = [(row[0], row[1], 0.0) for row in sigma]
    arguments = {**options.to_dict(), "weight": weight_map(options, height, width, channels)}
    raw = reference.astype(np.float64)
    interpolation = options.interpolation_method.value
    seen, flow = [], None
    registered, flows = [], []
    axes = (0, 1, 2) if options.channel_normalization.value == "joint" else (0, 1)

    def scaled(image):
        low, high = raw.min(axis=axes), raw.max(axis=axes)
        return ((image - low) / (high - low + 1e-8)).astype(np.float32)

    def unscaled(image, low, high):
        return image * (high - low + 1e-8) + low

    processed = gaussian_filter(scaled(raw), space)
    for count, frame in enumerate(frames, start=1):
        seen.insert(0, gaussian_filter(scaled(frame), space))
        moving = np.zeros_like(processed)
        for c in range(channels):
            last = int(truncate * sigma[c][2] + 0.5)
            ages = range(min(last + 1, len(seen)))
            weights = [np.exp(-0.5 * (k / sigma[c][2]) ** 2) if last else 1.0 for k in ages]
            for k in ages:
                moving[..., c] += weights[k] / sum(weights) * seen[k][..., c]
        flow = get_displacement(processed, moving, uv=flow, **arguments)
        result = warp(frame, flow.astype(np.float32), raw, interpolation)
        registered.append(result)
        flows.append(flow)
        if interval and count % interval == 0:
            low, high = raw.min(axis=axes), raw.max(axis=axes)
            moved = warp(moving, flow.astype(np.float32), processed, interpolation)
            seen = [unscaled(image, low, high) for image in seen]
            blend = unscaled((1 - share) * processed + share * moved, low, high)
            raw = (1 - share) * raw + share * result
            processed = scaled(blend)
            seen = [scaled(image) for image in seen]
    return np.array(registered), np.array(flows), raw
