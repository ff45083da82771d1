"""A clock that a test advances."""

from __future__ import annotations


class Clock:
    """A clock in seconds that stands still unless the test advances it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Advance it: for a caller that would sleep."""
        self.now += seconds
