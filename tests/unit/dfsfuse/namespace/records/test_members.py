"""Which server is which: a different config is refused with a message, a new disk is noticed, a copy is refused."""

from __future__ import annotations

import pytest
from support.memory_map import MemoryMap

from dfsfuse.errors import WrongServerError
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.records import keys, members
from dfsfuse.namespace.records.members import (
    Member,
    check,
    find,
    have_forgotten_nothing,
    meet,
    namespace_identity,
    note_faults,
)

NAMES = {1: "DFS1", 2: "DFS2", 3: "DFS3", 4: "DFS4"}
IDENTITIES = {id: b"identity-%d" % id for id in NAMES}


@pytest.fixture
def store() -> MemoryMap:
    return MemoryMap()


def met(store: MemoryMap, identities: dict[int, bytes], names: dict[int, str] = NAMES, now_ns: int = 7) -> set[int]:
    return set(store.transact(lambda transaction: meet(transaction, names, identities, now_ns)))


def known(store: MemoryMap) -> dict[int, Member]:
    return store.read(find)


def test_the_first_client_records_which_server_is_which(store: MemoryMap) -> None:
    assert known(store) == {}
    assert met(store, IDENTITIES) == set()
    assert known(store) == {id: Member(NAMES[id], IDENTITIES[id]) for id in NAMES}


def test_a_server_that_was_away_then_is_met_later(store: MemoryMap) -> None:
    met(store, {1: b"one", 2: b"two", 3: b"three"})
    assert known(store)[4] == Member("DFS4")
    assert met(store, {4: b"four"}) == set()
    assert known(store)[4] == Member("DFS4", b"four")


def test_a_new_disk_is_noticed_once(store: MemoryMap) -> None:
    met(store, IDENTITIES)
    assert met(store, IDENTITIES | {2: b"new disk"}, now_ns=99) == {2}
    assert known(store)[2] == Member("DFS2", b"new disk", replaced_ns=99)
    before = store.read(lambda view: view.get(keys.SERVERS))
    assert met(store, IDENTITIES | {2: b"new disk"}, now_ns=100) == set()
    assert store.read(lambda view: view.get(keys.SERVERS)) == before


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        ("DFS2 DFS1 DFS3 DFS4", "lists the servers as DFS2, DFS1, .* is on DFS1, DFS2, DFS3, DFS4, in this order"),
        ("DFS1 DFS2 DFS3 NEW", r"calls item 4 of servers NEW, .* correct that name"),
    ],
)  # fmt: skip
def test_another_order_or_name_is_refused_and_nothing_is_changed(store: MemoryMap, order: str, sentence: str) -> None:
    met(store, IDENTITIES)
    before = known(store)
    names = dict(enumerate(order.split(), start=1))
    with pytest.raises(WrongServerError, match=sentence):
        check(before, names)
    with pytest.raises(WrongServerError, match=sentence):
        met(store, IDENTITIES, names)
    assert known(store) == before


def test_a_copied_folder_is_refused(store: MemoryMap) -> None:
    """Also when the server that it is a copy of does not answer."""
    met(store, IDENTITIES)
    with pytest.raises(WrongServerError, match="DFS3 has the identity of DFS1: its folder is a copy"):
        met(store, {2: IDENTITIES[2], 3: IDENTITIES[1], 4: IDENTITIES[4]})


def test_faults_are_added_up(store: MemoryMap) -> None:
    store.transact(lambda transaction: note_faults(transaction, {1: (1, 5, "nobody is known yet")}))
    assert known(store) == {}
    met(store, IDENTITIES)
    for times in (2, 3):
        store.transact(
            lambda transaction, times=times: note_faults(transaction, {3: (times, 50 + times, f"lie {times}")})  # type: ignore[misc]
        )
    assert known(store)[3] == Member("DFS3", IDENTITIES[3], faults=5, fault_ns=53, fault="lie 3")
    assert known(store)[1].faults == 0


def test_a_record_of_a_newer_format_is_refused(store: MemoryMap) -> None:
    met(store, IDENTITIES)

    def newer(transaction: Transaction) -> None:
        data = transaction.get(keys.SERVERS)
        assert data is not None and data[1] == members.FORMAT
        transaction.put(keys.SERVERS, data[:1] + b"\x02" + data[2:])

    store.transact(newer)
    with pytest.raises(OSError, match="format 2; this program knows format 1"):
        known(store)


def test_servers_with_the_folders_that_are_known_have_forgotten_nothing(store: MemoryMap) -> None:
    def forgot_nothing(identities: dict[int, bytes], *servers: int) -> bool:
        return store.read(lambda view: have_forgotten_nothing(view, identities, frozenset(servers)))

    assert not forgot_nothing(IDENTITIES, 1, 2), "the namespace has no record of its servers yet"
    met(store, {id: IDENTITIES[id] for id in (1, 2, 3)})
    assert forgot_nothing(IDENTITIES, 1, 3)
    assert not forgot_nothing(IDENTITIES, 1, 4), "DFS4 was never met before"
    replaced = IDENTITIES | {3: b"new disk"}
    assert forgot_nothing(replaced, 1, 2)
    assert not forgot_nothing(replaced, 1, 3)
    assert not forgot_nothing({1: IDENTITIES[1]}, 1, 2)
    met(store, replaced)
    assert forgot_nothing(replaced, 1, 3), "what the old disk held is older than this record"


def test_a_namespace_is_given_an_identity_once_and_keeps_it(store: MemoryMap) -> None:
    def met_with(new: bytes, identities: dict[int, bytes] = IDENTITIES) -> bytes:
        store.transact(lambda transaction: meet(transaction, NAMES, identities, 7, new))
        return store.read(namespace_identity)

    assert store.read(namespace_identity) == b""
    met(store, IDENTITIES)  # by a client that does not know about identities
    assert met_with(b"first") == b"first"
    batches = len(store.batches)
    assert met_with(b"second") == b"first"
    assert len(store.batches) == batches
    assert met_with(b"third", IDENTITIES | {1: b"new disk"}) == b"first"
    store.transact(lambda transaction: note_faults(transaction, {1: (1, 2, "a lie")}))
    assert store.read(namespace_identity) == b"first"
