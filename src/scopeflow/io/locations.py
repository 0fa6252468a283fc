"""Where bytes stand: a path of this machine or a remote address, with the same few methods.

A remote address is anything that fsspec opens, such as ``s3://bucket/folder``. Credentials and
endpoints are those of fsspec's own configuration and of the environment. An object appears under
its name only when it is complete, and nothing is renamed.
"""

from __future__ import annotations

import io
import os
import posixpath
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from scopeflow.errors import InputError, ScopeflowError, UnreadableFileError, nearest_name
from scopeflow.io.addresses import address_of, expanded, path_or_address

__all__ = [
    "Location",
    "RemotePath",
    "is_access_error",
    "location",
    "open_bytes",
    "reaching",
    "reason_and_remedy",
]

_BLOCK_BYTES = 2**20
# Packages that talk to object stores raise errors of their own classes.
_CLIENTS = {
    "aiobotocore",
    "aiohttp",
    "azure",
    "botocore",
    "gcsfs",
    "google",
    "paramiko",
    "requests",
}
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "http": "aiohttp", "https": "aiohttp"}
_TAGS = (
    *("ETag", "etag", "Content-MD5", "md5Hash", "content_md5", "crc32c", "checksum", "Digest"),
    *("LastModified", "Last-Modified", "last_modified", "updated", "mtime", "created"),
)


@dataclass(frozen=True, order=True)
class RemotePath:
    """A remote address ``scheme://rest`` with those methods of `pathlib.Path` that are used here.

    Every method that asks the store raises `FileNotFoundError` where nothing is, and
    `UnreadableFileError` where the store cannot be reached or refuses access: what it holds is
    unknown then, not missing.

    Examples
    --------
    >>> folder = RemotePath("s3://bucket/results")
    >>> str(folder / "compensated.zarr"), folder.parent.address, folder.name
    ('s3://bucket/results/compensated.zarr', 's3://bucket', 'results')
    """

    # Not universal_pathlib: there `is_file` of a store that cannot be reached is False, as of a
    # missing file; listing and removing take two requests, not one; a bucket is written with a
    # slash at its end, and addresses enter the fingerprints of results. With all that mended, it
    # would be left with the names below, and its import.

    address: str

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.address}/{name}") if name else self

    def _split(self) -> tuple[str, str]:
        scheme, _, rest = self.address.partition("://")
        return scheme, rest

    @property
    def has_folders(self) -> bool:
        """Whether the store lists what stands below a name; servers of web pages do not."""
        return self._split()[0] not in ("http", "https")

    @property
    def root(self) -> str:
        """Bucket or host, with the scheme."""
        scheme, rest = self._split()
        return f"{scheme}://{rest.partition('/')[0]}"

    @property
    def name(self) -> str:
        """Last part."""
        return self.address.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """Last part without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Ending of the last part, with the point."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        """The folder that it stands in; a bucket stands in itself."""
        scheme, rest = self._split()
        return RemotePath(f"{scheme}://{posixpath.dirname(rest)}") if "/" in rest else self

    @property
    def parents(self) -> list[RemotePath]:
        """All folders above, the nearest first."""
        above = self.parent
        return [] if above == self else [above, *above.parents]

    def with_name(self, name: str) -> RemotePath:
        """Return another name in the same folder."""
        return self.parent / name

    def absolute(self) -> RemotePath:
        """Return itself."""
        return self

    expanduser = resolve = absolute

    @property
    def filesystem(self) -> Any:
        """The fsspec file system, one in each process."""
        return _filesystem(self.root)

    def _info(self) -> dict[str, Any]:
        with reaching(self):
            found: dict[str, Any] = self.filesystem.info(self.address)
        return found

    def _type(self) -> str:
        try:
            return str(self._info()["type"])
        except FileNotFoundError:
            return ""

    def exists(self) -> bool:
        """Return whether an object or a folder of this name exists."""
        return self._type() != ""

    def is_file(self) -> bool:
        """Return whether it is an object."""
        return self._type() == "file"

    def is_dir(self) -> bool:
        """Return whether objects stand below this name."""
        return self._type() == "directory"

    def stamp(self) -> tuple[int, str]:
        """Return bytes of an object, and a text that changes when its content does."""
        return _stamp(self._info())

    def stamps(self) -> dict[str, tuple[int, str]]:
        """Return :meth:`stamp` of every object below, by address."""
        with reaching(self):
            found = self.filesystem.find(self.address, detail=True)
        return {self._address(name): _stamp(info) for name, info in found.items()}

    def _address(self, name: str) -> str:
        return name if "://" in name else f"{self._split()[0]}://{name.lstrip('/')}"

    def iterdir(self) -> Iterator[RemotePath]:
        """Yield what stands in the folder."""
        with reaching(self):
            found = self.filesystem.ls(self.address, detail=False)
        for name in found:
            address = self._address(name).rstrip("/")
            if address != self.address:
                yield RemotePath(address)

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Yield the objects and folders below that match."""
        with reaching(self):
            found = self.filesystem.glob(f"{self.address}/{pattern}")
        yield from (RemotePath(self._address(name)) for name in found)

    def read_range(self, start: int | None, stop: int | None) -> bytes:
        """Return some bytes of the object."""
        with reaching(self):
            return bytes(self.filesystem.cat_file(self.address, start=start, end=stop))

    def read_bytes(self) -> bytes:
        """Return the whole object."""
        return self.read_range(None, None)

    def read_text(self) -> str:
        """Return the whole object as text."""
        return self.read_bytes().decode()

    def open(self, mode: str = "rb") -> Any:
        """Open the object for reading; ranges are fetched when needed, and some are kept."""
        if mode != "rb":
            raise ValueError(f"mode {mode!r}: remote objects are opened for reading only")
        with reaching(self):
            return self.filesystem.open(
                self.address, "rb", block_size=_BLOCK_BYTES, cache_type="blockcache"
            )

    def upload(self, path: Path) -> None:
        """Store a file of this machine under this name, whole."""
        self.filesystem.put_file(str(path), self.address)

    def create(self, content: bytes) -> None:
        """Store a new object; `FileExistsError` where one stands, if the store can tell."""
        self.filesystem.pipe_file(self.address, content, mode="create")

    def write_bytes(self, content: bytes) -> None:
        """Store an object whole, in the place of an older one."""
        self.filesystem.pipe_file(self.address, content)

    def modified(self) -> float:
        """Return when the object was stored, in seconds since the epoch; now if it cannot tell."""
        with reaching(self):
            try:
                return float(self.filesystem.modified(self.address).timestamp())
            except NotImplementedError:
                return time.time()

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            self.filesystem.rm_file(self.address)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Remove every object below; none is no error."""
        with suppress(FileNotFoundError):
            self.filesystem.rm(self.address, recursive=True)

    def check_reachable(self) -> None:
        """Ask the store for what stands here, without writing.

        A missing bucket is a `FileNotFoundError`; that nothing stands here yet is no error.
        """
        with reaching(self):
            try:
                self.filesystem.ls(self.address, detail=False)
            except FileNotFoundError as error:
                # An empty folder is reported by its own name, a missing bucket in words.
                if str(error).strip("/") != self._split()[1].strip("/"):
                    raise


Location: TypeAlias = Path | RemotePath
"""A place on this machine, or a remote one."""


def _stamp(info: dict[str, Any]) -> tuple[int, str]:
    tag = next((str(info[key]) for key in _TAGS if info.get(key)), "")
    return int(info.get("size") or 0), tag.strip('"')


def location(given: str | os.PathLike[str] | RemotePath) -> Location:
    """Return the place that a text or path means.

    ``~`` is expanded, and an address that went through `pathlib.Path`, which swallows a slash, is
    mended.

    Raises InputError: the scheme of the address is unknown, or its package is not installed.

    Examples
    --------
    >>> location("memory://recordings/movie.zarr")
    RemotePath(address='memory://recordings/movie.zarr')
    >>> location("movie.zarr").name
    'movie.zarr'
    """
    if isinstance(given, RemotePath):
        return given
    address = address_of(given)
    if address is None:
        return expanded(path_or_address(given))
    scheme, _, rest = address.partition("://")
    if "::" in address:
        raise InputError(
            f"{address}: chains of addresses (::) are not read. Give the address of the data "
            "themselves"
        )
    if not rest.strip("/"):
        raise InputError(f"{address}: names no bucket or host; give {scheme}://bucket/folder")
    _check_scheme(scheme, address)
    return RemotePath(address)


@lru_cache(maxsize=64)
def _check_scheme(scheme: str, address: str) -> None:
    # Imported here: whoever reads files of this machine needs none of it.
    import fsspec

    try:
        fsspec.get_filesystem_class(scheme)
    except ValueError:
        known = ("s3", "gs", "https", "http", "az", "abfs", "memory", "sftp", "file")
        raise InputError(
            f"{address}: {scheme}:// is no known kind of address.{nearest_name(scheme, known)} "
            "Use s3://bucket/key, gs://, https://, another kind that fsspec opens, or a path"
        ) from None
    except ImportError as error:
        if _PACKAGES.get(scheme) is not None:
            raise InputError(
                f"{address}: the package {_PACKAGES[scheme]} is not installed. Install it with "
                "pip install 'scopeflow[remote]'"
            ) from error
        raise InputError(
            f"{address}: a package that fsspec needs for {scheme}:// is not installed ({error}). "
            "Install it; s3:// and https:// need pip install 'scopeflow[remote]' only"
        ) from error


@lru_cache(maxsize=16)
def _filesystem(root: str) -> Any:
    import fsspec

    # Without its cache of listings: other processes write while this one looks.
    return fsspec.core.url_to_fs(root, use_listings_cache=False)[0]


def is_access_error(error: BaseException) -> bool:
    """Return whether reading or writing failed, rather than the program."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENTS


def reason_and_remedy(error: BaseException) -> tuple[str, str]:
    """Return why a store could not be used, and what helps."""
    kind = type(error).__name__
    text = " ".join(str(error).split()) or kind
    if "Credential" in kind or "Credential" in text:
        keys = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        remedy = f"""Set {keys} or a profile, or for public data FSSPEC_S3='{{"anon": true}}'"""
        return f"no usable credentials ({text})", remedy
    if isinstance(error, PermissionError):
        return f"access is denied ({text})", "Check credentials and permissions of the bucket"
    if isinstance(error, FileNotFoundError):
        return text, "Check the address, and that the bucket exists"
    if isinstance(error, ConnectionError | TimeoutError) or "Connect" in kind or "Timeout" in kind:
        return (
            f"the store cannot be reached ({text})",
            "Check the network and the endpoint (AWS_ENDPOINT_URL)",
        )
    return f"{kind}: {text}", "Check the address, credentials and endpoint"


@contextmanager
def reaching(place: Location) -> Iterator[None]:
    """Report failures of a remote store inside the block as one error about this place.

    Raises FileNotFoundError: as it is: what is missing means something else to every caller.
    Raises UnreadableFileError: everything else that goes wrong on the way; damaged contents are no
        concern of this.
    """
    try:
        yield
    except (ScopeflowError, FileNotFoundError):
        raise
    except Exception as error:
        if not isinstance(place, RemotePath) or not is_access_error(error):
            raise
        reason, remedy = reason_and_remedy(error)
        raise UnreadableFileError(f"{place}: {reason}. {remedy}") from error


def open_bytes(place: Location) -> Any:
    """Open a file for reading; a remote one is fetched whole, so only small ones."""
    if isinstance(place, RemotePath):
        return io.BytesIO(place.read_bytes())
    return place.open("rb")
