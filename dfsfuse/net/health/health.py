"""The health of the four servers, and what is known about them together. The package says which code reports and asks
what.

Pure but for the clocks passed in. As thread-safe as the lock passed in; questions that cost nothing are answered
without it, from values that are replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from dfsfuse.net.health.pace import Pace
from dfsfuse.net.health.server import Fault, ServerHealth, Work
from dfsfuse.net.health.slowness import are_slow, is_waited_for

_NOBODY: Final[frozenset[int]] = frozenset()


class Spared:
    """Which servers are not waited for in one kind of work, where others are enough."""

    __slots__ = ("_lock", "_servers", "_work")

    def __init__(
        self, servers: Mapping[int, ServerHealth], work: Work, lock: AbstractContextManager[object] | None = None
    ) -> None:
        self._servers = servers
        self._work = work
        self._lock = lock if lock is not None else nullcontext()

    def now(self) -> frozenset[int]:
        """Return the servers that are spared at the moment."""
        for server in self._servers.values():
            if self._work in server.lapses:
                break
        else:
            return _NOBODY  # the usual case
        with self._lock:
            return frozenset(id for id, server in self._servers.items() if server.is_spared(self._work))

    def lagged(self, servers: Iterable[int]) -> None:
        """Record that these kept a caller waiting for too long."""
        with self._lock:
            for id in servers:
                self._servers[id].lagged(self._work)

    def answered(self, id: int) -> None:
        """Record that this one answered a caller who waited for it."""
        server = self._servers[id]
        if self._work in server.lapses:
            with self._lock:
                server.was_prompt(self._work)

    def needed(self) -> None:
        """Spare none any longer, since all are needed, and may only be slow."""
        with self._lock:
            for server in self._servers.values():
                server.was_prompt(self._work)


class Health:
    """See the module."""

    def __init__(
        self,
        ids: Iterable[int],
        clock: Callable[[], float],
        time_ns: Callable[[], int],
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self._clock = clock
        self._lock = lock if lock is not None else nullcontext()
        self._servers = {id: ServerHealth(clock, time_ns) for id in ids}
        self.usable = frozenset(self._servers)
        """The servers that are believed to answer. Replaced as a whole; guarded by `_lock`, except for reading."""
        self.full = _NOBODY
        """The servers that are believed to have no room for data. Likewise."""
        self._paces: dict[str, Pace] = {}  # guarded by _lock
        self.log = Spared(self._servers, "log", self._lock)
        self.data = Spared(self._servers, "data", self._lock)
        self.tried_elsewhere = False
        """Whether a pinger tries servers that are down, so that requests need not do it."""
        self.excused_at = float("-inf")
        """When servers were last seen to be slow together, or this process to have stood still: durations count from
        then."""
        self._hurried_at = float("-inf")

    # ------------------------------------------------------------------ whether they answer

    def why_missing(self) -> list[str]:
        """Return, for each server not believed to answer, a text that names it and says why."""
        return [server.why_down for _, server in sorted(self._servers.items()) if not server.is_up]

    def refusal(self, id: int) -> str | None:
        """Return None if the server may be asked now, else why not. One that refused a moment ago may: it costs
        nothing, and if it was restarted it may be needed at once, when another one dies."""
        if id in self.usable or self.claim(id, late_s=1.0 if self.tried_elsewhere else 0.0, eager=True):
            return None
        return self._servers[id].why_down

    def claim(self, id: int, *, late_s: float = 0.0, eager: bool = False) -> bool:
        """Return whether the caller may try this server, which is down, now. See `Circuit.claim`."""
        with self._lock:
            return self._servers[id].claim(late_s=late_s, eager=eager)

    def next_trial(self) -> tuple[float | None, list[int]]:
        """Return when the next trial of a server is due (None: all are up), and the servers that are down."""
        with self._lock:
            down = [id for id, server in self._servers.items() if not server.is_up]
            return min((self._servers[id].trial_due_at for id in down), default=None), down

    def answered(self, id: int) -> bool:
        """Record a complete answer of the server. Returns whether this is what brought it back."""
        with self._lock:
            self.usable |= {id}
            return self._servers[id].answered()

    def failed(self, id: int, reason: str, *, quick: bool, tried: bool = True) -> bool:
        """Record that the server did not answer. Returns whether this is what took it down."""
        with self._lock:
            self.usable -= {id}
            return self._servers[id].failed(reason, quick=quick, tried=tried)

    def moved(self, id: int) -> None:
        """Record that the server has another address."""
        with self._lock:
            self._servers[id].moved()

    def comebacks(self) -> dict[int, int]:
        """Return how often each server has answered again after it had been missing."""
        return {id: server.comebacks for id, server in self._servers.items()}

    # ------------------------------------------------------------------ whether they have room

    def said_room(self, id: int, *, full: bool) -> bool:
        """Record whether the server, in an answer, said it has room. Returns whether that is news."""
        with self._lock:
            self.full = self.full | {id} if full else self.full - {id}
            return self._servers[id].said_room(full=full)

    def to_ask_for_room(self) -> list[int]:
        """Return the full servers that should be asked now whether they have room. They are not returned again for a
        while."""
        if not self.full:
            return []
        with self._lock:
            return [id for id, server in self._servers.items() if server.claim_asking_for_room()]

    # ------------------------------------------------------------------ whether they are waited for

    def pace(self, kind: str, floor_s: float) -> Pace:
        """Return what is known about how long answers to requests of a kind take. Shared by all such work of this
        client."""
        with self._lock:
            return self._paces.setdefault(kind, Pace(floor_s, self._lock))

    def are_slow(self, owed_since: Mapping[int, float]) -> bool:
        """Return whether so many servers owe an answer just now, to any caller, that the fault is not theirs
        (`slowness`).

        `owed_since`: for each server that does, since when nothing has come from it. Those that are down are excluded.
        """
        now = self._clock()
        if is_waited_for(self._hurried_at, now):
            return False
        usable = self.usable
        return are_slow({id: since for id, since in owed_since.items() if id in usable}, now)

    def hurry(self, *, for_good: bool = False) -> None:
        """Do not wait for slow servers, neither now nor soon; `for_good`: nor later. May be called by a signal handler,
        and takes no lock."""
        self._hurried_at = float("inf") if for_good else max(self._hurried_at, self._clock())

    # ------------------------------------------------------------------ what they did wrong

    def did_wrong(self, id: int, text: str) -> None:
        """Record that the server's answer was not what it should be."""
        with self._lock:
            self._servers[id].did_wrong(text)

    def faults(self) -> dict[int, Fault]:
        """Return what servers did wrong since this was created."""
        return {id: server.fault for id, server in self._servers.items() if server.fault is not None}
