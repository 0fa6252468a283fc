"""Which task of a batch system's array job this process is; reads the environment only."""

from __future__ import annotations

import os

from scopeflow.errors import OptionsError
from scopeflow.strict.values import shortened

TASK_VARIABLES = ("SLURM_ARRAY_TASK_ID", "SGE_TASK_ID", "PBS_ARRAY_INDEX")
"""Where batch systems put the number of a task, counted from 1, in the order of looking."""


def get_array_task_id() -> int | None:
    """Return the number of this task of an array job, counted from 1; None outside of one.

    Returns: from ``SLURM_ARRAY_TASK_ID``, else ``SGE_TASK_ID``, else ``PBS_ARRAY_INDEX``. SGE
        writes "undefined" in jobs that are no array.
    Raises OptionsError: when the variable holds no whole number.

    Examples
    --------
    >>> import os
    >>> os.environ["SGE_TASK_ID"] = "3"
    >>> get_array_task_id()
    3
    >>> del os.environ["SGE_TASK_ID"]
    """
    for name in TASK_VARIABLES:
        text = os.environ.get(name, "").strip()
        if text and text != "undefined":
            if not text.isdecimal():
                raise OptionsError(
                    f"{name} is {shortened(text)}; the number of a task is needed there"
                )
            return int(text)
    return None
