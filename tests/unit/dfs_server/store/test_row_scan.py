"""The scan of all rows finds damage in what is never read, also while batches go on."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from support.spoiled_store import ROWS, SpoiledStore

from dfs_server.protocol import batches
from dfs_server.protocol.batches import Batch
from dfs_server.protocol.messages import Error, GetBatches
from dfs_server.protocol.status import Status
from dfs_server.store.damage import DamagedMapError, DamageError


@pytest.mark.parametrize(
    "statement",
    [
        *ROWS.values(),
        "DELETE FROM map WHERE key = x'62'",
        "INSERT INTO map VALUES (x'ee', x'00', 7)",
        "UPDATE map SET key = 5 WHERE key = x'62'",
    ],
)
def test_a_scan_finds_damage_in_what_is_never_read(server: SpoiledStore, statement: str) -> None:
    server.scan()
    server.spoil(statement)
    with pytest.raises(DamagedMapError):
        server.scan()


def test_a_scan_goes_through_maps_of_several_steps_while_batches_go_on(
    server: SpoiledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfs_server.store.row_scan.STEP_ROWS", 10)
    monkeypatch.setattr("dfs_server.store.overlay.MAX_BATCHES", 2)
    server.commit(*((b"k%03d" % number, b"old") for number in range(100)))
    server.choose()
    server.store.flush()
    steps = 0
    for _ in server.store.scan().steps():
        steps += 1
        # Changes, deletes and adds keys behind the walk, at it, and ahead of it.
        server.commit(
            (b"k%03d" % (steps * 7), b"new"),
            (b"k%03d" % (99 - steps), b"new"),
            (b"n%d" % steps, b"new"),
            deletes=(b"k%03d" % (steps * 3),),
        )
        server.choose()
    assert steps > 10
    server.scan()


def test_a_scan_notices_a_lost_row_though_batches_go_on(server: SpoiledStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfs_server.store.row_scan.STEP_ROWS", 10)
    server.commit(*((b"k%03d" % number, b"old") for number in range(50)))
    server.choose()
    monkeypatch.setattr("dfs_server.store.overlay.MAX_BATCHES", 2)
    server.spoil("DELETE FROM map WHERE key = CAST('k030' AS BLOB)")

    def walk() -> None:
        for step, _ in enumerate(server.store.scan().steps()):
            server.commit((b"k%03d" % step, b"new"))
            server.choose()

    with pytest.raises(DamagedMapError, match="missing"):
        walk()


def test_a_transaction_that_fails_ends_the_scan_and_leaves_the_sum(
    server: SpoiledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfs_server.store.row_scan.STEP_ROWS", 1)
    server.choose()
    server.store.flush()
    server.commit((b"a", b"changed behind the walk"))
    server.choose()
    walk = server.store.scan().steps()
    next(walk), next(walk), next(walk)  # the log, a, b

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("dfs_server.store.state_row.StateRow.write", full)
        with pytest.raises(sqlite3.OperationalError):
            server.store.flush()
    for _ in walk:
        pass
    server.store.flush()
    server.scan()


def test_a_log_whose_batches_do_not_follow_each_other_is_cut_by_the_scan(server: SpoiledStore) -> None:
    server.store.flush()
    with closing(sqlite3.connect(server.folder / "namespace.db")) as db:
        encoded = batches.encode(Batch(batches.FORMAT, b"9" * 32, b"client", 3, 0, ((b"b", b"evil"),)))
        db.execute("UPDATE log SET batch = ?, digest = ? WHERE slot = 3", (encoded, batches.digest(encoded)))
        db.commit()
    with pytest.raises(DamageError, match="slot 3") as found:
        server.scan()
    server.store.found(found.value)
    server.scan()
    reply = server.store.handle(GetBatches(2))
    assert isinstance(reply, Error)
    assert reply.status == Status.TRIMMED
