"""Result store and ledger as one machine: what a record promises can be read, whatever happened."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from scopeflow.engine.ledger import Ledger
from scopeflow.errors import ScopeflowError
from scopeflow.motion.block.values import STATISTICS, BlockResult
from scopeflow.motion.grid import make_grid
from scopeflow.motion.store.layout import (
    MOTION,
    REGISTERED,
    VALID,
    StoreLayout,
    create_store,
    layout_attributes,
    open_result,
)
from scopeflow.motion.store.sinks import StoreSink
from tests.conftest import same_bits

LAYOUT = StoreLayout((10, 12, 14, 1), "uint16", (6, 7), 4)
ARRAYS = (REGISTERED, MOTION, VALID)
BLOCKS = make_grid(10, 10, 4, seed_tail=0).blocks
blocks = st.integers(0, len(BLOCKS) - 1)


def result(seed: int, length: int) -> BlockResult:
    rng = np.random.default_rng(seed)
    return BlockResult(
        rng.integers(0, 60000, (length, 12, 14, 1), dtype=np.uint16),
        rng.normal(size=(length, 6, 7, 2)).astype(np.float32),
        rng.random((length, 12, 14)) < 0.5,
        {name: rng.random(length) for name in STATISTICS},
        np.zeros(length, np.int64),
        {"motion": rng.integers(0, 9, (6, 7, 2))},
    )


class AnyMoment(RuleBasedStateMachine):
    """A worker that dies anywhere, files that are damaged, and runs with other settings."""

    @initialize()
    def start(self):
        self.folder = Path(tempfile.mkdtemp())
        self.mark = "a"
        create_store(
            self.folder / "a.zarr", LAYOUT, {"scopeflow": {"layout": layout_attributes(LAYOUT)}}
        )
        self.open()
        # What is known of each shard: its values, None after damage that reading has to notice,
        # absent where it may hold anything that has no record.
        self.shards: dict[tuple[int, str], np.ndarray | None] = {}
        self.records: dict[int, tuple[str, BlockResult]] = {}

    def open(self):
        store = open_result(self.folder / "a.zarr")
        ledger = Ledger(str(self.folder / "ledger"), store.path, self.mark)
        self.sink = StoreSink(store, ledger)

    @rule(number=blocks, seed=st.integers(0, 10**6), steps=st.integers(0, 5))
    def work(self, number, seed, steps):
        """0 begins, 1 to 3 write so many arrays, 4 leaves a partial record, 5 records."""
        block = BLOCKS[number]
        made, name = result(seed, block.length), self.sink.name(block)
        self.sink.ledger.begin(name)
        self.records.pop(number, None)
        for array in ARRAYS[:steps]:
            values = getattr(made, array)
            self.sink.store.write(array, block.start, block.stop, values)
            self.shards[number, array] = values
        if steps == 4:
            half = self.folder / "ledger" / f"{name}.json.0123456789abcdef.partial"
            half.parent.mkdir(exist_ok=True)
            half.write_text('{"fingerprint": "')
        if steps == 5:
            kept = self.sink.keep(block, made)
            self.sink.ledger.complete(name, kept.values, kept.files, kept.arrays)
            self.records[number] = (self.mark, made)

    @rule(
        number=blocks, array=st.sampled_from(ARRAYS), how=st.sampled_from(["cut", "empty", "gone"])
    )
    def lose(self, number, array, how):
        path = self.shard(number, array)
        if not path.exists():
            return
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1] if how == "cut" else b"")
        self.shards[number, array] = None
        self.records.pop(number, None)

    @rule(number=blocks, array=st.sampled_from(ARRAYS), place=st.floats(0, 0.999))
    def turn(self, number, array, place):
        """A bit of a shard: only its record can tell."""
        path = self.shard(number, array)
        data = bytearray(path.read_bytes()) if path.exists() else b""
        if data:
            data[int(place * len(data))] ^= 4
            path.write_bytes(data)
            self.shards.pop((number, array), None)
            self.records.pop(number, None)

    @rule(number=blocks, how=st.sampled_from(["cut", "empty", "gone", "text", "npz"]))
    def damage_record(self, number, how):
        name = self.sink.name(BLOCKS[number])
        path = self.folder / "ledger" / f"{name}.{'npz' if how == 'npz' else 'json'}"
        if not path.exists():
            return
        if how == "gone":
            path.unlink()
        elif how == "text":
            path.write_text('["a list"]')
        else:
            data = path.read_bytes()
            path.write_bytes(b"" if how == "empty" else data[: len(data) // 2])
        self.records.pop(number, None)

    @rule(mark=st.sampled_from("ab"))
    def reopen(self, mark):
        self.mark = mark
        self.open()

    def shard(self, number, array):
        first = BLOCKS[number].start // LAYOUT.block_length
        axes = len(LAYOUT.array_shapes()[array][0])
        return Path(self.sink.store.path, array, "c", str(first), *["0"] * (axes - 1))

    @invariant()
    def a_record_counts_only_with_its_bytes(self):
        for number, block in enumerate(BLOCKS):
            mark, made = self.records.get(number, ("", None))
            found = self.sink.ledger.find(self.sink.name(block))
            assert (found is not None) == (mark == self.mark)
            if found is None:
                continue
            for array in ARRAYS:
                stored = self.sink.store.read(array, block.start, block.stop)
                assert same_bits(stored, getattr(made, array)), (number, array)
            assert same_bits(found.arrays["motion"], made.tail["motion"])
            for name in STATISTICS:
                assert found.values[name] == made.statistics[name].tolist()

    @invariant()
    def what_is_read_was_written(self):
        for (number, array), values in self.shards.items():
            block = BLOCKS[number]
            try:
                stored = self.sink.store.read(array, block.start, block.stop)
            except (ScopeflowError, OSError):
                assert values is None, (number, array)
            else:
                assert values is not None, f"frames that are lost are read from {array}"
                assert same_bits(stored, values)

    def teardown(self):
        shutil.rmtree(self.folder, ignore_errors=True)


AnyMoment.TestCase.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
test_any_moment = AnyMoment.TestCase
