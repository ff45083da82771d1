"""Carries out procedures (`dfsfuse.log.procedures`) over the cluster's connections, in the caller's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dfs_server.protocol.limits import QUORUM
from dfsfuse.log.procedures import ALL, Ask, Await, DeadlineError, Event, Pause, Procedure, R, Receive
from dfsfuse.net.cluster import Cluster
from dfsfuse.net.exchange import Answer, Call, Exchange
from dfsfuse.net.health.pace import Pace
from dfsfuse.net.stalls import LOG_S

SOFT_S: Final = 0.3
"""After this much silence a server is considered hanging where it is possible to go on without it. Longer if answers
usually take long (`Pace`)."""
ANY_SIZE: Final = 1
"""For pacing, all log requests are alike."""

AWAIT_S: Final = 0.1
"""The first wait for a missing server; each further one is twice as long."""


def usual(cluster: Cluster) -> Pace:
    """Return how long this client's servers usually take to answer log requests; it learns from each answer."""
    return cluster.health.pace("log", SOFT_S)


def drive(
    procedure: Procedure[R],
    cluster: Cluster,
    deadline: float,
    clock: Callable[[], float],
    pause: Callable[[int], None],
    *,
    in_order: bool = False,
    pace: Pace | None = None,
) -> R:
    """Carry out a procedure over the cluster's connections. Throws DeadlineError into it when its time is up.

    Time during which the servers were slow together, or this process stood still, does not count (`slowness`).
    `in_order`: a server gets its requests one after another, including those of an earlier procedure. (An accept that
    overtakes the one before it finds its server behind.) `pace`: what `usual` gave, if it was asked before.
    """
    pace = pace or usual(cluster)
    length_s = deadline - clock()
    with cluster.exchange(in_order=in_order) as exchange:
        round_ = _OpenRound(cluster, exchange, pace, clock)
        try:
            step = next(procedure)
            while True:
                deadline = max(deadline, cluster.excused_at + length_s)
                if clock() >= deadline:
                    step = procedure.throw(DeadlineError("its time is over"))
                    continue
                event: Event | None = None
                match step:
                    case Ask():
                        round_.begin(step)
                    case Receive(soft):
                        event = round_.receive(deadline, soft=soft)
                    case Pause(attempt):
                        pause(attempt)
                    case Await(attempt):
                        cluster.wait_for_missing(AWAIT_S * 2 ** (attempt - 1))
                step = procedure.send(event)
        except StopIteration as stop:
            result: R = stop.value
            return result


class _OpenRound:
    """The calls of the current round."""

    def __init__(self, cluster: Cluster, exchange: Exchange, pace: Pace, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._exchange = exchange
        self._pace = pace
        self._clock = clock
        self._calls: dict[Call, float] = {}  # and when each was begun
        self._lacking = 1
        """How many more answers it takes, as a rule, until the procedure can decide anything."""

    def begin(self, ask: Ask) -> None:
        if not ask.also:
            for call in self._calls:
                self._exchange.abandon(call)
            self._calls.clear()
            self._lacking = QUORUM if len(ask.requests) == len(ALL) else 1
        now = self._clock()
        for server, request in ask.requests.items():
            call = Call(server, request, stall_s=LOG_S, is_patient=True)
            self._calls[call] = now
            self._exchange.start(call)

    def receive(self, deadline: float, *, soft: bool) -> Event | None:
        """Return the next event of this round; None after a short silence, if `soft`.

        If the time is up first, the round's servers count as silent; unless they are slow together.
        """
        outcome = None
        while self._calls:
            begun = self._clock()
            timeout_s = max(deadline - begun, 0.0)
            patience_s = self._pace.patience_s(ANY_SIZE) if soft else timeout_s
            outcome = self._exchange.next(min(timeout_s, patience_s), 1 if soft else self._lacking)
            if soft and outcome is None and timeout_s and self._exchange.is_receiving(patience_s):
                continue  # a large answer over a slow link: not silent, and another server would be no faster
            if outcome is not None or soft or self._cluster.excused_at < begun:
                break
            deadline = self._clock() + timeout_s
        if outcome is None:
            if soft and self._calls:
                return None
            server = self._calls.popitem()[0].server if self._calls else 0
            return Event(server, None, "no answer in time")
        begun = self._calls.pop(outcome.call)
        self._lacking = max(self._lacking - 1, 1)
        if isinstance(outcome, Answer):
            self._pace.note(ANY_SIZE, self._clock() - begun, outcome.call.server)
            return Event(outcome.call.server, outcome.reply)
        return Event(outcome.call.server, None, outcome.text, outcome.status)
