"""What becomes of an inode whose last name is gone.

What is small and nobody here needs goes with its name, in the same batch. Others become orphans, and are deleted in
steps of bounded size when this mount needs them no more (open_files.py), or in the background. Another mount that has
the file open is not asked: its next access gives ESTALE or ENOENT.

Segments that went up for a file and never became part of it are dropped here too, in the background.

An orphan whose client died stays marked in the map (`o/`) for a later sweep. Threads: no state of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from dfsfuse.namespace import inodes, keys
from dfsfuse.namespace.directories import Removed
from dfsfuse.namespace.transactions import Transaction
from dfsfuse.vfs import regions
from dfsfuse.vfs.context import PATIENCE_S, Context, log
from dfsfuse.vfs.open_file import Sealed
from dfsfuse.vfs.open_files import OpenFiles

ORPHAN_FORMAT = b"\x01"


def bury(tx: Transaction, removed: Removed, files: OpenFiles) -> bool:
    """Delete the inode if it has no name any more, or mark it as an orphan. In the transaction that took the name.
    Is it an orphan now?"""
    ino, inode = removed
    if inode.nlink:
        return False
    is_small = not inode.is_file or regions.count(inode.size) <= regions.FEW_REGIONS
    if not files.doom(ino) or not is_small:
        inodes.save(tx, ino, inode)
        tx.put(keys.orphan(ino), ORPHAN_FORMAT)
        return True
    if inode.is_file:
        regions.resize(tx, ino, inode, 0)
    tx.delete(keys.inode(ino))
    return False


class Reaper:
    """Deletes orphans."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def delete_later(self, ino: int) -> None:
        """Delete the orphan in the background."""
        self._context.background.submit(self._delete, ino)

    def _delete(self, ino: int) -> None:
        try:
            self.delete(ino)
        except Exception as failure:  # noqa: BLE001 (nobody waits; the orphan stays marked)
            log.warning("inode %d has no name and could not be deleted yet: %s", ino, failure)

    def delete(self, ino: int) -> None:
        """Delete the orphan, in as many steps as it takes."""

        def step(tx: Transaction) -> bool:
            inode = inodes.find(tx, ino)
            if inode is None or inode.nlink:
                tx.delete(keys.orphan(ino))
                return True
            inode, is_empty = regions.resize(tx, ino, inode, 0)
            if is_empty:
                tx.delete(keys.inode(ino))
                tx.delete(keys.orphan(ino))
            else:
                inodes.save(tx, ino, inode)
            return is_empty

        while not self._context.store.transact(step, durable=False):
            pass

    def drop_later(self, ino: int, items: Sequence[Sealed]) -> None:
        """These segments will not become part of the file: drop them when they have arrived. Not appended ones of
        which this is not known: nobody knows where to look for them."""
        items = [item for item in items if not (item.is_doubtful and item.is_appended)]
        if items:
            self._context.background.submit(self._drop, ino, items)

    def _drop(self, ino: int, items: Sequence[Sealed]) -> None:
        try:
            arrived = [item for item in items if item.upload is None or item.upload.exception(PATIENCE_S) is None]
            written = [
                (item.region, made) for item in arrived for made in (item.written, item.spare) if made is not None
            ]
            earlier = [(item.region, segment) for item in items for segment in item.earlier]
            self.drop(ino, [*earlier, *((region, made.segment.id) for region, made in written if not made.inline)])
        except Exception as failure:  # noqa: BLE001 (nobody waits; the segments take room until they are swept up)
            log.warning("inode %d: segments that are not needed could not be dropped: %s", ino, failure)

    def drop(self, ino: int, segments: Sequence[tuple[int, bytes]]) -> None:
        """Drop those of these segments (region, id) that the file does not refer to."""
        for first in range(0, len(segments), regions.STEP_REGIONS):
            portion = segments[first : first + regions.STEP_REGIONS]
            self._context.store.transact(lambda tx, portion=portion: regions.drop_unused(tx, ino, portion))  # type: ignore[misc]
