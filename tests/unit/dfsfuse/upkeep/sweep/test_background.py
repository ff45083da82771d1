"""The automatic sweep: once a day, one of the mounts sweeps pieces and the locks of dead mounts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.fake_cluster import FakeCluster
from support.grid import Grid
from support.memory_map import MemoryMap
from support.memory_pages import MemoryPages

from dfs_server.protocol.messages import ListPieces
from dfsfuse.errors import StoppedError
from dfsfuse.namespace.ops import lock_sessions
from dfsfuse.namespace.records import keys, locks
from dfsfuse.namespace.records.locks import Lock
from dfsfuse.upkeep.sweep import sessions as sweep_sessions
from dfsfuse.upkeep.sweep.background import BackgroundSweep
from dfsfuse.upkeep.sweep.sweeping import EVERY_NS

LIFE_S = 10.0


class Mount:
    """A mount's sweeper; `waits` records its waits, and `meanwhile` is called during each."""

    def __init__(self, store: MemoryMap) -> None:
        self.grid = Grid()
        self.now_ns = EVERY_NS
        self.saves = 0
        self.waits: list[float] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.stops = False
        self.sweep = BackgroundSweep(
            FakeCluster(self.grid),
            MemoryPages(store),
            store,
            self.save,
            b"client-1",
            wait=self.wait,
            time_ns=lambda: self.now_ns,
        )

    def save(self) -> None:
        self.saves += 1

    def wait(self, seconds: float) -> bool:
        if seconds:
            self.waits.append(seconds)
            self.meanwhile()
        return self.stops


def hold(store: MemoryMap, session: bytes, ino: int, beat: int = 1) -> None:
    """A mount with a lock."""

    def work(tx: lock_sessions.Transaction) -> None:
        tx.put(keys.session(session), lock_sessions.encode_heartbeat(beat, LIFE_S))
        found = locks.decode(tx.get(keys.locks(ino)))
        tx.put(keys.locks(ino), locks.encode(locks.with_lock(found, Lock(session, 7, False, False))))

    store.transact(work)


def test_one_mount_a_day_sweeps_and_each_saves_what_waits_in_it() -> None:
    store = MemoryMap()
    one, two = Mount(store), Mount(store)
    assert one.sweep.turn()
    assert not two.sweep.turn()
    assert (one.saves, two.saves) == (1, 1)
    assert sum(one.grid.asked(ListPieces).values()) == 4
    assert two.grid.asked(ListPieces) == {}
    two.now_ns += EVERY_NS
    assert two.sweep.turn()
    store.is_writable = False
    one.now_ns += 5 * EVERY_NS
    assert not one.sweep.turn()


def test_the_locks_of_mounts_that_died_end_and_those_of_the_living_stay() -> None:
    store = MemoryMap()
    mount = Mount(store)
    hold(store, b"dead", 5)
    hold(store, b"dead", 6)
    hold(store, b"lives", 6)
    hold(store, b"new", 8)
    store.items[keys.session(b"newer")] = b"\x93\x63\x01\x02"
    hold(store, b"newer", 9)
    store.items[keys.session(b"newer")] = b"\x93\x63\x01\x02"
    store.items[keys.locks(10)] = b"\x92\x63\x90"

    def beat() -> None:
        hold(store, b"lives", 6, beat=2)
        hold(store, b"later", 11)

    mount.meanwhile = beat
    store.items.pop(keys.session(b"new"))
    assert mount.sweep.turn()
    assert mount.waits == [2 * LIFE_S]
    assert sorted(key for key in store.items if key.startswith(b"s/")) == [b"s/later", b"s/lives", b"s/newer"]
    left = {key: store.items[key] for key in store.items if key.startswith(b"l/")}
    assert sorted(left) == [keys.locks(6), keys.locks(9), keys.locks(10), keys.locks(11)]
    assert [lock.session for lock in locks.decode(left[keys.locks(6)])] == [b"lives"]


def test_without_sessions_there_is_nothing_to_wait_for() -> None:
    store = MemoryMap()
    mount = Mount(store)
    store.items[keys.locks(5)] = locks.encode((Lock(b"gone", 7, False, False),))
    assert mount.sweep.turn()
    assert mount.waits == []
    assert keys.locks(5) not in store.items
    assert sweep_sessions.patience_s({b"s/x": b"\x93\x63\x01\x02"}) == 0.0


def test_it_ends_at_once_when_the_mount_ends() -> None:
    store = MemoryMap()
    mount = Mount(store)
    hold(store, b"dead", 5)
    mount.stops = True
    with pytest.raises(StoppedError):
        mount.sweep.turn()
    running = BackgroundSweep(FakeCluster(Grid()), MemoryPages(store), store, lambda: None, b"c")
    running.start()
    running.close()
    assert not running._thread.is_alive()
