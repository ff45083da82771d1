"""The state of the map that a client knows: the cache, the journal and the lease; the point of the log that they are
of, and how new that is.

Shared by the parts of the client (`client`, `refreshing`, `committing`, `worker`). Pure: its methods run between two
steps, or are procedures of `steps`: no locks, threads, sockets or clocks of its own.

Invariant: the cache is the state of the point `at`, with the journal's changes applied. It moves on to a later point
only with the log (`absorb`). While the rest of the mount is being notified (`NotifyChanged`), there is no `at`, and
nothing newer is put into the cache.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from dfsfuse.errors import DfsError, UnavailableError
from dfsfuse.log.lease import NEVER, Lease
from dfsfuse.log.proposer import Point
from dfsfuse.log.state import LogState, News
from dfsfuse.namespace.map.cache import UNKNOWN, MapCache, Unknown
from dfsfuse.namespace.map.journal import Journal, PendingChange
from dfsfuse.namespace.map.steps import NotifyChanged, Procedure

log = logging.getLogger(__name__)


class MapState:
    """See the module."""

    def __init__(self, log_state: LogState, cache: MapCache, clock: Callable[[], float]) -> None:
        """`clock`: the lease's."""
        self.log = log_state
        self.clock = clock
        self.lease = Lease()
        self.journal = Journal()
        self.cache = cache
        self.at: Point | None = log_state.known
        """The point that the cached state is of; None while the rest of the mount is being notified of changes."""
        self.fresh_at = NEVER
        """When the cached state was last known to be the newest one in the log."""
        self.recalled_at = NEVER
        """When it was last known that no other client had answered anything newer either, without committing it."""
        self.forgotten = 0
        """How often news was missed."""
        self.remembered: dict[bytes, bytes | None] = {}
        """The values that were known when pending changes were lost and the cache was forgotten; until a commit."""
        self._has_lost = False
        """Whether pending changes were lost, and there was no `NotifyChanged` since."""

    def is_newest(self, since: float, *, recall: bool) -> bool:
        """Return whether the cached state was the newest one at some moment after `since`; with `recall`, also with
        regard to what other clients have answered and not committed."""
        return (self.recalled_at if recall else self.fresh_at) > since or self.lease.holds(self.clock())

    def has_reached(self, slot: int) -> bool:
        """Return whether the cached state is of this slot or a later one."""
        return self.at is not None and self.at.slot >= slot

    def recall(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """See `MapStore.recall`."""
        before = self.journal.before()
        found = [self._recalled(key, before) for key in keys]
        known = [value for value in found if not isinstance(value, Unknown)]
        return known if len(known) == len(found) else None

    def _recalled(self, key: bytes, before: Mapping[bytes, bytes | Unknown | None]) -> bytes | Unknown | None:
        found = before[key] if key in before else self.cache.get(key)
        return self.remembered.get(key, UNKNOWN) if isinstance(found, Unknown) else found

    def absorb(self) -> Procedure[News]:
        """With the log. Move the cache on to the known point."""
        news = self.log.take_news()
        others = [change for change in news.changes if change.author != self.log.client]
        for change in news.changes:
            if change.author == self.log.client:
                self.journal.is_chosen(change.sequence)
        if others or news.forget:
            self.lease.ended()
            self.journal.others_changed(others, forget=news.forget)
        if news.forget:
            self.cache.forget()
        for change in news.changes:
            self.cache.changed_elsewhere(change.keys)
        self.forgotten += news.forget
        self.at = None
        if news.forget or self._has_lost:
            self._has_lost = False
            yield NotifyChanged(None)
        elif news.changes:
            yield NotifyChanged([key for change in news.changes for key in change.keys])
        self.at = self.log.known
        return news

    def lose(self, error: DfsError, sent: list[PendingChange] | None = None) -> None:
        """Give up all pending changes: they were answered, and are lost. `sent`: see `Journal.lose`."""
        self.lease.ended()
        self.fresh_at = self.recalled_at = NEVER
        self._has_lost = True
        before = self.journal.before()
        count = self.journal.lose(error, sent)
        known: dict[bytes, bytes | Unknown | None] = {**self.cache.forget(), **before}
        self.remembered.update((key, value) for key, value in known.items() if not isinstance(value, Unknown))
        log.error("%d changes that were answered, and not yet asked to be durable, are lost: %s", count, error)


def overtaken() -> UnavailableError:
    """Return the error for pending changes that are based on what another client has changed since."""
    return UnavailableError("another client changed the same files while this one could not reach the servers")
