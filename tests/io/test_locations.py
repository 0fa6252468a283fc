from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scopeflow import OFOptions, SessionConfig, run_workflow
from scopeflow.engine.ledger import Ledger
from scopeflow.errors import InputError, InputNotFoundError, OptionsError, OutputError
from scopeflow.io.addresses import address_of, path_or_address
from scopeflow.io.files import (
    atomic_path,
    atomic_save_npz,
    file_proof,
    remove_tree,
    save_json,
)
from scopeflow.io.locations import RemotePath, location
from scopeflow.io.open import open_source
from scopeflow.io.read.files import collection_paused
from scopeflow.io.state import State, load_arrays, load_state


@pytest.fixture
def memory(request):
    """A folder in the memory of this process, through the same code as object stores."""
    folder = RemotePath(f"memory://{request.node.name.replace('[', '-').rstrip(']')}")
    yield folder
    remove_tree(folder)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("s3://bucket/a/b.zarr/", "s3://bucket/a/b.zarr"),
        (Path("s3://bucket/a/b.zarr"), "s3://bucket/a/b.zarr"),
        ("S3://Bucket/Key", "s3://Bucket/Key"),
        (Path("https://host/a.tif"), "https://host/a.tif"),
        ("made+up://host/a", "made+up://host/a"),
        ("/data/a.tif", None),
        ("C:/data/a.tif", None),
        ("a:b/c.tif", None),
        ("folder/s3:/a", None),
        ("file:///data/a.tif", None),
    ],
)
def test_what_is_an_address(given, address):
    assert address_of(given) == address
    expected = address or Path(str(given).removeprefix("file://"))
    assert path_or_address(given) == expected


def test_a_remote_path_goes_the_ways_of_a_path():
    mine, theirs = RemotePath("s3://bucket/a/b.ome.zarr"), Path("/bucket/a/b.ome.zarr")
    for name in ("name", "stem", "suffix"):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert str(mine.parent / "c") == "s3://bucket/a/c" == str(mine.with_name("c"))
    assert [str(each) for each in mine.parents] == ["s3://bucket/a", "s3://bucket"]
    assert mine / "" == mine


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("htps://host/a", r"htps:// is no known kind of address. Did you mean 'https'\?"),
        ("s3://", "names no bucket"),
        ("s3://bucket/a.zip::simplecache", "chains"),
    ],
)
def test_bad_addresses(address, message):
    with pytest.raises(InputError, match=message):
        open_source(address)
    with pytest.raises(InputError, match=message):
        open_source([address, "b.tif"])


def test_a_missing_package_is_named():
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from scopeflow.io.locations import location\n"
        "try:\n    location('s3://bucket/a')\n"
        "except ValueError as error:\n    sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "s3fs is not installed" in done.stderr
    assert "pip install 'scopeflow[remote]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_files_appear_complete_or_not_at_all(memory, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    target = memory / "a.txt"

    def fail():
        with atomic_path(target) as partial:
            partial.write_text("half")
            assert partial.parent == tmp_path
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not target.exists()
    with atomic_path(target) as partial:
        partial.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match=r"temporary folder.*TMPDIR"), atomic_path(target, 10**18):
        pass


class Small(State):
    a: list[int]


def test_small_files_come_back(memory):
    save_json(memory / "a.json", {"a": [1, 2]})
    atomic_save_npz(memory / "a.npz", x=np.arange(3))
    assert load_state(memory / "a.json", Small) == Small(a=[1, 2])
    assert load_arrays(memory / "a.npz")["x"].tolist() == [0, 1, 2]
    assert load_state(memory / "none.json", Small) is None
    assert load_arrays(memory / "a.json") is None
    remove_tree(memory / "a")
    assert (memory / "a.json").is_file(), "only what the name says goes away"
    remove_tree(memory)
    assert not memory.exists()


def test_records_prove_objects(memory):
    ledger = Ledger(str(memory / "records"), str(memory / "data"), "mark")
    with atomic_path(memory / "data" / "shard") as partial:
        partial.write_bytes(b"1234")
    ledger.complete("block", {"n": 1}, ["shard"], {"tail": np.ones(2)})
    found = ledger.find("block")
    assert found.values == {"n": 1}
    assert found.arrays["tail"].tolist() == [1, 1]
    before = file_proof(memory / "data" / "shard")
    with atomic_path(memory / "data" / "shard") as partial:
        partial.write_bytes(b"1235")
    assert file_proof(memory / "data" / "shard") != before
    assert ledger.find("block") is None
    (memory / "data" / "shard").unlink()
    assert ledger.find("block") is None
    ledger.begin("block")
    ledger.begin("block")
    assert not (memory / "records" / "block.json").exists()


def test_options_keep_addresses_as_text(tmp_path):
    options = OFOptions(input_file="s3://bucket/a.zarr", output_path=Path("s3://bucket/out"))
    assert options.output_path == "s3://bucket/out"
    options.output_path = "s3://bucket/other/"
    assert options.output_path == "s3://bucket/other"
    options.save_options(tmp_path / "o.json")
    loaded = OFOptions.load_options(tmp_path / "o.json")
    assert (loaded.input_file, loaded.output_path) == (options.input_file, options.output_path)
    with pytest.raises(OptionsError, match="must be on this machine"):
        options.save_options()
    assert OFOptions(output_path="results").output_path == Path("results")


def test_what_is_written_on_this_machine_only_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("root", "output_root", "final_results"):
        with pytest.raises(OptionsError, match=f"{name} must be on this machine"):
            SessionConfig(**{"root": tmp_path, name: "s3://bucket/session"})
    video = np.zeros((3, 16, 20, 2), np.uint16)
    with pytest.raises(OptionsError, match="cell workflow must be on this machine"):
        run_workflow(video, "s3://bucket/cells", {"channels": {"pc": 0}})
    assert list(tmp_path.iterdir()) == []


def test_a_file_address_is_a_path(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    assert location(f"file://{tmp_path}/a.npy") == tmp_path / "a.npy"
    with pytest.raises(InputNotFoundError):
        open_source(f"file://{tmp_path}/none.tif")


def test_the_collector_rests_while_anyone_asks_for_it():
    assert gc.isenabled()
    with collection_paused():
        with collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
