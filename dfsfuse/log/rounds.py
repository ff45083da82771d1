"""What reading and writing the log share: a round of requests to all servers, and learning what others changed.

Pure: procedures (`dfsfuse.log.procedures`), which the same code drives over real connections and in the simulation.

A server that hangs costs one short wait: where the others are enough, it is given up and remembered in
`LogState.spared`. Only if there is no quorum without it, it is waited for until it counts as stalled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from dfs_server.protocol.messages import Changes, GetChanges, Reply, Request
from dfs_server.protocol.status import Status
from dfsfuse.log.procedures import ALL, RECEIVE, RECEIVE_SOFT, Ask, Event, Procedure
from dfsfuse.log.proposer import Pending, Point
from dfsfuse.log.state import LogState

MAX_GAP: Final = 2000
"""A reader that is further behind than this forgets what it knew instead of learning each change."""


class _Round(Protocol):
    waiting: set[int]

    def fail(self, server: int) -> None: ...
    def receive(self, server: int, reply: Reply) -> None: ...
    def could_decide(self) -> bool: ...
    def needs_all(self) -> bool: ...
    def give_up_waiting(self) -> None: ...


Rnd = TypeVar("Rnd", bound=_Round)
V = TypeVar("V")


def gather(log: LogState, round_: _Round, verdict: Callable[[], V | Pending], request: Request) -> Procedure[V]:
    """Send `request` to all servers and feed the replies to the round until it has a verdict."""
    round_.waiting.update(ALL)
    yield Ask(dict.fromkeys(ALL, request))
    while isinstance(found := verdict(), Pending):
        dispensable = round_.could_decide()
        if dispensable and not round_.needs_all() and round_.waiting <= log.spared.now():
            round_.give_up_waiting()
            continue
        event = yield RECEIVE_SOFT if dispensable else RECEIVE
        if event is None:
            log.spared.lagged(round_.waiting)
            round_.give_up_waiting()
            continue
        if event.is_answer:
            log.spared.answered(event.server)
        if event.status == Status.NO_SPACE:
            log.full.add(event.server)
        else:
            log.full.discard(event.server)
        if event.reply is None:
            round_.fail(event.server)
        else:
            round_.receive(event.server, event.reply)
    return found


def first_of(log: LogState, servers: Sequence[int], request: Request) -> Procedure[Event]:
    """Return the first answer, whatever it is. The next server is asked too when those before it are silent."""
    for index, server in enumerate(servers):
        yield Ask({server: request}, also=index > 0)
        event = yield RECEIVE_SOFT if server != servers[-1] else RECEIVE
        if event is not None:
            if event.is_answer:
                log.spared.answered(event.server)
            return event
        log.spared.lagged((server,))
    raise AssertionError("unreachable: the last one is waited for")


def follow(log: LogState, point: Point, holders: frozenset[int]) -> Procedure[None]:
    """Learn the changes up to `point`, which is chosen, from servers that have it."""
    if log.known.slot >= point.slot:
        return
    if log.known.slot == 0 or point.slot - log.known.slot > MAX_GAP:
        log.jump(point)
        return
    spared = log.spared.now()
    order = sorted(holders, key=lambda server: (server in spared, server))
    if not (yield from learn_from(log, order, point)):
        log.jump(point)


def learn_from(log: LogState, servers: Sequence[int], point: Point) -> Procedure[bool]:
    """Learn the changes up to `point` from these servers, asked in this order. Returns False if none of them knows
    them.

    They are waited for, however slow: to give up and forget would lose track of an own batch that is in doubt.
    """
    left = list(servers)
    while log.known.slot < point.slot:
        if not left:
            return False
        event = yield from first_of(log, left, GetChanges(log.known.slot, point.slot, point.digest))
        if not isinstance(event.reply, Changes) or not event.reply.changes:
            left.remove(event.server)  # it does not know all of them, or not now
            continue
        for change in event.reply.changes:
            # Not beyond `point`: what the caller has read is of that slot.
            if log.known.slot + 1 == change.slot <= point.slot:
                log.learnt(change)
    return True
