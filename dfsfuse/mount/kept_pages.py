"""Tracks the files whose pages the kernel may keep on the next open() (FOPEN_KEEP_CACHE). Pure.

Without that flag each open() drops all pages of the file, and its reads are served by the mount again. The flag is
given only if every page is known to show the newest content, based on these rules:
- An open() without the flag drops the pages, and waits for those that are being read. By the time the kernel closes the
  descriptor (FLUSH, RELEASE), this is done, and everything read since came from the state that was known when this
  open() was answered, or a newer one. From then on the file is *current*.
- Anything that may make a page stale ends that: a change by another mount, which the map reports before it returns a
  newer state to anyone; changes that were answered and then lost; and any change of the content by this mount. It also
  ends it for open descriptors, since they may have dropped the pages before the change.
- Two programs that open a file at the same time do not rely on each other: the second must not keep what the first is
  about to drop.

The owner's lock guards it. Its size is limited by the inodes that the kernel knows, and by its descriptors.
"""

from __future__ import annotations


class KeptPages:
    """See the module."""

    def __init__(self) -> None:
        self._current: set[int] = set()
        self._open: dict[int, set[int]] = {}
        """By inode: open handles that were opened without the flag, if nothing has changed since."""
        self._inodes: dict[int, int] = {}
        """The inverse mapping."""

    def is_current(self, ino: int) -> bool:
        """Whether all pages that the kernel may have show the newest known state."""
        return ino in self._current

    def dropped(self, ino: int, handle: int) -> None:
        """Record that an open() is answered without the flag: the kernel is about to drop the pages."""
        self._open.setdefault(ino, set()).add(handle)
        self._inodes[handle] = ino

    def closing(self, handle: int) -> None:
        """Record that the kernel closes a descriptor with this handle, perhaps not the last one."""
        ino = self._inodes.pop(handle, None)
        if ino is not None:
            self._current.add(ino)
            self._open[ino].discard(handle)
            if not self._open[ino]:
                del self._open[ino]

    def concerns(self, ino: int) -> bool:
        """Whether a change of this file would affect anything recorded here. May be called without the lock."""
        return ino in self._current or ino in self._open

    def changed(self, ino: int) -> None:
        """Record that the file's content may have changed."""
        self._current.discard(ino)
        for handle in self._open.pop(ino, ()):
            del self._inodes[handle]

    def all_changed(self) -> None:
        """Record that every file's content may have changed."""
        self._current.clear()
        self._open.clear()
        self._inodes.clear()

    def forget(self, ino: int) -> None:
        """Record that the kernel no longer knows the inode, and has no pages of it."""
        self._current.discard(ino)
