"""How far back the log is kept for somebody who reads on from there: a copy of the map, or who learns what he missed.

A copy is of the slot at which it began. It is of use only if the batches since then are still there when it is over,
however long it took: else the next copy would have the same fate. Its pages name that slot, and so hold the log. Other
requests name slots of the present, which are in no danger.

Pure: the time is handed in. A hint, forgotten when the server stops: a server that has trimmed too much says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

HOLD_S: Final = 10.0
"""How long at least nothing after a slot is forgotten when somebody has named it: a page of a copy comes every few
seconds. Twice that at most."""


@dataclass(frozen=True, slots=True)
class LogHold:
    """The lowest slots that were named in the present span of `HOLD_S`, which began then (the server's clock, seconds),
    and in the one before."""

    began: float = float("-inf")
    lowest: int | None = None
    lowest_before: int | None = None

    def named(self, slot: int, now: float) -> LogHold:
        """After a request that names this slot."""
        hold = self._at(now)
        return replace(hold, lowest=slot if hold.lowest is None else min(slot, hold.lowest))

    def keeps_after(self, now: float) -> int | None:
        """The slot after which nothing is to be forgotten; None: there is none."""
        hold = self._at(now)
        return min((slot for slot in (hold.lowest, hold.lowest_before) if slot is not None), default=None)

    def _at(self, now: float) -> LogHold:
        if now < self.began + HOLD_S:
            return self
        if now < self.began + 2 * HOLD_S:
            return LogHold(self.began + HOLD_S, None, self.lowest)
        return LogHold(now)
