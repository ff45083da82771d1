"""Unsaved data over the stored state: what a reader, stat(2) and lseek(2) see through every state of a file's saving.

What is unsaved is taken first and the map is read second: data that a batch moves from here to there in between is seen
twice, never not at all. That is right for data with places of its own, as the same bytes overlay themselves.

Appended data follows what the map has (appending.py), so it must not be seen twice. If the map ends just where it
begins, nothing of it is in the map. Otherwise others have appended, or a batch of ours has got into the map and is not
removed from the unsaved data yet. `OpenFile.appends` distinguishes these: if a batch was in flight at any time, the end
of its commit is awaited. A batch in doubt is looked up in the map.

Data that is given up, because the file is cut to nothing, must not be seen over the file that has been cut
(`OpenFile.cuts`).

Stateless. Threads: any; waits for `OpenFile.commit_lock` in these cases, so callers must not hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol, TypeVar

from dfsfuse.namespace.map.transactions import View
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.context import Context
from dfsfuse.vfs.open.open_file import OpenFile, PendingSegment
from dfsfuse.vfs.write import appending


class HasInode(Protocol):
    """The minimum that a look at the map returns."""

    @property
    def inode(self) -> Inode: ...


S = TypeVar("S", bound=HasInode)
T = TypeVar("T")


class Place(NamedTuple):
    """Where the unsaved data is: shifted by this many bytes, and without these items, which are already stored."""

    by: int = 0
    without: Collection[PendingSegment] = ()


def over(context: Context, file: OpenFile, look: Callable[[View], S], take: Callable[[Place], T]) -> tuple[S, T]:
    """Return one state of the map, by `look`, and the unsaved data that overlays it, by `take`, which is called with
    the file's lock held, perhaps more than once. Raises what `look` raises."""
    found = _try(context, file, look, take)
    if found is None:
        with file.commit_lock:
            found = _try(context, file, look, take)
            assert found is not None, "nothing is committed while the lock is held"
    return found


def _try(context: Context, file: OpenFile, look: Callable[[View], S], take: Callable[[Place], T]) -> tuple[S, T] | None:
    """Return None if it is unknown what of the unsaved data is in the map, because a batch was in flight."""
    with file.lock:
        appends, cuts, has_data = file.appends, file.cuts, file.has_data
        is_appended = file.is_appended and has_data
        start = file.start if is_appended else 0
        doubtful = [item for item in file.sealed if item.doubt is not None] if is_appended else []
        taken = take(Place())
    if not has_data:
        plain = context.store.read(look, max_age_s=context.max_age_s)
        return None if cuts % 2 or file.cuts != cuts else (plain, taken)

    def work(view: View) -> tuple[S, bool]:
        stored = look(view)
        if not doubtful:
            return stored, False
        doubts = {batch for item in doubtful if item.doubt is not None for batch in item.doubt.batches}
        is_known = any(map(context.store.was_made, doubts))
        return stored, is_known or appending.place_of(view, file.ino, stored.inode, doubtful[0]) is not None

    stored, is_made = context.store.read(work, max_age_s=context.max_age_s)
    with file.lock:
        if cuts % 2 or file.cuts != cuts:
            return None
        if not is_appended or stored.inode.size == start:
            return stored, taken
        if appends % 2 or file.appends != appends:
            return None
        without = doubtful if is_made else []
        if len(without) == len(file.sealed) and not file.buffer.dirty_bytes:
            return stored, take(Place(0, without))
        return stored, take(Place(stored.inode.size - file.start_without(without), without))
