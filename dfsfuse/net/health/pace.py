"""What is usual: how long this client has recently waited for answers, and so how long to be patient with the next one.

A request that takes much longer than usual is worth a second one elsewhere, but "usual" depends on the network: on a
slow link everything takes long, and asking twice would only make it slower. A single slow server, such as one that is
copying a map, does not raise the patience: usual is what most servers do. It is a hint: correctness never depends on
it.

Pure; as thread-safe as the lock passed in.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from statistics import median_low
from typing import Final

LEARNING_RATE: Final = 0.2
PATIENCE_FACTOR: Final = 3


class Pace:
    """How long requests of about a size usually take."""

    def __init__(self, floor_s: float, lock: AbstractContextManager[object] | None = None) -> None:
        self._floor_s = floor_s
        self._lock = lock if lock is not None else nullcontext()
        self._usual_s: dict[int, dict[int, float]] = {}  # by the size's bit length, and by server; guarded by _lock

    def note(self, size: int, took_s: float, server: int) -> None:
        """Record that a request of `size` bytes was answered by this server after this long."""
        with self._lock:
            usual_s = self._usual_s.setdefault(size.bit_length(), {})
            before_s = usual_s.get(server, took_s)
            usual_s[server] = before_s + LEARNING_RATE * (took_s - before_s)

    def patience_s(self, size: int) -> float:
        """Return how long to wait for `size` bytes before asking another server too."""
        with self._lock:
            usual_s = self._usual_s.get(size.bit_length())
            return max(self._floor_s, PATIENCE_FACTOR * median_low(usual_s.values())) if usual_s else self._floor_s
