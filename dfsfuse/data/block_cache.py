"""Verified blocks of pieces in memory, evicted least recently used first.

Blocks come in runs: consecutive blocks of a piece that were fetched into one buffer. A block is a view of its run's
buffer and keeps all of it alive, so whole runs are counted and evicted, with what Python needs for each.

Everything in here was verified by the code that put it in; segments are immutable, so nothing in here ever becomes
wrong.

Thread-safe. A view that was handed out stays valid after its run was evicted (it keeps the buffer alive).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Final

import msgspec

from dfs_server.protocol.pieces import BLOCK_BYTES, block_count

BlockKey = tuple[bytes, int, int]
"""Segment id, piece number, block number."""
DEFAULT_CACHE_BYTES: Final = 64 * 1024 * 1024
"""The kernel also keeps pages of files, as long as it has memory; this is for reading ahead."""
RUN_BYTES: Final = 600
"""What a run takes besides its data, as measured: objects and entries. Of a file of 100 bytes that is nearly all."""


class Run(msgspec.Struct, frozen=True, eq=False):
    """Consecutive verified blocks of a piece, from `first_block` on."""

    segment: bytes
    number: int
    first_block: int
    data: memoryview

    def blocks(self) -> range:
        """Return the numbers of its blocks."""
        return range(self.first_block, self.first_block + block_count(len(self.data)))

    def block(self, block: int) -> memoryview:
        """Return the bytes of one of its blocks."""
        start = (block - self.first_block) * BLOCK_BYTES
        return self.data[start : start + BLOCK_BYTES]


class BlockCache:
    """Holds at most `capacity_bytes` of runs; a larger run is not kept at all."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._lock = Lock()
        self._runs: OrderedDict[Run, int] = OrderedDict()  # run -> blocks of it in use; guarded by _lock
        self._where: dict[BlockKey, Run] = {}  # guarded by _lock
        self._bytes = 0  # guarded by _lock

    def get(self, segment: bytes, number: int, block: int) -> memoryview | None:
        """Return the block, or None. Counts as a use of its run."""
        with self._lock:
            run = self._where.get((segment, number, block))
            if run is None:
                return None
            self._runs.move_to_end(run)
            return run.block(block)

    def put(self, run: Run) -> None:
        """Keep a run. Its blocks replace the same blocks of older runs."""
        size = len(run.data) + RUN_BYTES
        if not run.data or size > self._capacity_bytes:
            return
        with self._lock:
            self._runs[run] = 0
            self._bytes += size
            for block in run.blocks():
                key = run.segment, run.number, block
                if key in self._where:
                    self._release(key)
                self._where[key] = run
                self._runs[run] += 1
            while self._bytes > self._capacity_bytes:
                self._throw_out(next(iter(self._runs)))

    def put_new(self, segment: bytes, pieces: Sequence[memoryview]) -> None:
        """Keep all pieces of a segment of which nothing is here yet, each of at most one block."""
        with self._lock:
            for number, data in enumerate(pieces, 1):
                if data:
                    run = Run(segment, number, 0, data)
                    self._runs[run] = 1
                    self._where[segment, number, 0] = run
                    self._bytes += len(data) + RUN_BYTES
            while self._bytes > self._capacity_bytes:
                self._throw_out(next(iter(self._runs)))

    def size_bytes(self) -> int:
        """Return how much memory the runs hold."""
        with self._lock:
            return self._bytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._runs.clear()
            self._where.clear()
            self._bytes = 0

    def _release(self, key: BlockKey) -> None:
        """Forget one block; its run goes with its last block."""
        run = self._where.pop(key, None)
        if run is None:
            return
        self._runs[run] -= 1
        if self._runs[run] == 0:
            self._throw_out(run)

    def _throw_out(self, run: Run) -> None:
        del self._runs[run]
        self._bytes -= len(run.data) + RUN_BYTES
        for block in run.blocks():
            key = (run.segment, run.number, block)
            if self._where.get(key) is run:
                del self._where[key]
