"""Changes that were answered under the writer lease and wait to be committed, in order.

Pure bookkeeping; the owner's lock guards it. A change that fails takes all after it along: what survives is a prefix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from dfs_server.protocol.batches import InlinePiece
from dfsfuse.cluster.log_state import Contents, News
from dfsfuse.errors import DfsError, LostError, MaybeDoneError, UnavailableError
from dfsfuse.namespace.losses import Losses
from dfsfuse.namespace.map_cache import Unknown
from dfsfuse.namespace.views import MAX_CONTENTS_BYTES, CachedView

PORTION_BYTES: Final = 1_000_000
"""A batch takes up more changes until it has so many bytes."""
FULL_BYTES: Final = 4_000_000
"""With so many bytes waiting, whoever adds more waits for a commit."""
FULL_CHANGES: Final = 5000


class PendingChange:
    """One operation's changes."""

    __slots__ = ("contents", "done", "failure", "is_awaited", "replaced", "size", "view")

    def __init__(self, contents: Contents, view: CachedView, *, is_awaited: bool) -> None:
        self.contents = contents
        self.size = view.size()
        self.view = view
        self.replaced = view.replaced()
        """What was known of the keys that it changes, before it."""
        self.is_awaited = is_awaited
        """Whoever asked for it waits until it is durable, and is told by `failure` if it is lost."""
        self.done = False
        """Committed; or lost, then `failure` says why."""
        self.failure: DfsError | None = None


class Pending:
    """The queue."""

    def __init__(self) -> None:
        self._queue: list[PendingChange] = []
        self._bytes = 0
        self.losses: Losses[DfsError] = Losses()
        """Why changes that nobody waited for were lost."""
        self.last: PendingChange | None = None
        """The newest change that was ever added."""

    def __iter__(self) -> Iterator[PendingChange]:
        return iter(self._queue)

    def __len__(self) -> int:
        return len(self._queue)

    def before(self) -> dict[bytes, bytes | Unknown | None]:
        """What was known, before those that wait, of the keys that they change."""
        found: dict[bytes, bytes | Unknown | None] = {}
        for change in self._queue:
            for key, value in change.replaced.items():
                found.setdefault(key, value)
        return found

    @property
    def is_full(self) -> bool:
        """Whether it is time to wait for a commit."""
        return self._bytes > FULL_BYTES or len(self._queue) > FULL_CHANGES

    def add(self, contents: Contents, view: CachedView, *, is_awaited: bool) -> PendingChange:
        """One more, answered after all others; before its changes are made in the cache."""
        change = PendingChange(contents, view, is_awaited=is_awaited)
        self._queue.append(change)
        self._bytes += change.size
        self.last = change
        return change

    def portion(self) -> list[PendingChange]:
        """The first changes that make one batch."""
        size = 0
        found: list[PendingChange] = []
        for change in self._queue:
            if found and size + change.size > min(PORTION_BYTES, MAX_CONTENTS_BYTES):
                break
            found.append(change)
            size += change.size
        return found

    @staticmethod
    def merged(portion: Sequence[PendingChange]) -> Contents:
        """The contents of one batch that does the same as these, one after the other."""
        if len(portion) == 1:
            return portion[0].contents
        changes: dict[bytes, bytes | None] = {}
        drops: dict[bytes, None] = {}
        pieces: list[InlinePiece] = []
        for change in portion:
            changes.update(change.contents.puts)
            changes.update(dict.fromkeys(change.contents.deletes))
            drops.update(dict.fromkeys(change.contents.drops))
            pieces.extend(change.contents.pieces)
        return Contents(
            tuple((key, value) for key, value in changes.items() if value is not None),
            tuple(key for key, value in changes.items() if value is None),
            tuple(drops),
            tuple(pieces),
        )

    def touched_by(self, news: News) -> bool:
        """Whether others changed what any of these operations has read."""
        return any(change.view.touched_by(news) for change in list(self._queue))

    def committed(self, portion: Sequence[PendingChange]) -> None:
        """These are durable."""
        del self._queue[: len(portion)]
        for change in portion:
            change.done = True
            self._bytes -= change.size

    def lose(self, failure: DfsError, sent: Sequence[PendingChange] | None = None) -> int:
        """None of those that wait can be committed. Gives how many. `sent`: only these, the first, were sent. If nobody
        can tell whether they were made, it is certain of the others that they were not."""
        queue, self._queue, self._bytes = self._queue, [], 0
        are_told = True
        for index, change in enumerate(queue):
            is_sent = sent is None or index < len(sent)
            change.failure = failure if is_sent or not isinstance(failure, MaybeDoneError) else _not_sent(failure)
            change.done = True
            if not change.is_awaited:
                are_told = False
        if not are_told:
            self.losses.add(lost(failure))
        return len(queue)


def _not_sent(why: MaybeDoneError) -> UnavailableError:
    return UnavailableError(f"nothing was changed, as nobody can tell what became of an earlier change: {why}")


def lost(why: DfsError) -> LostError:
    """What is told of changes that were answered and are lost for this reason."""
    return LostError(f"changes that were answered, and not yet durable, are lost: {why}")
