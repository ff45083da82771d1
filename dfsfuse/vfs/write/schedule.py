"""Which unsaved files are to be saved, and when. Pure: times are seconds of one monotonic clock, passed in.

A file is due when its oldest unsaved data has reached an age (`save_after_s`), or at once on request (its last handle
is closed, or much of it waits). After a failure that concerns all files (`failed`) nothing is due for a while, longer
each time; one that concerns a single file (`postpone`) delays that file only.

Invariant: every file with unsaved data is known here, from the write that made it so until a save has left nothing.
"""

from __future__ import annotations

import heapq
import math
from typing import Final

MOMENTS: Final = 4
"""So often in the time of the age files are due: nothing gets older than one and a quarter of it for that."""
RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 5.0
LATE_FACTOR: Final = 1.5
"""Data that has been unsaved for this many times the age makes writers wait."""
FEW_FILES: Final = 16
"""Up to this many unsaved files, however old, delay only those who write to them."""


class Schedule:
    """See the module. Callers hold a lock of their own."""

    def __init__(self, save_after_s: float) -> None:
        self.save_after_s = save_after_s
        self._since: dict[int, float] = {}
        """When the oldest unsaved data of each file was written."""
        self._by_age: list[tuple[float, int]] = []
        """A heap of the same; an entry that `_since` does not confirm is out of date, as is one of a postponed file."""
        self._asked: dict[int, None] = {}
        """Files that are to be saved now, in the order of the requests."""
        self._postponed: dict[int, tuple[float, float]] = {}
        """When each of these is retried, and how long it waited for that."""
        self._retry_at = float("-inf")
        self._retry_s = RETRY_S
        self.is_failing = False
        """Whether nothing could be saved at the last attempt."""

    def __len__(self) -> int:
        return len(self._since)

    def add(self, ino: int, since_s: float) -> None:
        """Record that the oldest unsaved data of this file was written then."""
        if self._since.get(ino) != since_s:
            self._since[ino] = since_s
            if ino not in self._postponed:
                heapq.heappush(self._by_age, (since_s, ino))

    def ask(self, ino: int) -> None:
        """Record that this file is to be saved as soon as possible."""
        self._asked[ino] = None

    def saved(self, ino: int) -> None:
        """Record that nothing of this file is unsaved, or worth saving any more. Requests for it are still answered."""
        self._since.pop(ino, None)
        self._postponed.pop(ino, None)

    def attempted(self, ino: int) -> None:
        """Record that what was due of this file was saved: what is left, or was written since, is due by its age
        again."""
        if self._postponed.pop(ino, None) is not None and (since_s := self._since.get(ino)) is not None:
            heapq.heappush(self._by_age, (since_s, ino))

    def succeeded(self) -> None:
        """Record that something was saved: the servers take data."""
        self.is_failing = False
        self._retry_s = RETRY_S
        self._retry_at = float("-inf")

    def failed(self, now_s: float) -> None:
        """Record that nothing can be saved just now."""
        self.is_failing = True
        self._retry_at = now_s + self._retry_s
        self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)

    def postpone(self, ino: int, now_s: float) -> None:
        """Record that this file cannot be saved just now; others may."""
        _, waited_s = self._postponed.get(ino, (0.0, RETRY_S / 2))
        wait_s = min(2 * waited_s, RETRY_MAX_S)
        self._postponed[ino] = now_s + wait_s, wait_s

    def due(self, now_s: float, count: int) -> list[int]:
        """Return at most `count` files that are to be saved now: the oldest that have the age, then those requested."""
        if now_s < self._retry_at:
            return []
        found: dict[int, None] = {}
        while len(found) < count and (first := self._first()) is not None:
            since_s, ino = first
            if self._due_s(since_s) > now_s:
                break
            heapq.heappop(self._by_age)
            found[ino] = None
        for ino in found:  # they stay until they are saved
            heapq.heappush(self._by_age, (self._since[ino], ino))
        again = [ino for ino, (retry_at, _) in self._postponed.items() if retry_at <= now_s]
        found.update(dict.fromkeys([*again, *self._asked][: count - len(found)]))
        for ino in found:
            self._asked.pop(ino, None)
        return list(found)

    def next_s(self) -> float | None:
        """Return when something is due; None: nothing is unsaved."""
        times = [retry_at for retry_at, _ in self._postponed.values()]
        if self._asked:
            times.append(float("-inf"))
        if (first := self._first()) is not None:
            times.append(self._due_s(first[0]))
        return max(min(times), self._retry_at) if times else None

    def oldest_s(self) -> float | None:
        """Return when the oldest unsaved data of all files that can be saved was written; None: there is none."""
        first = self._first()
        return None if first is None else first[0]

    def is_late(self, now_s: float, ino: int | None = None) -> bool:
        """Return whether a writer or creator of this file should wait: what can be saved of it, or the oldest of many
        files, has been unsaved for too long. A few files are late where the link to the servers is slow: writers of
        other files need not wait for them."""
        if self.is_failing:
            return False
        if ino is not None and ino not in self._postponed and self._is_too_old(self._since.get(ino), now_s):
            return True
        return len(self._since) > FEW_FILES and self._is_too_old(self.oldest_s(), now_s)

    def _is_too_old(self, since_s: float | None, now_s: float) -> bool:
        return since_s is not None and now_s > since_s + LATE_FACTOR * self.save_after_s

    def _due_s(self, since_s: float) -> float:
        """Return when data of that time is due by age: at the next of the moments."""
        step_s = self.save_after_s / MOMENTS
        return math.ceil((since_s + self.save_after_s) / step_s) * step_s

    def _first(self) -> tuple[float, int] | None:
        """Return the oldest valid entry."""
        while self._by_age:
            since_s, ino = self._by_age[0]
            if self._since.get(ino) == since_s and ino not in self._postponed:
                return since_s, ino
            heapq.heappop(self._by_age)
        return None
