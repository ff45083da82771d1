"""The register records what it finds out about the servers, and refuses wrong ones before anything else is done."""

from __future__ import annotations

import pytest
from support.daemons import eventually
from support.memory_map import MemoryMap

from dfs_server.protocol.batches import Batch
from dfsfuse.common.events import Events
from dfsfuse.errors import ReadOnlyError, WrongServerError
from dfsfuse.namespace.ops.server_register import ServerRegister
from dfsfuse.namespace.records.members import find
from dfsfuse.net.health.server import Fault


class Servers:
    """The part of a cluster that the register uses."""

    def __init__(self, *names: str) -> None:
        self.names = dict(enumerate(names or ("DFS1", "DFS2", "DFS3", "DFS4"), start=1))
        self.events = Events()
        self.found = {id: f"identity of {name}".encode() for id, name in self.names.items()}
        self.noted: dict[int, Fault] = {}
        self.up = frozenset(self.names)

    def identities(self) -> dict[int, bytes]:
        return self.found

    def faults(self) -> dict[int, Fault]:
        return self.noted

    def usable(self) -> frozenset[int]:
        return self.up


@pytest.fixture
def store() -> MemoryMap:
    return MemoryMap()


def register(store: MemoryMap, servers: Servers) -> ServerRegister:
    return ServerRegister(store, servers, servers.events, pause_s=0.0, time_ns=lambda: 42)


def test_a_namespace_without_the_record_gets_it_and_then_nothing_is_written(store: MemoryMap) -> None:
    register(store, Servers()).open()
    batches = len(store.batches)
    assert {member.name for member in store.read(find).values()} == {"DFS1", "DFS2", "DFS3", "DFS4"}
    again = register(store, Servers())
    again.open()
    again.close()
    assert len(store.batches) == batches


def test_another_order_is_refused(store: MemoryMap) -> None:
    register(store, Servers()).open()
    with pytest.raises(WrongServerError, match="in this order"):
        register(store, Servers("DFS1", "DFS3", "DFS2", "DFS4")).open()


def test_without_a_quorum_nothing_is_written_and_the_config_is_compared_all_the_same(store: MemoryMap) -> None:
    servers = Servers()
    servers.up = frozenset({1, 2})
    register(store, servers).open()
    assert store.read(find) == {}
    register(store, Servers()).open()
    wrong = Servers("DFS4", "DFS3", "DFS2", "DFS1")
    wrong.up = frozenset({1})
    with pytest.raises(WrongServerError):
        register(store, wrong).open()


def test_what_is_found_out_later_is_written_down(store: MemoryMap) -> None:
    servers = Servers()
    one = register(store, servers)
    one.open()
    one.start()
    servers.found = servers.found | {3: b"new disk"}
    servers.events.on_servers_changed()
    eventually(lambda: store.read(find)[3].identity == b"new disk")
    servers.noted = {2: Fault(3, 99, "sent wrong bytes")}
    one.close()
    found = store.read(find)
    assert (found[3].identity, found[3].replaced_ns) == (b"new disk", 42)
    assert (found[2].faults, found[2].fault_ns, found[2].fault) == (3, 99, "sent wrong bytes")


def test_what_cannot_be_written_down_yet_is_tried_again(store: MemoryMap) -> None:
    servers = Servers()
    servers.up = frozenset({1, 2})
    one = register(store, servers)
    one.open()
    one.start()
    servers.up = frozenset(servers.names)
    eventually(lambda: len(store.read(find)) == 4)
    refusals = 0

    def refuse(_: Batch) -> None:
        nonlocal refusals
        refusals += 1
        if refusals < 3:
            raise ReadOnlyError("too few servers")

    store.before_commit = refuse
    servers.found = servers.found | {3: b"new disk"}
    servers.events.on_servers_changed()
    eventually(lambda: store.read(find)[3].identity == b"new disk")
    assert refusals == 3
    one.close()


def test_a_fault_is_counted_once(store: MemoryMap) -> None:
    servers = Servers()
    one = register(store, servers)
    one.open()
    servers.noted = {2: Fault(3, 99, "a lie")}
    one.close()
    servers.noted = {2: Fault(4, 100, "another one")}
    one.close()
    assert store.read(find)[2].faults == 4


def test_an_unexpected_exception_does_not_end_the_thread(store: MemoryMap) -> None:
    servers = Servers()
    one = register(store, servers)
    one.open()
    one.start()
    failures = iter([ValueError("nobody foresaw this")])

    def fail_once(_: Batch) -> None:
        if failure := next(failures, None):
            raise failure

    store.before_commit = fail_once
    servers.found = servers.found | {3: b"new disk"}
    servers.events.on_servers_changed()
    eventually(lambda: store.read(find)[3].identity == b"new disk")
    one.close()
