"""What a cell workflow will do: fields of view, stacks and fingerprints; computes no pixel."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from scopeflow._version import __version__
from scopeflow.cells.config import WorkflowConfig, load_config
from scopeflow.cells.methods.registered import MethodFacts, check_method, identify_methods
from scopeflow.cells.store.arrays import fov_folder
from scopeflow.cells.store.counts import check_pixels, count_factors
from scopeflow.cells.store.fovs import open_fovs, recording_name
from scopeflow.compiled.version import KERNEL_VERSION
from scopeflow.engine.fingerprint import fingerprint
from scopeflow.engine.ledger import Ledger
from scopeflow.errors import InputError, OptionsError
from scopeflow.io.addresses import local_path
from scopeflow.io.read.protocol import Source
from scopeflow.io.recording import refuse_absent

__all__ = ["CONFIG_FILE", "FovPlan", "WorkflowPlan", "plan_workflow"]

CONFIG_FILE = "processing_config.yaml"
RECORDS = ".scopeflow"
TABLES = ("traces.csv", "traces.parquet", "quality.json")
"""Endings of the files of the traces of a FOV."""
CELLS_VERSION = 2
"""Raised whenever the numbers of a step change; part of every fingerprint."""

_BLOCK_BYTES = 2**25
_LONGEST_BLOCK = 32


@dataclass(frozen=True)
class FovPlan:
    """One field of view (FOV): where it comes from, where its results go, what they depend on.

    Results are called after `base`; completion records stand in the folder `records`. `methods` is
    found once for all FOVs of a plan. Values of the channels in `factors` are multiplied before
    they are stored as counts.
    """

    fov: int
    source: Source
    folder: Path
    records: Path
    base: str
    config: WorkflowConfig
    methods: MethodFacts
    factors: tuple[tuple[int, float], ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(T, H, W)``."""
        frames, height, width, _ = self.source.shape
        return frames, height, width

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """Frames ``(start, stop)`` of each block; they depend on the frame size alone."""
        return _blocks(self.source)

    @property
    def pc(self) -> str | None:
        """Stack of phase contrast."""
        pc = self.config.channels.pc
        return None if pc is None else f"pc_ch_{pc.channel}"

    @property
    def labelled(self) -> str | None:
        """Stack of labels that change from frame to frame."""
        pc = self.config.channels.pc
        return None if pc is None else f"seg_labeled_ch_{pc.channel}"

    @property
    def tracked(self) -> str | None:
        """Stack of the numbers of cells."""
        pc = self.config.channels.pc
        return None if pc is None else f"seg_tracked_ch_{pc.channel}"

    def copied(self) -> dict[str, int]:
        """Return the channel of every stack that is copied, phase contrast first."""
        stacks = {} if self.pc is None else {self.pc: self.config.channels.pc.channel}  # type: ignore[union-attr]
        return stacks | {f"fl_ch_{fl.channel}": fl.channel for fl in self.config.channels.fl}

    def traces_path(self, ending: str = "traces.csv") -> Path:
        """Return the path of a table of this FOV."""
        return self.folder / f"{self.base}_{fov_folder(self.fov)}_{ending}"

    @cached_property
    def made(self) -> dict[str, str]:
        """The fingerprint of every stack and table, by name."""
        params, methods = self.config.params, self.methods
        made: dict[str, str] = {}

        def add(name: str, *parts: Any) -> None:
            made[name] = fingerprint([KERNEL_VERSION, CELLS_VERSION, name, *parts])

        for name, channel in self.copied().items():
            factor = dict(self.factors).get(channel)
            convert = [params.convert, *([] if factor is None else [factor])]
            add(name, self.source.identity(), channel, *convert)
        labels = None
        if self.pc is not None and self.labelled is not None and self.tracked is not None:
            add(self.labelled, made[self.pc], [methods.segmentation, methods.preprocessors])
            labels = made[self.labelled]
            add(self.tracked, labels, methods.tracking, made[self.pc])
        for fl in self.config.channels.fl:
            tile = [params.background_tile_size, params.background_dilation]
            add(f"fl_background_ch_{fl.channel}", made[f"fl_ch_{fl.channel}"], labels, tile)
        everything = sorted(made.items())
        shown = [params.crop_padding, params.crop_context, params.corrected_crops]
        weight = params.background_weight if params.corrected_crops else None
        add("crops", everything, params.crop_min_frames, shown, weight)
        channels = self.config.channels.model_dump(mode="json")
        weights = [params.background_weight, params.mask_margin]
        add("measure", everything, channels, methods.features, weights)
        add("traces", made["measure"], params.min_frames, params.border_margin)
        return made

    def ledger(self, name: str) -> Ledger:
        """Return the records of a stack or table."""
        return Ledger(str(self.records), str(self.folder), self.made[name])


@dataclass(frozen=True)
class WorkflowPlan:
    """Everything a run does, checked: the chosen FOVs, and all `sources` of the recording.

    `metadata` are facts of the recording for ``processing_config.yaml``, `identity` is its
    fingerprint.
    """

    output: Path
    config: WorkflowConfig
    fovs: tuple[FovPlan, ...]
    metadata: dict[str, Any]
    identity: str
    sources: tuple[Source, ...] = ()

    @property
    def settings_path(self) -> Path:
        """File that says which recording the results are of."""
        return self.output / RECORDS / "settings.json"


def plan_workflow(
    recording: Any,
    output: str | os.PathLike[str],
    config: WorkflowConfig | Mapping[str, Any] | str | os.PathLike[str] | None = None,
) -> WorkflowPlan:
    """Check everything a workflow needs of recording and options; nothing is written.

    Parameters are those of :func:`~scopeflow.cells.workflow.run_workflow`.

    Raises ScopeflowError: saying which file, channel, key or value cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> plan = plan_workflow(np.zeros((3, 16, 20, 2), "uint16"), "results", {"channels": {"pc": 0}})
    >>> plan.fovs[0].copied(), plan.fovs[0].blocks
    ({'pc_ch_0': 0}, [(0, 3)])
    """
    folder = local_path(output, "the results of the cell workflow").absolute()
    chosen = _config(config, folder)
    sources = open_fovs(recording, z=chosen.params.z)
    _check_channels(chosen, sources[0])
    check_method(chosen.params)
    numbers = _fov_numbers(chosen, len(sources))
    identity = fingerprint([source.identity() for source in sources])
    base = recording_name(recording)
    methods = identify_methods(chosen)
    fovs = tuple(
        FovPlan(
            n,
            sources[n],
            folder / fov_folder(n),
            folder / RECORDS / fov_folder(n),
            base,
            chosen,
            methods,
        )
        for n in numbers
    )
    for plan in fovs:
        refuse_absent(plan.source, "a segmentation")
        _check_channels(chosen, plan.source)
        _check_times(chosen, plan.source)
        if min(plan.shape) < 1 or min(plan.shape[1:]) < 16:
            raise InputError(
                f"{plan.source.description}: frames of {plan.shape[1]} × {plan.shape[2]} px are "
                "too small, at least 16 × 16 px are needed"
            )
        check_pixels(plan.source, plan.copied().values(), plan.blocks, chosen.params.convert)
    facts = _metadata(recording, base, sources)
    if chosen.params.convert == "scale":
        channels = {channel for plan in fovs for channel in plan.copied().values()}
        factors = count_factors(sources, channels, _blocks)
        fovs = tuple(replace(plan, factors=factors) for plan in fovs)
        facts["count_factors"] = dict(factors)
    return WorkflowPlan(folder, chosen, fovs, facts, identity, tuple(sources))


def _blocks(source: Source) -> list[tuple[int, int]]:
    frames, height, width, _ = source.shape
    length = max(1, min(_LONGEST_BLOCK, _BLOCK_BYTES // (height * width * 4)))
    return [(start, min(start + length, frames)) for start in range(0, frames, length)]


def _config(given: Any, folder: Path) -> WorkflowConfig:
    if given is None:
        if not (folder / CONFIG_FILE).exists():
            raise OptionsError(
                f"no configuration is given, and {folder / CONFIG_FILE} does not exist. Name the "
                "channels, such as config={'channels': {'pc': 0, 'fl': [1]}}"
            )
        return load_config(folder / CONFIG_FILE)
    if isinstance(given, WorkflowConfig):
        return given
    if isinstance(given, Mapping):
        return WorkflowConfig(**given)
    return load_config(given)


def _check_channels(config: WorkflowConfig, source: Source) -> None:
    channels = config.channels
    count = source.shape[3]
    names = source.metadata.channel_names
    listing = ", ".join(f"{n}: {name}" for n, name in enumerate(names or ()))
    known = f"it has channels 0 to {count - 1}{f' ({listing})' if listing else ''}"
    if channels.pc is None and not channels.fl:
        raise OptionsError(
            f"channels: neither pc nor fl is set, so there is nothing to do for "
            f"{source.description}; {known}. Set channels.pc or channels.fl"
        )
    chosen = [("pc", channels.pc)] if channels.pc is not None else []
    chosen += [("fl", fl) for fl in channels.fl]
    for kind, one in chosen:
        if one is not None and one.channel >= count:
            raise OptionsError(
                f"channels.{kind}: channel={one.channel} is not in {source.description}; {known}"
            )


def _check_times(config: WorkflowConfig, source: Source) -> None:
    mapping = config.params.time_mapping
    missing = [t for t in range(source.shape[0]) if mapping is not None and t not in mapping]
    if missing:
        raise OptionsError(
            f"params.time_mapping: has no minutes for {len(missing)} of {source.shape[0]} frames "
            f"of {source.description}, the first is frame {missing[0]}. Name all of them, or set "
            "params.frame_interval"
        )


def _fov_numbers(config: WorkflowConfig, count: int) -> tuple[int, ...]:
    if config.params.fovs == "all":
        return tuple(range(count))
    numbers = tuple(int(n) for n in config.params.fovs)
    missing = [n for n in numbers if n >= count]
    if missing:
        raise OptionsError(
            f"params.fovs: {', '.join(map(str, missing))} do not exist; the recording holds "
            f"{count} fields of view, 0 to {count - 1}"
        )
    return numbers


def _metadata(recording: Any, base: str, sources: list[Source]) -> dict[str, Any]:
    first = sources[0]
    frames, height, width, channels = first.shape
    facts = first.metadata
    times = facts.frame_times_s
    if times is None and facts.frame_interval_s:
        times = tuple(n * facts.frame_interval_s for n in range(frames))
    pixel = facts.pixel_size_um
    return {
        "file_path": str(recording) if isinstance(recording, str | os.PathLike) else base,
        "base_name": base,
        "file_type": Path(first.paths[0]).suffix.lstrip(".").lower() if first.paths else "array",
        "n_fovs": len(sources),
        "n_frames": frames,
        "n_channels": channels,
        "height": height,
        "width": width,
        "dtype": str(first.dtype),
        "channel_names": None if facts.channel_names is None else list(facts.channel_names),
        "pixel_size_um": None if pixel is None else float(pixel[1]),
        "timepoints_min": None if times is None else [round(t / 60.0, 9) for t in times],
        "software": {"name": "scopeflow", "version": __version__},
    }
