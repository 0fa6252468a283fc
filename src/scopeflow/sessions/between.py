"""How averages of a session are matched, by its options, and which matches are trusted."""

from __future__ import annotations

import math
import uuid
from typing import Any

from numpy.typing import NDArray
from pydantic import BaseModel

from scopeflow.compiled.version import KERNEL_VERSION
from scopeflow.engine.fingerprint import fingerprint
from scopeflow.engine.identity import NOT_IDENTIFIED
from scopeflow.flow.backends.registry import get_backend
from scopeflow.motion.plan import backend_facts
from scopeflow.sessions.config import SessionConfig
from scopeflow.sessions.match import BetweenParameters, Match

_PROCESS = uuid.uuid4().hex

MATCH_NUMBERS = ("similarity_before", "similarity_after", "loop_error", "overlap")


def between_parameters(config: SessionConfig) -> BetweenParameters:
    """Return how displacements between averages are found."""
    function = None
    if config.flow_backend != "flowreg":
        function = get_backend(config.flow_backend)(**config.backend_params)
    return BetweenParameters(
        cc_upsample=config.cc_upsample,
        sigma=config.sigma_smooth,
        sigma_refine=config.sigma_refine,
        alpha=config.alpha_between,
        iterations=config.iterations_between,
        data_term=config.stage2_constancy_assumption.value,
        flow_function=function,
    )


def match_mark(config: SessionConfig, *arrays: NDArray[Any]) -> str:
    """Return the fingerprint of what is made from averages with these options."""
    backend: list[Any] = [config.flow_backend, config.backend_params]
    facts = backend_facts(config.flow_backend)
    if facts is not None:
        # What cannot be identified is the same in this process at most.
        backend.append({**facts, "run": _PROCESS} if NOT_IDENTIFIED in facts else facts)
    return fingerprint(
        {
            "cc_upsample": config.cc_upsample,
            "sigma": [config.sigma_smooth, config.sigma_refine],
            "alpha_between": config.alpha_between,
            "iterations_between": config.iterations_between,
            "data_term": config.stage2_constancy_assumption,
            "backend": backend,
            "kernel_version": KERNEL_VERSION,
            "arrays": list(arrays),
        }
    )


class MatchNumbers(BaseModel):
    """The numbers of a match as a record holds them."""

    similarity_before: float | None
    similarity_after: float | None
    loop_error: float | None
    overlap: float | None


def numbers_of(found: Match) -> dict[str, float | None]:
    """Return the numbers of a match as they are kept; None for NaN, which JSON lacks."""
    values = {name: float(getattr(found, name)) for name in MATCH_NUMBERS}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def mismatch_reason(config: SessionConfig, numbers: dict[str, float | None]) -> str | None:
    """Return why a recording does not match the reference, or None if it does."""
    similarity, loop = numbers.get("similarity_after"), numbers.get("loop_error")
    reasons = []
    if similarity is None or similarity < config.min_similarity:
        shown = "none" if similarity is None else f"{similarity:.2f}"
        reasons.append(f"similarity {shown} < {config.min_similarity:g}")
    if loop is None or loop > config.max_loop_error:
        shown = "none" if loop is None else f"{loop:.1f} px"
        reasons.append(f"loop error {shown} > {config.max_loop_error:g} px")
    return ", ".join(reasons) or None
