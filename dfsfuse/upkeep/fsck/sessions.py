"""What mounts that died have left in the map: sessions, and locks that count for nothing. Said by `fsck`, or ended.

Who is dead shows only after a while: a living mount changes its session's record every few seconds. So `Sessions` is
made before all else that `fsck` looks at, and asked at the end, when most of that while is over. Then it waits only for
those that have given no sign of life yet; if all have, it does not wait at all.

Nothing of this harms the namespace: who waits for such a lock ends the session himself, and mounts sweep once a day.
The map is read past a mount's cache. One thread.
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
    """The sessions that there are when this is made, and since when. Raises UnavailableError."""

    def __init__(self, pages: Pages, clock: Callable[[], float], pause: Callable[[float], object]) -> None:
        self._pages = pages
        self._clock = clock
        self._pause = pause
        pages.begin()
        self._seen = self._read(keys.sessions())
        self._since = clock()

    def remains(self) -> Remains:
        """What is left of those that died; nothing if too few servers answer to know. Raises UnavailableError."""
        silent = self._silent()
        # Locks on both sides of the sessions: one that was taken or ended in between is nobody's remains.
        before = self._read(keys.all_locks())
        if not self._pages.begin():
            return Remains()
        there = self._read(keys.sessions())
        held = {key: value for key, value in self._read(keys.all_locks()).items() if before.get(key) == value}
        return sweep_sessions.remains(silent, there, held)

    def bury(self, store: MapStore) -> Remains:
        """End what is left of those that died. Raises DfsError."""
        silent = self._silent()
        return store.transact(lambda tx: sweep_sessions.bury(tx, silent))

    def _silent(self) -> Seen:
        """Wait until those that have given no sign of life since the beginning are dead, and say which they are."""
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
