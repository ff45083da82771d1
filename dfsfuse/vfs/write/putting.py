"""put: replaces whatever file has a name by a whole new file, so that half of it is never visible.

Segments are uploaded as the data comes, a few at a time, without an inode; nothing is uploaded for a `Hole`. Then one
batch makes the inode, its regions and its name; for a very long file several batches fill a hidden inode (an orphan)
first, and the last one names it. What takes hours fills it as it goes, since unreferenced segments are swept after a
day. The new file keeps the mode and owner of what it replaces, as with cp. If anything fails, or the hidden inode was
swept (its client was considered dead), the segments are dropped and nothing is left.

Memory: the segments in flight, at most `SEGMENTS_AT_ONCE`. Threads: the caller's, and the pool of uploads.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from dfs_server.protocol.pieces import Buffer
from dfsfuse.data.extents import REGION_BYTES, Write
from dfsfuse.data.placement import rotation_of, rotation_of_region
from dfsfuse.data.runs import is_hole
from dfsfuse.errors import DfsError, MaybeDoneError, UnavailableError, posix_error
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.ops import inodes, orphans
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.context import FILE_MAX_BYTES, PATIENCE_S, Context, Written
from dfsfuse.vfs.names.removal import Reaper
from dfsfuse.vfs.names.tree import Tree
from dfsfuse.vfs.write import regions, uploaded
from dfsfuse.vfs.write.regions import Patch
from dfsfuse.vfs.write.write_buffer import by_region

SEGMENTS_AT_ONCE: Final = 4

Progress = Callable[[int], None]


class Hole(NamedTuple):
    """Takes the place of data: this many bytes that read as zeros and take no room."""

    length: int


Chunk = Buffer | Hole


class Putter:
    """See the module."""

    def __init__(self, context: Context, tree: Tree, reaper: Reaper) -> None:
        self._context = context
        self._tree = tree
        self._reaper = reaper

    def put(
        self, parent: int, name: bytes, chunks: Iterable[Chunk], new: Inode, progress: Progress | None
    ) -> tuple[int, Inode]:
        """Put the data as a file; `new` is its record without size. `progress` is told how many bytes are up.

        Raises OSError (EFBIG), besides what the servers and the map do.
        """
        self._context.check_writable()
        put = _Put(self._context.numbers.take(), new)
        try:
            self._upload(chunks, put, progress or (lambda _: None))
            *early, last = regions.portions(put.waiting) if put.waiting else [[]]
            if early:
                self._hide(put, early)
            return put.ino, self._name(parent, name, put, last)
        except MaybeDoneError:
            raise  # the batch may still be chosen: what it refers to must stay
        except BaseException:
            self._give_up(put.ino, put.patches)
            raise

    def _upload(self, chunks: Iterable[Chunk], put: _Put, progress: Progress) -> None:
        """Upload all segments, as patches; and decide the rotation."""
        rotation: int | None = None
        in_flight: deque[_InFlight] = deque()
        sent = 0
        try:
            for index, data, writes in _segments(chunks, put):
                if rotation is None:
                    rotation = rotation_of(data)
                    put.new = msgspec.structs.replace(put.new, rotation=rotation)
                turn = rotation_of_region(rotation, index)
                began_ns = self._context.clock()
                upload = self._context.uploads.submit(self._context.segments.write, data, turn)
                in_flight.append(_InFlight(index, writes, upload, began_ns))
                while in_flight and (len(in_flight) >= SEGMENTS_AT_ONCE or self._is_late(in_flight[0].began_ns)):
                    sent += _arrived(in_flight, put)
                    progress(sent)
                    if put.waiting and self._is_late(put.began_ns()):
                        self._hide(put, list(regions.portions(put.waiting)))
            while in_flight:
                sent += _arrived(in_flight, put)
                progress(sent)
        except BaseException:
            while in_flight:  # none may arrive later, unknown to anyone
                with suppress(DfsError, OSError):
                    _arrived(in_flight, put)
            raise

    def _is_late(self, began_ns: int) -> bool:
        """Return whether it is time that the map refers to what was uploaded then."""
        return uploaded.is_old(began_ns, self._context.clock(), uploaded.SOON_NS)

    def _hide(self, put: _Put, portions: list[list[Patch]]) -> None:
        """Let the file that has no name yet refer to these."""
        for portion in portions:
            began_ns = put.began_ns()

            def add(tx: Transaction, portion: list[Patch] = portion, began_ns: int = began_ns) -> None:
                now_ns = self._context.clock()
                uploaded.check(tx, began_ns, now_ns)
                inode = _so_far(tx, put)
                if inode is None:
                    orphans.begin(tx, put.ino, self._context.client, now_ns)
                    inode = msgspec.structs.replace(put.new, nlink=0)
                else:
                    orphans.claim(tx, put.ino, self._context.client, now_ns)
                inodes.save(tx, put.ino, regions.save(tx, put.ino, inode, portion).inode)

            self._context.store.transact(add)
            put.referred(len(portion))

    def _name(self, parent: int, name: bytes, put: _Put, last: list[Patch]) -> Inode:
        def fill(tx: Transaction, old: Inode | None) -> Inode:
            inode = _so_far(tx, put) or put.new
            if last:
                uploaded.check(tx, put.began_ns(), self._context.clock())
                inode = regions.save(tx, put.ino, inode, last).inode
            orphans.end(tx, put.ino)
            if old is not None and old.is_file:
                inode = msgspec.structs.replace(inode, mode=old.mode, uid=old.uid, gid=old.gid)
            return msgspec.structs.replace(inode, nlink=1, size=max(inode.size, put.size))

        return self._tree.replace(parent, name, put.ino, fill)

    def _give_up(self, ino: int, patches: list[Patch]) -> None:
        """Leave nothing behind, as far as the servers permit; what stays is swept later. If the file got its name after
        all (we were interrupted while it did), it stays."""
        with suppress(DfsError, OSError):
            self._reaper.delete([ino])
            self._reaper.drop(ino, [(patch.region, patch.segment.id) for patch in patches if not patch.inline])


class _InFlight(NamedTuple):
    region: int
    writes: tuple[Write, ...]
    upload: Future[Written]
    began_ns: int


@dataclass
class _Put:
    """A file in the making."""

    ino: int
    new: Inode
    patches: list[Patch] = field(default_factory=list)
    """All that is uploaded."""
    began: list[int] = field(default_factory=list)
    """When the uploads began of those that the map does not refer to yet; they are the last ones."""
    is_hidden: bool = False
    """Whether the map has the inode, which has no name yet."""
    size: int = 0
    """The bytes and holes received so far."""

    @property
    def waiting(self) -> list[Patch]:
        """Return what the map does not refer to yet."""
        return self.patches[len(self.patches) - len(self.began) :]

    def began_ns(self) -> int:
        """Return when the first of those began to be uploaded."""
        return min(self.began)

    def referred(self, count: int) -> None:
        """Record that the map refers to the first `count` of them."""
        del self.began[:count]
        self.is_hidden = True


def _so_far(tx: Transaction, put: _Put) -> Inode | None:
    """Return the inode without a name, if there is one by now. Raises UnavailableError if it was swept with its
    data."""
    inode = inodes.find(tx, put.ino)
    if inode is None and put.is_hidden:
        raise UnavailableError("what was put so far was swept, since nothing was heard of it for a day: put it again")
    return inode


def _arrived(in_flight: deque[_InFlight], put: _Put) -> int:
    """Wait for the next segment."""
    region, writes, upload, began_ns = in_flight.popleft()
    written = upload.result(PATIENCE_S)
    put.patches.append(Patch(region, written.segment, written.inline, writes))
    put.began.append(began_ns)
    return sum(write.length for write in writes)


def _segments(chunks: Iterable[Chunk], put: _Put) -> Iterator[tuple[int, bytearray, tuple[Write, ...]]]:
    """For each region with data its index, a buffer of its own with the stretches of data one after the other, and
    where these show. `put.size` is how far the chunks have come."""
    index, buffer, writes = 0, bytearray(), list[Write]()
    for chunk in chunks:
        length = chunk.length if isinstance(chunk, Hole) else memoryview(chunk).nbytes
        if put.size + length > FILE_MAX_BYTES:
            raise posix_error(errno.EFBIG)
        if isinstance(chunk, Hole):
            put.size += length
            continue
        for region, at, part in by_region(put.size, chunk):
            if region != index and buffer:
                yield index, buffer, tuple(writes)
                buffer, writes = bytearray(), []
            index = region
            _append(buffer, writes, at, part)
            if len(buffer) == REGION_BYTES:
                yield index, buffer, tuple(writes)
                buffer, writes = bytearray(), []
        put.size += length
    if buffer:
        yield index, buffer, tuple(writes)


def _append(buffer: bytearray, writes: list[Write], at: int, part: memoryview) -> None:
    """Add a stretch of data that appears at `at` of its region. A gap before it that is too short for a hole becomes
    zeros."""
    end = writes[-1].offset + writes[-1].length if writes else 0
    if writes and not is_hole(end, at):
        buffer += bytes(at - end)
        last = writes[-1]
        writes[-1] = Write(last.offset, at + len(part) - last.offset, last.segment_offset)
    else:
        writes.append(Write(at, len(part), len(buffer)))
    buffer += part
