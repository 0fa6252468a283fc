"""Gateway to numba: the only module that decides compile flags and the disk cache.

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

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types

try:
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.runtime import rtsys
except ImportError as error:
    raise ImportError(
        f"numba {numba.__version__} has moved what scopeflow needs of it ({error}); scopeflow is "
        "tested with numba 0.61 to 0.68, install one of these"
    ) from error

from scopeflow.compiled.private import NotPrivateError, make_private, private_folder, tighten

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


_HOLDERS = ("compiled", "images", "flow", "cells/methods")
"""Folders of the package whose modules may hold kernels or functions inside of them."""


def _sources_of_kernels() -> list[Path]:
    package = Path(__file__).parent.parent
    return [source for folder in _HOLDERS for source in (package / folder).glob("*.py")]


@functools.cache
def cache_folder() -> Path | None:
    """Folder for compiled kernels of this user, machine, numba and kernel source; None is no cache.

    ``SCOPEFLOW_NUMBA_CACHE=0`` turns the cache off, ``NUMBA_CACHE_DIR`` moves it. The folder name
    holds a digest of all kernel sources, because numba's own cache only watches the file of the
    outermost function and would miss a changed inner function of another module. It holds the host
    name because machine code of one machine may not run on another that shares the home folder.

    What is in the cache is run: a folder that others can write to or replace is not used.

    Returns: an existing, writable folder of this user alone, or None.
    """
    if os.environ.get(_CACHE_SWITCH, "1").strip().lower() in {"0", "false", "no", "off"}:
        return None
    digest = hashlib.sha256()
    for source in sorted(_sources_of_kernels()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    base = os.environ.get("NUMBA_CACHE_DIR")
    try:
        root = Path(base) if base else Path.home() / ".cache" / "scopeflow"
        name = f"numba-{numba.__version__}-{digest.hexdigest()[:12]}"
        if not base:
            # An earlier version made it as the umask was; what it holds is checked below.
            make_private(root)
            tighten(root)
        folder = private_folder(root / name / (socket.gethostname() or "localhost"))
        with tempfile.TemporaryFile(dir=folder):
            pass
    except NotPrivateError as error:
        logger.warning(
            "Compiled kernels in %s are not used, and compiled again in every process: %s. Give a "
            "folder of your own in NUMBA_CACHE_DIR, made with mkdir -m 700.",
            root,
            error,
        )
        return None
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        logger.info("Compiled kernels are not kept on disk: %s", error)
        return None
    return folder


# --------------------------------------------------------------------------------------- kernels

_compile_lock = threading.RLock()
_registry: list[Kernel] = []


class NativeFunction(NamedTuple):
    """Machine code in numba's calling convention.

    `type`: result slot, error slot, and the arguments one after the other, arrays as their members.
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

    `finite`: whether ``nnan`` may be assumed.
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
        """Call the compiled function; arguments are of the declared types."""
        if _recording.calls is not None:
            _recording.calls.append((self, arguments))
        return (self._compiled or self.compile())(*arguments)

    def native(self) -> NativeFunction:
        """Machine code of the kernel, for callers other than Python."""
        result = self.compile().overloads[self.signature.args]
        description = result.fndesc
        name = description.llvm_func_name
        kind = result.target_context.call_conv.get_function_type(
            description.restype, description.argtypes
        )
        return NativeFunction(name, result.library.get_pointer_to_function(name), kind)

    def compile(self) -> Any:
        """Compile or load the kernel now; safe to call from several threads."""
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
            _use_the_time_of(self._elsewhere)
            self._elsewhere.wait()  # then it is on disk; if that process failed, compile here
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(folder)
        try:
            loaded = self._load()
            self.from_disk = loaded is not None
            return self._declare_in(folder) if loaded is None else loaded
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

    def _declare_in(self, folder: Path) -> Any:
        compiled = self._declare(cache=True)
        for place in folder.rglob("*"):
            tighten(place)  # numba's files are as the umask is
        return compiled

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


_meanwhile: list[Kernel] = []


def _use_the_time_of(process: subprocess.Popen[bytes]) -> None:
    """Compile what is needed next, instead of waiting for another process to end."""
    while _meanwhile and process.poll() is None:
        _meanwhile.pop(0).compile()


def compile_beside(kernels: Sequence[Kernel], meanwhile: Sequence[Kernel] = ()) -> None:
    """Start to compile `kernels` in a second process, when none is on disk yet.

    Compiling keeps one core busy. Whoever needs one of these kernels compiles those of `meanwhile`
    until that process has ended, and then loads it from disk.
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
    _meanwhile[:] = meanwhile


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

    `returns`: type of the result, `nothing` for none.
    `arguments`: types of the arguments, see `readable`, `writable`, `float32`, `int64`.
    `finite`: allow the compiler to assume that no value is NaN.
    """

    def decorate(function: Callable[..., Any]) -> Kernel:
        return Kernel(function, returns(*arguments), finite)

    return decorate


def inner(function: Any = None, *, finite: bool = False, inlined: bool = False) -> Any:
    """Declare a function that only kernels call.

    `finite`: allow the compiler to assume that no value is NaN.
    `inlined`: never call it: for short functions with many arguments inside hot loops.
    Returns: a numba dispatcher, compiled into each kernel that uses it.
    """
    if function is None:
        return functools.partial(inner, finite=finite, inlined=inlined)
    # Nobody calls it from Python or C.
    no_entries = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(forceinline=inlined, **no_entries, **_flags(finite))(function)


def compile_all() -> int:
    """Compile or load every kernel of the modules imported so far."""
    # Last those that a second process compiles meanwhile.
    for each in sorted(_registry, key=lambda known: known._elsewhere is not None):
        each.compile()
    return len(_registry)


def compile_module(
    name: str, build: Callable[[ir.Module], None], functions: list[str]
) -> list[int]:
    """Compile small functions that are given as LLVM instructions.

    `build`: adds the functions to an empty module.
    Returns: their addresses, valid as long as the process lives.
    """
    module = ir.Module(name)
    module.triple = llvmlite.binding.get_process_triple()
    build(module)
    with _compile_lock:
        parsed = llvmlite.binding.parse_assembly(str(module))
        parsed.verify()
        # Not optimised: the work is in the kernels that these functions call.
        machine = llvmlite.binding.Target.from_triple(module.triple).create_target_machine(
            opt=0, codemodel="jitdefault", jit=True
        )
        engine = llvmlite.binding.create_mcjit_compiler(parsed, machine)
        engine.finalize_object()
        _engines.append(engine)
        return [int(engine.get_function_address(each)) for each in functions]


_engines: list[Any] = []
"""What owns the machine code of `compile_module`."""
