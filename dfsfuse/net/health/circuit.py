"""Whether a server is worth asking: one circuit breaker per server, pure but for the clock passed in.

A server that fails to answer (refused, lost, stalled) is *down*: asking it would cost its stall again and again, so
it is not asked until its next trial is due. Any complete answer brings it back at once.

- Trials come after 0.5 s, then 1, 2, 4, 5, 5... A server that failed *quickly* (connection refused or lost) costs
  nothing to try, so its trials stay at 0.5 s, and it may be tried at any time by an eager caller.
- A server that goes down again shortly after it came back continues with the longer pauses: one that answers small
  requests and hangs at large ones would otherwise cost a stall twice a second.

Not thread-safe: `Lines` holds its lock around every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 5.0
STEADY_S: Final = 10.0
"""A server that has been up for this long counts as healthy again."""
EAGER_PAUSE_S: Final = 0.05


class Circuit:
    """Whether one server is up, and when to try it again if it is not."""

    __slots__ = ("_clock", "_last_trial", "_pause_s", "_quick", "_up_since", "due_at", "reason", "up")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.up = True
        self.reason = ""  # why it is down
        self.due_at = 0.0  # when it is down: the next trial
        self._up_since = clock() - STEADY_S
        self._pause_s = FIRST_PAUSE_S
        self._quick = False
        self._last_trial = 0.0

    def failed(self, reason: str, *, quick: bool, tried: bool = True) -> bool:
        """Record that it did not answer. `quick`: it cost no waiting. Not `tried`: it was not asked just now, so an
        eager caller may. Returns whether this is what took it down."""
        now = self._clock()
        self.reason, self._quick = reason, quick
        if not self.up:
            return False
        self.up = False
        steady = now - self._up_since >= STEADY_S
        self._pause_s = FIRST_PAUSE_S if steady or quick else min(self._pause_s * 2, LONGEST_PAUSE_S)
        self.due_at = now + self._pause_s
        self._last_trial = now if tried else now - EAGER_PAUSE_S
        return True

    def try_soon(self) -> None:
        """Allow a trial now: it may answer, for a reason that has nothing to do with the past."""
        self.due_at = self._clock()
        self._pause_s = FIRST_PAUSE_S

    def answered(self) -> bool:
        """Record a complete answer. Returns whether this is what brought it back."""
        if self.up:
            return False
        self.up, self._up_since = True, self._clock()
        return True

    def claim(self, *, late_s: float = 0.0, eager: bool = False) -> bool:
        """Return whether the caller may try the server, which is down. If so, no other caller may before the next pause
        is over.

        `late_s`: only if the trial has been due for this long already (another caller should have made it). `eager`:
        sooner than due, if the last trial cost no waiting.
        """
        now = self._clock()
        due = self.due_at + late_s
        if eager and self._quick:
            due = min(due, self._last_trial + EAGER_PAUSE_S)
        if now < due:
            return False
        self._pause_s = FIRST_PAUSE_S if self._quick else min(self._pause_s * 2, LONGEST_PAUSE_S)
        self._last_trial = now
        self.due_at = now + self._pause_s
        return True
