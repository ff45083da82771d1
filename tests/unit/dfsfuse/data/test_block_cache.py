"""The block cache counts and evicts runs as a whole, and keeps nothing alive by accident."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dfs_server.protocol.pieces import BLOCK_BYTES
from dfsfuse.data.block_cache import RUN_BYTES, BlockCache, Run

S = b"s" * 16


def run(first: int, blocks: int, *, number: int = 1, fill: int = 0, last: int = BLOCK_BYTES) -> Run:
    size = (blocks - 1) * BLOCK_BYTES + last
    return Run(S, number, first, memoryview(bytes([fill]) * size))


def held(blocks: int, runs: int) -> int:
    """What so many blocks in so many runs take."""
    return blocks * BLOCK_BYTES + runs * RUN_BYTES


def content(block: memoryview | None) -> bytes | None:
    return None if block is None else bytes(block)


def test_blocks_of_a_run_are_found() -> None:
    cache = BlockCache(10 * BLOCK_BYTES)
    cache.put(run(2, 3, fill=7, last=5))
    assert cache.get(S, 1, 1) is None
    assert content(cache.get(S, 1, 2)) == bytes([7]) * BLOCK_BYTES
    assert content(cache.get(S, 1, 4)) == bytes([7]) * 5
    assert cache.get(S, 1, 5) is None
    assert cache.get(S, 2, 2) is None
    assert cache.get(b"t" * 16, 1, 2) is None


def test_a_block_is_a_view_and_not_a_copy() -> None:
    cache = BlockCache(10 * BLOCK_BYTES)
    kept = run(0, 2)
    cache.put(kept)
    found = cache.get(S, 1, 1)
    assert found is not None
    assert found.obj is kept.data.obj


def test_the_least_recently_used_run_goes_first() -> None:
    cache = BlockCache(held(4, 2))
    cache.put(run(0, 2, number=1))
    cache.put(run(0, 2, number=2))
    assert cache.get(S, 1, 0) is not None
    cache.put(run(0, 2, number=3))
    assert cache.get(S, 1, 1) is not None
    assert cache.get(S, 2, 0) is None
    assert cache.get(S, 3, 0) is not None
    assert cache.size_bytes() == held(4, 2)


def test_a_run_whose_blocks_were_all_fetched_again_goes_at_once() -> None:
    cache = BlockCache(100 * BLOCK_BYTES)
    cache.put(run(1, 2, fill=1))
    cache.put(run(0, 4, fill=2))
    assert cache.size_bytes() == held(4, 1)
    assert content(cache.get(S, 1, 1)) == bytes([2]) * BLOCK_BYTES


def test_a_run_stays_for_the_blocks_that_only_it_has() -> None:
    cache = BlockCache(100 * BLOCK_BYTES)
    cache.put(run(0, 4, fill=1))
    cache.put(run(1, 1, fill=2))
    assert cache.size_bytes() == held(5, 2)
    assert content(cache.get(S, 1, 0)) == bytes([1]) * BLOCK_BYTES
    assert content(cache.get(S, 1, 1)) == bytes([2]) * BLOCK_BYTES


def test_what_is_too_large_is_not_kept() -> None:
    cache = BlockCache(held(2, 1))
    cache.put(run(0, 1))
    cache.put(run(0, 3))
    assert cache.size_bytes() == held(1, 1)
    assert cache.get(S, 1, 0) is not None


def test_small_runs_count_with_what_they_need_besides() -> None:
    cache = BlockCache(100 * RUN_BYTES)
    for number in range(1000):
        cache.put_new(number.to_bytes(16, "big"), [memoryview(b"x")] * 4)
    assert cache.size_bytes() <= 100 * RUN_BYTES
    kept = [number for number in range(1000) if cache.get(number.to_bytes(16, "big"), 4, 0) is not None]
    assert 23 <= len(kept) <= 25
    assert kept[-1] == 999


def test_empty_pieces_of_a_new_segment_are_not_kept() -> None:
    cache = BlockCache(10 * BLOCK_BYTES)
    cache.put_new(S, [memoryview(b"a"), memoryview(b"b"), memoryview(b""), memoryview(b"")])
    assert cache.size_bytes() == 2 + 2 * RUN_BYTES
    assert content(cache.get(S, 2, 0)) == b"b"
    assert cache.get(S, 3, 0) is None


def test_cleared_is_empty() -> None:
    cache = BlockCache(10 * BLOCK_BYTES)
    cache.put(run(0, 3))
    cache.clear()
    assert cache.size_bytes() == 0
    assert cache.get(S, 1, 0) is None


class CacheMachine(RuleBasedStateMachine):
    """Compares the cache with a model: every block found is the newest one put, and memory stays within bounds."""

    CAPACITY = held(12, 12)

    def __init__(self) -> None:
        super().__init__()
        self.cache = BlockCache(self.CAPACITY)
        self.newest: dict[tuple[int, int], int] = {}
        self.fill = 0

    @rule(first=st.integers(0, 6), blocks=st.integers(1, 5), number=st.integers(1, 2))
    def put(self, first: int, blocks: int, number: int) -> None:
        self.fill = (self.fill + 1) % 256
        self.cache.put(run(first, blocks, number=number, fill=self.fill))
        for block in range(first, first + blocks):
            self.newest[number, block] = self.fill
            assert self.cache.get(S, number, block) is not None

    @rule(block=st.integers(0, 12), number=st.integers(1, 2))
    def get(self, block: int, number: int) -> None:
        found = self.cache.get(S, number, block)
        if found is not None:
            assert found[0] == self.newest[number, block]
            assert len(found) == BLOCK_BYTES

    @invariant()
    def memory_is_bounded(self) -> None:
        assert 0 <= self.cache.size_bytes() <= self.CAPACITY


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=30, stateful_step_count=30)
