"""The disk is not checked for each batch, and yet it is noticed in time that only the reserve is left."""

from __future__ import annotations

from dfs_server.store.room_watch import COST, LEAST_BYTES, SEEN_S, RoomWatch


class Disk:
    """A disk with `left_bytes` beyond the reserve at `now_s`, which counts how often it is checked."""

    left_bytes = 100 * LEAST_BYTES
    now_s = 50.0
    looks = 0

    def watch(self) -> RoomWatch:
        return RoomWatch(self.look, lambda: self.now_s)

    def look(self) -> int:
        self.looks += 1
        return self.left_bytes


def test_what_was_seen_counts_for_a_moment() -> None:
    disk = Disk()
    watch = disk.watch()
    assert not any(watch.is_full(10) for _ in range(50))
    assert disk.looks == 1
    disk.left_bytes = 0
    disk.now_s += SEEN_S
    assert watch.is_full(10)
    assert disk.looks == 2


def test_it_looks_again_when_what_was_written_may_have_taken_what_was_left() -> None:
    disk = Disk()
    watch = disk.watch()
    assert not watch.is_full(0)
    large = disk.left_bytes // COST
    disk.left_bytes = 0
    assert not watch.is_full(large // 2)
    assert watch.is_full(large // 2 + 1)


def test_while_only_the_reserve_is_left_each_batch_looks() -> None:
    disk = Disk()
    watch = disk.watch()
    for left_bytes, full in ((1, False), (0, True), (-5, True), (1, False), (10**9, False)):
        disk.left_bytes = left_bytes
        assert watch.is_full(1) is full
