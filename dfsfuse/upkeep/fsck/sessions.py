"""What dead mounts have left in the map: sessions, and locks without effect. `fsck` reports them or ends them.

Which mounts are dead shows only after a while: a live mount changes its session's record every few seconds. So
`Sessions` is created before `fsck` checks anything else, and queried at the end, when most of that while has passed. It
then waits only for those that have shown no heartbeat yet, and not at all if all have.

None of this harms the namespace: a mount that waits for such a lock ends the session itself, and mounts sweep once a
day. The map is read bypassing a mount's cache. Single-threaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dfsfuse.namespace.map.transactions import MapStore
from dfsfuse.namespace.records import keys
from dfsfuse.upkeep.map_reader import Pages
from dfsfuse.upkeep.sweep import sessions as sweep_sessions
from dfsfuse.upkeep.sweep.sessions import Remains, Seen

LOOK_EVERY_S: Final = 1.0


class Sessions:
    """The sessions that exist when this is created, and since when. Raises UnavailableError."""

    def __init__(self, pages: Pages, clock: Callable[[], float], pause: Callable[[float], object]) -> None:
        self._pages = pages
        self._clock = clock
        self._pause = pause
        pages.begin()
        self._seen = self._read(keys.sessions())
        self._since = clock()

    def remains(self) -> Remains:
        """Return what the dead have left; nothing if too few servers answer to know. Raises UnavailableError."""
        silent = self._silent()
        # Read the locks before and after the sessions: one that was taken or ended in between is no one's leftover.
        before = self._read(keys.all_locks())
        if not self._pages.begin():
            return Remains()
        there = self._read(keys.sessions())
        held = {key: value for key, value in self._read(keys.all_locks()).items() if before.get(key) == value}
        return sweep_sessions.remains(silent, there, held)

    def end_dead(self, store: MapStore) -> Remains:
        """End what the dead have left. Raises DfsError."""
        silent = self._silent()
        return store.transact(lambda tx: sweep_sessions.end_dead(tx, silent))

    def _silent(self) -> Seen:
        """Wait until those that have shown no heartbeat since the beginning are dead, and return them."""
        silent = self._seen
        while silent:
            self._pages.begin()
            there = self._read(keys.sessions())
            silent = {key: record for key, record in silent.items() if there.get(key) == record}
            left_s = self._since + sweep_sessions.patience_s(silent) - self._clock()
            if left_s <= 0:
                break
            self._pause(min(LOOK_EVERY_S, left_s))
        return silent

    def _read(self, span: tuple[bytes, bytes]) -> dict[bytes, bytes]:
        return dict(item for page in self._pages.pages(*span) for item in page)
