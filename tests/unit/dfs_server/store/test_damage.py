"""Damage in SQLite's file that SQLite does not notice: never answered, reported, and repaired as far as one server
can."""

from __future__ import annotations

import pytest
from support.spoiled_store import ROWS, SEGMENT, SpoiledStore
from support.store_proposer import BALLOT

from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.messages import (
    Batches,
    BeginCopy,
    Changes,
    CopyItems,
    Done,
    EndCopy,
    Error,
    GetBatches,
    GetChanges,
    Items,
    Position,
    Promise,
    Promised,
    ReadRange,
)
from dfs_server.protocol.status import Status
from dfs_server.store.damage import DamagedMapError, DamageError


@pytest.mark.parametrize("statement", ROWS.values(), ids=ROWS.keys())
def test_a_damaged_row_of_the_map_is_never_answered(server: SpoiledStore, statement: str) -> None:
    server.choose()
    server.spoil(statement)
    reply = server.items()
    assert isinstance(reply, Error)
    assert reply.status == Status.DAMAGED
    assert server.position().wants_copy
    # If one row is bad, others may be missing: nothing of this map is answered, not even after a restart.
    server.kill()
    refused = server.read(b"b")
    assert isinstance(refused, Error)
    assert refused.status == Status.DAMAGED
    assert server.store.damage.text() == "a row of the map is not what was written"


def test_a_damaged_value_that_is_asked_for_by_its_key(server: SpoiledStore) -> None:
    server.spoil(ROWS["a value"])
    reply = server.read(b"a")
    assert isinstance(reply, Error)
    assert reply.status == Status.DAMAGED


def test_a_damaged_map_does_not_keep_the_log_from_going_on(server: SpoiledStore) -> None:
    server.spoil(ROWS["a value"])
    assert isinstance(server.items(), Error)
    server.commit((b"d", b"4"))
    server.choose()
    assert isinstance(server.store.handle(GetBatches(0)), Batches)
    promised = server.store.handle(Promise(Ballot(9, b"client")))
    assert isinstance(promised, Promised)
    assert promised.applied == server.slot == 6


@pytest.mark.parametrize("checksum", ["1.5", "9e999", "x'01'", "CAST(x'ff' AS TEXT)"])
def test_a_checksum_that_is_not_an_integer_does_not_stop_the_log(server: SpoiledStore, checksum: str) -> None:
    """One flipped bit turns an integer in SQLite's file into a real number; the sum would become one too, and damage
    the state."""
    server.choose()
    server.spoil(f"UPDATE map SET checksum = {checksum} WHERE key = x'61'")
    server.commit((b"a", b"new"))
    server.choose()
    server.store.flush()
    before = server.position()
    server.kill()
    assert server.position() == before
    assert server.store.damage.text() == ""
    with pytest.raises(DamagedMapError):
        server.scan()


@pytest.mark.parametrize("slot", [4, 5, 7])
def test_a_copy_takes_the_damaged_maps_place(server: SpoiledStore, slot: int) -> None:
    """The copy may be of an earlier slot, in which case the log has the rest, of the same slot, or, as usual, of a
    later one."""
    server.choose()  # 5: `late`
    server.spoil("DELETE FROM map WHERE key = x'62'")
    with pytest.raises(DamageError):
        server.scan()
    server.store.found(DamagedMapError("rows are missing"))
    as_of_4 = ((b"a", b"1"), (b"b", b"2"), (b"c", b"3"))
    items = as_of_4 if slot == 4 else (*as_of_4, (b"late", b"x"))
    reply = server.copy(slot, *items, digest=b"7" * 32 if slot == 7 else None)
    assert isinstance(reply, Position)
    assert (reply.applied, reply.wants_copy) == (max(slot, 5), False)
    assert server.items() == (*as_of_4, (b"late", b"x"))
    assert server.store.damage.text() == "rows are missing (mended)"
    server.scan()
    server.kill()
    server.scan()
    assert server.items() == (*as_of_4, (b"late", b"x"))
    assert server.store.small_piece(SEGMENT, 1) is not None


def test_a_copy_that_cannot_be_completed_is_refused(server: SpoiledStore) -> None:
    server.spoil(ROWS["a value"])
    assert isinstance(server.items(), Error)
    server.spoil("DELETE FROM log WHERE slot <= 3")
    reply = server.copy(2, (b"a", b"1"))
    assert isinstance(reply, Error)
    assert reply.status == Status.TRIMMED
    assert server.position().wants_copy
    assert "batch" not in server.store.damage.text()  # only the map is damaged


def test_the_log_is_kept_back_to_the_copy_while_that_goes_on(
    server: SpoiledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfs_server.store.log_table.KEEP_BATCHES", 5)
    monkeypatch.setattr("dfs_server.store.log_table.TRIM_STEP", 2)
    monkeypatch.setattr("dfs_server.store.overlay.MAX_BATCHES", 1)
    server.spoil(ROWS["a value"])
    assert isinstance(server.items(), Error)
    assert server.store.handle(BeginCopy(b"copy", 2, server.digest_of(2))) == Done()
    for number in range(20):
        assert server.store.handle(CopyItems(b"copy", ((b"copied", b"%d" % number),))) == Done()
        server.commit((b"new", b"%d" % number))
    server.choose()
    position = server.store.handle(EndCopy(b"copy", 1, 2))
    assert isinstance(position, Position)
    assert not position.wants_copy
    assert server.items() == ((b"b", b"2"), (b"copied", b"19"), (b"late", b"x"), (b"new", b"19"))


def test_a_copy_of_another_history_is_refused(server: SpoiledStore) -> None:
    server.spoil(ROWS["a value"])
    assert isinstance(server.items(), Error)
    reply = server.copy(3, (b"a", b"1"), digest=b"another" + bytes(25))
    assert isinstance(reply, Error)
    assert server.position().wants_copy


def test_a_sound_map_is_not_replaced_by_an_older_copy(server: SpoiledStore) -> None:
    assert isinstance(server.copy(2, (b"a", b"old")), Position)
    server.choose()
    assert server.read(b"a", b"b") == (b"1", b"2")


BATCHES = {
    "a batch": "UPDATE log SET batch = CAST(substr(batch, 1, 40) || x'ff' || substr(batch, 42) AS BLOB) WHERE slot = 2",
    "a batch cut off": "UPDATE log SET batch = substr(batch, 1, 9) WHERE slot = 2",
    "a digest": "UPDATE log SET digest = x'00' WHERE slot = 2",
    "a lost batch": "DELETE FROM log WHERE slot = 2",
    "a slot": "UPDATE log SET slot = -3 WHERE slot = 2",
}


@pytest.mark.parametrize("statement", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("ask", [GetBatches(0), GetChanges(0, 0, b"")], ids=["batches", "changes"])
def test_a_damaged_batch_is_never_passed_on(server: SpoiledStore, statement: str, ask: GetBatches | GetChanges) -> None:
    server.spoil(statement)
    reply = server.store.handle(ask)
    assert isinstance(reply, Error)
    assert reply.status == Status.DAMAGED
    # From then on it counts as trimmed, and what follows it is good.
    reply = server.store.handle(ask)
    assert isinstance(reply, Error)
    assert reply.status == Status.TRIMMED
    rest = server.store.handle(GetChanges(2, 4, server.digest_of(4)))
    assert isinstance(rest, Changes)
    assert [change.slot for change in rest.changes] == [3, 4]
    assert server.store.damage.text() == "the batch at slot 2 of the log was damaged or missing (mended)"
    assert not server.position().wants_copy
    server.scan()
    assert server.items() == ((b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"late", b"x"))


STATES = {
    "the promise": "UPDATE state SET round = 1",
    "the position": "UPDATE state SET applied = 3",
    "the digest": "UPDATE state SET digest = x'00'",
    "the sum": "UPDATE state SET map_sum = map_sum + 1",
    "another type": "UPDATE state SET digest = 'text'",
    "text that is none": "UPDATE state SET digest = CAST(x'ffee' AS TEXT)",
    "a lost row": "DELETE FROM state",
    "a row before it": "UPDATE state SET id = 0",
}


@pytest.mark.parametrize("statement", STATES.values(), ids=STATES.keys())
def test_a_server_with_damaged_state_starts_over(server: SpoiledStore, statement: str) -> None:
    server.spoil(statement)
    server.kill()
    position = server.position()
    assert (position.applied, position.promised.round, position.tail_digest) == (0, 0, b"")
    assert not position.wants_copy  # like a server with a new disk, it gets the batches or a copy
    assert server.store.handle(ReadRange(0, b"", b"\0", b"\xff", 9)) == Items(0, (), more=False)
    assert server.store.handle(GetBatches(0)) == Batches(1, (), 0)
    assert "started over (mended)" in server.store.damage.text()
    assert server.store.small_piece(SEGMENT, 1) is not None
    server.scan()


@pytest.mark.parametrize("statement", STATES.values(), ids=STATES.keys())
def test_a_state_that_is_damaged_while_the_server_runs_is_written_anew(server: SpoiledStore, statement: str) -> None:
    server.spoil(statement)
    with pytest.raises(DamageError) as found:
        server.scan()
    server.store.found(found.value)
    server.scan()
    before = server.position()
    server.kill()
    assert server.position() == before
    assert server.read(b"a") == (b"1",)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log SET round = 2 WHERE slot = 5",
        "UPDATE log SET client = x'00' WHERE slot = 5",
        "UPDATE log SET batch = x'00' WHERE slot = 5",
        "UPDATE log SET digest = x'00' WHERE slot = 5",
        "UPDATE log SET digest = CAST(x'ffee' AS TEXT) WHERE slot = 5",
        "UPDATE log SET slot = 6 WHERE slot = 5",
        "DELETE FROM log WHERE slot = 5",
    ],
)
def test_a_damaged_vote_is_forgotten_and_nothing_else(server: SpoiledStore, statement: str) -> None:
    server.spoil(statement)
    server.kill()
    position = server.position()
    assert (position.applied, position.promised, position.tail_digest) == (4, BALLOT, b"")
    assert server.store.damage.text() == "the last batch that it had accepted was damaged (mended)"
    server.encoded.pop()
    server.commit((b"late", b"y"))
    server.choose()
    server.kill()
    assert server.read(b"a", b"late") == (b"1", b"y")


def test_notes_are_few(server: SpoiledStore) -> None:
    for number in range(50):
        with server.store._database.lock:
            server.store.damage.note(f"number {number}", is_mended=True)
    assert server.store.damage.text().startswith("number 49 (mended); number 48 (mended)")
    assert "number 30" not in server.store.damage.text()
