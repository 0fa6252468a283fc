"""Folders that appear under their name only when complete; knows nothing of what is in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scopeflow.errors import OutputExistsError
from scopeflow.io.files import partial_path, writing

__all__ = ["atomic_folder", "refuse_existing"]


def refuse_existing(paths: list[Path], overwrite: bool) -> None:
    """Raise `OutputExistsError` with the first path that stands where results would go."""
    for path in paths:
        if path.exists() and not overwrite:
            raise OutputExistsError(f"{path} exists; choose another target, or overwrite")


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty temporary folder that takes the final name only if the block succeeds.

    What stands there is replaced after the block, if ``overwrite`` says so.

    Raises OutputExistsError, OutputError: something stands there, or the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "export"
    >>> with atomic_folder(target) as partial:
    ...     _ = (partial / "a.txt").write_text("done")
    >>> (target / "a.txt").read_text()
    'done'
    """
    refuse_existing([path], overwrite)
    partial = partial_path(path)
    with writing(path):
        try:
            _remove(partial)
            partial.mkdir(parents=True)
            yield partial
            _remove(path)
            partial.replace(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
