from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from scopeflow.engine.ledger import Ledger
from scopeflow.io.files import atomic_path, save_json


@pytest.fixture
def ledger(tmp_path):
    return Ledger(str(tmp_path / "ledger"), str(tmp_path), "settings")


def test_finished_work_is_found_with_values_and_arrays(ledger, tmp_path):
    (tmp_path / "shard").write_bytes(b"pixels")
    ledger.complete("block", {"mean": [0.1, 0.2]}, ["shard"], {"sum": np.arange(3)})
    record = ledger.find("block")
    assert record.values == {"mean": [0.1, 0.2]}
    np.testing.assert_array_equal(record.arrays["sum"], [0, 1, 2])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"pixel"),
        lambda path: path.write_bytes(b"pixelz"),
    ],
    ids=["deleted", "truncated", "changed"],
)
def test_work_whose_file_was_damaged_is_not_finished(ledger, tmp_path, damage):
    shard = tmp_path / "shard"
    shard.write_bytes(b"pixels")
    ledger.complete("block", {}, ["shard"])
    damage(shard)
    assert ledger.find("block") is None


def test_work_of_other_settings_is_not_finished(ledger):
    ledger.complete("block", {})
    assert Ledger(ledger.folder, ledger.root, "others").find("block") is None


def test_damaged_records_and_arrays_are_not_finished(ledger, tmp_path):
    ledger.complete("block", {}, arrays={"sum": np.arange(100)})
    (tmp_path / "ledger" / "block.npz").write_bytes(b"PK\x03\x04 broken")
    assert ledger.find("block") is None
    (tmp_path / "ledger" / "block.json").write_text('{"fingerprint": "settings", "val')
    assert ledger.find("block") is None


def test_a_failed_write_leaves_neither_the_file_nor_a_partial_one(tmp_path):
    target = tmp_path / "result.json"
    save_json(target, {"old": True})

    def fail_halfway():
        with atomic_path(target) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert target.read_text() == '{\n  "old": true\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


class KilledAnywhere(RuleBasedStateMachine):
    """A worker writes shards and records; it can die between any two steps."""

    @initialize()
    def start(self):
        import tempfile
        from pathlib import Path

        self.folder = Path(tempfile.mkdtemp())
        self.mark = "a"
        self.truth: dict[str, tuple[str, bytes]] = {}

    @property
    def ledger(self) -> Ledger:
        return Ledger(str(self.folder / "ledger"), str(self.folder), self.mark)

    @rule(block=st.sampled_from("xyz"), steps=st.integers(0, 3), content=st.binary(min_size=1))
    def work(self, block, steps, content):
        # 0: begin; 1: half a shard; 2: whole shard; 3: recorded.
        self.ledger.begin(block)
        self.truth.pop(block, None)
        if steps >= 1:
            (self.folder / block).write_bytes(content[: len(content) // 2])
        if steps >= 2:
            (self.folder / block).write_bytes(content)
        if steps >= 3:
            self.ledger.complete(block, {"length": len(content)}, [block])
            self.truth[block] = (self.mark, content)

    @rule(mark=st.sampled_from("ab"))
    def change_settings(self, mark):
        self.mark = mark

    @rule(block=st.sampled_from("xyz"))
    def damage(self, block):
        path = self.folder / block
        if path.exists():
            path.write_bytes(path.read_bytes() + b"!")
            self.truth.pop(block, None)

    @invariant()
    def finished_means_whole(self):
        for block in "xyz":
            mark, content = self.truth.get(block, (None, b""))
            assert (self.ledger.find(block) is not None) == (mark == self.mark)
            if mark == self.mark:
                assert (self.folder / block).read_bytes() == content


KilledAnywhere.TestCase.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)
test_killed_anywhere = KilledAnywhere.TestCase
