"""A batch in doubt: whether it was chosen is known as soon as the next batch is chosen. Real logs on four servers."""

from __future__ import annotations

import pytest
from support.log_cluster import LogCluster, log_of

from dfsfuse.errors import MaybeDoneError
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.records import keys


def map_of(log_cluster: LogCluster, client: bytes) -> LogMap:
    clock = log_cluster.grid.clock
    return LogMap(log_of(log_cluster, client), keys.family_of, clock, lambda s: clock.wait_until(clock() + s))


@pytest.mark.parametrize("took_it", [(1, 2), (1,)])
def test_it_is_known_whether_a_doubtful_batch_was_made(log_cluster: LogCluster, took_it: tuple[int, ...]) -> None:
    """Two servers have it, and the next client finishes it; or one has it, which is gone, and the others know
    nothing."""
    one, other = map_of(log_cluster, b"client-1"), map_of(log_cluster, b"client-2")
    one.transact(lambda tx: tx.put(b"a", b"1"))
    lost = {1, 2, 3, 4}.difference(took_it)
    for server in lost:
        log_cluster.grid[server].dies_after = 0
    with pytest.raises(MaybeDoneError) as raised:
        one.transact(lambda tx: tx.put(b"a", b"2"))
    number = raised.value.sequence
    assert number is not None
    assert not one.was_made(number)

    if took_it == (1,):
        log_cluster.down(1)
    for server in lost:
        log_cluster.grid[server].dies_after = None
    log_cluster.up(*lost)
    other.transact(lambda tx: tx.put(b"b", b"1"))
    seen: list[tuple[bytes | None, bool]] = []

    def work(tx: Transaction) -> None:
        seen.append((tx.get(b"a"), one.was_made(number)))
        tx.put(b"c", b"1")

    one.transact(work)
    assert seen[-1] == ((b"2", True) if took_it == (1, 2) else (b"1", False))
