"""What a client has answered and not committed yet, in order; and what it must remember about it.

- The *queue*: pending changes, which were answered under the writer lease. They are committed in order, several in a
  batch. If one fails, all later ones are lost too: what survives is a prefix.
- *Rivals*: what other clients changed while changes are pending. These are compared with it before they are proposed.
- Batches *in doubt*: for each batch that may have been made, by its number, whether it is known to have been. If the
  first portion of the queue is in doubt, that is decided before anything else is proposed. The portion leaves the queue
  as soon as it is known to be made: pending changes are laid over the known state, and other clients may have changed
  the same keys after it.
- *Losses*: changes that were answered, cannot be committed, and must be reported.

Pure bookkeeping; the owner's lock guards it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from dfs_server.protocol.batches import InlinePiece
from dfs_server.protocol.messages import Change
from dfsfuse.errors import DfsError, LostError, MaybeDoneError, UnavailableError
from dfsfuse.log.lease import NEVER
from dfsfuse.log.state import Contents, News
from dfsfuse.namespace.map.cache import Unknown
from dfsfuse.namespace.map.losses import Losses
from dfsfuse.namespace.map.views import MAX_CONTENTS_BYTES, CachedView

PORTION_BYTES: Final = 1_000_000
"""A batch takes in more changes until it has this many bytes."""
FULL_BYTES: Final = 4_000_000
"""Once this many bytes are pending, an operation that adds more waits for a commit."""
FULL_CHANGES: Final = 5000
DOUBTFUL_MAX: Final = 10_000
"""At most this many numbers of batches in doubt are remembered."""


class PendingChange:
    """One operation's changes."""

    __slots__ = ("contents", "done", "failure", "is_awaited", "left_until", "replaced", "size", "view")

    def __init__(self, contents: Contents, view: CachedView, *, is_awaited: bool) -> None:
        self.contents = contents
        self.size = view.size_bytes
        self.view = view
        self.replaced = view.replaced()
        """What was known before it about the keys that it changes."""
        self.is_awaited = is_awaited
        """Whether the caller waits until it is durable, and learns from `failure` if it is lost."""
        self.left_until = NEVER
        """Until when the worker leaves it to its caller, who will commit it together with the next change."""
        self.done = False
        """Committed; or lost: then `failure` says why."""
        self.failure: DfsError | None = None


class Doubt(NamedTuple):
    """A batch that may have been made."""

    error: MaybeDoneError
    sequence: int
    forgotten: int
    """How often news had been missed before."""
    portion: Sequence[PendingChange] = ()
    """What it contained of the queue: the first changes."""


class Journal:
    """See the module."""

    def __init__(self) -> None:
        self._queue: list[PendingChange] = []
        self._bytes = 0
        self._rivals = News()
        self._doubtful: dict[int, bool] = {}
        self.doubt: Doubt | None = None
        """Set if the first portion of the queue was sent, and may have been made."""
        self.losses: Losses[DfsError] = Losses()
        """Why changes without a waiter were lost."""
        self.last: PendingChange | None = None
        """The newest change that was ever added."""

    # -------------------------------------------------------------- the queue

    def __iter__(self) -> Iterator[PendingChange]:
        return iter(self._queue)

    def __len__(self) -> int:
        return len(self._queue)

    def before(self) -> dict[bytes, bytes | Unknown | None]:
        """Return what was known, before the waiting changes, about the keys that they change."""
        found: dict[bytes, bytes | Unknown | None] = {}
        for change in self._queue:
            for key, value in change.replaced.items():
                found.setdefault(key, value)
        return found

    def outcome(self) -> dict[bytes, bytes | None]:
        """Return the values that the waiting changes finally give to keys; None: they delete it."""
        return _in_the_end(self._queue)

    @property
    def is_full(self) -> bool:
        """Return whether it is time to wait for a commit."""
        return self._bytes > FULL_BYTES or len(self._queue) > FULL_CHANGES

    def add(self, contents: Contents, view: CachedView, *, is_awaited: bool) -> PendingChange:
        """Add a change, answered after all others; call before its changes are made in the cache."""
        change = PendingChange(contents, view, is_awaited=is_awaited)
        self._queue.append(change)
        self._bytes += change.size
        self.last = change
        return change

    def is_left_to_callers(self, now: float) -> bool:
        """Return whether all pending changes, if there are any, are still left to their callers."""
        return all(now < change.left_until for change in self._queue)

    def portion(self) -> list[PendingChange]:
        """Return the first changes that make one batch."""
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
        """Return the contents of one batch that does the same as these, one after the other."""
        if len(portion) == 1:
            return portion[0].contents
        changes = _in_the_end(portion)
        drops: dict[bytes, None] = {}
        pieces: list[InlinePiece] = []
        for change in portion:
            drops.update(dict.fromkeys(change.contents.drops))
            pieces.extend(change.contents.pieces)
        return Contents(
            tuple((key, value) for key, value in changes.items() if value is not None),
            tuple(key for key, value in changes.items() if value is None),
            tuple(drops),
            tuple(pieces),
        )

    def committed(self, portion: Sequence[PendingChange]) -> None:
        """Record that these, the first, are durable."""
        del self._queue[: len(portion)]
        for change in portion:
            change.done = True
            self._bytes -= change.size
        if not self._queue and self.has_rivals:
            self._rivals = News()

    # -------------------------------------------------------------- rivals

    @property
    def has_rivals(self) -> bool:
        """Return whether others have changed something that the queue has not been compared with yet."""
        return bool(self._rivals.changes) or self._rivals.forget

    def others_changed(self, changes: Sequence[Change], *, forget: bool) -> None:
        """Record what other clients changed; `forget`: and more, which is unknown. This is possible while changes are
        pending, for example after a batch in doubt was chosen and other clients have gone on from it."""
        if self._queue:
            self._rivals = News([*self._rivals.changes, *changes], self._rivals.forget or forget)

    def is_overtaken_by(self, news: News) -> bool:
        """Return whether other clients changed what a pending change is based on: in these news, or before."""
        if not (news.changes or news.forget or self.has_rivals):
            return False
        return any(change.view.touched_by(news) or change.view.touched_by(self._rivals) for change in self._queue)

    def is_overtaken(self) -> bool:
        """Return whether they did so before. If not, the queue counts as compared with everything that is known."""
        if not self.has_rivals:
            return False
        rivals, self._rivals = self._rivals, News()
        return any(change.view.touched_by(rivals) for change in self._queue)

    # -------------------------------------------------------------- doubt

    def is_in_doubt(self, sequence: int) -> None:
        """Record that a batch of this number may have been made."""
        self._doubtful[sequence] = False
        if len(self._doubtful) > DOUBTFUL_MAX:
            del self._doubtful[next(iter(self._doubtful))]

    def is_chosen(self, sequence: int) -> None:
        """Record that the batch of this number was made."""
        if sequence not in self._doubtful:
            return
        self._doubtful[sequence] = True
        if self.doubt is not None and self.doubt.sequence == sequence:
            portion, self.doubt = self.doubt.portion, None
            self.committed(portion)

    def was_made(self, sequence: int) -> bool:
        """Return whether a batch that was in doubt is known to have been made."""
        return self._doubtful.get(sequence, False)

    # -------------------------------------------------------------- losses

    def lose(self, failure: DfsError, sent: Sequence[PendingChange] | None = None) -> int:
        """Give up all pending changes, which cannot be committed. Returns how many. `sent`: only these, the first ones,
        were sent. Even if it is unknown whether they were made, the others certainly were not."""
        queue, self._queue, self._bytes = self._queue, [], 0
        self._rivals, self.doubt = News(), None
        is_reported = True
        for index, change in enumerate(queue):
            is_sent = sent is None or index < len(sent)
            change.failure = failure if is_sent or not isinstance(failure, MaybeDoneError) else _not_sent(failure)
            change.done = True
            if not change.is_awaited:
                is_reported = False
        if not is_reported:
            self.losses.add(lost(failure))
        return len(queue)


def _in_the_end(changes: Iterable[PendingChange]) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    for change in changes:
        found.update(change.contents.puts)
        found.update(dict.fromkeys(change.contents.deletes))
    return found


def _not_sent(why: MaybeDoneError) -> UnavailableError:
    return UnavailableError(f"nothing was changed, because it is unknown whether an earlier change was made: {why}")


def lost(why: DfsError) -> LostError:
    """Return the error for changes that were answered and are lost for this reason."""
    return LostError(f"changes that were answered, and not yet durable, are lost: {why}")
