"""Requests to several servers in parallel, driven by the thread that waits for them. It has no thread of its own.

    with cluster.exchange() as exchange:
        for server in (1, 2, 3, 4):
            exchange.start(Call(server, request, stall_s=1.0))
        while (outcome := exchange.next(timeout_s=None)) is not None:
            ...

What one server does, or fails to do, never delays the others' answers. A server's failure is a value, to be counted by
quorums; only a server that rejects the user is an exception, since nothing more may be done then.

Knows calls, deadlines and poll; knows nothing of frames (`connection`), nor of which servers are up and which
connections are idle (`lines`). For one thread only.

Calls to one server run in parallel, each over a connection borrowed for it. Not so `in_order`, as the log needs it:
each server has one connection, and a call is sent after all earlier ones, even those of earlier exchanges whose answers
nothing waits for any more. These connections stay registered (`OrderedLines`), and are not checked first for being
still alive: if they are not, the call is sent again over a new one.

Whoever needs several answers before he can decide anything (`at_least`) is not woken for each: of `n` calls in flight
it is enough to wait for `n - at_least + 1`, since one of these is among any `at_least` that are answered. They are the
ones that answered last the time before, so that the others have answered as well by then.

Invariants:
- Every call that is started is finished exactly once: an outcome of `next`, or an exception of it, or abandoned.
- A call's buffers belong to it until it is finished; from then on no connection refers to them.
- Nothing waits forever: without a byte moved a call ends after its `stall_s`, if it `is_patient` and the servers are
  slow together at the latest after `SLOW_S` (`slowness`), with bytes trickling after `LONGEST_CALL_S`.
"""

from __future__ import annotations

import select
from collections import deque
from math import ceil
from types import TracebackType
from typing import Final

from dfs_server.protocol import messages
from dfs_server.protocol.frames import ProtocolError
from dfs_server.protocol.messages import Reply, Request
from dfs_server.protocol.status import Status
from dfsfuse.errors import AuthenticationError, DfsError
from dfsfuse.net import meanwhile
from dfsfuse.net.calls import Answer, Call, Failure, failure_of, is_full, outcome_of
from dfsfuse.net.connection import Connection
from dfsfuse.net.handshake import RefusalError
from dfsfuse.net.health.slowness import LOOK_AGAIN_S, is_waited_for, stood_still_s
from dfsfuse.net.lines import AUTHENTICATION_S, OWED_S, Lines
from dfsfuse.net.ordered_lines import register

__all__ = ["Answer", "Call", "Exchange", "Failure"]

LONGEST_CALL_S: Final = 60.0
PARTLY_S: Final = 0.02
"""How long at most only some of the calls are waited for. If it is these that hang, what the others say may matter
after all."""
MAX_CALLS_PER_SERVER: Final = 8
"""Calls to one server beyond these wait in the exchange until one of them is finished."""

_HARMLESS: Final = (Status.BUSY, Status.BAD_REQUEST)
"""Sent instead of a greeting, these do not mean that the server is down."""
_LAST_WORDS: Final = (Status.BUSY, Status.BAD_REQUEST, Status.UNAUTHENTICATED, Status.AUTHENTICATION_FAILED)
"""The server closes the connection after these."""
_LINE_ERRORS: Final = (OSError, ProtocolError, RefusalError, DfsError)


class _Flight:
    """A call in flight on its connection."""

    __slots__ = (
        "attempts", "body", "call", "connection", "deadline", "ends_at", "greeting_s", "moved_at", "reused",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        body: bytes,
        connection: Connection,
        reused: bool,
        attempts: int,
        greeting_s: float,
        now: float,
    ) -> None:
        self.call = call
        self.body = body
        self.connection = connection
        self.reused = reused  # the connection was idle before: its loss may be old news
        self.attempts = attempts
        self.greeting_s = greeting_s
        self.ends_at = now + LONGEST_CALL_S
        self.moved(now)
        if reused and (connection.owed or not connection.ready):
            self.moved_at = connection.silent_since() or now  # what it owes already counts

    def moved(self, now: float) -> None:
        """Record that something happened: the deadline moves on, but not beyond the end."""
        connection = self.connection
        self.moved_at = now
        ends_at = self.ends_at if connection.ready else min(self.ends_at, connection.opened_at + self.greeting_s)
        self.deadline = min(now + self.call.stall_s, ends_at)


class Exchange:
    """See the module. A context manager; leaving it abandons what is unfinished."""

    def __init__(
        self, lines: Lines, *, in_order: bool = False, trial: bool = False, greeting_s: float = AUTHENTICATION_S
    ) -> None:
        """`in_order`: see the module. `trial`: servers that are down are asked nevertheless (the caller has claimed the
        trial), and one that rejects the user is a `Failure` like any other. `greeting_s`: how soon a new connection
        must be authenticated.
        """
        self._lines = lines
        self._health = lines.health
        self._greeting_s = greeting_s
        self._trial = trial
        self._clock = lines.clock
        self._ordered = lines.take_ordered() if in_order else None
        self._poll = self._ordered.poll if self._ordered else select.poll()
        self._most_calls = 1 if in_order else MAX_CALLS_PER_SERVER
        self._flights: dict[int, _Flight] = {}  # by file descriptor
        self._flying = dict.fromkeys(lines.servers, 0)
        self._waiting: deque[Call] = deque()  # for one of their server's other calls to finish
        self._finished: deque[Answer | Failure] = deque()
        self._encoded: tuple[Request | None, bytes] = (None, b"")  # the last one: it often goes to four servers
        self._looked_at = self._clock()
        self._slow_at = float("-inf")  # when servers were last seen here to be slow together

    def __enter__(self) -> Exchange:
        self._lines.exchanges.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lines.exchanges.discard(self)
        self._waiting.clear()
        # It is unknown what an interrupted step has done to a connection: it cannot be used again.
        is_interrupted = error is not None and not isinstance(error, Exception)
        for flight in list(self._flights.values()):
            self._let_go(flight, close=is_interrupted)
        self._finished.clear()
        if self._ordered is not None:
            if is_interrupted:
                self._ordered.close()
            self._lines.put_back(self._ordered)

    # ------------------------------------------------------------------ for the caller

    def start(self, call: Call) -> None:
        """Send the call. Never blocks; what goes wrong is an outcome of `next`."""
        if self._flying[call.server] >= self._most_calls:
            self._waiting.append(call)
            return
        if call.server not in self._health.usable and not self._trial:
            refusal = self._health.refusal(call.server)
            if refusal is not None:
                self._finished.append(Failure(call, None, refusal))
                return
        if self._encoded[0] is not call.request:
            self._encoded = call.request, messages.encode(call.request)
        self._fly(call, self._encoded[1], reuse=True, attempts=1)

    def next(self, timeout_s: float | None, at_least: int = 1) -> Answer | Failure | None:
        """Return the next finished call; None if there is none within `timeout_s`, or nothing is in flight. `at_least`:
        how many answers the caller needs, this one included; for calls in order.

        Raises `AuthenticationError` in place of the outcome of a call to a server that rejects the user.
        """
        finished = self._finished
        until = None if timeout_s is None or finished else self._clock() + timeout_s
        while not finished:
            if not self._flights:
                return None
            self._drive(until, at_least)
            at_least = 1
            if not finished and until is not None and self._clock() >= until:
                return None
        outcome = finished.popleft()
        if isinstance(outcome, Failure) and isinstance(outcome.error, AuthenticationError) and not self._trial:
            raise outcome.error
        return outcome

    def go_on(self, call: Call, connection: Connection, reply: Reply | None) -> None:
        """Take over a call that was begun on an idle connection (`single`). `reply`: its reply, if it has come."""
        body = messages.encode(call.request)
        flight = _Flight(call, body, connection, True, 1, self._greeting_s, self._clock())
        self._flights[connection.fd] = flight
        self._flying[call.server] += 1
        register(self._poll, connection)
        if reply is not None:
            self._landed(flight, reply)

    def resume(self) -> None:
        """Go on after the thread was busy elsewhere: it did not look here, but this process did not stand still."""
        self._looked_at = self._clock()

    def is_receiving(self, within_s: float) -> bool:
        """Return whether an answer is arriving: part of it has come, and some of that within this time."""
        since = self._clock() - within_s
        return any(flight.connection.answering and flight.moved_at > since for flight in self._flights.values())

    def unfinished(self) -> int:
        """Return how many calls `next` has not returned yet."""
        return len(self._finished) + len(self._flights) + len(self._waiting)

    def silences(self) -> list[tuple[int, float]]:
        """See `lines.Debtors`."""
        flights = self._flights.copy()
        found = [
            (flight.call.server, flight.moved_at)
            for flight in flights.values()
            if not flight.connection.connecting and not flight.connection.has_unread()
        ]
        for id, connection in self._ordered.connections.copy().items() if self._ordered else ():
            if connection.fd not in flights and (since := connection.silent_since()) is not None:
                found.append((id, since))
        return found

    def abandon(self, call: Call) -> None:
        """Forget a call: `next` will not return it, and its buffers are free. The server may do it or not."""
        for flight in self._flights.values():
            if flight.call is call:
                self._let_go(flight)
                self._launch_waiting()
                return
        if call in self._waiting:
            self._waiting.remove(call)
            return
        for outcome in self._finished:
            if outcome.call is call:
                self._finished.remove(outcome)
                return

    # ------------------------------------------------------------------ the course of a call

    def _fly(self, call: Call, body: bytes, *, reuse: bool, attempts: int) -> None:
        """Start the call on a connection."""
        try:
            connection = self._used_before(call.server) if reuse else None
            reused = connection is not None
            if connection is None:
                connection = self._fresh(call.server)
        except _LINE_ERRORS as error:
            self._fail(call, error)
            return
        flight = _Flight(call, body, connection, reused, attempts, self._greeting_s, self._clock())
        self._flights[connection.fd] = flight
        self._flying[call.server] += 1
        try:
            connection.begin(body, call.payload, call.sink, call.head_bytes)
        except OSError as error:
            self._lost(flight, error)
            return
        self._watch(connection)

    def _used_before(self, server: int) -> Connection | None:
        """Return an existing connection, if there is one. Raises what `Lines.catch_up` does."""
        if self._ordered is None:
            connection = self._lines.borrow(server)
            if connection is not None:
                register(self._poll, connection)
            return connection
        connection = self._ordered.connections.get(server)
        if connection is None or (connection.ready and not connection.owed):
            return connection
        is_of_use = False
        try:
            is_of_use = self._lines.catch_up(connection)
            self._ordered.heard(server)
        finally:
            if not is_of_use:
                self._ordered.drop(server)
        return connection if is_of_use else None

    def _fresh(self, server: int) -> Connection:
        """Return a new connection. Raises OSError if that is known to be in vain."""
        connection = self._lines.fresh(server)
        if self._ordered is None:
            register(self._poll, connection)
        else:
            self._ordered.add(connection)
        return connection

    def _watch(self, connection: Connection) -> None:
        if connection.watched == select.POLLIN and not connection.unsent:
            return  # the usual case
        events = connection.events
        if events != connection.watched:
            connection.watched = events
            self._poll.modify(connection.fd, events)

    def _drive(self, until: float | None, at_least: int = 1) -> None:
        """Wait until something can be done, at most until `until` or the first deadline, and do it."""
        now = self._clock()
        first = min([flight.deadline for flight in self._flights.values()])
        wake = first if until is None or until > first else until
        if at_least > 1 and (early := self._early(at_least - 1)):
            wake = min(wake, now + PARTLY_S)
            ready = self._wait_without(early, wake - now)
        else:
            ready = meanwhile.wait_for_any(self._poll, max(0, ceil((wake - now) * 1000)))
        for fd, events in ready:
            if fd in self._flights:
                self._advance(self._flights[fd], events)
            else:
                self._overhear(fd, events)
        now = self._clock()
        if now > wake and (late_s := stood_still_s(self._looked_at, wake, now)):
            self._stood_still(late_s, now)
        self._looked_at = now
        if now >= first:
            self._end_overdue(now)

    def _early(self, count: int) -> list[Connection]:
        """Return the connections of so many calls that are likely to be answered before the others; none if fewer than
        one more are in flight."""
        if self._ordered is None or len(self._flights) <= count:
            return []
        flying = {flight.call.server: flight.connection for flight in self._flights.values()}
        early = [flying[server] for server in self._ordered.order if server in flying]
        return [connection for connection in early[:count] if connection.watched == select.POLLIN]

    def _wait_without(self, early: list[Connection], timeout_s: float) -> list[tuple[int, int]]:
        """Wait for the other connections, or until one of these ends. Returns all that is ready then."""
        for connection in early:
            self._poll.modify(connection.fd, 0)
        try:
            meanwhile.wait_for_any(self._poll, max(0, ceil(timeout_s * 1000)))
        finally:
            for connection in early:
                self._poll.modify(connection.fd, connection.watched)
        return self._poll.poll(0)

    def _stood_still(self, late_s: float, now: float) -> None:
        """Account for a while in which this process did not run: nothing could be received."""
        self._health.excused_at = now
        for flight in self._flights.values():
            flight.moved_at = min(flight.moved_at + late_s, now)
            flight.ends_at += late_s
            flight.deadline = min(max(flight.deadline + late_s, now + LOOK_AGAIN_S), flight.ends_at)

    def _end_overdue(self, now: float) -> None:
        """End the calls that stall, unless their servers are slow together and these calls are patient."""
        overdue = [flight for flight in self._flights.values() if now >= flight.deadline]
        are_slow = bool(overdue) and not self._trial and self._lines.are_slow()
        if are_slow:
            self._slow_at = now
        is_excused = now < self._slow_at + LOOK_AGAIN_S  # those that have just ended no longer count as silent
        for flight in overdue:
            if are_slow and self._is_waited_for(flight, now):
                flight.deadline = min(now + LOOK_AGAIN_S, flight.ends_at)
                self._health.excused_at = now
            elif now < (excused_until := self._excused_until(flight, now)):
                flight.deadline = excused_until
            else:
                error = TimeoutError(0, self._stalled(flight, now))
                self._lost(flight, error, is_excused=is_excused and not flight.call.is_patient)

    def _excused_until(self, flight: _Flight, now: float) -> float:
        """Servers that were slow together do not resume at the same moment: each has its time from then."""
        if not self._may_wait(flight, now):
            return now
        patience_s = flight.call.stall_s if flight.connection.ready else self._greeting_s
        return min(self._health.excused_at + patience_s, flight.ends_at)

    def _is_waited_for(self, flight: _Flight, now: float) -> bool:
        return not flight.connection.connecting and self._may_wait(flight, now)

    def _may_wait(self, flight: _Flight, now: float) -> bool:
        is_believed = flight.call.server in self._health.usable  # otherwise another exchange has waited long enough
        is_there = not flight.connection.is_peer_gone()
        return flight.call.is_patient and is_believed and is_there and is_waited_for(flight.moved_at, now)

    def _advance(self, flight: _Flight, events: int) -> None:
        connection = flight.connection
        try:
            reply = connection.advance(events)
        except _LINE_ERRORS as error:
            self._lost(flight, error)
            return
        if reply is None:
            flight.moved(self._clock())
            self._watch(connection)
            return
        self._landed(flight, reply)

    def _landed(self, flight: _Flight, reply: Reply) -> None:
        """Handle the call's complete reply."""
        connection = flight.connection
        if self._ordered is not None:
            self._ordered.heard(flight.call.server)
        self._land(flight, close=not (self._finish(flight.call, reply, connection) and connection.finish()))
        if self._waiting:
            self._launch_waiting()

    def _overhear(self, fd: int, events: int) -> None:
        """Read what has come on an ordered connection that nothing waits for: an answer that is owed, or the
        connection's end."""
        assert self._ordered is not None
        connection = next(each for each in self._ordered.connections.values() if each.fd == fd)
        try:
            connection.advance(events)
            self._watch(connection)
            self._ordered.heard(connection.server.id)
        except _LINE_ERRORS as error:
            if isinstance(error, ProtocolError):
                self._lines.note_fault(connection.server.id, f"no answer to an earlier request: {error}")
            self._ordered.drop(connection.server.id)

    def _land(self, flight: _Flight, *, close: bool) -> None:
        """End the flight, one way or the other. `close`: its connection is of no further use."""
        connection, server = flight.connection, flight.call.server
        del self._flights[connection.fd]
        self._flying[server] -= 1
        if self._ordered is None:
            self._poll.unregister(connection.fd)
            if close:
                connection.close()
            else:
                self._lines.give_back(connection)
        elif close:
            self._ordered.drop(server)

    def _finish(self, call: Call, reply: Reply, connection: Connection) -> bool:
        """Record the outcome of a reply. Returns whether the server can be asked more on this connection."""
        lines = self._lines
        if not connection.is_met:
            twin = lines.met(call.server, connection.identity)
            if twin is not None:
                self._fail(call, twin)
                return False
            connection.is_met = True
        try:
            outcome = outcome_of(call, lines.servers[call.server], reply, connection.payload_bytes)
        except ProtocolError as error:
            self._fail(call, error)
            return False
        self._finished.append(outcome)
        full = is_full(outcome)
        if full is not None:
            lines.said_room(call.server, full=full)
        if isinstance(outcome, Failure):
            if outcome.status in _LAST_WORDS:
                return False
            if outcome.status == Status.DIVERGED:
                lines.note_fault(call.server, "its log is another one than the others'")
        lines.answered(call.server)
        return True

    def _let_go(self, flight: _Flight, *, close: bool = False) -> None:
        """Stop waiting for this call. `close`: its connection must not be used again either."""
        owed_until = min(flight.deadline, self._clock() + OWED_S)
        self._land(flight, close=close or not flight.connection.let_go(owed_until, flight.moved_at))

    def _launch_waiting(self) -> None:
        """Launch the waiting calls whose servers have room now."""
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            self.start(call)

    # ------------------------------------------------------------------ when it goes wrong

    def _lost(self, flight: _Flight, error: Exception, *, is_excused: bool = False) -> None:
        """Retry the call on another connection, or fail it: this one is of no further use. `is_excused`: that says
        nothing about the server."""
        connection, call = flight.connection, flight.call
        stale = flight.reused and not connection.answering and not isinstance(error, TimeoutError)
        astray = connection.connecting and flight.attempts < self._lines.addresses(call.server)
        self._land(flight, close=True)
        if isinstance(error, OSError) and (stale or astray):
            if astray:
                self._lines.try_next_address(call.server)
            self._fly(call, flight.body, reuse=False, attempts=flight.attempts + astray)
        else:
            self._fail(call, error, is_excused=is_excused)
        self._launch_waiting()

    def _fail(self, call: Call, error: Exception, *, is_excused: bool = False) -> None:
        """Record that the call failed without an answer to it."""
        failure = failure_of(call, self._lines.servers[call.server], error)
        if isinstance(error, ProtocolError):
            self._lines.note_fault(call.server, f"no answer to {type(call.request).__name__}: {error}")
        if failure.status not in _HARMLESS and not is_excused:
            quick = isinstance(error, OSError) and not isinstance(error, TimeoutError)
            self._lines.failed(call.server, failure.text, quick=quick)
        self._finished.append(failure)

    @staticmethod
    def _stalled(flight: _Flight, now: float) -> str:
        if now >= flight.ends_at:
            return f"the call was not finished after {LONGEST_CALL_S:.0f} s"
        if flight.connection.connecting:
            return "no connection in time"
        if not flight.connection.ready:
            return "it did not authenticate in time"
        return f"no byte moved for {max(flight.call.stall_s, round(now - flight.moved_at)):g} s"
