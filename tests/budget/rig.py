"""One mount and four servers in one process, with requests like the kernel's; and the cost so far.

The mount is what `dfsmount` opens, with its default options and all its threads (`open_session`, `KernelOperations`,
`KernelCaches`); the servers store what real ones do. Direct calls replace /dev/fuse, and a
`StoredCluster` whose answers take a millisecond replaces connections. Import it after `lockstep.install()`.
"""

from __future__ import annotations

import ctypes
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final
from unittest import mock

from support.lockstep import schedule
from support.stored_cluster import USER, StoredCluster

from dfs_server.protocol.messages import Accept
from dfsfuse.cli import session as session_module
from dfsfuse.cli.config import ClientConfig
from dfsfuse.fusekernel.values import Context, Entry, Lock, LockRequest
from dfsfuse.mount import kernel_session, options
from dfsfuse.mount.kernel_operations import KernelOperations
from dfsfuse.net.servers import Credentials

from .cost import Cost

ROOT: Final = 1
PAUSE_S: Final = 97.3
"""After this time no cached state is fresh, no mount holds the lease, and a new mount has finished its first work. It
is not a whole number of seconds, so that it ends between the checks of background threads."""
ANSWER_S: Final = 0.001
"""The time that a server takes to answer. Nothing else takes time here, so time is measured in round trips."""
NAMES_AT_ONCE: Final = {False: 100, True: 24}
"""Number of names of nine bytes in a buffer of 4 KiB, for READDIR (False) and READDIRPLUS (True)."""
LOCK_OWNER: Final = 7
_PRELOADED: Final = ctypes.CDLL(None)


class Clock:
    """The schedule's time, with the interface of a `Grid`'s clock."""

    def __call__(self) -> float:
        return time.monotonic()

    def wait_until(self, when: float) -> None:
        schedule.sleep(when - schedule.now_s)


class Device:
    """Discards notifications to the kernel."""

    def inval_inode(self, ino: int, offset: int = 0, length: int = 0) -> bool:
        return True

    def inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> bool:
        return True


class Answer:
    """The answer to a request that another thread may answer later: a `dfsfuse.fusekernel.replies.Reply`."""

    def __init__(self) -> None:
        self._is_there = threading.Event()
        self._error = 0

    def done(self) -> bool:
        self._is_there.set()
        return True

    def fail(self, error: int) -> bool:
        self._error = error
        return self.done()

    def forget(self) -> bool:
        return True

    def on_interrupt(self, callback: Callable[[], None]) -> None:
        pass

    def wait(self) -> None:
        self._is_there.wait()
        assert not self._error, os.strerror(self._error)


class Mount:
    """The operations of programs, as the kernel's requests for them."""

    def __init__(self, operations: KernelOperations) -> None:
        self.fuse = operations
        self._context = Context(1000, 1000, os.getpid(), 1)
        self._known: Counter[int] = Counter()
        """The kernel's lookup count of each inode, which it passes on when it forgets the inode."""

    def look_up(self, parent: int, name: str) -> int:
        """Look up a name that the kernel does not know, or no longer knows, and return its inode number."""
        return self._got(self.fuse.lookup(self._context, parent, name.encode()))

    def make_folder(self, parent: int, name: str) -> int:
        return self._got(self.fuse.mkdir(self._context, parent, name.encode(), 0o755, 0))

    def make_node(self, parent: int, name: str) -> int:
        """Make an empty file without opening it."""
        return self._got(self.fuse.mknod(self._context, parent, name.encode(), stat.S_IFREG | 0o644, 0, 0))

    def create(self, parent: int, name: str, flags: int = os.O_WRONLY) -> tuple[int, int]:
        """Create a file; the kernel first looks the name up."""
        self.fuse.lookup(self._context, parent, name.encode())
        entry, opened = self.fuse.create(self._context, parent, name.encode(), 0o644, flags | os.O_CREAT, 0)
        return self._got(entry), opened.handle

    def open(self, ino: int, flags: int = os.O_RDONLY) -> tuple[int, int]:
        return ino, self.fuse.open(self._context, ino, flags, kill_privileges=False).handle

    def write(self, file: tuple[int, int], offset: int, data: bytes, *, append: bool = False) -> None:
        written = self.fuse.write(self._context, *file, offset, memoryview(data), kill_privileges=False, append=append)
        assert written == len(data)

    def read(self, file: tuple[int, int], offset: int, size: int) -> bytes:
        return bytes(self.fuse.read(self._context, *file, offset, size))

    def fsync(self, file: tuple[int, int]) -> None:
        self.fuse.fsync(self._context, *file, data_only=False)

    def lock(self, file: tuple[int, int], kind: int) -> None:
        """fcntl(F_SETLKW) on the whole file, or its release (F_UNLCK)."""
        ino, handle = file
        request = LockRequest(handle, LOCK_OWNER, Lock(kind, 0, 2**63 - 1, os.getpid()), is_flock=False)
        answer = Answer()
        self.fuse.set_lock(self._context, ino, request, wait=True, reply=answer)  # type: ignore[arg-type]
        answer.wait()

    def close(self, file: tuple[int, int]) -> None:
        ino, handle = file
        self.fuse.flush(self._context, ino, handle, LOCK_OWNER)
        self.fuse.flushed(self._context, ino, LOCK_OWNER)
        self.fuse.release(self._context, ino, handle, owner=None)
        self.fuse.released(self._context, ino, handle)

    def rename(self, parent: int, name: str, new_name: str) -> None:
        self.fuse.rename(self._context, parent, name.encode(), parent, new_name.encode(), 0)

    def unlink(self, parent: int, name: str, ino: int) -> None:
        """Remove a file that has no other name and is not open, which the kernel then forgets."""
        self.fuse.unlink(self._context, parent, name.encode())
        self.fuse.forget(ino, self._known.pop(ino))

    def remove_folder(self, parent: int, name: str, ino: int) -> None:
        """Remove an empty folder, which the kernel then forgets."""
        self.fuse.rmdir(self._context, parent, name.encode())
        self.fuse.forget(ino, self._known.pop(ino))

    def list(self, ino: int, *, with_attributes: bool = False) -> dict[str, int]:
        """List a folder, a buffer at a time, and return the inodes of all names; with attributes, by READDIRPLUS."""
        handle = self.fuse.opendir(self._context, ino, os.O_RDONLY).handle
        found: dict[str, int] = {}
        offset = 0
        while portion := list(
            islice(self.fuse.readdir(self._context, ino, handle, offset), NAMES_AT_ONCE[with_attributes])
        ):
            found.update((entry.name.decode(), entry.ino) for entry in portion)
            if with_attributes:
                named = [entry for entry in portion if entry.name not in (b".", b"..")]
                for looked_up in self.fuse.lookup_listed(self._context, ino, named):
                    assert looked_up is not None
                    self._got(looked_up)
            offset = portion[-1].offset
        self.fuse.releasedir(self._context, ino, handle)
        return found

    def _got(self, entry: Entry) -> int:
        if entry.attributes is None:
            raise FileNotFoundError
        self._known[entry.attributes.ino] += 1
        return entry.attributes.ino


class Rig:
    """Servers with folders below `folder`, and mounts."""

    def __init__(self, folder: Path, durability: str) -> None:
        self._durability = durability
        self._paused_s = 0.0
        self._cluster = StoredCluster(folder, Clock())  # type: ignore[arg-type]
        self._config = ClientConfig(folder, self._cluster.servers, Credentials(USER, "secret"))

    @contextmanager
    def mounted(self) -> Iterator[Mount]:
        """A new mount, which has read nothing yet."""
        wanted = options.parse([f"durability={self._durability},binding=kernel"], as_root=False)
        with mock.patch.object(session_module, "Cluster", lambda *_, **__: self._cluster):
            session = session_module.open_for_mount(self._config, wanted)
        with session:
            operations = kernel_session.operations_of(session.vfs, wanted.fuse)
            caches, mapped = kernel_session.connect(operations, session.vfs, Device(), wanted.fuse)
            caches.start()
            try:
                yield Mount(operations)
            finally:
                mapped.close()
                caches.close()

    def pause(self, seconds: float = PAUSE_S) -> None:
        """Let time pass without requests."""
        schedule.sleep(seconds)
        self._paused_s += seconds

    def spent(self) -> Cost:
        """Return the total cost since the process began."""
        sent = self._cluster.sent()
        return Cost(
            Counter(type(request).__name__ for request in sent),
            len({request.slot for request in sent if isinstance(request, Accept)}),
            _PRELOADED.fsyncs_made(),
            schedule.hand_overs.total(),
            (schedule.now_s - self._paused_s) / ANSWER_S,
        )

    def close(self) -> None:
        self._cluster.close_servers()
