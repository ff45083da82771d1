"""How many bytes of unsaved data a mount may hold in memory, for all files together.

A writer reserves first. If there is no room it waits for uploads in progress, which make room by themselves; if there
are none it gets a refusal at once, and has to save something itself.

Threads: one lock guards the counts; nothing else is locked while waiting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Budget:
    """A count of bytes with a limit. A single reservation above the limit is allowed when nothing else is held."""

    def __init__(self, limit_bytes: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.limit_bytes = limit_bytes
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        """Number of threads that wait for a change."""
        self._held_bytes = 0
        self._freed_bytes = 0
        self._uploads = 0

    @property
    def held_bytes(self) -> int:
        """Return the number of bytes reserved now."""
        with self._lock:
            return self._held_bytes

    @property
    def freed_bytes(self) -> int:
        """Return the number of bytes ever released."""
        with self._lock:
            return self._freed_bytes

    def wait_until_freed(self, freed_bytes: int, timeout_s: float) -> bool:
        """Wait until more than `freed_bytes` were ever released. Returns False when the time is up."""
        with self._lock:
            self._waiting += 1
            try:
                return self._changed.wait_for(lambda: self._freed_bytes > freed_bytes, timeout_s)
            finally:
                self._waiting -= 1

    def reserve(self, size: int, timeout_s: float) -> bool:
        """Reserve bytes. Returns False if there is no room and no upload that would make some, or the time is up."""
        deadline = self._monotonic() + timeout_s
        with self._lock:
            while self._held_bytes and self._held_bytes + size > self.limit_bytes:
                remaining = deadline - self._monotonic()
                if not self._uploads or remaining <= 0:
                    return False
                self._waiting += 1
                try:
                    self._changed.wait(remaining)
                finally:
                    self._waiting -= 1
            self._held_bytes += size
            return True

    def release(self, size: int) -> None:
        """Release bytes that are saved, or were not needed after all."""
        with self._lock:
            self._held_bytes -= size
            self._freed_bytes += size
            if self._waiting:
                self._changed.notify_all()

    def upload_begins(self) -> None:
        """Record that a segment is being uploaded, or waits for its turn."""
        with self._lock:
            self._uploads += 1

    def upload_ends(self) -> None:
        """Record that an upload is done, or failed."""
        with self._lock:
            self._uploads -= 1
            if self._waiting:
                self._changed.notify_all()
