"""One writer for each output: real processes that hold a lock, wait for it, or died with it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from scopeflow.engine import lock as lock_module
from scopeflow.engine.lock import LEASE_S, one_writer, only_writer_of_new
from scopeflow.errors import OutputError, OutputExistsError, OutputLockedError
from scopeflow.io.locations import RemotePath

HOLD = """
import sys
from pathlib import Path
from scopeflow.engine.lock import one_writer
with one_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
ASK = """
import sys, time
from pathlib import Path
from scopeflow.engine.lock import one_writer
from scopeflow.errors import OutputLockedError
print("ready", flush=True)
sys.stdin.readline()
try:
    with one_writer(Path(sys.argv[1]), wait=sys.argv[2] == "wait"):
        log = Path(sys.argv[3])
        with log.open("a") as file:
            file.write("in\\n")
        time.sleep(0.5 if sys.argv[2] != "wait" else 0.05)
        with log.open("a") as file:
            file.write("out\\n")
except OutputLockedError:
    sys.exit(3)
"""


def start(program, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of ``tmp_path / "out.zarr"``."""
    process = start(HOLD, tmp_path / "out.zarr")
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def lock_folder(target):
    return target.parent / ".scopeflow" / f"{target.name}.lock"


def test_the_second_is_refused_by_one_sentence_that_names_the_first(tmp_path, holder):
    with (
        pytest.raises(OutputLockedError, match=f"process {holder.pid} on .* since") as error,
        one_writer(tmp_path / "out.zarr"),
    ):
        pass
    message = str(error.value)
    assert str(tmp_path / "out.zarr") in message
    assert "--wait" in message
    assert isinstance(error.value, OutputError)
    assert len(list(lock_folder(tmp_path / "out.zarr").iterdir())) == 1  # the refused leaves none


def test_other_outputs_of_the_folder_are_free(tmp_path, holder):
    with one_writer(tmp_path / "other.zarr", tmp_path / "out.zar"):
        assert holder.poll() is None


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_holder_is_recognised_at_once(tmp_path, holder, reaped):
    holder.send_signal(signal.SIGKILL)
    if reaped:
        holder.wait()
    else:  # a zombie: its number is still taken
        while "Z" not in Path(f"/proc/{holder.pid}/stat").read_text().rpartition(")")[2][:3]:
            time.sleep(0.01)
    with one_writer(tmp_path / "out.zarr"):
        assert holders(tmp_path / "out.zarr") == [os.getpid()]
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_ends_leaves_nothing(tmp_path, holder):
    holder.communicate("\n")
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_holder_is_no_dead_one(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(lock_module, "LEASE_S", 0.0)
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(OutputLockedError), one_writer(tmp_path / "out.zarr"):
        pass


def rewritten(target, **changed):
    """Change what the lock file says, as if it came from somewhere else."""
    (file,) = lock_folder(target).glob("0*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    return file


def holders(target):
    """Return the processes that lock files name."""
    return [json.loads(file.read_text())["pid"] for file in lock_folder(target).iterdir()]


@pytest.fixture
def left(tmp_path, holder):
    """The lock file of a process that was killed."""
    holder.kill()
    holder.wait()
    return tmp_path / "out.zarr"


def test_a_number_that_another_process_has_now_is_a_dead_holder(left):
    rewritten(left, pid=os.getppid())
    with one_writer(left):
        assert holders(left) == [os.getpid()]


def test_our_own_number_of_an_earlier_life_is_a_dead_holder(left):
    file = rewritten(left, pid=os.getpid())
    with one_writer(left):
        assert holders(left) == [os.getpid()]
        assert not file.exists()


@pytest.mark.parametrize(
    "elsewhere", [{"machine": "node7 and its start", "host": "node7"}, {"host": 7, "pid": "x"}]
)
def test_a_holder_elsewhere_counts_by_its_last_sign(left, elsewhere):
    file = rewritten(left, **elsewhere)
    with (
        pytest.raises(OutputLockedError, match=f"counts as dead after {LEASE_S:.0f} s"),
        one_writer(left),
    ):
        pass
    os.utime(file, (time.time(), time.time() - LEASE_S - 5))
    with one_writer(left):
        assert not file.exists() or json.loads(file.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("kind", ["empty", "link", "pipe", "folder", "bytes"])
def test_what_is_no_lock_file_counts_by_its_age(tmp_path, kind):
    target = tmp_path / "out.zarr"
    lock_folder(target).mkdir(parents=True)
    file = lock_folder(target) / "000000001.json"
    if kind == "link":
        file.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_bytes(b"" if kind == "empty" else b"\x80" * 10)
    with pytest.raises(OutputLockedError, match="cannot be told"), one_writer(target):
        pass
    old = time.time() - LEASE_S - 5
    os.utime(file, (old, old), follow_symlinks=False)
    with one_writer(target):
        pass


def test_one_of_many_that_start_together_works_and_all_others_are_refused(tmp_path):
    log = tmp_path / "log"
    processes = [start(ASK, tmp_path / "out.zarr", "refuse", log) for _ in range(6)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    codes = sorted(process.wait() for process in processes)
    for process in processes:
        process.communicate()
    lines = log.read_text().split()
    assert lines == ["in", "out"] * codes.count(0)  # never two at a time
    assert codes.count(0) >= 1
    assert set(codes) <= {0, 3}


def test_those_who_wait_come_one_after_the_other(tmp_path, holder):
    log = tmp_path / "log"
    processes = [start(ASK, tmp_path / "out.zarr", "wait", log) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("\n")
        process.stdin.flush()
    time.sleep(0.3)
    assert not log.exists()
    holder.communicate("\n")
    assert [process.wait() for process in processes] == [0, 0, 0]
    for process in processes:
        process.communicate()
    assert log.read_text().split() == ["in", "out"] * 3


def test_threads_of_one_process_are_two_writers(tmp_path):
    inside, done, refused = threading.Event(), threading.Event(), []

    def other():
        inside.wait()
        try:
            with one_writer(tmp_path / "a"):
                pass
        except OutputLockedError as error:
            refused.append(str(error))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with one_writer(tmp_path / "a"):
        inside.set()
        done.wait()
    thread.join()
    assert len(refused) == 1


def test_a_block_inside_asks_for_what_the_outer_holds(tmp_path):
    with one_writer(tmp_path / "a"), one_writer(tmp_path / "a", tmp_path / "b"):
        assert len(list((tmp_path / ".scopeflow").iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_lock_was_taken_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "_BEAT_S", 0.01)
    with one_writer(tmp_path / "a") as held:
        held.check()
        (file,) = lock_folder(tmp_path / "a").iterdir()
        before = file.stat().st_mtime_ns
        while file.stat().st_mtime_ns == before:
            time.sleep(0.01)
        rewritten(tmp_path / "a", token="of another")
        while not held._held[0].lost:
            time.sleep(0.01)
        with pytest.raises(OutputLockedError, match="gave no sign"):
            held.check()
    assert file.exists()  # it is another's now


def test_an_output_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="a part of its path is a file") as error,
        one_writer(tmp_path / "file" / "out.zarr"),
    ):
        pass
    assert not isinstance(error.value, OutputLockedError)


def test_new_files_are_refused_where_they_exist_also_after_waiting(tmp_path):
    (tmp_path / "a.csv").write_text("")
    for wait in (False, True):
        with (
            pytest.raises(OutputExistsError),
            only_writer_of_new([tmp_path / "a.csv"], overwrite=False, wait=wait),
        ):
            pass
    with only_writer_of_new([tmp_path / "a.csv"], overwrite=True):
        pass


def test_a_remote_output_has_one_writer(request):
    target = RemotePath(f"memory://{request.node.name}/out.zarr")
    refused = []

    def other():
        try:
            with one_writer(target):
                pass
        except OutputLockedError as error:
            refused.append(str(error))

    with one_writer(target) as held:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        held.check()
        for one in held._held:
            one.beat()
        held.check()
    assert str(target) in refused[0]
    assert not target.parent.exists()
    with one_writer(target):
        pass
