"""Folders that appear under their name only when complete; knows nothing of what is in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scopeflow.errors import OutputExistsError
from scopeflow.io.durable import make_folders, sync_folder, sync_tree
from scopeflow.io.files import partial_path, remove_tree, sweep_partials, writing

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
    partial, replaced = partial_path(path), partial_path(path)
    with writing(path):
        try:
            make_folders(path.parent)
            # Whoever exports holds the lock of the output: none of these is still written.
            sweep_partials(path)
            partial.mkdir()
            yield partial
            sync_tree(partial)
            if path.exists():
                path.replace(replaced)  # at no moment is there neither the old nor the new one
            partial.replace(path)
            sync_folder(path.parent)
            remove_tree(replaced)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
