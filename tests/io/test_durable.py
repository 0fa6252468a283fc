"""What is on the disk before a record says done, seen from the calls of the system."""

import os
from pathlib import Path

import pytest

from scopeflow.engine.ledger import Ledger
from scopeflow.io import durable
from scopeflow.io.durable import make_folders, sync_files, sync_tree
from scopeflow.io.files import atomic_path, partial_path, save_json, sweep_partials


@pytest.fixture
def events(monkeypatch):
    """Return what is synced and renamed, in order, by path; a file is known by its number."""
    seen = []
    names = {}
    fsync, replace, opened = os.fsync, os.replace, os.open

    def seeing_open(path, *arguments, **options):
        descriptor = opened(path, *arguments, **options)
        names[descriptor] = str(path)
        return descriptor

    def seeing_fsync(descriptor):
        seen.append(("sync", os.fstat(descriptor).st_ino, names[descriptor]))
        fsync(descriptor)

    def seeing_replace(source, target, **options):
        seen.append(("rename", os.stat(source).st_ino, str(target)))
        replace(source, target, **options)

    monkeypatch.setattr(os, "open", seeing_open)
    monkeypatch.setattr(os, "fsync", seeing_fsync)
    monkeypatch.setattr(os, "replace", seeing_replace)
    monkeypatch.setattr(Path, "replace", lambda self, target: seeing_replace(self, target))
    return seen


def position(events, kind, path):
    """Return where a path is synced or renamed to first."""
    return next(n for n, (what, _, name) in enumerate(events) if (what, name) == (kind, str(path)))


def test_a_record_follows_the_bytes_and_the_names_of_its_files(tmp_path, events):
    shard = tmp_path / "store" / "registered" / "c" / "0"
    with atomic_path(shard, durable=False) as partial:
        partial.write_bytes(b"pixels")
    ledger = Ledger(str(tmp_path / "ledger"), str(tmp_path / "store"), "mark")
    ledger.complete("block-0", {}, ["registered/c/0"])
    record = position(events, "rename", tmp_path / "ledger" / "block-0.json")
    for path in (shard, *(shard.parents[n] for n in range(3))):
        assert position(events, "sync", path) < record
    assert events[record - 1][:2] == ("sync", events[record][1])  # the bytes of the record
    assert events[record + 1][::2] == ("sync", str(tmp_path / "ledger"))


def test_state_is_safe_before_it_has_its_name(tmp_path, events):
    target = tmp_path / "new" / "deeper" / "settings.json"
    save_json(target, {"a": 1})
    renamed = position(events, "rename", target)
    assert events[renamed - 1][:2] == ("sync", events[renamed][1])
    synced = [name for what, _, name in events if what == "sync"]
    assert {str(tmp_path), str(tmp_path / "new"), str(tmp_path / "new" / "deeper")} <= set(synced)


def test_many_files_are_synced_by_one_call(tmp_path, events, monkeypatch):
    files = [tmp_path / f"{n}" for n in range(100)]
    for file in files:
        file.write_bytes(b"x")
    sync_files(tmp_path, files)
    by_file_system = list(events)
    monkeypatch.setattr(durable, "_syncfs", lambda: None)  # as on other systems
    sync_files(tmp_path, files)
    one_by_one = [name for what, _, name in events[len(by_file_system) :] if what == "sync"]
    assert {str(file) for file in files} | {str(tmp_path)} <= set(one_by_one)
    assert not by_file_system or not durable.sys.platform.startswith("linux")


def test_a_tree_is_synced_whole(tmp_path, events):
    make_folders(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "c").write_bytes(b"x")
    events.clear()
    sync_tree(tmp_path / "a")
    synced = {name for _, _, name in events}
    assert {str(tmp_path / name) for name in ("", "a", "a/b", "a/b/c")} <= synced


def test_a_link_in_the_place_of_a_partial_file_is_never_followed(tmp_path):
    precious, target = tmp_path / "precious.txt", tmp_path / "statistics.npz"
    precious.write_text("precious")
    (tmp_path / "statistics.npz.partial").symlink_to(precious)
    with atomic_path(target) as partial:
        partial.write_text("ours")
    assert precious.read_text() == "precious"
    assert not target.is_symlink()


def test_what_stands_under_a_partial_name_is_never_written(tmp_path, monkeypatch):
    precious = tmp_path / "precious.txt"
    precious.write_text("precious")
    known = tmp_path / "foreseen.partial"
    known.symlink_to(precious)
    monkeypatch.setattr("scopeflow.io.files.partial_path", lambda path: known)
    with pytest.raises(OSError, match=r"exists|part of its path"), atomic_path(tmp_path / "a"):
        pass
    assert precious.read_text() == "precious"


def test_partial_files_of_a_target_are_swept_and_no_others(tmp_path):
    target = tmp_path / "a.tif"
    rests = [partial_path(target) for _ in range(3)]
    kept = [partial_path(tmp_path / "a.tiff"), tmp_path / "a.tif.partial", tmp_path / "a.tif"]
    for path in (*rests, *kept):
        path.write_bytes(b"")
    sweep_partials(target)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize("name", ["x" * 250, "µ" * 120, "a"])
def test_partial_names_are_as_short_as_the_system_needs(tmp_path, name):
    with atomic_path(tmp_path / name) as partial:
        partial.write_text("done")
    assert (tmp_path / name).read_text() == "done"
    partial = partial_path(tmp_path / name)
    partial.write_text("")
    sweep_partials(tmp_path / name)
    assert not partial.exists()
