"""Server folders made by older versions are opened and upgraded, and nothing in them is misread."""

from __future__ import annotations

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from support.daemons import StartHouse

from dfs_server.protocol import batches
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch
from dfs_server.protocol.messages import (
    Accept,
    AcceptedAt,
    Batches,
    GetBatches,
    GetPiece,
    GetPosition,
    GetStatus,
    Have,
    HavePieces,
    Items,
    Position,
    Promise,
    Promised,
    ReadKeys,
    ReadRange,
    Refused,
    ServerStatus,
    Values,
)
from dfs_server.store.schema import FORMAT
from dfs_server.store.store import NamespaceStore

FOLDERS = Path(__file__).with_name("folders")
SMALL, LARGE, LATE = b"s" * 16, b"l" * 16, b"t" * 16
CONTENT = b"a large piece of version 0.1.0. " * 3000
MAP = {b"k%03d" % number: b"value %d" % number for number in range(99)} | {b"k000": b"changed", b"n": b"new"}


@pytest.mark.parametrize("name", ["DFS1-0.1.0", "DFS1-format-3"])
def test_the_folder_of_an_older_version_is_opened_and_has_all_that_it_had(
    start_house: StartHouse, tmp_path: Path, name: str
) -> None:
    with tarfile.open(FOLDERS / f"{name}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    house = start_house(root=tmp_path / "DFS1")
    client = house.client()

    position = client.ask(GetPosition())
    assert isinstance(position, Position)
    assert (position.applied, position.promised, position.wants_copy) == (3, Ballot(7, b"client02"), False)
    everything = client.ask(ReadRange(3, position.digest, b"\0", b"\xff", 1000))
    assert isinstance(everything, Items)
    assert dict(everything.items) == MAP
    log = client.ask(GetBatches(0))
    assert isinstance(log, Batches)
    assert len(log.batches) == 3
    assert batches.digest(log.batches[-1]) == position.digest

    for piece, data in {
        (LARGE, 2): CONTENT,
        (SMALL, 1): b"small 1",
        (SMALL, 4): b"small 4",
        (LATE, 1): b"of the tail",
    }.items():
        assert client.call(GetPiece(*piece))[1] == data
    assert client.ask(HavePieces(((SMALL, 2), (SMALL, 3)))) == Have(b"\0\0")  # they belong to other servers
    status = client.ask(GetStatus())
    assert isinstance(status, ServerStatus)
    assert (status.piece_count, status.damage) == (3, "")

    # Its earlier promises and votes still count, and it goes on from them.
    promised = client.ask(Promise(Ballot(9, b"client01")))
    assert isinstance(promised, Promised)
    assert promised.tail is not None
    assert client.ask(Accept(Ballot(8, b"client02"), 4, promised.tail.batch)) == Refused(Ballot(9, b"client01"))
    assert client.ask(Accept(Ballot(9, b"client01"), 4, promised.tail.batch)) == AcceptedAt(4)
    digest = batches.digest(promised.tail.batch)
    fifth = batches.encode(Batch(batches.FORMAT, digest, b"client01", 5, 0, deletes=(b"n",)))
    assert client.ask(Accept(Ballot(9, b"client01"), 5, fifth)) == AcceptedAt(5)
    read = ReadKeys(5, batches.digest(fifth), (b"tail", b"k000", b"k099", b"n"))
    for _ in range(2):
        assert client.ask(read) == Values(5, (b"accepted last", b"changed", None, None))
        house.close()
        with closing(sqlite3.connect(tmp_path / "DFS1" / "alice" / "namespace.db")) as database:
            assert database.execute("PRAGMA user_version").fetchone() == (FORMAT,)
        house = start_house(root=tmp_path / "DFS1")
        client = house.client()


def test_an_upgrade_believes_no_state_that_is_damaged(tmp_path: Path) -> None:
    with tarfile.open(FOLDERS / "DFS1-format-3.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "DFS1" / "alice"
    with closing(sqlite3.connect(folder / "namespace.db")) as database:
        database.execute("UPDATE state SET round = 99")
        database.commit()
    with closing(NamespaceStore(folder, "DFS1")) as store:
        assert store.handle(GetPosition()) == Position(0, b"", Ballot(0, b""))
        assert "started over" in store.damage.text()
        assert store.small_piece(SMALL, 1) is not None
