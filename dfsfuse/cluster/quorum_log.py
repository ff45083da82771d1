"""The namespace's log over real connections: drives the procedures of `log_protocol` and keeps the log tidy.

Threads: `QuorumLog` is used by one thread at a time (the caller's lock sees to that). The tender is a thread of its
own: when writing pauses it tells the servers that the last batch is chosen, so that others find nothing in doubt, and
it brings servers up to date that missed batches. It shares nothing with the caller but `LogState.known`, which is
replaced as a whole.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final

from dfs_server.protocol.messages import Items, Position, ReadKeys, ReadRange, Values
from dfsfuse.cluster.cluster import Cluster
from dfsfuse.cluster.exchange import Answer, Call, Exchange
from dfsfuse.cluster.log_protocol import START, Contents, LogState, News, catch_up, commit, read
from dfsfuse.cluster.log_repair import bring_up_to_date, settle
from dfsfuse.cluster.procedures import ALL, Ask, DeadlineError, Event, Pause, Procedure, R, Receive
from dfsfuse.cluster.proposer import QUORUM, Point
from dfsfuse.errors import DfsError, ReadOnlyError, UnavailableError

log = logging.getLogger(__name__)

STALL_S: Final = 3.0
"""A server that moves no byte for so long will not answer."""
SOFT_S: Final = 0.3
"""How long a silence is taken for a hanging server where it is possible to go on without it."""
DEADLINE_S: Final = 10.0
"""The longest that any procedure may take."""
SETTLE_AFTER_S: Final = 0.01
TEND_EVERY_S: Final = 1.0
TEND_IDLE_EVERY_S: Final = 5.0
"""How often the servers are looked at: while some are missing or behind, and while all is well."""
TEND_DEADLINE_S: Final = 60.0
PAUSE_S: Final = 0.004


class QuorumLog:
    """The log of the connected user's namespace. One thread at a time; see the module's docstring."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        client: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._time_ns = time_ns
        self._random = random.Random()
        self._state = LogState(client if client is not None else self._random.randbytes(8))
        self._next_reader = self._random.randrange(len(ALL))
        self._tender = Tender(cluster, self._random.randbytes(8), lambda: self._state.known, clock)

    @property
    def known(self) -> Point:
        """The last batch known to be chosen."""
        return self._state.known

    def writable(self) -> bool:
        """Whether as many servers as a batch needs are believed to answer. Asks nobody but those that are missing."""
        return len(self._cluster.usable()) >= QUORUM or len(self._cluster.recheck()) >= QUORUM

    def take_news(self) -> News:
        """What was learnt since this was last called."""
        news, self._state.news = self._state.news, News()
        return news

    def catch_up(self) -> bool:
        """`log_protocol.catch_up`: a linearizable look at the end of the log."""
        return self._run(catch_up(self._state))

    def commit(self, contents: Contents, conflicts: Callable[[News], bool]) -> bool:
        """`log_protocol.commit`: True when the batch is chosen, that is durable on three servers."""
        if not self.writable():
            usable = len(self._cluster.usable())
            raise ReadOnlyError(f"only {usable} of 4 servers answer, and three are needed to write")
        done = self._run(commit(self._state, contents, conflicts, self._time_ns()))
        self._tender.wake()
        return done

    def read_keys(self, keys: tuple[bytes, ...]) -> Values:
        """The values of `keys` at `known` or later (then `take_news` has the changes in between)."""
        reply = self._run(read(self._state, self._order(), lambda at: ReadKeys(at.slot, at.digest, keys)))
        assert isinstance(reply, Values)
        return reply

    def read_range(self, start: bytes, end: bytes, limit: int) -> Items:
        """A page of the items of a range, likewise."""
        reply = self._run(read(self._state, self._order(), lambda at: ReadRange(at.slot, at.digest, start, end, limit)))
        assert isinstance(reply, Items)
        return reply

    def start(self) -> None:
        """Start the tender."""
        self._tender.start()

    def close(self) -> None:
        """Tell the servers what is chosen, and stop the tender."""
        self._tender.close()

    def _order(self) -> tuple[int, ...]:
        """The servers to read from: usable ones first, each in its turn."""
        self._next_reader += 1
        turn = [ALL[(self._next_reader + i) % len(ALL)] for i in range(len(ALL))]
        usable = self._cluster.usable()
        return tuple(sorted(turn, key=lambda server: server not in usable))

    def _run(self, procedure: Procedure[R]) -> R:
        try:
            deadline = self._clock() + DEADLINE_S
            return drive(procedure, self._cluster, deadline, self._clock, self._pause, in_order=True)
        except DeadlineError as error:
            raise UnavailableError(f"the servers did not agree within {DEADLINE_S:g} s: {error}") from error

    def _pause(self, attempt: int) -> None:
        time.sleep(self._random.random() * PAUSE_S * min(attempt, 16))


def drive(
    procedure: Procedure[R],
    cluster: Cluster,
    deadline: float,
    clock: Callable[[], float],
    pause: Callable[[int], None],
    *,
    in_order: bool = False,
) -> R:
    """Carry out a procedure over the cluster's connections. Throws DeadlineError into it when its time is over.

    `in_order`: a server gets its requests one behind the other, also those of an earlier procedure. (An accept that
    overtakes the one before it finds its server behind.)
    """
    with cluster.exchange() as exchange:
        round_ = _OpenRound(exchange, in_order)
        try:
            step = next(procedure)
            while True:
                if clock() >= deadline:
                    step = procedure.throw(DeadlineError("its time is over"))
                    continue
                event: Event | None = None
                match step:
                    case Ask():
                        round_.begin(step)
                    case Receive(soft):
                        event = round_.receive(deadline - clock(), soft=soft)
                    case Pause(attempt):
                        pause(attempt)
                step = procedure.send(event)
        except StopIteration as stop:
            result: R = stop.value
            return result


class _OpenRound:
    """The calls of the current round."""

    def __init__(self, exchange: Exchange, in_order: bool) -> None:
        self._exchange = exchange
        self._in_order = in_order
        self._calls: set[Call] = set()

    def begin(self, ask: Ask) -> None:
        for call in self._calls:
            self._exchange.abandon(call)
        self._calls = {
            Call(server, request, stall_s=STALL_S, in_order=self._in_order) for server, request in ask.requests.items()
        }
        for call in self._calls:
            self._exchange.start(call)

    def receive(self, timeout_s: float, *, soft: bool) -> Event | None:
        """The next event of this round; None after a short silence, if `soft`.

        If the time is over first, the round's servers count as silent.
        """
        wait_s = min(timeout_s, SOFT_S) if soft else timeout_s
        outcome = self._exchange.next(max(wait_s, 0.0)) if self._calls else None
        if outcome is None:
            if soft and self._calls:
                return None
            server = self._calls.pop().server if self._calls else 0
            return Event(server, None, "no answer in time")
        self._calls.discard(outcome.call)
        if isinstance(outcome, Answer):
            return Event(outcome.call.server, outcome.reply)
        return Event(outcome.call.server, None, outcome.text, outcome.status)


class Tender:
    """Keeps the log tidy in the background: settles the last batch, finishes what a dead writer left in doubt, and
    brings servers up to date."""

    def __init__(self, cluster: Cluster, client: bytes, known: Callable[[], Point], clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._known = known
        self._clock = clock
        self._log = LogState(client)
        """Its own view of the log: in doubt, it leads for a moment under its own name."""
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._settled = START
        self._doubt = b""
        """The batch that was in doubt when last looked at."""
        self._tended: frozenset[int] = frozenset()
        """Servers that were up to date when last looked at; the others are looked at again and again."""
        self._thread = threading.Thread(target=self._loop, name="log-tender", daemon=True)

    def start(self) -> None:
        """Begin to tend."""
        self._thread.start()

    def wake(self) -> None:
        """Something was committed."""
        self._wake.set()

    def close(self) -> None:
        """Settle what is not, and end."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._settled != self._known():
            self._tend()

    def _loop(self) -> None:
        while not self._stop.is_set():
            idle = len(self._tended) == len(ALL) and self._settled == self._known()
            woken = self._wake.wait(TEND_IDLE_EVERY_S if idle else TEND_EVERY_S)
            # A steady writer settles each batch with the next one: wait until there is none for a moment.
            until = self._clock() + TEND_EVERY_S
            while woken and not self._stop.is_set() and self._clock() < until:
                self._wake.clear()
                woken = self._wake.wait(SETTLE_AFTER_S)
            if not self._stop.is_set():
                self._tend()

    def _tend(self) -> None:
        known = self._known()
        try:
            positions = self._drive(settle(known))
            self._settled = known
            self._finish_doubt(positions)
            self._tended = frozenset(self._bring_up_to_date(positions))
        except (DfsError, DeadlineError) as error:
            log.debug("tending the log: %s", error)

    def _finish_doubt(self, positions: dict[int, Position]) -> None:
        """A batch that is still in doubt when looked at again has lost its writer: finish it, so that it does not
        depend on the memory of two servers only."""
        tails = {position.tail_digest for position in positions.values() if position.tail_digest}
        if self._doubt in tails:
            self._drive(catch_up(self._log))
            self._drive(settle(self._log.known))
        self._doubt = min(tails, default=b"")

    def _bring_up_to_date(self, positions: dict[int, Position]) -> set[int]:
        best = max((position.applied for position in positions.values()), default=0)
        current = {server for server, position in positions.items() if position.applied == best}
        for server in positions.keys() - current:
            name = self._cluster.names[server]
            missing = best - positions[server].applied
            if self._drive(bring_up_to_date(server, min(current), self._log.next_copy())) >= best:
                current.add(server)
                log.log(
                    logging.INFO if missing > 1 else logging.DEBUG, "%s got %d batches that it missed", name, missing
                )
        return current

    def _drive(self, procedure: Procedure[R]) -> R:
        return drive(procedure, self._cluster, self._clock() + TEND_DEADLINE_S, self._clock, lambda _: None)
