"""How numba compiles functions that only kernels call: up to instructions, which kernels link."""

from __future__ import annotations

from typing import Any

from numba import _dynfunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import LoweringPass, register_pass
from numba.core.typed_passes import NativeLowering


class AsWritten(JITCodeLibrary):
    """Instructions that are not optimised by themselves."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass


class _OnlyLinked(AsWritten):
    """Instructions that become machine code as part of others."""

    def _finalize_final_module(self) -> None:
        self._finalized = True


@register_pass(mutates_CFG=False, analysis_only=True)
class _KnownToKernels(LoweringPass):
    """Let numba link a function that has no machine code of its own."""

    _name = "known_to_kernels"

    def __init__(self) -> None:
        LoweringPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        lowered, library = state["cr"], state.library
        module, name = lowered.fndesc.lookup_module(), lowered.fndesc.qualname
        entry = _dynfunc.make_function(module, name, "", 0, lowered.env, (library,))
        state.targetctx.insert_user_function(entry, lowered.fndesc, [library])
        state["cr"] = lowered._replace(cfunc=entry)
        return False


class InnerCompiler(CompilerBase):
    """numba's compiler, up to the instructions that kernels link.

    Each inner function would be optimised and turned into machine code by itself, and all of it
    again in every function that uses it: without that the solver needs a third less time.
    """

    def define_pipelines(self) -> list[Any]:
        state = self.state
        state.library = _OnlyLinked(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        state.flags.no_compile = True
        passes = DefaultPassBuilder.define_nopython_pipeline(state)
        passes.add_pass_after(_KnownToKernels, NativeLowering)
        passes.finalize()
        return [passes]
