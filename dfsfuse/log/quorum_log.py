"""The namespace's log over real connections: drives the procedures of `reading` and `writing`.

Threads: used by one thread at a time, which the caller's lock ensures; except for `read_beside`, which any may call.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from dfs_server.protocol import batches
from dfs_server.protocol.limits import QUORUM
from dfs_server.protocol.messages import Items, ReadKeys, ReadRange, Values
from dfsfuse.errors import ReadOnlyError, UnavailableError, too_few_to_write
from dfsfuse.log.driving import ANY_SIZE, drive, usual
from dfsfuse.log.procedures import ALL, DeadlineError, Procedure, R
from dfsfuse.log.proposer import Point
from dfsfuse.log.reading import catch_up, read
from dfsfuse.log.repair import settle
from dfsfuse.log.rounds import learn_from
from dfsfuse.log.state import Contents, LogState, News
from dfsfuse.log.writing import commit, try_to_lead
from dfsfuse.net.cluster import Cluster
from dfsfuse.net.exchange import Answer, Call, Exchange, Failure
from dfsfuse.net.stalls import LOG_S

DEADLINE_S: Final = 10.0
"""The longest that any procedure may take."""
PAUSE_S: Final = 0.004
PAUSE_GROWTHS: Final = 4
"""Pauses grow to at most this multiple: a client that waits for another one's turn to end must not sleep through its
own."""


class QuorumLog:
    """The log of the connected user's namespace. One thread at a time."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        client: bytes | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        time_ns: Callable[[], int] = time.time_ns,
        on_lag: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_lag` is called when a server is seen to be behind, on the thread that uses the log. It must not wait."""
        self._cluster = cluster
        self._clock = clock or time.monotonic
        self._sleep = sleep
        self._time_ns = time_ns
        self._random = random.Random()
        self.state = LogState(client if client is not None else self._random.randbytes(8), spared=cluster.health.log)
        """What the procedures know and learn about the log: read it between them."""
        self._pace = usual(cluster)
        self._next_reader = self._random.randrange(len(ALL))
        self._on_lag = on_lag

    @property
    def client(self) -> bytes:
        """Return the author id of our batches."""
        return self.state.client

    @property
    def known(self) -> Point:
        """Return the last batch known to be chosen."""
        return self.state.known

    def writable(self) -> bool:
        """Return whether as many servers as a batch needs are believed to answer. Only missing servers are asked."""
        return len(self._cluster.usable()) >= QUORUM or len(self._cluster.recheck()) >= QUORUM

    @property
    def excused_ago_s(self) -> float:
        """Return how long ago the servers were last slow together, or this process stood still (`slowness`)."""
        return self._clock() - self._cluster.excused_at

    def take_news(self) -> News:
        """Return what was learnt since the last call."""
        return self.state.take_news()

    def catch_up(self, *, recall: bool = True) -> bool:
        """`reading.catch_up`: a linearizable look at the end of the log. Without `recall`, what another client has
        answered in the last few milliseconds may be missing."""
        return self._run(catch_up(self.state, recall=recall))

    def catch_up_and_read(self, request: ReadKeys | ReadRange, *, recall: bool) -> tuple[bool, Values | Items | None]:
        """`catch_up`, and a server's reply to a request sent along; None if that does not come as soon."""
        server = self._order()[0]
        with self._cluster.exchange() as exchange:
            exchange.start(self._call(server, request))
            is_newest = self.catch_up(recall=recall)
            exchange.resume()
            outcome = self._only_outcome(exchange, self._pace.patience_s(ANY_SIZE))
        return is_newest, self._reply_of(server, outcome)

    @property
    def witnesses(self) -> frozenset[int]:
        """After a `catch_up` that returned False: return the servers that show all that was acknowledged, provided that
        their folders have forgotten nothing; none if what they show may be an old state."""
        return self.state.witnesses

    def commit(self, contents: Contents, conflicts: Callable[[News], bool]) -> bool:
        """`writing.commit`: True when the batch is chosen, that is durable on three servers."""
        if not self.writable():
            raise ReadOnlyError(too_few_to_write(len(self._cluster.usable())))
        return self._run(commit(self.state, contents, conflicts, self._time_ns()))

    def lead(self) -> None:
        """`writing.try_to_lead`, unless this client leads already. Afterwards it is decided, and part of the news,
        which of its batches in doubt have been made: the others never will be. Raises UnavailableError, NoSpaceError if
        that cannot be decided now."""
        if not self.writable():
            raise ReadOnlyError("too few servers answer to find out whether a change was made")
        if self.state.ballot is None and not self._run(try_to_lead(self.state)):
            raise UnavailableError("another client is writing")

    def settle(self) -> None:
        """Tell the servers, as writing pauses, that the last batch is chosen, and release the lease."""
        state = self.state
        positions = self._run(settle(state.known, state.spared, state.client, enough=state.quorum))
        if any(position.applied < self.state.known.slot for position in positions.values()):
            self._on_lag()

    def read_keys(self, keys: tuple[bytes, ...]) -> Values:
        """Return the values of `keys` at `known` or later (then `take_news` has the changes in between)."""
        reply = self._run(read(self.state, self._order(), lambda at: ReadKeys(at.slot, at.digest, keys)))
        assert isinstance(reply, Values)
        return reply

    def read_range(self, start: bytes, end: bytes, limit: int, join: bytes = b"", join_key: bytes = b"") -> Items:
        """Return a page of the items of a range, likewise. `join`, `join_key`: see `ReadRange`."""

        def request(at: Point) -> ReadRange:
            return ReadRange(at.slot, at.digest, start, end, limit, join, join_key)

        reply = self._run(read(self.state, self._order(), request))
        assert isinstance(reply, Items)
        return reply

    def read_beside(self, request: ReadKeys | ReadRange) -> Values | Items | None:
        """Return a server's reply to this; None if none replies soon: then it must be asked with the log. May be called
        by any thread, at any time."""
        for server in self._order():
            patience_s = self._pace.patience_s(ANY_SIZE)
            until = self._clock() + patience_s
            found = self._cluster.ask_one(self._call(server, request), patience_s)
            if isinstance(found, Answer):
                outcome: Answer | Failure | None = found
            else:
                with found:
                    outcome = self._only_outcome(found, max(until - self._clock(), 0.0))
            reply = self._reply_of(server, outcome)
            if reply is not None or outcome is None:
                return reply
        return None

    def _only_outcome(self, exchange: Exchange, wait_s: float) -> Answer | Failure | None:
        """Return the outcome of an exchange's only call; None after this much silence. Silence means that no part of
        an answer arrives: a page takes long over a slow link, and would take as long again from another server."""
        outcome = exchange.next(wait_s)
        patience_s = self._pace.patience_s(ANY_SIZE)
        while outcome is None and exchange.is_receiving(patience_s):
            outcome = exchange.next(patience_s)
        return outcome

    def _reply_of(self, server: int, outcome: Answer | Failure | None) -> Values | Items | None:
        """Return the server's reply, if it has sent one. A silent server is spared for a while."""
        if outcome is None:
            self.state.spared.lagged((server,))
        reply = outcome.reply if isinstance(outcome, Answer) else None
        return reply if isinstance(reply, Values | Items) else None

    def learn_until(self, slot: int) -> None:
        """Learn what other clients have changed up to this slot, which a server has applied, if one still knows."""
        if self.state.known.slot:
            self._run(learn_from(self.state, self._order(), Point(slot, batches.NO_BATCH)))

    def want_lease(self) -> None:
        """From now on, ask for the writer lease with each batch; `settle` releases it."""
        self.state.wants_lease = True

    def is_stalled(self) -> bool:
        """Return whether servers are slow together just now (`slowness`). Never waits."""
        return self._cluster.are_slow()

    def hurry(self) -> None:
        """From now on do not wait for slow servers (`Cluster.hurry`). Never waits."""
        self._cluster.hurry(for_good=True)

    def _order(self) -> tuple[int, ...]:
        """Return the servers in the order to read from: usable ones first, in rotation."""
        self._next_reader += 1
        turn = [ALL[(self._next_reader + i) % len(ALL)] for i in range(len(ALL))]
        usable, spared = self._cluster.usable(), self.state.spared.now()
        return tuple(sorted(turn, key=lambda server: server not in usable or server in spared))

    @staticmethod
    def _call(server: int, request: ReadKeys | ReadRange) -> Call:
        return Call(server, request, stall_s=LOG_S, is_patient=True)

    def _run(self, procedure: Procedure[R]) -> R:
        deadline = self._clock() + DEADLINE_S
        try:
            return drive(
                procedure,
                self._cluster,
                deadline,
                self._clock,
                self._pause,
                in_order=True,
                pace=self._pace,
            )
        except DeadlineError as error:
            raise UnavailableError(f"the servers did not agree within {DEADLINE_S:g} s: {error}") from error

    def _pause(self, attempt: int) -> None:
        self._sleep(self._random.random() * PAUSE_S * min(attempt, PAUSE_GROWTHS))
