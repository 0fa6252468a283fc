"""The commented session file that a new session starts from; text only."""

from __future__ import annotations

import json
from collections.abc import Sequence

from scopeflow._characters import visible

_TEMPLATE = """\
# A session: recordings of one field of view that become one aligned data set.
#
#   scopeflow session run --config THIS_FILE --dry-run    check everything, write nothing
#   scopeflow session run --config THIS_FILE              run, or go on after an interruption
#   scopeflow session status --config THIS_FILE           what is done, what is missing, and why

# Folder of the recordings, and which files or folders below it are recordings.
root = {root}
pattern = {pattern}
{recordings}
# Recordings that match the pattern and are left out.
exclude = []

# What pixels are that the files lack: an "error", "mask" for frames that take no part, or "fill" or
# "black", where the format leaves pixels out.
missing = "error"

# The recording that the others are aligned to: a file name, or "auto" for the one that is most
# similar to all others. Without this line it is the middle one.
# center = "auto"

# Results, relative to root: of each recording, and of the session.
output_root = "compensated_outputs"
final_results = "final_results"

# Keep what an earlier run has finished.
resume = true

# Where stage 1 runs: "local", "array" (one recording for each task of a SLURM, SGE or PBS array),
# or "dask" (a cluster, see --scheduler). n_workers = -1 uses every available processor.
scheduler = "local"
n_workers = -1

# Format of the corrected recordings: "HDF5", which PyFlowReg and MATLAB read, or "ZARR".
stage1_output_format = "HDF5"

# How recordings are matched: rigid shifts to 1/cc_upsample px, Gaussian smoothing in px of a first
# and of a refining flow, weight of smoothness, iterations, data term ("gc" gradient, "gray"
# brightness, "cs" census).
cc_upsample = 4
sigma_smooth = 6.0
sigma_refine = 1.0
alpha_between = 25.0
iterations_between = 100
stage2_constancy_assumption = "gc"

# A recording whose average has a lower correlation with the reference after alignment, or whose
# displacement there and back misses its start by more pixels, does not match: "report" it, or
# "exclude" it from the final mask.
mismatch = "report"
min_similarity = 0.4
max_loop_error = 2.0

# Aligned recordings: interpolated once from the raw frames ("one_step"), or the corrected frames a
# second time ("two_step"); "TIFF", "HDF5" or "MAT"; frames that are aligned together.
align_method = "one_step"
align_output_format = "TIFF"
align_chunk_size = 64

# The solver, and its parameters.
flow_backend = "flowreg"
backend_params = {{}}

# Options of stage 1, as in "scopeflow correct --set". Keep this table at the end: in TOML every
# line below [flow_options] belongs to it.
[flow_options]
quality_setting = "balanced"
# alpha = 4
# reference_frames = [50, 51, 52]
"""


def session_template(root: str, pattern: str, recordings: Sequence[str]) -> str:
    """Return the commented TOML text of a session; `recordings` are described in comments.

    Examples
    --------
    >>> print(session_template("data", "*.tif", ["a.tif, 100 frames"]).splitlines()[6])
    # Folder of the recordings, and which files or folders below it are recordings.
    """
    comments = "".join(f"#   {visible(line)}\n" for line in recordings)
    return _TEMPLATE.format(root=_quoted(root), pattern=_quoted(pattern), recordings=comments)


def _quoted(text: str) -> str:
    # Strings of JSON are strings of TOML, but for the one control character that JSON lets stand.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
