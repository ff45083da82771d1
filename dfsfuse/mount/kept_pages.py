"""Of which files the kernel's pages may stay when they are opened once more (FOPEN_KEEP_CACHE). Pure.

Without that flag each open() drops all pages of the file, and what it reads comes from the mount again. The flag is
given only if every page is known to show the newest content, which rests on this:

- An open() without the flag drops the pages, and waits for those that are being read. By the time that the kernel
  closes the descriptor (FLUSH, RELEASE) that is done, and what has been read since came from the state that was known
  when this open() was answered, or a newer one. From then on the file is *current*.
- What may make a page old ends that: a change by another mount, of which the map tells before it gives a newer state to
  anybody; changes that were answered and are lost; and whatever this mount does to the content. It also ends it for
  descriptors that are open, since they may have dropped the pages before the change.
- Two programs that open a file at once do not rely on each other: the second must not keep what the first is about to
  drop.

The owner's lock guards it. Bounded by the inodes that the kernel knows, and by its descriptors.
"""

from __future__ import annotations


class KeptPages:
    """See the module."""

    def __init__(self) -> None:
        self._current: set[int] = set()
        self._open: dict[int, set[int]] = {}
        """By inode: handles that were opened without the flag and not closed, if nothing has changed since."""
        self._inodes: dict[int, int] = {}
        """The same, the other way round."""

    def is_current(self, ino: int) -> bool:
        """Whether all pages that the kernel may have show the newest state that is known here."""
        return ino in self._current

    def dropped(self, ino: int, handle: int) -> None:
        """An open() is answered without the flag: the kernel is about to drop the pages."""
        self._open.setdefault(ino, set()).add(handle)
        self._inodes[handle] = ino

    def closing(self, handle: int) -> None:
        """The kernel closes a descriptor with this handle, perhaps not the last one."""
        ino = self._inodes.pop(handle, None)
        if ino is not None:
            self._current.add(ino)
            self._open[ino].discard(handle)
            if not self._open[ino]:
                del self._open[ino]

    def concerns(self, ino: int) -> bool:
        """Whether anything is known here that a change of this file ends. May be asked without the lock."""
        return ino in self._current or ino in self._open

    def changed(self, ino: int) -> None:
        """The file's content may be another one now."""
        self._current.discard(ino)
        for handle in self._open.pop(ino, ()):
            del self._inodes[handle]

    def all_changed(self) -> None:
        """Every file's content may be another one now."""
        self._current.clear()
        self._open.clear()
        self._inodes.clear()

    def forget(self, ino: int) -> None:
        """The kernel does not know the inode any more, and has no pages of it."""
        self._current.discard(ino)
