"""The opt-in solver: which parameters it stands for, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest

from scopeflow.config.options import OFOptions
from scopeflow.config.parameters import check_supported, correction_parameters
from scopeflow.config.specs import FlowParameters
from scopeflow.errors import OptionsError
from scopeflow.kernels.pyramid import pyramid_levels

DEFAULT = FlowParameters()


def flow(**options):
    return correction_parameters(OFOptions(**options), 1).flow


def test_the_default_keeps_the_documented_iterations():
    assert flow() == flow(solver="documented") == DEFAULT


@pytest.mark.parametrize(("quality", "level"), [("quality", 0), ("balanced", 2), ("fast", 3)])
def test_adaptive_changes_pyramid_and_iterations_only(quality, level):
    wanted = dataclasses.replace(DEFAULT, eta=0.64, min_level=level, iterations=30)
    assert flow(quality_setting=quality, solver="adaptive") == wanted
    given = OFOptions(quality_setting=quality, solver="adaptive").to_dict()
    assert (given["eta"], given["min_level"], given["iterations"]) == (0.64, level, 30)


@pytest.mark.parametrize("shape", [(512, 512), (131, 167), (64, 300)])
@pytest.mark.parametrize("quality", ["quality", "balanced"])
def test_adaptive_ends_at_the_same_grid(shape, quality):
    fine = pyramid_levels(shape, flow(quality_setting=quality))
    coarse = pyramid_levels(shape, flow(quality_setting=quality, solver="adaptive"))
    assert (coarse[-1].rows, coarse[-1].cols) == (fine[-1].rows, fine[-1].cols)
    assert len(coarse) < 0.7 * len(fine)


@pytest.mark.parametrize(
    ("given", "named"),
    [({"eta": 0.7}, "eta"), ({"iterations": 20}, "iterations"), ({"min_level": 3}, "min_level")],
)
def test_options_that_it_would_override_are_refused(given, named):
    with pytest.raises(OptionsError, match=rf"adaptive.*{named}"):
        check_supported(OFOptions(solver="adaptive", **given))
