"""Gateway to numba: the only module that imports it and decides compile flags and the disk cache.

Two kinds of compiled functions exist:

* ``@kernel(returns, arguments...)`` is called from Python. Its one signature is declared, it is
  compiled at the first call (or loaded from the disk cache), and any other signature is refused.
  One signature per kernel is what makes the shared disk cache safe: numba #4807 crashes when two
  processes save *different* signatures of one function under one file name.
* ``@inner`` is called from kernels only. It is compiled into each of them and has no cache entry.

Flags: the GIL is released, ``parallel`` is off (dask owns the threads), ``fastmath`` is never the
bare ``True``: NaN and infinity keep their meaning. ``contract`` allows fused multiply-add, ``nsz``
ignores the sign of zero. ``finite=True`` adds ``nnan`` so that minimum and maximum become single
instructions everywhere; use it only where a NaN may give any value but never a bad address.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numba.extending
from llvmlite import ir
from numba import _dynfunc, types
from numba.core import cgutils
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import LoweringPass, register_pass
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from numba.core.typed_passes import NativeLowering

logger = logging.getLogger(__name__)

_EXACT_FLAGS = frozenset({"contract", "nsz"})
_FINITE_FLAGS = frozenset({"contract", "nsz", "nnan"})
_CACHE_SWITCH = "SCOPEFLOW_NUMBA_CACHE"

float32 = types.float32
float64 = types.float64
int16 = types.int16
int64 = types.int64
uint8 = types.uint8
uint16 = types.uint16
uint32 = types.uint32
nothing = types.void


def readable(ndim: int, dtype: Any = float32) -> Any:
    """Type of a C-contiguous array argument that the kernel only reads (read-only arrays fit)."""
    return types.Array(dtype, ndim, "C", readonly=True)


def writable(ndim: int, dtype: Any = float32) -> Any:
    """Type of a C-contiguous array argument that the kernel writes."""
    return types.Array(dtype, ndim, "C")


# ---------------------------------------------------------------------------------------- cache


@functools.cache
def cache_folder() -> Path | None:
    """Folder for compiled kernels of this user, machine, numba and kernel source; None is no cache.

    ``SCOPEFLOW_NUMBA_CACHE=0`` turns the cache off, ``NUMBA_CACHE_DIR`` moves it. The folder name
    holds a digest of all kernel sources, because numba's own cache only watches the file of the
    outermost function and would miss a changed inner function of another module. It holds the host
    name because machine code of one machine may not run on another that shares the home folder.

    Returns
    -------
    pathlib.Path or None
        An existing, writable folder, or None.
    """
    if os.environ.get(_CACHE_SWITCH, "1").strip().lower() in {"0", "false", "no", "off"}:
        return None
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    base = os.environ.get("NUMBA_CACHE_DIR")
    try:
        root = Path(base) if base else Path.home() / ".cache" / "scopeflow"
        name = f"numba-{numba.__version__}-{digest.hexdigest()[:12]}"
        folder = root / name / (socket.gethostname() or "localhost")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        logger.info("Compiled kernels are not kept on disk: %s", error)
        return None
    return folder


# --------------------------------------------------------------------------------------- kernels

_compile_lock = threading.RLock()
_registry: list[Kernel] = []


class NativeFunction(NamedTuple):
    """Machine code in numba's calling convention.

    Attributes
    ----------
    name : str
        Symbol, unique in the process.
    address : int
        Where it starts.
    type : llvmlite.ir.FunctionType
        Result slot, error slot, and the arguments one after the other, arrays as their members.
    """

    name: str
    address: int
    type: ir.FunctionType


class _Recording(threading.local):
    calls: list[tuple[Kernel, tuple[Any, ...]]] | None = None


_recording = _Recording()


@contextlib.contextmanager
def recorded_calls() -> Iterator[list[tuple[Kernel, tuple[Any, ...]]]]:
    """Note the kernels that this thread calls, with their arguments."""
    before, _recording.calls = _recording.calls, []
    try:
        yield _recording.calls
    finally:
        _recording.calls = before


class Kernel:
    """One compiled function with exactly one signature, compiled at its first call.

    Parameters
    ----------
    function : callable
        The Python function in numba's subset.
    signature : numba signature
        Its only signature.
    finite : bool
        Whether ``nnan`` may be assumed.
    """

    def __init__(self, function: Callable[..., Any], signature: Any, finite: bool) -> None:
        functools.update_wrapper(self, function)
        self.py_func = function
        self.signature = signature
        self._finite = finite
        self._compiled: Any = None
        self._elsewhere: subprocess.Popen[bytes] | None = None
        self.from_disk = False
        _registry.append(self)

    def __call__(self, *arguments: Any) -> Any:
        if _recording.calls is not None:
            _recording.calls.append((self, arguments))
        return (self._compiled or self.compile())(*arguments)

    def native(self) -> NativeFunction:
        """Machine code of the kernel, for callers other than Python.

        Returns
        -------
        NativeFunction
            Valid as long as the process lives.
        """
        result = self.compile().overloads[self.signature.args]
        description = result.fndesc
        name = description.llvm_func_name
        kind = result.target_context.call_conv.get_function_type(
            description.restype, description.argtypes
        )
        return NativeFunction(name, result.library.get_pointer_to_function(name), kind)

    def compile(self) -> Any:
        """Compile or load the kernel now; safe to call from several threads.

        Returns
        -------
        numba dispatcher
            The compiled function.
        """
        with _compile_lock:
            if self._compiled is None:
                self._compiled = self._build()
            return self._compiled

    def _build(self) -> Any:
        folder = cache_folder()
        _announce_compilation(folder)
        if folder is None:
            return self._declare(cache=False)
        if self._elsewhere is not None:
            self._elsewhere.wait()  # then it is on disk; if that process failed, compile here
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(folder)
        try:
            loaded = self._load()
            self.from_disk = loaded is not None
            return self._declare(cache=True) if loaded is None else loaded
        except Exception as error:
            logger.warning("The compiled %r cannot be kept in %s: %s", self, folder, error)
            return self._declare(cache=False)
        finally:
            numba.config.CACHE_DIR = before

    def _load(self) -> Any:
        """Take the kernel from the disk cache; None when it is not there.

        As `_declare` would, but that gets numba ready to compile before it looks: it imports all
        that numba knows of numpy and scipy, more than half a second.
        """
        dispatcher = numba.njit(cache=True, **_flags(self._finite))(self.py_func)
        context = dispatcher.targetctx
        with global_compiler_lock:
            rtsys.initialize(context)
            result = dispatcher._cache._load_overload(self.signature, context)
        if result is None:
            return None
        context.insert_user_function(result.entry_point, result.fndesc, [result.library])
        dispatcher.add_overload(result)
        dispatcher.disable_compile()
        return dispatcher

    def _declare(self, *, cache: bool) -> Any:
        # An explicit signature compiles at once and forbids every other signature.
        return numba.njit(self.signature, cache=cache, **_flags(self._finite))(self.py_func)

    def __repr__(self) -> str:
        return f"<kernel {self.py_func.__module__}.{self.py_func.__qualname__}>"


@functools.cache
def _announce_compilation(folder: Path | None) -> None:
    """Say once why nothing happens for some seconds, when no kernel stands in the cache."""
    if folder is None:
        logger.info("Compiling kernels; without a cache this takes some seconds in every process.")
    elif not _has_kernels(folder):
        logger.info("Compiling kernels for this machine; once, it takes some seconds.")


def compile_beside(kernels: Sequence[Kernel]) -> None:
    """Start to compile some kernels in a second process, when none is on disk yet.

    Compiling keeps one core busy. Whoever needs one of these kernels waits for that process and
    then loads it from disk.

    Parameters
    ----------
    kernels : sequence of Kernel
        Those that take longest.
    """
    folder = cache_folder()
    if folder is None or _has_kernels(folder) or not sys.executable or (os.cpu_count() or 1) < 2:
        return
    _announce_compilation(folder)
    names = [(each.py_func.__module__, each.py_func.__name__) for each in kernels]
    program = (
        "import importlib, sys\n"
        f"sys.path[:] = {sys.path!r}\n"
        f"for module, name in {names!r}:\n"
        "    getattr(importlib.import_module(module), name).compile()\n"
    )
    nowhere = subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=nowhere, stdout=nowhere, stderr=nowhere
        )
    except OSError as error:
        logger.debug("No second process compiles kernels: %s", error)
        return
    for each in kernels:
        each._elsewhere = process


def _has_kernels(folder: Path) -> bool:
    return next(folder.rglob("*.nbi"), None) is not None


def _flags(finite: bool) -> dict[str, Any]:
    return {
        "nogil": True,
        "error_model": "numpy",
        "boundscheck": False,
        "fastmath": set(_FINITE_FLAGS if finite else _EXACT_FLAGS),
    }


def kernel(returns: Any, *arguments: Any, finite: bool = False) -> Callable[[Any], Kernel]:
    """Declare a function that Python calls, with its one signature.

    Parameters
    ----------
    returns : numba type
        Type of the result, `nothing` for none.
    *arguments : numba type
        Types of the arguments, see `readable`, `writable`, `float32`, `int64`.
    finite : bool
        Allow the compiler to assume that no value is NaN.

    Returns
    -------
    callable
        Decorator that makes a `Kernel`.
    """

    def decorate(function: Callable[..., Any]) -> Kernel:
        return Kernel(function, returns(*arguments), finite)

    return decorate


class _AsWritten(JITCodeLibrary):
    """Instructions that are not optimised by themselves."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass


class _OnlyLinked(_AsWritten):
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


class _InnerCompiler(CompilerBase):
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


def inner(function: Any = None, *, finite: bool = False, inlined: bool = False) -> Any:
    """Declare a function that only kernels call.

    Parameters
    ----------
    function : callable
        The function.
    finite : bool
        Allow the compiler to assume that no value is NaN.
    inlined : bool
        Never call it: for short functions with many arguments inside hot loops.

    Returns
    -------
    callable
        A numba dispatcher, compiled into each kernel that uses it.
    """
    if function is None:
        return functools.partial(inner, finite=finite, inlined=inlined)
    # Nobody calls it from Python or C.
    no_entries = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(
        forceinline=inlined, pipeline_class=_InnerCompiler, **no_entries, **_flags(finite)
    )(function)


def compile_all() -> int:
    """Compile or load every kernel of the modules imported so far.

    Returns
    -------
    int
        Number of kernels.
    """
    # Last those that a second process compiles meanwhile.
    for each in sorted(_registry, key=lambda known: known._elsewhere is not None):
        each.compile()
    return len(_registry)


def cached_kernels() -> tuple[list[Kernel], list[Kernel]]:
    """Kernels that this process has taken from the disk cache, and those that it has compiled.

    Returns
    -------
    tuple of list of Kernel
        Those loaded, those compiled; kernels that were never called are in neither.
    """
    ready = [each for each in _registry if each._compiled is not None]
    return [each for each in ready if each.from_disk], [
        each for each in ready if not each.from_disk
    ]


def compile_module(
    name: str, build: Callable[[ir.Module], None], functions: list[str]
) -> list[int]:
    """Compile small functions that are given as LLVM instructions.

    Parameters
    ----------
    name : str
        Name of the module.
    build : callable
        Adds the functions to an empty module.
    functions : list of str
        Their names.

    Returns
    -------
    list of int
        Their addresses, valid as long as the process lives.
    """
    with _compile_lock, global_compiler_lock:
        library = _AsWritten(cpu_target.target_context.codegen(), name)
        module = library.create_ir_module(name)
        build(module)
        library.add_ir_module(module)
        library.finalize()
        _modules.append(library)
        return [int(library.get_pointer_to_function(each)) for each in functions]


_modules: list[Any] = []


# ------------------------------------------------------------------- what plain numba cannot say


@numba.extending.intrinsic
def pointer(typing_context, array, offset):  # noqa: ARG001 - numba's calling convention
    """Address of the element ``offset`` of a C-contiguous array, in elements from its start.

    Rows passed as pointers cost nothing, are indexed without numba's test for negative indices,
    and can be declared `disjoint`; that is what lets LLVM vectorise the loops over them.
    """
    signature = types.CPointer(array.dtype)(array, types.intp)

    def generate(context, builder, signature, arguments):
        structure = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.gep(structure.data, [arguments[1]])

    return signature, generate


@numba.extending.intrinsic
def disjoint(typing_context):  # noqa: ARG001
    """State, as first line of an `inner` function, that its pointers never overlap in the loop.

    The elements written through one pointer argument must not be touched through another one
    within one call. LLVM then needs no overlap tests at run time, which cost more than short rows.
    """
    signature = types.void()

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        # The first two arguments are numba's own: the result and the error slot.
        for argument in builder.function.args[2:]:
            if isinstance(argument.type, ir.PointerType):
                argument.add_attribute("noalias")
        return context.get_dummy_value()

    return signature, generate


_I32 = ir.IntType(32)
_F32 = ir.FloatType()
_SQRT_HALF_BITS = 0x3F3504F3
_MANTISSA_BITS = 0x007FFFFF


def _like(kind: ir.Type, element: ir.Type) -> ir.Type:
    """Return the LLVM type `element`, or a vector of them when `kind` is a vector."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def _constant(kind: ir.Type, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


@numba.extending.intrinsic
def split_float(typing_context, value):  # noqa: ARG001
    """Exponent and mantissa of a positive float32: ``value = mantissa * 2 ** exponent``.

    Both are float32, the mantissa lies in ``[sqrt(1/2), sqrt(2))``. Pure bit operations, so loops
    that use it vectorise. Works on vectors as well.
    """
    signature = types.UniTuple(value, 2)(value)

    def generate(context, builder, signature, arguments):
        floats = arguments[0].type
        integers = _like(floats, _I32)
        offset = _constant(integers, _SQRT_HALF_BITS)
        bits = builder.sub(builder.bitcast(arguments[0], integers), offset)
        exponent = builder.sitofp(builder.ashr(bits, _constant(integers, 23)), floats)
        mantissa = builder.add(builder.and_(bits, _constant(integers, _MANTISSA_BITS)), offset)
        parts = (exponent, builder.bitcast(mantissa, floats))
        return context.make_tuple(builder, signature.return_type, parts)

    return signature, generate


@numba.extending.intrinsic
def scale_by_power_of_two(typing_context, value, exponent):  # noqa: ARG001
    """``value * 2 ** exponent`` for a float32 near 1 and a whole float32 exponent within ±120."""
    signature = value(value, value)

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        floats = arguments[0].type
        integers = _like(floats, _I32)
        shift = builder.shl(builder.fptosi(arguments[1], integers), _constant(integers, 23))
        return builder.bitcast(builder.add(builder.bitcast(arguments[0], integers), shift), floats)

    return signature, generate


def _rounding_intrinsic(name: str) -> Any:
    def rounding(typing_context, value):  # noqa: ARG001
        signature = value(value)

        def generate(context, builder, signature, arguments):  # noqa: ARG001
            kind = arguments[0].type
            suffix = f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(kind, [kind]), f"llvm.{name}.{suffix}"
            )
            return builder.call(function, arguments)

        return signature, generate

    rounding.__doc__ = f"LLVM's {name} of a float32 or of a vector, one instruction."
    return numba.extending.intrinsic(rounding)


round_half_even = _rounding_intrinsic("rint")
round_down = _rounding_intrinsic("floor")
