"""The whole map at one slot while it changes, and servers whose maps differ. On four real logs."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from support.log_cluster import LogCluster, LogServer

from dfs_server.protocol.messages import Error, Message, ReadKeys, ReadRange
from dfs_server.protocol.status import Status
from dfs_server.store.checksums import of_item
from dfsfuse.errors import UnavailableError
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.log.repairer import Repairer
from dfsfuse.log.state import Contents, News
from dfsfuse.upkeep.fsck import snapshot as fsck_snapshot
from dfsfuse.upkeep.fsck.snapshot import compare, snapshot


def log_of(cluster: LogCluster, client: bytes) -> QuorumLog:
    return QuorumLog(cluster, client=client, clock=cluster.grid.clock, time_ns=lambda: 7)  # type: ignore[arg-type]


def never(_: News) -> bool:
    return False


class Namespace:
    """Some keys in the log, and a client that keeps changing them between the pages that are read."""

    def __init__(self, cluster: LogCluster, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setattr(fsck_snapshot, "PAGE_ITEMS", 7)
        monkeypatch.setattr(fsck_snapshot, "READ_KEYS", 3)
        self.cluster = cluster
        self.truth: dict[bytes, bytes] = {}
        self.writer = log_of(cluster, b"writer..")
        self.reader = log_of(cluster, b"reader..")
        self.turn = 0
        self.put({b"k%03d" % number: b"0" for number in range(40)})
        self.settle()

    def put(self, values: dict[bytes, bytes], deletes: tuple[bytes, ...] = ()) -> None:
        assert self.writer.commit(Contents(puts=tuple(values.items()), deletes=deletes), never)
        self.truth.update(values)
        for key in deletes:
            self.truth.pop(key, None)

    def settle(self) -> None:
        """Bring all servers that answer up to date."""
        repairer = Repairer(self.cluster, lambda: self.writer.known, clock=self.cluster.grid.clock)  # type: ignore[arg-type]
        repairer._look()

    def change(self) -> None:
        """Change two distant keys at once, so that seeing only one change shows a mixture; other keys come and go."""
        self.turn += 1
        low, high = b"k%03d" % (self.turn % 20), b"k%03d" % (39 - self.turn % 20)
        value = b"%d" % self.turn
        self.put({low: value, high: value, b"new%d" % self.turn: value}, (b"new%d" % (self.turn - 2),))
        self.settle()

    def change_between_pages(self, times: int) -> None:
        left = times

        def before(request: Message) -> None:
            nonlocal left
            if isinstance(request, ReadRange) and left:
                left -= 1
                self.change()

        for server in self.cluster.servers:
            server.before_answer = before


@pytest.fixture
def namespace(log_cluster: LogCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    return Namespace(log_cluster, tmp_path, monkeypatch)


def test_all_of_it_is_of_one_slot_whatever_changes_meanwhile(namespace: Namespace) -> None:
    for times in (0, 1, 3, 50):
        namespace.change_between_pages(times)
        found = snapshot(namespace.reader)
        assert found.items == namespace.truth
        assert found.slot == namespace.writer.known.slot
        assert found.is_newest


def test_with_one_server_down_it_is_the_newest_and_with_two_it_is_said_that_it_may_not_be(namespace: Namespace) -> None:
    namespace.cluster.down(1)
    assert snapshot(namespace.reader).is_newest
    namespace.cluster.down(2)
    found = snapshot(namespace.reader)
    assert found.items == namespace.truth
    assert not found.is_newest


def test_servers_with_the_same_map(namespace: Namespace) -> None:
    found = compare(namespace.cluster, namespace.reader, pause=lambda _: None)
    assert (found.compared, found.absent, found.differing) == ({1, 2, 3, 4}, {}, {})


def test_what_changes_while_they_are_compared_is_no_difference(namespace: Namespace) -> None:
    namespace.change_between_pages(30)
    found = compare(namespace.cluster, namespace.reader, pause=lambda _: None)
    assert (found.compared, found.absent, found.differing, found.undecided) == ({1, 2, 3, 4}, {}, {}, 0)


def test_what_two_servers_say_at_different_slots_is_no_difference(namespace: Namespace) -> None:
    """The key that differed is read again, and changes once more between the second server's answer and the third's."""
    times = 0

    def before(request: Message) -> None:
        nonlocal times
        if isinstance(request, ReadRange) and not times:
            times = 1
            namespace.put({b"k001": b"during"})
            namespace.settle()
        elif isinstance(request, ReadKeys) and times == 1:
            times = 2
            namespace.put({b"k001": b"again"})
            namespace.settle()

    namespace.cluster.servers[2].before_answer = before
    found = compare(namespace.cluster, namespace.reader, pause=lambda _: None)
    assert times == 2
    assert (found.compared, found.absent, found.differing, found.undecided) == ({1, 2, 3, 4}, {}, {}, 0)


def damage(namespace: Namespace, server: int, statement: str) -> None:
    """Change a server's map behind its back."""
    namespace.cluster.servers[server - 1].store.flush()
    path = namespace.folder / f"DFS{server}" / "namespace.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute(statement).rowcount == 1
        database.commit()


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE map SET value = X'99', checksum = {of_item(b'k030', bytes([0x99]))} WHERE key = CAST('k030' AS BLOB)",
        "DELETE FROM map WHERE key = CAST('k030' AS BLOB)",
    ],
)
def test_a_server_whose_map_is_another_one_is_named_with_the_keys(namespace: Namespace, statement: str) -> None:
    damage(namespace, 3, statement)
    found = compare(namespace.cluster, namespace.reader, pause=lambda _: None)
    assert found.differing == {b"k030": frozenset({3})}


def test_a_server_whose_map_is_damaged_is_said_to_be(namespace: Namespace) -> None:
    damage(namespace, 3, "UPDATE map SET value = X'99' WHERE key = CAST('k030' AS BLOB)")
    found = compare(namespace.cluster, namespace.reader, pause=lambda _: None)
    assert (found.compared, set(found.absent), found.differing) == ({1, 2, 4}, {3}, {})


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> list[ReadKeys]:
    """Make servers refuse to return the values of two keys in one reply; the list receives the refused requests."""
    refused: list[ReadKeys] = []
    answer = LogServer.answer

    def refuse(server: LogServer, request: Message, payload: bytes) -> tuple[Message, bytes]:
        if isinstance(request, ReadKeys) and len(request.keys) > 1:
            refused.append(request)
            return Error(Status.TOO_MUCH, "ask for fewer"), b""
        return answer(server, request, payload)

    monkeypatch.setattr(LogServer, "answer", refuse)
    return refused


def test_values_that_are_more_than_fits_are_read_in_portions(namespace: Namespace, refusing: list[ReadKeys]) -> None:
    namespace.change_between_pages(5)
    found = snapshot(namespace.reader)
    assert refusing
    assert found.items == namespace.truth


def test_values_that_are_more_than_fits_are_compared_in_portions(
    namespace: Namespace, refusing: list[ReadKeys]
) -> None:
    damage(namespace, 3, "DELETE FROM map WHERE key = CAST('k030' AS BLOB)")
    damage(namespace, 3, "DELETE FROM map WHERE key = CAST('k031' AS BLOB)")
    found = compare(namespace.cluster, namespace.reader, pause=lambda _: None)
    assert refusing
    assert (found.compared, found.absent) == ({1, 2, 3, 4}, {})
    assert found.differing == {b"k030": frozenset({3}), b"k031": frozenset({3})}


def test_a_server_that_is_down_or_behind_is_said_to_be(namespace: Namespace) -> None:
    namespace.cluster.down(2)
    namespace.put({b"k001": b"changed"})
    namespace.settle()
    found = compare(namespace.cluster, namespace.reader, pause=lambda _: None)
    assert (found.compared, set(found.absent), found.differing) == ({1, 3, 4}, {2}, {})
    namespace.cluster.up(2)
    found = compare(namespace.cluster, namespace.reader, pause=lambda _: None)
    assert (found.compared, set(found.absent), found.differing) == ({1, 3, 4}, {2}, {})
    assert "behind" in found.absent[2]


def test_without_servers_there_is_an_error(namespace: Namespace) -> None:
    namespace.cluster.down(1, 2, 3, 4)
    with pytest.raises(UnavailableError):
        snapshot(namespace.reader)
