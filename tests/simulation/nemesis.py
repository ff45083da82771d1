"""Which faults strike, and when; all drawn from the world's seed.

One server at a time crashes, stops, hangs or loses its disk, or all lose power; a lost disk is brought up to date
before the next fault, since the promise covers one lost disk at a time. Besides, at any time, clients are cut off from
some servers, the network splits in two, with some of the clients and servers on each side, and clients are stopped for
longer than their lease, and die between any two steps. So do the repairers.

Most faults are over before a request times out, so that it is answered late, or the next one is answered at once. Some
last longer: then the client decides without an answer, while the fault goes on.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from dfsfuse.errors import DfsError
from dfsfuse.log.procedures import ALL
from dfsfuse.log.reading import catch_up
from dfsfuse.log.repair import MapCopy, begin_copy, copy_page, look, pass_on
from dfsfuse.log.state import LogState
from dfsfuse.net.stalls import LOG_S

from .world import Host, World

LASTS = 0.2
"""Probability that a fault outlasts the requests that it delays."""


def repairer(world: World) -> Generator[Any, Any, None]:
    """Do what a mount's repairer does: find the end of the log, finish what is in doubt, bring laggards up to date."""
    log = LogState(b"repairer-%d" % world.random.getrandbits(32), world.quorum)
    try:
        yield from catch_up(log, recall=False)
    except DfsError:
        return
    positions = yield from look(log.known)
    best = max((position.applied for position in positions.values()), default=0)
    sources = [server for server in positions if positions[server].applied == best]
    for server in positions:
        if positions[server].applied < best:
            yield from bring_up_to_date(server, sources, world.random.randbytes(8))


def bring_up_to_date(server: int, sources: Sequence[int], copy_id: bytes) -> Generator[Any, Any, None]:
    """Bring a server up to date as a repairer does, without pauses between the pages of a copy."""
    passed = yield from pass_on(server, sources)
    if passed.trimmed:
        copy = yield from begin_copy(server, sources, copy_id)
        while isinstance(copy, MapCopy) and not copy.applied:
            if not (yield from copy_page(copy, sources)):
                return
        yield from pass_on(server, sources)


class Nemesis:
    """Injects faults until `until`. `faults` counts them."""

    def __init__(self, world: World, clients: Sequence[Host], until: float) -> None:
        self.world, self.until = world, until
        self.clients = clients
        self.faults: dict[str, int] = {}
        self._next()
        if until:
            self._next_for_clients()
            for host in clients[1:]:  # one always survives
                if world.random.random() < 0.25:
                    host.dies_after = world.random.randrange(300)

    def _note(self, kind: str, what: str) -> None:
        self.faults[kind] = self.faults.get(kind, 0) + 1
        self.world.note("nemesis", f"{kind} {what}")

    def _span_s(self, usual_s: float) -> float:
        """Return how long a fault lasts."""
        random = self.world.random
        return random.uniform(LOG_S, 3 * LOG_S) if random.random() < LASTS else random.uniform(0.01, usual_s)

    # -------------------------------------------------------------- servers

    def _next(self) -> None:
        self.world.after(self.world.random.uniform(0.05, 1.5), self._strike)

    def _strike(self) -> None:
        world = self.world
        if world.now >= self.until:
            return
        number = world.random.choice(ALL)
        server = world.servers[number]
        kind = world.random.choice(("crash", "crash", "stop", "hang", "wipe", "power"))
        self._note(kind, f"DFS{number}")
        forgotten = self._newest() if kind == "wipe" else 0
        if kind == "power":
            for each in world.servers.values():
                each.crash()
                each.up = each is not server
        elif kind == "stop":
            server.up = False
        elif kind == "hang":
            server.hangs = True
        else:
            server.crash()
            if kind == "wipe":
                server.wipe()
        world.after(self._span_s(2.0), self._return, number, forgotten)

    def _newest(self) -> int:
        """Return the last slot that any server has a batch for."""
        states = [server.disk.state for server in self.world.servers.values()]
        return max(state.applied + (state.tail is not None) for state in states)

    def _return(self, number: int, forgotten: int) -> None:
        self.world.note("nemesis", f"DFS{number} returns")
        self.world.servers[number].up = True
        self.world.servers[number].thaw()
        self._repair()
        self._healed_then_next(number, forgotten, 40)

    def _healed_then_next(self, number: int, forgotten: int, tries: int) -> None:
        """Wait until nothing depends on what this server forgot, up to the slot that was in doubt at that time."""
        if self.world.servers[number].disk.state.applied >= forgotten:
            self._next()
        elif tries:
            self._repair()
            self.world.after(0.3, self._healed_then_next, number, forgotten, tries - 1)

    def _repair(self) -> None:
        """Run often two mounts' repairers at once; now and then one dies at work."""
        for _ in range(self.world.random.choice((1, 1, 2))):
            host = self.world.start("repairer", repairer(self.world))
            if self.world.random.random() < 0.2:
                host.dies_after = self.world.random.randrange(20)

    # -------------------------------------------------------------- clients and the network

    def _next_for_clients(self) -> None:
        self.world.after(self.world.random.uniform(0.05, 2.0), self._strike_clients)

    def _strike_clients(self) -> None:
        world = self.world
        if world.now >= self.until:
            return
        self._next_for_clients()
        if world.random.random() < 0.4:
            host = world.random.choice(self.clients)
            pause_s = world.random.choice((0.1, 1.0, 3.0))
            host.stands_still_until = max(host.stands_still_until, world.now + pause_s)
            self._note("pause", f"{host.name} for {pause_s:g} s")
            return
        if world.random.random() < 0.3:
            self._split()
            return
        names = [host.name for host in self.clients if world.random.random() < 0.5]
        servers = world.random.sample(ALL, world.random.randint(1, 3))
        self._note("cut", f"{names} from {servers}")
        self._cut({(name, server) for name in names for server in servers}, self._span_s(3.0))

    def _split(self) -> None:
        """Separate some clients and one or two servers, which then show an old state, from the rest, which may go
        on."""
        random = self.world.random
        few = set(random.sample(ALL, random.randint(1, 2)))
        names = {"repairer", *(host.name for host in self.clients)}
        with_few = {name for name in sorted(names) if random.random() < 0.5}
        self._note("split", f"{sorted(with_few)} and {sorted(few)} from the others")
        cuts = {(name, server) for name in names for server in ALL if (name in with_few) != (server in few)}
        self._cut(cuts, random.uniform(0.01, 3 * LOG_S))

    def _cut(self, cuts: set[tuple[str, int]], seconds: float) -> None:
        cuts -= self.world.cuts
        self.world.cuts |= cuts
        self.world.after(seconds, self._mend, cuts)

    def _mend(self, cuts: set[tuple[str, int]]) -> None:
        self.world.note("nemesis", f"mends {sorted(cuts)}")
        self.world.cuts -= cuts
