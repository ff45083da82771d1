"""Two clients copy the map to one server at once: late messages of one copy must not get into the other.

The messages are delivered by hand, in the one order that shows the fault: a page of the first copy is in flight while
the keys in it are changed and, after a while, the second copy begins; it arrives just before the second copy ends. The
counts are right then, so only the copy's id distinguishes the page from one of the second copy.
"""

from __future__ import annotations

from typing import Any

import pytest

from dfs_server.protocol.messages import CopyItems, EndCopy, Error, Reply, Request
from dfs_server.store.copy_turn import COPY_RESTS_S
from dfsfuse.log.procedures import Ask, Event, Procedure, Receive
from dfsfuse.log.reading import catch_up
from dfsfuse.log.repair import settle
from dfsfuse.log.state import Contents, LogState
from dfsfuse.log.writing import commit

from .nemesis import bring_up_to_date
from .scenario import heal
from .world import SimulationError, World

EMPTY = 4
"""The server that has lost its disk and gets a copy of the map."""


class Hand:
    """A procedure whose messages arrive when the test decides."""

    def __init__(self, world: World, procedure: Procedure[Any]) -> None:
        self._world, self._procedure = world, procedure
        self._inbox: list[Event] = []
        self.held: dict[int, Request] = {}
        """Requests in flight, by server."""
        self.is_over = False

    def run(self, until: type[Request] | None = None) -> None:
        """Deliver each message at once, up to the first of this kind, which is held back."""
        answer: Event | None = None
        if self.held:
            held, self.held = self.held, {}
            self._deliver(held)
        try:
            while True:
                match self._procedure.send(answer):
                    case Ask(requests):
                        answer = None
                        if any(isinstance(request, until or ()) for request in requests.values()):
                            self.held = dict(requests)
                            return
                        self._inbox.clear()
                        self._deliver(requests)
                    case Receive():
                        answer = self._inbox.pop(0)
                    case _:
                        answer = None
        except StopIteration:
            self.is_over = True

    def _deliver(self, requests: dict[int, Request]) -> None:
        self._inbox += [
            _event(server, self._world.servers[server].handle(request)) for server, request in requests.items()
        ]


def _event(server: int, reply: Reply | Error) -> Event:
    return Event(server, None, reply.text, reply.status) if isinstance(reply, Error) else Event(server, reply)


def change(world: World, log: LogState, **values: bytes) -> None:
    """Commit another batch, which all servers know to be chosen."""
    contents = Contents(puts=tuple((key.encode(), value) for key, value in values.items()))
    Hand(world, commit(log, contents, lambda _: False, 0)).run()
    Hand(world, settle(log.known, log.spared)).run()


def copy_twice(broken: frozenset[str]) -> World:
    """See the module. Returns the world when both copies are finished."""
    world = World(1, loss=0.0, double=0.0, broken=broken)
    log = LogState(b"writer", world.quorum)
    Hand(world, catch_up(log)).run()
    for number in range(20):
        change(world, log, **{f"k{number % 5}": b"old-%d" % number})
    world.servers[EMPTY].crash()
    world.servers[EMPTY].wipe()
    first = Hand(world, bring_up_to_date(EMPTY, (1,), b"first"))
    first.run(until=CopyItems)
    assert first.held, "the log still has all batches, so no copy was needed"
    change(world, log, k0=b"new")
    world.run(world.now + 2 * COPY_RESTS_S)
    second = Hand(world, bring_up_to_date(EMPTY, (1,), b"second"))
    second.run(until=EndCopy)
    assert second.held
    first.run()
    second.run()
    assert first.is_over and second.is_over
    return world


def test_a_page_of_another_copy_is_refused() -> None:
    world = copy_twice(frozenset())
    heal(world)
    assert world.servers[EMPTY].disk.map[b"k0"] == b"new"
    assert world.servers[EMPTY].disk.state.applied == world.servers[1].disk.state.applied


def test_copies_that_mix_are_caught() -> None:
    """The check can fail: here the server takes any page for one of the current copy."""
    with pytest.raises(SimulationError, match="different maps"):
        heal(copy_twice(frozenset({"copies"})))
