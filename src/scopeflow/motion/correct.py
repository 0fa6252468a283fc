"""Motion correction of one recording, for scripts: a class with callbacks, and one function."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.engine.executor import Executor
from scopeflow.engine.place import RegistrationConfig
from scopeflow.motion.block.values import STATISTICS
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.plan import CorrectionPlan, plan_correction
from scopeflow.motion.run import run_correction
from scopeflow.motion.store.delivery import (
    BatchCallback,
    Callbacks,
    ProgressCallback,
)


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
    >>> from scopeflow import OFOptions
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
        return self.run_plan(plan_correction(self.options, self.config, reference_frame))

    def run_plan(
        self, plan: CorrectionPlan, executor: Executor | None = None
    ) -> NDArray[np.float64]:
        """Carry out a plan of :func:`plan_correction`, see :func:`run_correction`."""
        result = run_correction(plan, self.config, executor, self._callbacks)
        for name in STATISTICS:
            setattr(self, name, result.statistics[name].tolist())
        self.reference_raw = result.reference
        self.registered, self.w = result.registered, result.flow
        self.computed_frames, self.reused_frames = result.computed_frames, result.reused_frames
        self.clipped_values = result.clipped_values
        return result.reference


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
