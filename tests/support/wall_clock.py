"""The time of day, which a test sets."""

from __future__ import annotations


class WallClock:
    """Seconds since 1970, as a server's parts want them: whole nanoseconds, or seconds."""

    now_s = 1_700_000_000

    def ns(self) -> int:
        return self.now_s * 10**9

    def s(self) -> float:
        return float(self.now_s)
