"""What is used of numba and dask without being public: each name is where it was, or it is said."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest

from scopeflow.compiled.gateway import float32, inner, kernel, nothing, readable, writable

WHERE = {
    "numba.core.compiler_lock": ["global_compiler_lock"],
    "numba.core.runtime": ["rtsys"],
    "numba.core.cgutils": ["get_or_insert_function", "create_struct_proxy"],
    "numba.core.typing.templates": ["ConcreteTemplate", "infer_global"],
    "distributed.worker": ["thread_state"],
}


@pytest.mark.parametrize("module", WHERE)
def test_private_names_are_where_they_were(module):
    found = importlib.import_module(module)
    moved = [name for name in WHERE[module] if not hasattr(found, name)]
    assert not moved, f"{module} has moved {moved}: see who imports it in src/scopeflow"


def test_a_dispatcher_has_the_parts_that_loading_a_kernel_needs():
    @kernel(nothing, readable(1), writable(1))
    def copy(values, out):
        out[:] = values

    compiled = copy.compile()
    needed = ("_cache", "targetctx", "overloads", "add_overload", "disable_compile")
    moved = [name for name in needed if not hasattr(compiled, name)]
    assert not moved, f"numba's dispatcher has moved {moved}: see compiled/gateway.py"
    (result,) = compiled.overloads.values()
    for name in ("fndesc", "library", "target_context", "entry_point"):
        assert hasattr(result, name), f"numba's compile result has moved {name}"
    assert copy.native().address > 0
    out = np.zeros(3, np.float32)
    copy(np.arange(3, dtype=np.float32), out)
    assert out.tolist() == [0, 1, 2]


def test_a_numba_that_moved_a_name_is_told_with_the_versions_that_work():
    program = (
        "import numba.core.runtime as runtime\n"
        "del runtime.rtsys\n"
        "import scopeflow.compiled.gateway\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "has moved what scopeflow needs of it" in done.stderr
    assert "tested with numba 0.61 to" in done.stderr


def test_inner_functions_are_compiled_once_for_plain_numbers_of_one_type():
    @inner
    def add(value, number):
        return value + number

    @kernel(float32, float32)
    def both(value):
        return add(value, np.float32(1)) + add(value, np.float32(2))

    assert both(1.0) == 5.0
    assert len(add.signatures) == 1
