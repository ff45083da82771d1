"""Translates paths to inodes for callers that have only paths (a path-based binding, scripts).

Paths are bytes, absolute within the namespace (a missing leading slash is tolerated). Symbolic links are not followed:
the kernel does that. `..` is rejected: callers normalise first.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from dfsfuse.errors import posix_error
from dfsfuse.namespace.ops.directories import check_name
from dfsfuse.namespace.records.keys import ROOT
from dfsfuse.vfs.attributes import Attributes
from dfsfuse.vfs.caller import this_process
from dfsfuse.vfs.vfs import Vfs
from dfsfuse.vfs.write.putting import Progress


def components(path: bytes) -> list[bytes]:
    """Return the names in a path. Raises OSError (EINVAL for `..` and NUL, ENAMETOOLONG)."""
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    for name in names:
        check_name(name)
    return names


def lookup(vfs: Vfs, path: bytes) -> Attributes:
    """Return the attributes of what is at the path. Raises OSError (ENOENT, ENOTDIR...)."""
    names = components(path)
    return vfs.resolve(names) if names else vfs.getattr(ROOT)


def resolve(vfs: Vfs, path: bytes, *, newest: bool = False) -> int:
    """Return the inode at the path, in the newest state if requested. Raises OSError (ENOENT, ENOTDIR...)."""
    names = components(path)
    return vfs.resolve(names, newest=newest).ino if names else ROOT


def split(vfs: Vfs, path: bytes) -> tuple[int, bytes]:
    """Return the inode of the folder that contains the last name, and that name, which need not exist. Raises OSError
    (ENOENT, ENOTDIR; EBUSY for the root, which is in no folder)."""
    names = components(path)
    if not names:
        raise posix_error(errno.EBUSY)
    return (vfs.resolve(names[:-1]).ino if names[:-1] else ROOT), names[-1]


def make_folders(vfs: Vfs, path: bytes, mode: int = 0o755) -> int:
    """Return the folder at the path, creating it and its parents if missing. Raises OSError (ENOTDIR)."""
    ino = ROOT
    for name in components(path):
        try:
            ino = vfs.lookup(ino, name).ino
        except FileNotFoundError:
            try:
                ino = vfs.mkdir(ino, name, mode, this_process()).ino
            except FileExistsError:  # another client was faster
                ino = vfs.lookup(ino, name).ino
    return ino


def put(
    vfs: Vfs,
    path: bytes,
    chunks: Iterable[bytes],
    *,
    parents: bool = False,
    mode: int = 0o644,
    progress: Progress | None = None,
) -> Attributes:
    """Put a whole file at the path; `parents` creates the folders above it. See `Vfs.put_stream`."""
    names = components(path)
    if parents and names[:-1]:
        make_folders(vfs, b"/".join(names[:-1]))
    parent, name = split(vfs, path)
    return vfs.put_stream(parent, name, chunks, mode=mode, progress=progress)
