"""One run of the world: clients append to lists and read them, a nemesis breaks things, and the history is checked.

The check is a complete one for linearizability of append-only lists with unique elements: the final list is the order.
Every read must be a prefix of it that holds all that was acknowledged before the read began and nothing whose append
began after it ended. Every acknowledged append is there once, after all that were acknowledged before it began; one
that was not acknowledged may be there, once. At the end all faults stop and the servers must converge.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from dfs_server.protocol.messages import ReadKeys, Values
from dfsfuse.cluster.log_protocol import Contents, LogState, News, catch_up, commit, read
from dfsfuse.cluster.log_repair import bring_up_to_date, settle
from dfsfuse.cluster.procedures import ALL, DeadlineError
from dfsfuse.cluster.proposer import QUORUM
from dfsfuse.errors import DfsError, MaybeDoneError

from .world import SimulationError, World

KEYS = (b"a", b"b")


@dataclass
class Operation:
    """An entry of the history. `end` is infinite while it is not known to be over."""

    kind: str
    key: bytes
    begin: float
    end: float = float("inf")
    element: int = 0
    seen: list[int] = field(default_factory=list)
    outcome: str = "maybe"


@dataclass
class History:
    operations: list[Operation] = field(default_factory=list)
    elements: int = 0

    def begin(self, kind: str, key: bytes, now: float) -> Operation:
        operation = Operation(kind, key, now)
        if kind == "append":
            self.elements += 1
            operation.element = self.elements
        self.operations.append(operation)
        return operation


def decode(value: bytes | None) -> list[int]:
    return [int(part) for part in value.split()] if value else []


def encode(elements: list[int]) -> bytes:
    return b" ".join(b"%d" % element for element in elements)


def client(world: World, history: History, number: int, operations: int) -> Generator[Any, Any, None]:
    """A client's life: operations one after the other."""
    log = LogState(b"client-%d" % number, world.quorum, wants_lease=world.random.random() < 0.5)
    for _ in range(operations):
        key = world.random.choice(KEYS)
        kind = "append" if world.random.random() < 0.7 else "read"
        operation = history.begin(kind, key, world.now)
        if log.wanted or world.random.random() < 0.3:
            yield from settle(log.known, log.client)
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
    linearizable = yield from catch_up(log)
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


def tender(world: World) -> Generator[Any, Any, None]:
    """What a mount's tender does: look how far the log goes, finish what is in doubt, bring laggards up to date."""
    log = LogState(b"tender-%d" % world.random.getrandbits(32), world.quorum)
    try:
        yield from catch_up(log)
    except DfsError:
        return
    positions = yield from settle(log.known)
    if len(positions) > 1:
        source = max(positions, key=lambda server: positions[server].applied)
        for server in positions:
            if positions[server].applied < positions[source].applied:
                yield from bring_up_to_date(server, source, world.random.randbytes(8))


class Nemesis:
    """Breaks one server at a time, or cuts the power of all, and lets them return.

    A lost disk is brought up to date before the next fault.
    """

    def __init__(self, world: World, until: float) -> None:
        self.world, self.until = world, until
        self.faults: dict[str, int] = {}
        self._next()

    def _next(self) -> None:
        self.world.after(self.world.random.uniform(0.05, 1.5), self._strike)

    def _strike(self) -> None:
        world = self.world
        if world.now >= self.until:
            return
        number = world.random.choice(ALL)
        server = world.servers[number]
        kind = world.random.choice(("crash", "crash", "stop", "wipe", "power"))
        self.faults[kind] = self.faults.get(kind, 0) + 1
        forgotten = self._newest() if kind == "wipe" else 0
        if kind == "power":
            for each in world.servers.values():
                each.crash()
                each.up = each is not server
        elif kind == "stop":
            server.up = False
        else:
            server.crash()
            if kind == "wipe":
                server.wipe()
        world.after(world.random.uniform(0.01, 2.0), lambda: self._return(number, forgotten))

    def _newest(self) -> int:
        """The last slot that any server has something at."""
        states = [server.disk.state for server in self.world.servers.values()]
        return max(state.applied + (state.tail is not None) for state in states)

    def _return(self, number: int, forgotten: int) -> None:
        self.world.servers[number].up = True
        self.world.start("tender", tender(self.world))
        self._healed_then_next(number, forgotten, 40)

    def _healed_then_next(self, number: int, forgotten: int, tries: int) -> None:
        """One lost memory at a time is what is promised: wait until nothing depends on what this server forgot, up to
        the slot that was in doubt when it did."""
        if self.world.servers[number].disk.state.applied >= forgotten:
            self._next()
        elif tries:
            self.world.start("tender", tender(self.world))
            self.world.after(0.3, lambda: self._healed_then_next(number, forgotten, tries - 1))


@dataclass
class Report:
    history: History
    faults: dict[str, int]
    slots: int
    delivered: int

    def count(self, outcome: str) -> int:
        return sum(operation.outcome == outcome for operation in self.history.operations)


def run(
    seed: int, *, clients: int = 3, operations: int = 12, forget_promises: bool = False, quorum: int = QUORUM
) -> Report:
    """One run. Raises SimulationError if a promise is broken."""
    world = World(seed, loss=0.03, double=0.05, forget_promises=forget_promises, quorum=quorum)
    history = History()
    tasks = [world.start(f"client {n}", client(world, history, n, operations)) for n in range(clients)]
    nemesis = Nemesis(world, until=30.0)
    if clients > 1 and world.random.random() < 0.5:
        world.after(world.random.random() * 3.0, tasks[0].kill)
    world.run(60.0)
    for task in tasks:
        task.kill()
    _heal(world)
    check(world, history)
    return Report(history, nemesis.faults, max(world.oracle.chosen, default=0), world.delivered)


def _heal(world: World) -> None:
    """Faults stop; a last client looks, and all servers must stand at the same place within a bound."""
    world.loss = world.double = 0.0
    for server in world.servers.values():
        server.up = True
    done: list[LogState] = []

    def last() -> Generator[Any, Any, None]:
        log = LogState(b"the-last", world.quorum)
        for _ in range(20):
            try:
                yield from catch_up(log)
                yield from settle(log.known)
                done.append(log)
                return
            except DfsError:
                continue

    world.start("last", last())
    world.run(world.now + 60.0)
    for _ in range(8):
        world.start("tender", tender(world))
        world.run(world.now + 10.0)
    if not done:
        raise SimulationError("after all faults stopped, no client could catch up")
    places = {(server.disk.state.applied, server.disk.state.digest) for server in world.servers.values()}
    if len(places) != 1:
        raise SimulationError(f"after all faults stopped, the servers did not converge: {sorted(places)}")
    maps = [server.disk.map for server in world.servers.values()]
    if any(other != maps[0] for other in maps):
        raise SimulationError("servers at the same slot hold different maps")


def check(world: World, history: History) -> None:
    """Linearizability of the lists, and that nothing acknowledged is lost."""
    for key in KEYS:
        final = decode(world.servers[1].disk.map.get(key))
        if len(set(final)) != len(final):
            raise SimulationError(f"an element is twice in list {key!r}: {final}")
        place = {element: index for index, element in enumerate(final)}
        appends = [op for op in history.operations if op.key == key and op.kind == "append"]
        reads = [op for op in history.operations if op.key == key and op.kind == "read" and op.outcome == "ok"]
        for op in appends:
            if op.outcome == "ok" and op.element not in place:
                raise SimulationError(f"acknowledged append {op.element} is lost from {key!r}: {final}")
            if op.outcome == "failed" and op.element in place:
                raise SimulationError(f"append {op.element} was refused and yet done in {key!r}")
        for op in appends:
            for later in appends:
                if op.end < later.begin and later.element in place and place[op.element] > place[later.element]:
                    raise SimulationError(
                        f"{op.element} was acknowledged before {later.element} began, and is after it"
                    )
        for op in reads:
            if final[: len(op.seen)] != op.seen:
                raise SimulationError(f"a read saw {op.seen}, no prefix of {final}")
            for append in appends:
                seen = append.element in op.seen
                if append.end < op.begin and append.outcome == "ok" and not seen:
                    raise SimulationError(f"a read missed {append.element}, acknowledged before it began")
                if seen and append.begin > op.end:
                    raise SimulationError(f"a read saw {append.element} before its append began")
        for first in reads:
            for second in reads:
                if first.end < second.begin and len(first.seen) > len(second.seen):
                    raise SimulationError("a later read saw less than an earlier one")
