"""How far back the log is kept for clients that read on from a slot: for a copy of the map, or to learn missing
batches.

A copy is of the slot at which it began. It is useful only if the batches since then still exist when it is complete,
however long it took: otherwise the next copy would have the same fate. Its pages name that slot, and so hold the log.
Other requests name current slots, which are not in danger.

Pure: the time is passed in. A hint, forgotten when the server stops: a server that has trimmed too much says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

HOLD_S: Final = 10.0
"""Minimum time for which the batches after a slot are kept once a client has named the slot: a page of a copy arrives
every few seconds. At most twice that."""


@dataclass(frozen=True, slots=True)
class LogHold:
    """The lowest slots that were named in the current period of `HOLD_S`, which began at `began` (the server's clock,
    seconds), and in the previous one."""

    began: float = float("-inf")
    lowest: int | None = None
    lowest_before: int | None = None

    def named(self, slot: int, now: float) -> LogHold:
        """The hold after a request that names this slot."""
        hold = self._at(now)
        return replace(hold, lowest=slot if hold.lowest is None else min(slot, hold.lowest))

    def keeps_after(self, now: float) -> int | None:
        """The slot after which nothing may be deleted; None: there is none."""
        hold = self._at(now)
        return min((slot for slot in (hold.lowest, hold.lowest_before) if slot is not None), default=None)

    def _at(self, now: float) -> LogHold:
        if now < self.began + HOLD_S:
            return self
        if now < self.began + 2 * HOLD_S:
            return LogHold(self.began + HOLD_S, None, self.lowest)
        return LogHold(now)
