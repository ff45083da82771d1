"""A wall clock that a test sets."""

from __future__ import annotations


class WallClock:
    """The time since 1970 in the two forms that a server's parts use: integer nanoseconds, and seconds."""

    now_s = 1_700_000_000

    def ns(self) -> int:
        return self.now_s * 10**9

    def s(self) -> float:
        return float(self.now_s)
