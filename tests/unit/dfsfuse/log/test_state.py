"""What a client remembers of its own batches."""

from __future__ import annotations

from dfs_server.protocol.batches import MAX_BATCH_BYTES
from dfsfuse.log.state import LogState


def test_recent_batches_take_no_more_memory_than_can_be_sent() -> None:
    log = LogState(b"client")
    for slot in range(1, 65):
        log.proposed(slot, bytes(1_000_000))
    assert sum(len(encoded) for _, encoded in log.recent) <= MAX_BATCH_BYTES
    assert len(log.recent_from(63)) == 2
    assert log.recent_from(62) == ()
