"""How many log messages of a run the user sees."""

import logging

from scopeflow.engine.messages import debug_messages


def test_runs_that_overlap_leave_the_level_as_it_was():
    package = logging.getLogger("scopeflow")
    package.setLevel(logging.WARNING)
    first, second = debug_messages(), debug_messages()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert package.level == logging.DEBUG
    second.__exit__(None, None, None)
    assert package.level == logging.WARNING
