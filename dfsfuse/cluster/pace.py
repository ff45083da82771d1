"""What is usual: how long this client has lately waited for an answer, and so how long to be patient with the next one.

A request that takes much longer than usual is worth a second one elsewhere, but "usual" depends on the network: on a
slow link everything takes long, and asking twice would only make it slower. It is a hint: what is correct never depends
on it. Thread-safe.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

LEARNING_RATE: Final = 0.2
PATIENCE_FACTOR: Final = 3


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
            return max(self._floor_s, PATIENCE_FACTOR * self._usual_s.get(size.bit_length(), 0.0))
