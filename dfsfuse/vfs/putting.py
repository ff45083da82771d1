"""put: a whole file in the place of whatever file has its name, so that nobody ever sees half of it.

Segments go up as the data comes, a few at a time, without an inode. Then one batch makes the inode, its regions and its
name; for a very long file several batches fill a hidden inode (an orphan) first, and the last one names it. What it
replaces keeps its mode and owner, as with cp. If anything fails the segments are dropped and nothing was there.

Memory: the segments on their way, at most `SEGMENTS_AT_ONCE`. Threads: the caller's, and the pool of uploads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

import msgspec

from dfsfuse.data.extents import REGION_BYTES, Write
from dfsfuse.data.placement import rotation_of, rotation_of_region
from dfsfuse.errors import DfsError, MaybeDoneError
from dfsfuse.namespace import inodes, orphans
from dfsfuse.namespace.records import Inode
from dfsfuse.namespace.transactions import Transaction
from dfsfuse.vfs import regions
from dfsfuse.vfs.context import PATIENCE_S, Context, Written
from dfsfuse.vfs.regions import Patch
from dfsfuse.vfs.removal import Reaper
from dfsfuse.vfs.tree import Tree

SEGMENTS_AT_ONCE: Final = 4

Progress = Callable[[int], None]


class Putter:
    """See the module."""

    def __init__(self, context: Context, tree: Tree, reaper: Reaper) -> None:
        self._context = context
        self._tree = tree
        self._reaper = reaper

    def put(
        self, parent: int, name: bytes, chunks: Iterable[bytes], new: Inode, progress: Progress | None
    ) -> tuple[int, Inode]:
        """Put the data as a file; `new` is its record without size. `progress` is told how many bytes are up."""
        self._context.check_writable()
        ino = self._context.numbers.take()
        patches: list[Patch] = []
        try:
            rotation = self._upload(chunks, patches, progress or (lambda _: None))
            new = msgspec.structs.replace(new, rotation=rotation)
            *early, last = regions.portions(patches) if patches else [[]]
            if early:
                self._hide(ino, new, early)
            return ino, self._name(parent, name, ino, new, last)
        except MaybeDoneError:
            raise  # the batch may still be chosen: what it refers to must stay
        except BaseException:
            self._give_up(ino, patches)
            raise

    def _upload(self, chunks: Iterable[bytes], patches: list[Patch], progress: Progress) -> int | None:
        """All segments, as patches; gives the rotation."""
        rotation: int | None = None
        on_the_way: deque[tuple[int, int, Future[Written]]] = deque()
        sent = 0
        try:
            for index, data in enumerate(_segments(chunks)):
                if rotation is None:
                    rotation = rotation_of(data)
                turn = rotation_of_region(rotation, index)
                upload = self._context.uploads.submit(self._context.segments.write, data, turn)
                on_the_way.append((index, len(data), upload))
                if len(on_the_way) >= SEGMENTS_AT_ONCE:
                    sent += _arrived(on_the_way, patches)
                    progress(sent)
            while on_the_way:
                sent += _arrived(on_the_way, patches)
                progress(sent)
        except BaseException:
            while on_the_way:  # none may arrive later, unknown to anyone
                with suppress(DfsError, OSError):
                    _arrived(on_the_way, patches)
            raise
        return rotation

    def _hide(self, ino: int, new: Inode, portions: list[list[Patch]]) -> None:
        hidden = msgspec.structs.replace(new, nlink=0)

        def begin(tx: Transaction) -> None:
            orphans.begin(tx, ino, self._context.client, new.ctime_ns)
            inodes.save(tx, ino, hidden)

        self._context.store.transact(begin)
        for portion in portions:
            self._context.store.transact(lambda tx, portion=portion: _add(tx, ino, portion))  # type: ignore[misc]

    def _name(self, parent: int, name: bytes, ino: int, new: Inode, last: list[Patch]) -> Inode:
        def fill(tx: Transaction, old: Inode | None) -> Inode:
            inode = inodes.find(tx, ino) or new
            if last:
                inode = regions.save(tx, ino, inode, last).inode
            orphans.end(tx, ino)
            if old is not None and old.is_file:
                inode = msgspec.structs.replace(inode, mode=old.mode, uid=old.uid, gid=old.gid)
            return msgspec.structs.replace(inode, nlink=1)

        return self._tree.replace(parent, name, ino, fill)

    def _give_up(self, ino: int, patches: list[Patch]) -> None:
        """Leave nothing behind, as far as the servers let us; what stays is swept up later. If the file got its name
        after all (we were interrupted while it did), it stays."""
        with suppress(DfsError, OSError):
            self._reaper.delete([ino])
            self._reaper.drop(ino, [(patch.region, patch.segment.id) for patch in patches if not patch.inline])


def _add(tx: Transaction, ino: int, portion: list[Patch]) -> None:
    inodes.save(tx, ino, regions.save(tx, ino, inodes.load(tx, ino), portion).inode)


def _arrived(on_the_way: deque[tuple[int, int, Future[Written]]], patches: list[Patch]) -> int:
    """Wait for the next segment."""
    index, size, upload = on_the_way.popleft()
    written = upload.result(PATIENCE_S)
    patches.append(Patch(index, written.segment, written.inline, (Write(0, size, 0),)))
    return size


def _segments(chunks: Iterable[bytes]) -> Iterator[bytearray]:
    """The data in regions' lengths; each is a buffer of its own."""
    buffer = bytearray()
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            part = view[: REGION_BYTES - len(buffer)]
            buffer += part
            view = view[len(part) :]
            if len(buffer) == REGION_BYTES:
                yield buffer
                buffer = bytearray()
    if buffer:
        yield buffer
