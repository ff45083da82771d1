"""A client's view of a `Grid`: the interface of `dfsfuse.net.cluster.Cluster` and its exchanges, without a network.

The time at which a call will finish is fixed when it starts; `next` advances the virtual clock to the earliest of
them, or to its own timeout. A server does its work only at that moment, so an abandoned call has no effect, and a sink
is filled (and a payload read) only while the call is unfinished, as with the real cluster.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from threading import Lock
from types import TracebackType

from support.grid import FakeServer, Fault, Grid

from dfs_server.protocol.messages import Error, Reply, Request
from dfs_server.protocol.status import Status
from dfsfuse.net.exchange import Answer, Call, Failure
from dfsfuse.net.health.health import Health
from dfsfuse.net.health.slowness import LOOK_AGAIN_S, are_slow, is_waited_for
from dfsfuse.net.servers import ServerAddress

REFUSED_S = 0.0005


class FakeExchange:
    """See `dfsfuse.net.exchange.Exchange`."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self._grid = cluster.grid
        self._order = count()
        self._events: list[tuple[float, int, Call]] = []
        self._begun: dict[Call, float] = {}
        self._open = False
        self._handed_back: list[Answer | Failure] = []

    def hand_back(self, outcome: Answer | Failure) -> None:
        """Make `next` return this outcome first."""
        self._handed_back.append(outcome)

    def start(self, call: Call) -> None:
        assert self._open, "an exchange must be used within its `with` block"
        server = self._grid[call.server]
        self._cluster.started.append(call)
        delay_s = server.latency_s
        if server.fault is Fault.DOWN:
            delay_s = REFUSED_S
        elif server.fault is Fault.HANG:
            known = call.server not in self._cluster.usable()
            delay_s = REFUSED_S if known else call.stall_s
        self._begun[call] = self._grid.clock()
        heapq.heappush(self._events, (self._grid.clock() + delay_s, next(self._order), call))

    def next(self, timeout_s: float | None, at_least: int = 1) -> Answer | Failure | None:
        self._cluster.needed.append(at_least)
        if self._handed_back:
            return self._handed_back.pop()
        now = self._grid.clock()
        if not self._events:
            return None  # at once, as in the real one
        if timeout_s is not None and self._events[0][0] > now + timeout_s:
            self._grid.clock.wait_until(now + timeout_s)
            return None
        when, _, call = heapq.heappop(self._events)
        self._grid.clock.wait_until(when)
        if self._is_waited_for(call):
            self._cluster.excused_at = self._grid.clock()
            heapq.heappush(self._events, (self._grid.clock() + LOOK_AGAIN_S, next(self._order), call))
            return self.next(None if timeout_s is None else max(now + timeout_s - self._grid.clock(), 0.0))
        return self._finish(call)

    def _is_waited_for(self, call: Call) -> bool:
        """Decide as the real one does, but from this exchange alone."""
        now, server = self._grid.clock(), self._grid[call.server]
        owed = [self._begun[call], *(self._begun[other] for _, _, other in self._events)]
        servers = [call.server, *(other.server for _, _, other in self._events)]
        owed_since = {id: at for id, at in zip(servers, owed, strict=True) if self._is_silent(id)}
        is_patient = call.is_patient and self._is_silent(call.server) and server.dies_after != 0
        is_patient = is_patient and not self._cluster.is_hurried
        return is_patient and is_waited_for(self._begun[call], now) and are_slow(owed_since, now)

    def _is_silent(self, server: int) -> bool:
        return self._grid[server].fault is Fault.HANG and server in self._cluster.usable()

    def resume(self) -> None:
        pass

    def is_receiving(self, within_s: float) -> bool:
        return any(self._grid[call.server].trickles for _, _, call in self._events)

    def unfinished(self) -> int:
        return len(self._events) + len(self._handed_back)

    def abandon(self, call: Call) -> None:
        due = next((when for when, _, started in self._events if started is call), None)
        if due is not None and due <= self._grid.clock() and self._grid[call.server].fault is Fault.HANG:
            self._cluster.notice_down(call.server)  # as `Lines.borrow` finds that an answer is overdue
        self._events = [event for event in self._events if event[2] is not call]
        heapq.heapify(self._events)

    def __enter__(self) -> FakeExchange:
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._events.clear()

    def _finish(self, call: Call) -> Answer | Failure:
        server = self._grid[call.server]
        silence = _silence(server, call)
        if silence:
            self._cluster.notice_down(call.server)
            return Failure(call, None, f"{server.name}: {silence}", reason=silence)
        reply, payload = server.answer(call.request, b"".join(call.payload))
        if server.dies_after is not None:
            server.dies_after -= 1
        if isinstance(reply, Error):
            return Failure(call, Status(reply.status), reply.text)
        assert isinstance(reply, Reply)
        if payload:
            if call.sink is None or len(payload) > len(call.sink):
                return Failure(call, None, f"{server.name}: sent a payload that nobody asked for")
            call.sink[: len(payload)] = payload
        return Answer(call, reply, len(payload))


def _silence(server: FakeServer, call: Call) -> str:
    """Return why the server does not answer; empty if it does."""
    if server.dies_after == 0:
        server.dies_after = None
        server.fault = Fault.DOWN
        return "connection lost"
    if server.fault is Fault.DOWN:
        return "connection refused"
    if server.fault is Fault.HANG:
        return f"no byte moved for {call.stall_s} s"
    return ""


class FakeCluster:
    """See `dfsfuse.net.cluster.Cluster`. A server counts as up until a call to it gets no answer; from
    then on a hanging server costs nothing."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.names = {id: server.name for id, server in grid.servers.items()}
        self.started: list[Call] = []
        self.noted: list[tuple[int, str]] = []
        self.known_full: set[int] = set()
        self.needed: list[int] = []
        """How many answers its callers needed, each time that they waited for one."""
        self.health = Health(grid.servers, grid.clock, lambda: 0, Lock())
        self.while_waiting: Callable[[], None] = lambda: None
        self.excused_at = float("-inf")
        self.is_hurried = False

    def hurry(self, *, for_good: bool = False) -> None:
        self.is_hurried = True

    def are_slow(self) -> bool:
        return not self.is_hurried and self.grid.clock() - self.excused_at <= LOOK_AGAIN_S

    def notice_down(self, *servers: int) -> None:
        for server in servers:
            self.health.failed(server, f"{self.names[server]} is down", quick=False)

    def notice_up(self, *servers: int) -> None:
        for server in servers:
            self.health.answered(server)

    def comebacks(self) -> dict[int, int]:
        return self.health.comebacks()

    def usable(self) -> frozenset[int]:
        return self.health.usable

    def recheck(self) -> frozenset[int]:
        """No server comes back unnoticed here: the tests say when (`notice_up`)."""
        return self.usable()

    def full(self) -> frozenset[int]:
        return frozenset(self.known_full)

    def note_fault(self, server: int, what: str) -> None:
        self.noted.append((server, what))

    def wait_for_missing(self, wait_s: float) -> None:
        """Let time pass; `while_waiting` defines what happens meanwhile."""
        self.grid.clock.wait_until(self.grid.clock() + wait_s)
        self.while_waiting()

    def exchange(self, *, in_order: bool = False) -> FakeExchange:
        return FakeExchange(self)

    def ask_one(self, call: Call, patience_s: float) -> Answer | FakeExchange:
        """Like the real one, which leaves errors to an exchange too."""
        exchange = self.exchange().__enter__()
        exchange.start(call)
        outcome = exchange.next(patience_s)
        if isinstance(outcome, Answer):
            exchange.__exit__(None, None, None)
            return outcome
        if outcome is not None:
            exchange.hand_back(outcome)
        return exchange

    def ask(self, requests: Mapping[int, Request], *, stall_s: float) -> dict[int, Answer | Failure]:
        results: dict[int, Answer | Failure] = {}
        with self.exchange() as exchange:
            for server, request in requests.items():
                exchange.start(Call(server=server, request=request, stall_s=stall_s))
            while exchange.unfinished():
                result = exchange.next(None)
                assert result is not None
                results[result.call.server] = result
        return results

    @property
    def servers(self) -> tuple[ServerAddress, ...]:
        return tuple(ServerAddress(id, name, "127.0.0.1", 10000 + id) for id, name in self.names.items())

    def try_all(
        self, request: Request, servers: Iterable[int] | None = None, *, stall_s: float
    ) -> dict[int, Answer | Failure]:
        return self.ask(dict.fromkeys(self.names if servers is None else servers, request), stall_s=stall_s)

    def identities(self) -> dict[int, bytes]:
        return {id: server.identity for id, server in self.grid.servers.items() if id in self.usable()}

    def close(self) -> None:
        pass
