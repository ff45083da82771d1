"""Reads see one slot, whatever part of it is in the tables or still waits; and a position never waits for the disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.store_proposer import BALLOT, StoreProposer

from dfs_server.protocol import batches
from dfs_server.protocol.batches import Batch
from dfs_server.protocol.messages import (
    Accept,
    AcceptedAt,
    Chosen,
    GetPosition,
    Items,
    Position,
    ReadKeys,
    ReadRange,
    Values,
)
from dfs_server.store.store import NamespaceStore

KEYS = [b"k%d" % number for number in range(8)]


class Writer(StoreProposer):
    """A writer with a lease, like a mount."""

    def commit(self, *puts: tuple[bytes, bytes], **contents: Any) -> bytes:
        return super().commit(*puts, lease=True, **contents)

    def items(self, start: bytes = b"\0", end: bytes = b"\xff", limit: int = 1000) -> Items:
        reply = self.page(start, end, limit)
        assert isinstance(reply, Items), reply
        return reply


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    with closing(NamespaceStore(tmp_path / "alice", "DFS1")) as store:
        yield Writer(store)


def test_a_range_is_the_same_before_and_after_the_flush(writer: Writer) -> None:
    writer.commit(*((b"d/%02d" % number, b"old") for number in range(0, 40, 2)))
    writer.commit()
    writer.store.flush()
    writer.commit((b"d/00", b"new"), (b"d/07", b"new"), (b"d/99", b"last"), deletes=(b"d/02", b"d/38", b"d/39"))
    writer.commit((b"c/0", b"before"), (b"d/07", b"newer"))
    expected = {b"d/%02d" % number: b"old" for number in range(4, 38, 2)}
    expected |= {b"c/0": b"before", b"d/00": b"new", b"d/07": b"newer", b"d/99": b"last"}
    for _ in range(2):
        assert list(writer.items().items) == sorted(expected.items())
        assert [key for key, _ in writer.items(b"d/01", b"d/09").items] == [b"d/04", b"d/06", b"d/07", b"d/08"]
        found: list[tuple[bytes, bytes]] = []
        start, more = b"\0", True
        while more:
            page = writer.items(start, limit=3)
            assert len(page.items) == 3 or not page.more
            found += page.items
            more, start = page.more, found[-1][0] + b"\0"
        assert found == sorted(expected.items())
        writer.store.flush()


def test_a_reader_sees_one_slot_while_others_write_and_flush(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch sets all keys to the same value."""
    monkeypatch.setattr("dfs_server.store.overlay.MAX_BATCHES", 3)
    store = writer.store
    writer.commit(*((key, b"0") for key in KEYS))
    store.handle(Chosen(writer.slot, writer.digest))
    is_over = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        latest = 0
        while not is_over.is_set():
            for reply in (
                store.handle(ReadKeys(1, b"", tuple(KEYS))),
                store.handle(ReadRange(1, b"", b"\0", b"\xff", 99)),
            ):
                values = reply.values if isinstance(reply, Values) else [value for _, value in reply.items]  # type: ignore[union-attr]
                slot = reply.applied  # type: ignore[union-attr]
                if len(values) != len(KEYS) or set(values) != {b"%d" % (slot - 1)} or slot < latest:
                    wrong.append((slot, values))
                latest = slot

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 200):
            writer.commit(*((key, b"%d" % number) for key in KEYS))
    finally:
        is_over.set()
        for reader in readers:
            reader.join()
    assert wrong == []


def test_a_position_does_not_wait_for_the_disk_behind_an_accept(writer: Writer) -> None:
    """Nor does a recall, unless it has to be recorded. Here the lease's holder asks, and a client that recalled
    before."""
    writer.commit((b"a", b"1"))
    assert isinstance(writer.store.handle(GetPosition(b"client02")), Position)  # records the recall
    answers: list[object] = []

    def ask() -> None:
        answers.extend(writer.store.handle(GetPosition(recall)) for recall in (b"", b"client01", b"client02"))

    with writer.store._database.lock:  # as during an fsync
        other = threading.Thread(target=ask)
        other.start()
        other.join(20.0)
        assert not other.is_alive()
    assert [getattr(answer, "lease", None) for answer in answers] == [0, 0, 1]


def test_a_lease_that_is_recalled_for_the_first_time_is_noted(writer: Writer) -> None:
    writer.commit((b"a", b"1"))
    position = writer.store.handle(GetPosition(b"client02"))
    assert isinstance(position, Position)
    assert position.lease == 1
    batch = batches.encode(Batch(batches.FORMAT, writer.digest, b"client01", 2, 0))
    assert writer.store.handle(Accept(BALLOT, 2, batch, lease=True)) == AcceptedAt(2, recalled=True)


def test_what_has_waited_while_nothing_came_is_flushed(writer: Writer) -> None:
    store = writer.store
    writer.commit((b"a", b"1"))
    for expected in (0, 1):  # finds nothing new the second time
        store.flush_if_idle()
        assert store._database.writer.execute("SELECT count(*) FROM log").fetchone() == (expected,)
    writer.commit((b"a", b"2"))
    store.flush_if_idle()
    writer.commit((b"a", b"3"))
    store.flush_if_idle()
    assert store._database.writer.execute("SELECT count(*) FROM log").fetchone() == (1,)
    store.flush_if_idle()
    assert store._database.writer.execute("SELECT count(*) FROM log").fetchone() == (3,)
    store.handle(Chosen(3, writer.digest))
    for _ in range(2):
        store.flush_if_idle()
    assert store._database.writer.execute("SELECT value FROM map").fetchall() == [(b"3",)]
    epoch = store._writer._row.epoch
    for _ in range(3):
        store.flush_if_idle()
    assert store._writer._row.epoch == epoch, "nothing waits, so nothing is written"


def test_a_flush_between_the_looks_at_overlay_and_tables_makes_no_mixture_of_two_slots(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the test with threads above, at the one moment that matters."""
    store, reader = writer.store, writer.store._reader
    writer.commit((b"k", b"1"), (b"l", b"1"))
    writer.commit()
    store.flush()
    overlay_now = reader._overlay

    def overlay_of_before() -> object:
        overlay = overlay_now()
        monkeypatch.undo()
        writer.commit()
        store.flush()  # so that what follows is in another overlay
        writer.commit((b"l", b"%d" % (writer.slot + 1)))
        writer.commit()
        store.flush()
        return overlay

    monkeypatch.setattr(reader, "_overlay", overlay_of_before)
    assert reader.values(0, (b"k", b"l")) == Values(4, (b"1", b"4"))
    monkeypatch.setattr(reader, "_overlay", overlay_of_before)
    assert reader.items(ReadRange(0, b"", b"\0", b"\xff", 9)) == Items(7, ((b"k", b"1"), (b"l", b"7")), more=False)
