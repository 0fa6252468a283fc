"""State files: what scopeflow writes for itself and reads again, and therefore must not trust.

Every kind has a model, and its file a checksum of its own text. Disks, copies and people damage
such files, and in shared folders others can put links or pipes in their place: whatever is not
exactly what we would have written is not used. What can be made again then is; the rest is refused
by name.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from scopeflow.errors import UnreadableFileError
from scopeflow.io.files import atomic_path
from scopeflow.io.locations import Location, RemotePath, location

__all__ = [
    "DamagedStateError",
    "State",
    "Table",
    "Text",
    "array_digest",
    "is_regular",
    "is_shallow",
    "keep_state",
    "load_array",
    "load_arrays",
    "load_state",
    "open_regular",
    "read_state",
    "save_state",
]

logger = logging.getLogger(__name__)

_MARK = b'"checksum": "'
_END = b'"\n}\n'
_DIGEST = 32
_DIGITS = 40
_DEPTH = 48
_ENTRIES = 1000
_KINDS = "biufcUS"


class DamagedStateError(UnreadableFileError):
    """A state file that is there and is not what was written: damaged, foreign or a device."""


def _is_text(value: Any) -> str:
    # pydantic's own strings refuse names of files that are no Unicode.
    if not isinstance(value, str):
        raise ValueError("text is needed")  # noqa: TRY004 - what validators raise
    return value


def is_shallow(value: Any) -> Any:
    """Return plain values; `ValueError` if they are nested deeper than ours ever are."""
    level = [value]
    for _ in range(_DEPTH):
        level = [
            one
            for group in level
            for one in (group.values() if isinstance(group, dict) else group)
            if isinstance(one, (dict, list))
        ]
        if not level:
            return value
    raise ValueError(f"it is nested deeper than {_DEPTH} levels")


Text = Annotated[Any, AfterValidator(_is_text)]
"""Any text, names of files that are no Unicode among them."""

Table = Annotated[dict[Text, Any], AfterValidator(is_shallow)]
"""Plain values of any form by name, nested to a limit."""


class State(BaseModel):
    """The content of one kind of state file.

    `largest`: bytes that a file of this kind never has.
    `checked`: whether its files have a checksum; those that other programs share with us have none.

    Examples
    --------
    >>> import tempfile
    >>> class Counted(State):
    ...     frames: int
    >>> path = Path(tempfile.mkdtemp()) / "counted.json"
    >>> save_state(path, Counted(frames=3))
    >>> load_state(path, Counted)
    Counted(frames=3)
    >>> _ = path.write_text(path.read_text().replace("3", "4"))
    >>> load_state(path, Counted) is None
    True
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    largest: ClassVar[int] = 2**24
    checked: ClassVar[bool] = True


Kind = TypeVar("Kind", bound=BaseModel)


def save_state(path: str | Location, content: BaseModel | dict[str, Any]) -> None:
    """Write a state file under its final name only when it is complete.

    `content`: a model, whose fields of default values are left out, or plain values by name.

    Raises OutputError: it cannot be written.
    """
    text = _text(content)
    with atomic_path(path) as partial:
        partial.write_text(text)


def keep_state(path: str | Location, content: BaseModel | dict[str, Any]) -> None:
    """Write a state file as :func:`save_state` does, unless it stands there, byte by byte."""
    wanted = _text(content).encode()
    try:
        is_there = _bytes_of(path, len(wanted)) == wanted
    except (FileNotFoundError, DamagedStateError):
        is_there = False
    if not is_there:
        save_state(path, content)


def _text(content: BaseModel | dict[str, Any]) -> str:
    plain = content if isinstance(content, dict) else content.model_dump(exclude_defaults=True)
    text = json.dumps(plain, indent=2)
    if isinstance(content, dict) or getattr(content, "checked", False):
        # The checksum is of every byte before its own line.
        body = text[:-1].rstrip("\n") + (",\n  " if plain else "\n  ")
        text = f'{body}{_MARK.decode()}{_digest(body.encode())}"\n}}'
    return text + "\n"


def load_state(path: str | Location, model: type[Kind]) -> Kind | None:
    """Return the content of a state file; None where it is missing, or damaged in any way.

    Raises UnreadableFileError: a remote store cannot be reached: what it holds is unknown then.
    """
    try:
        return read_state(path, model)
    except FileNotFoundError:
        return None
    except DamagedStateError as error:
        logger.debug("%s", error)
        return None


def read_state(path: str | Location, model: type[Kind]) -> Kind:
    """Return the content of a state file, to tell one that is damaged from one that is missing.

    Files without a checksum are of earlier versions, and need the right form only.

    Raises FileNotFoundError: there is none.
    Raises DamagedStateError: it is not what was written; the reason in a few words.
    """
    data = _bytes_of(path, getattr(model, "largest", State.largest))
    try:
        value = json.loads(data, parse_int=_whole)
        if getattr(model, "checked", False) and isinstance(value, dict) and "checksum" in value:
            _check(data, value.pop("checksum"))
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"])
        raise _damaged(path, f"{place}: {first['msg']}") from None
    except Exception as error:  # whatever parsers raise for nesting, numbers and text
        raise _damaged(path, f"{str(error)[:120] or type(error).__name__}") from None


def _damaged(path: str | Location, reason: str) -> DamagedStateError:
    return DamagedStateError(f"{path} is damaged, or not of scopeflow ({reason})")


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a whole number has more than {_DIGITS} digits")
    return int(text)


def _digest(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def _check(data: bytes, recorded: Any) -> None:
    size = len(_MARK) + _DIGEST + len(_END)
    body, line = data[:-size], data[-size:]
    digest = _digest(body)
    if recorded != digest or line != _MARK + digest.encode() + _END:
        raise ValueError("its checksum is wrong")


# ------------------------------------------------------------------------------------- bytes


def open_regular(path: str | os.PathLike[str]) -> int:
    """Open a regular file of this machine for reading; return its descriptor.

    Never follows a link in the last place and never waits for a pipe or a device.

    Raises FileNotFoundError: there is nothing.
    Raises OSError: it is something else, or may not be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    return descriptor


def is_regular(path: Location) -> bool:
    """Tell whether a file, or an object of a remote store, stands there; a link is none."""
    if isinstance(path, RemotePath):
        return path.is_file()
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def _bytes_of(path: str | Location, largest: int) -> bytes:
    """Return the bytes of a small file; errors as :func:`_opened`, and where it is too large."""
    with _opened(path) as (stream, size):
        if size > largest:
            raise _damaged(path, f"it is larger than {largest} bytes")
        data: bytes = stream.read(largest)
        return data


@contextmanager
def _opened(path: str | Location) -> Iterator[tuple[Any, int]]:
    """Open a file and tell its size; what goes wrong inside the block is its damage, too.

    Raises FileNotFoundError: there is none.
    Raises DamagedStateError: it is no regular file, or cannot be read.
    """
    place = path if isinstance(path, Path) else location(path)
    if isinstance(place, RemotePath):
        data = place.read_bytes()
        yield io.BytesIO(data), len(data)
        return
    try:
        with open(open_regular(place), "rb") as stream:
            yield stream, os.fstat(stream.fileno()).st_size
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except DamagedStateError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        is_link = isinstance(error, OSError) and error.errno == errno.ELOOP
        raise _damaged(path, "it is a link" if is_link else reason) from None


# ------------------------------------------------------------------------------------ arrays


def load_array(path: str | Location) -> NDArray[Any]:
    """Return the array of a NumPy file; its header is believed only as far as the bytes go.

    Raises FileNotFoundError: there is none.
    Raises DamagedStateError: it is not a whole NumPy file of numbers or texts.
    """
    with _opened(path) as (stream, size):
        try:
            return _array(stream, size)
        except Exception as error:  # headers are texts of Python
            raise _damaged(path, str(error)[:120] or type(error).__name__) from None


def load_arrays(path: str | Location) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of a NumPy archive; None where it is missing, or damaged in any way.

    No header is believed before the bytes that it speaks of are there; nothing is unpickled.

    Raises UnreadableFileError: a remote store cannot be reached: what it holds is unknown then.
    """
    try:
        with _opened(path) as (stream, size):
            try:
                return _archive(stream, size)
            except Exception:  # zipfile and zlib raise errors of many classes
                logger.debug("%s is damaged, or not of scopeflow", path, exc_info=True)
                return None
    except FileNotFoundError:
        return None
    except DamagedStateError as error:
        logger.debug("%s", error)
        return None


def _archive(file: Any, size: int) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        # zlib makes at most 1032 bytes of one; what claims more, or shares bytes, is a bomb.
        packed = sum(entry.compress_size for entry in entries)
        if len(entries) > _ENTRIES or packed > size:
            raise ValueError("its sizes contradict each other")
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            most = entry.compress_size * (1 if entry.compress_type == zipfile.ZIP_STORED else 1032)
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("it is packed in another way than NumPy does")
            if name in arrays or name == entry.filename or entry.file_size > most:
                raise ValueError("it is no archive of NumPy")
            with archive.open(entry) as stream:
                arrays[name] = _array(stream, entry.file_size)
    return arrays


def _array(stream: Any, size: int) -> NDArray[Any]:
    """Return the array of a stream of `size` bytes; memory is asked for after all checks."""
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read_header(stream)
    if dtype.kind not in _KINDS or dtype.itemsize == 0 or dtype.subdtype is not None:
        raise ValueError(f"arrays of {dtype} are not written here")
    if len(shape) > 32 or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("its lengths are no counts")
    count = math.prod(shape)
    if stream.tell() + count * dtype.itemsize != size:
        raise ValueError("its header and its size contradict each other")
    data = bytearray(count * dtype.itemsize)
    view, done = memoryview(data), 0
    while done < len(data):
        read = stream.readinto(view[done:])
        if not read:
            raise ValueError("it is cut off")
        done += read
    if stream.read(1):  # the end, where zip compares its checksum
        raise ValueError("more bytes follow")
    return np.frombuffer(data, dtype, count).reshape(shape, order="F" if fortran else "C")


def array_digest(arrays: dict[str, NDArray[Any]]) -> str:
    """Return a digest of named arrays: of their names, types, shapes and values."""
    digest = xxhash.xxh3_128()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
