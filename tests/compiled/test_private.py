"""Compiled kernels are loaded only from where nobody but the user can have put them."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scopeflow.compiled.private import NotPrivateError, make_private, private_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights of POSIX")
only_root = pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() != 0, reason="only root may give files away"
)
NOBODY = 65534


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture(params=[0o000, 0o002, 0o022])
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def cache(tmp_path):
    """A folder such as numba fills."""
    folder = private_folder(tmp_path / "cache" / "numba-1" / "host")
    (folder / "flow_12").mkdir(mode=0o700)
    for name in ("kernel.nbi", "kernel.1.nbc"):
        (folder / "flow_12" / name).write_bytes(b"x")
        (folder / "flow_12" / name).chmod(0o600)
    return folder


@pytest.mark.usefixtures("umask")
def test_new_folders_are_for_the_user_alone(tmp_path):
    folder = private_folder(tmp_path / "a" / "b" / "c")
    assert [mode(folder), mode(folder.parent), mode(tmp_path / "a")] == [0o700] * 3
    make_private(tmp_path / "d" / "e")
    assert mode(tmp_path / "d") == 0o700
    assert private_folder(folder) == folder


def test_a_private_folder_is_used(cache):
    assert private_folder(cache) == cache
    cache.chmod(0o755)
    cache.parent.chmod(0o755)
    (cache / "flow_12" / "kernel.nbi").chmod(0o644)
    assert private_folder(cache) == cache


@pytest.mark.parametrize("rights", [0o770, 0o702, 0o777, 0o1777])
@pytest.mark.parametrize("inside", [".", "flow_12"])
def test_a_folder_that_others_write_to_is_refused(cache, inside, rights):
    (cache / inside).chmod(rights)
    with pytest.raises(NotPrivateError, match="can be written by others") as caught:
        private_folder(cache)
    assert str(cache / inside) in str(caught.value)


@pytest.mark.parametrize("rights", [0o660, 0o602])
@pytest.mark.parametrize("name", ["kernel.nbi", "kernel.1.nbc"])
def test_a_file_that_others_write_to_is_refused(cache, name, rights):
    (cache / "flow_12" / name).chmod(rights)
    with pytest.raises(NotPrivateError, match=name):
        private_folder(cache)


@pytest.mark.parametrize("rights", [0o775, 0o777, 0o757])
@pytest.mark.parametrize("levels", [1, 2])
def test_a_folder_that_others_can_replace_is_refused(cache, levels, rights):
    above = cache.parents[levels - 1]
    above.chmod(rights)
    with pytest.raises(NotPrivateError, match="replace"):
        private_folder(cache)
    above.chmod(0o1777)  # as /tmp
    assert private_folder(cache) == cache


def test_links_are_followed_once_and_never_inside(tmp_path, cache):
    (tmp_path / "link").symlink_to(cache)
    assert private_folder(tmp_path / "link") == cache
    (cache / "other.nbi").symlink_to(cache / "flow_12" / "kernel.nbi")
    with pytest.raises(NotPrivateError, match=r"other\.nbi is a link"):
        private_folder(cache)


@only_root
@pytest.mark.parametrize("inside", [".", "flow_12", "flow_12/kernel.nbi", "flow_12/kernel.1.nbc"])
def test_what_belongs_to_another_user_is_refused(cache, inside):
    os.chown(cache / inside, NOBODY, NOBODY)
    with pytest.raises(NotPrivateError, match=f"belongs to the user {NOBODY}"):
        private_folder(cache)


@only_root
def test_a_folder_within_one_of_another_user_is_refused(cache):
    os.chown(cache.parent, NOBODY, NOBODY)
    with pytest.raises(NotPrivateError, match="above it belongs to"):
        private_folder(cache)


# ------------------------------------------------------------------------------- in real processes

PROGRAM = """
import logging, os, sys
logging.basicConfig(level=logging.WARNING, format="%(message)s")
os.umask(int(sys.argv[1], 8))
import numpy as np
from scopeflow.compiled import gateway
from scopeflow.images import power
kernel = gateway._registry[0]
kernel.compile()
gateway.cache_folder()
print(kernel.from_disk, gateway.cache_folder())
"""


def compiled(folder: Path, umask: str = "022") -> tuple[str, str, str]:
    """Compile one kernel in a process of its own; whether it was loaded, from where, and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, umask],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded, where = done.stdout.split(maxsplit=1)
    return loaded, where.strip(), done.stderr


class Planted:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_planted_code_is_not_run(tmp_path):
    own = tmp_path / "own"
    loaded, where, errors = compiled(own, umask="002")
    assert (loaded, errors) == ("False", "")
    assert Path(where).is_relative_to(own)
    # Whatever the umask is, what was written is loaded again.
    loaded, where, errors = compiled(own, umask="002")
    assert (loaded, errors) == ("True", "")

    index = next(own.rglob("*.nbi"))
    index.write_bytes(pickle.dumps(Planted(tmp_path / "planted")))
    shutil.copytree(own, tmp_path / "trap")
    # The trap works where nothing is in its way: else this test would prove nothing.
    compiled(own)
    assert (tmp_path / "planted").is_dir()
    (tmp_path / "planted").rmdir()

    for place in [tmp_path / "trap", *(tmp_path / "trap").rglob("*")]:
        place.chmod(0o777)
    loaded, where, errors = compiled(tmp_path / "trap")
    assert (loaded, where) == ("False", "None")
    assert not (tmp_path / "planted").exists()
    assert errors.count("\n") == 1
    assert str(tmp_path / "trap") in errors
    assert "can be written by others" in errors
