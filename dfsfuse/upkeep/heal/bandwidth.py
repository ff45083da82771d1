"""Bounded bandwidth: a token bucket. Pure; the current time is passed in.

A caller takes the bytes that it is about to move from the bucket, and waits as long as it says. A single take may
overdraw it, so that nothing is ever too large for it; the next one waits for that too.
"""

from __future__ import annotations

from typing import Final

BURST_S: Final = 1.0
"""How much may be saved up while nothing is moved: what flows in during this time."""


class Bucket:
    """For one thread only. `rate_bytes_s` None: unbounded."""

    def __init__(self, rate_bytes_s: float | None) -> None:
        if rate_bytes_s is not None and rate_bytes_s <= 0:
            raise ValueError(f"a rate of {rate_bytes_s} bytes/s would never end")
        self._rate_bytes_s = rate_bytes_s
        self._level = 0.0
        self._at: float | None = None

    def portion_bytes(self, most: int) -> int:
        """Return how much to move at once, at most `most`: less at a low rate, so that the flow is even."""
        return most if self._rate_bytes_s is None else min(most, max(1, round(self._rate_bytes_s * BURST_S / 2)))

    def take(self, size: int, now: float) -> float:
        """Take this many bytes. Returns how long to wait, in seconds, before moving them."""
        if self._rate_bytes_s is None:
            return 0.0
        full = self._rate_bytes_s * BURST_S
        passed_s = 0.0 if self._at is None else now - self._at
        self._at = now
        self._level = full if passed_s < 0 else min(full, self._level + passed_s * self._rate_bytes_s)
        wait_s = max(0.0, -self._level / self._rate_bytes_s)
        self._level -= size
        return wait_s
