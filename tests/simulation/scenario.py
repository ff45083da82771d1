"""One run of the world: clients work, a nemesis injects faults, and the history is checked.

There are two kinds of clients: some append to lists and commit each operation; others are mounts under the writer
lease (`mount`), whose programs claim names, change registers, and are answered at once. `history` checks what they saw.
At the end all faults stop and the servers must converge.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dfs_server.protocol.limits import QUORUM
from dfs_server.protocol.messages import ReadKeys, Values
from dfsfuse.errors import DfsError, MaybeDoneError
from dfsfuse.log.procedures import ALL, DeadlineError
from dfsfuse.log.quorum_log import PAUSE_GROWTHS, PAUSE_S
from dfsfuse.log.reading import catch_up, read
from dfsfuse.log.repair import settle
from dfsfuse.log.state import Contents, LogState, News
from dfsfuse.log.writing import commit

from .history import LISTS, History, Operation, check_lists, check_registers, decode, encode
from .mount import Parts, SimMount
from .nemesis import Nemesis, repairer
from .world import Host, SimulationError, Sleep, World


def client(world: World, history: History, number: int, operations: int, rests_s: float) -> Generator[Any, Any, None]:
    """A client's life: one operation after another, with a rest of at most `rests_s` before each."""
    log = LogState(b"client-%d" % number, world.quorum, wants_lease=world.random.random() < 0.5)
    for _ in range(operations):
        if rests_s:
            yield Sleep(world.random.random() * rests_s)
        key = world.random.choice(LISTS)
        kind = "append" if world.random.random() < 0.7 else "read"
        operation = history.begin(kind, key, world.now)
        if log.wanted or world.random.random() < 0.3:
            yield from settle(log.known, log.spared, log.client)
        try:
            linearizable = yield from (_append if kind == "append" else _read)(world, log, operation)
            operation.outcome = "ok" if linearizable else "stale"
            operation.end = world.now
        except MaybeDoneError:
            operation.outcome = "maybe"
        except (DfsError, DeadlineError):
            operation.outcome = "failed"


def _order(world: World) -> tuple[int, ...]:
    return tuple(world.random.sample(ALL, len(ALL)))


def _value(world: World, log: LogState, key: bytes) -> Generator[Any, Any, list[int]]:
    reply = yield from read(log, _order(world), lambda at: ReadKeys(at.slot, at.digest, (key,)))
    assert isinstance(reply, Values)
    return decode(reply.values[0])


def _read(world: World, log: LogState, operation: Operation) -> Generator[Any, Any, bool]:
    """Read a list. Without a quorum it counts only if two servers that have kept their disks since the beginning show
    the end, which is the rule of `dfsfuse.namespace.records.members` for folders."""
    linearizable = yield from catch_up(log)
    if not linearizable and log.witnesses:
        have_kept = not any(world.servers[server].was_wiped for server in log.witnesses)
        operation.told_by_two = linearizable = have_kept or "folders" in world.broken
    operation.seen = yield from _value(world, log, operation.key)
    return linearizable


def _append(world: World, log: LogState, operation: Operation) -> Generator[Any, Any, bool]:
    while True:
        elements = yield from _value(world, log, operation.key)
        log.news = News()

        def conflicts(news: News, key: bytes = operation.key) -> bool:
            return news.forget or any(key in change.keys for change in news.changes)

        contents = Contents(puts=((operation.key, encode([*elements, operation.element])),))
        if (yield from commit(log, contents, conflicts, 0)):
            return True


@dataclass
class Report:
    history: History
    faults: dict[str, int]
    slots: int
    delivered: int
    slowest_s: float
    """The longest time that an operation of a mount took."""

    def count(self, outcome: str) -> int:
        return sum(operation.outcome == outcome for operation in self.history.operations)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Disable the garbage collector: a run creates so many objects that the collector would run all the time, to free a
    few cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_no_collector()
def run(
    seed: int,
    *,
    clients: int = 2,
    mounts: int = 2,
    operations: int = 6,
    broken: frozenset[str] = frozenset(),
    quorum: int = QUORUM,
    faults: bool = True,
    calm: bool = False,
    rests_s: float = 0.0,
    waits_s: float = float("inf"),
    parts: Parts = Parts(),  # noqa: B008 - a value
    trace: Callable[[str], None] | None = None,
) -> Report:
    """Run once. Raises SimulationError if a promise is broken. With `calm`, no message or pause takes long, and servers
    that are behind need no copy of the map. Clients rest between operations for at most `rests_s`, so that
    these go on for as long as faults do. No operation of a mount may take longer than `waits_s`."""
    world = World(seed, loss=0.03, double=0.05, broken=broken, quorum=quorum, trace=trace)
    if not faults:
        world.loss = world.double = 0.0
    if calm:
        world.delayed = 0.0
        for server in world.servers.values():
            server.keep_batches = 10_000
        world.pause_s, world.pause_growths = PAUSE_S, PAUSE_GROWTHS
    history = History()
    hosts = [world.start(f"client-{n}", client(world, history, n, operations, rests_s)) for n in range(clients)]

    def name() -> bytes:
        """Return a name to claim; new ones appear as time goes by, and a few clients want the same one."""
        claims = sum(op.key.startswith(b"n") for op in history.operations)
        return b"n%d" % (claims // 4 + world.random.randrange(2))

    sim_mounts: list[SimMount] = []

    def live(host: Host) -> Generator[Any, Any, None]:
        sim_mounts.append(SimMount(world, host, history, name, parts, 3 * operations))
        return sim_mounts[-1].live()

    hosts += [world.start(f"mount-{n}", live) for n in range(mounts)]
    nemesis = Nemesis(world, hosts, until=12.0 if faults else 0.0)
    while world.now < 60.0 and any(host.alive for host in hosts):
        world.run(world.now + 0.5)
    for host in hosts:
        host.kill()
    for mount in sim_mounts:
        mount.ended()
    heal(world)
    for mount in sim_mounts:  # only now: the last batch may have been chosen before any server knew it
        mount.check_durable()
    final_map = world.servers[1].disk.map
    check_lists(history, final_map)
    check_registers(history, final_map)
    if world.slowest_s > waits_s:
        world.fail(f"an operation of a mount waited for {world.slowest_s:.2f} s")
    if world.failures:
        raise SimulationError("; ".join(f"{what} (at {at:.4f})" for what, at in world.failures.items()))
    return Report(history, nemesis.faults, max(world.oracle.chosen, default=0), world.delivered, world.slowest_s)


def heal(world: World) -> None:
    """Stop all faults; a last client reads, and all servers must reach the same slot within a limit."""
    world.loss = world.double = 0.0
    world.cuts.clear()
    for server in world.servers.values():
        server.up = True
        server.thaw()
    done: list[LogState] = []

    def last() -> Generator[Any, Any, None]:
        log = LogState(b"the-last", world.quorum)
        for _ in range(20):
            try:
                yield from catch_up(log)
                yield from settle(log.known, log.spared)
                done.append(log)
                return
            except DfsError:
                continue

    world.start("last", last())
    world.run(world.now + 60.0)
    for _ in range(8):
        world.start("repairer", repairer(world))
        world.run(world.now + 10.0)
    if not done:
        raise SimulationError("after all faults stopped, no client could catch up")
    places = {(server.disk.state.applied, server.disk.state.digest) for server in world.servers.values()}
    if len(places) != 1:
        raise SimulationError(f"after all faults stopped, the servers did not converge: {sorted(places)}")
    maps = [server.disk.map for server in world.servers.values()]
    if any(other != maps[0] for other in maps):
        raise SimulationError("servers at the same slot hold different maps")
