"""Which server is tried for which piece next. Pure: the time is passed in, and nothing is sent from here.

A race has pieces, each with the servers that may be tried for it in order of preference, and how many of them have to
succeed: two for an upload, one for a download. `take` names the next attempt to start; the caller reports how it ended.

- As long as successes and hopeful attempts are too few, the next server in line is tried. An attempt stops being
  hopeful when it lags; it is not cancelled, and may still win.
- An attempt lags after `patience_s`, or three times what is usual in this race if that is longer, but not before
  `others_first` attempts have succeeded at other servers: if all are slow, none is at fault.
- A server that is out (down, full) is not tried again.

It terminates: each server is tried at most once for a piece, so after at most pieces x servers attempts, all of which
the caller finishes by a deadline, every piece has enough successes or is `hopeless`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

LAG_FACTOR: Final = 3


class Attempt(NamedTuple):
    """One piece (number 1..4) tried at one server."""

    number: int
    server: int


class Race:
    """See the module. For one thread only."""

    def __init__(
        self, order: Mapping[int, Sequence[int]], *, need: int, patience_s: float, others_first: int = 0
    ) -> None:
        self._order = order
        self._need = need
        self._patience_s = patience_s
        self._others_first = others_first
        self._tried: set[Attempt] = set()
        self._pending: dict[Attempt, float] = {}
        self._won: dict[Attempt, float] = {}
        self._out: set[int] = set()
        self._in_doubt = any(len(servers) < need for servers in order.values())

    def take(self, now: float) -> Attempt | None:
        """Return the next attempt to start, which counts as started now; None if there is nothing to start yet."""
        for number in self._order:
            server = self._next_server(number, now)
            if server is not None:
                attempt = Attempt(number, server)
                self._tried.add(attempt)
                self._pending[attempt] = now
                return attempt
        return None

    def won(self, attempt: Attempt, now: float) -> float:
        """Record that the attempt succeeded. Returns how long it took, in seconds."""
        took_s = now - self._pending.pop(attempt)
        self._won[attempt] = took_s
        return took_s

    def lost(self, attempt: Attempt, *, out: bool) -> None:
        """Record that the attempt failed. `out`: so will others at the same server."""
        del self._pending[attempt]
        self._in_doubt = True
        if out:
            self._out.add(attempt.server)

    def done(self) -> bool:
        """Return whether every piece has enough successes."""
        return all(self._wins(number) >= self._need for number in self._order)

    def hopeless(self) -> int | None:
        """Return a piece that cannot get enough successes any more, whatever pending attempts and remaining servers
        do."""
        if not self._in_doubt:  # called after every step, and nothing has failed in almost all races
            return None
        for number in self._order:
            hopes = self._wins(number) + len(self._pending_of(number)) + len(self._left(number))
            if hopes < self._need:
                return number
        return None

    def winners(self, number: int) -> tuple[int, ...]:
        """Return where the piece succeeded, as many servers as needed, the most preferred first."""
        found = [server for server in self._order[number] if Attempt(number, server) in self._won]
        return tuple(found[: self._need])

    def pending(self) -> list[Attempt]:
        """Return the attempts that were started and have not ended."""
        return list(self._pending)

    def laggards(self, now: float) -> frozenset[int]:
        """Return the servers with an attempt that lags."""
        return frozenset(attempt.server for attempt in self._pending if self._lags(attempt, now))

    def wake_in_s(self, now: float) -> float | None:
        """Return in how many seconds the next attempt begins to lag if nothing else happens; None if none will."""
        patience_s = self._patience()
        waits = (started + patience_s - now for started in self._pending.values())
        return min((wait for wait in waits if wait > 0), default=None)

    def _next_server(self, number: int, now: float) -> int | None:
        pending = self._pending_of(number)
        wins = self._wins(number)
        if wins + sum(not self._lags(attempt, now) for attempt in pending) >= self._need:
            return None
        left = self._left(number)
        laggards = self.laggards(now)
        prompt = next((server for server in left if server not in laggards), None)
        if prompt is None and left and wins + len(pending) < self._need:
            return left[0]
        return prompt

    def _wins(self, number: int) -> int:
        return sum(attempt.number == number for attempt in self._won)

    def _pending_of(self, number: int) -> list[Attempt]:
        return [attempt for attempt in self._pending if attempt.number == number]

    def _left(self, number: int) -> list[int]:
        return [
            server
            for server in self._order[number]
            if server not in self._out and Attempt(number, server) not in self._tried
        ]

    def _patience(self) -> float:
        if not self._won:
            return self._patience_s
        return max(self._patience_s, LAG_FACTOR * median(self._won.values()))

    def _lags(self, attempt: Attempt, now: float) -> bool:
        if now < self._pending[attempt] + self._patience():
            return False
        return sum(other.server != attempt.server for other in self._won) >= self._others_first
