"""What this client has lately seen of the servers' speed: how long to be patient, and whom to spare.

A request that takes much longer than usual is worth a second one elsewhere, but "usual" depends on the network: on a
slow link everything takes long, and asking twice would only make it slower. A server that did not answer in time is a
suspect for a while, so that one that hangs costs one short wait and not one for every request. Both are hints: what is
correct never depends on them.

Thread-safe.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

from dfsfuse.data.race import LAG_FACTOR

LEARNING_RATE: Final = 0.2
FIRST_SUSPICION_S: Final = 2.0
LONGEST_SUSPICION_S: Final = 60.0


class Pace:
    """How long requests of about a size usually take."""

    def __init__(self, floor_s: float) -> None:
        self._floor_s = floor_s
        self._lock = Lock()
        self._usual_s: dict[int, float] = {}  # by the size's bit length; guarded by _lock

    def note(self, size: int, took_s: float) -> None:
        """A request of `size` bytes was answered after so long."""
        with self._lock:
            usual_s = self._usual_s.get(size.bit_length(), took_s)
            self._usual_s[size.bit_length()] = usual_s + LEARNING_RATE * (took_s - usual_s)

    def patience_s(self, size: int) -> float:
        """How long to wait for `size` bytes before asking somebody else too."""
        with self._lock:
            return max(self._floor_s, LAG_FACTOR * self._usual_s.get(size.bit_length(), 0.0))


class Suspects:
    """Servers that let somebody wait lately. Each time in a row they are spared for twice as long."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._until: dict[int, tuple[float, float]] = {}  # server -> (until when, for how long); guarded by _lock

    def lagged(self, server: int, now: float) -> None:
        """The server let us wait for too long."""
        with self._lock:
            until, span_s = self._until.get(server, (0.0, FIRST_SUSPICION_S / 2))
            if now >= until:
                span_s = min(2 * span_s, LONGEST_SUSPICION_S)
                self._until[server] = (now + span_s, span_s)

    def answered(self, server: int) -> None:
        """The server answered in time."""
        with self._lock:
            self._until.pop(server, None)

    def now(self, now: float) -> frozenset[int]:
        """Who is spared at the moment."""
        with self._lock:
            return frozenset(server for server, (until, _) in self._until.items() if now < until)
