"""Compares a tree on the servers with a local one, for `dfc verify --against`.

It compares names, types, sizes, contents, permissions and link targets: everything that put and get preserve, except
times, which programs change by reading. Differences are values; files that cannot be read raise exceptions.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from dfsfuse.cli.dfc import local_files, remote_paths
from dfsfuse.cli.dfc.remote import Remote
from dfsfuse.cli.output import printable
from dfsfuse.cli.reports import local_errors
from dfsfuse.vfs.attributes import Attributes

PERMISSIONS = 0o777

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

Difference = tuple[bytes, str]
"""A path on the servers, and what differs there."""


def differences(
    remote: Remote, path: bytes, found: Attributes, local: Path, on_progress: Callable[[bytes, int], None]
) -> Iterator[Difference]:
    """Yield the differences at and below a path. `on_progress` is called with each file and the number of bytes
    compared.

    Raises CommandError, DfsError and OSError.
    """
    todo = [(path, found, local)]
    while todo:
        path, found, local = todo.pop()
        with local_errors(local):
            facts = local.lstat()
        here, there = _KINDS.get(stat.S_IFMT(facts.st_mode)), _KINDS.get(stat.S_IFMT(found.mode))
        if here != there:
            yield path, f"it is {there} on the servers and {here} in the local folder"
            continue
        if stat.S_ISLNK(found.mode):
            yield from _link(remote, path, found, local)
            continue
        ours, theirs = found.mode & PERMISSIONS, facts.st_mode & PERMISSIONS
        if ours != theirs:
            yield path, f"its permissions are {ours:03o} on the servers and {theirs:03o} in the local folder"
        if stat.S_ISREG(found.mode):
            if found.size != facts.st_size:
                yield path, f"it has {found.size} bytes on the servers and {facts.st_size} in the local folder"
            else:
                yield from _content(remote, path, found, local, on_progress)
        elif stat.S_ISDIR(found.mode):
            with local_errors(local):
                names = {os.fsencode(name) for name in os.listdir(local)}  # noqa: PTH208 (names, not paths)
            entries = dict(remote.entries(found.ino, path))
            for name in sorted(names - entries.keys()):
                yield remote_paths.join(path, name), "it is only in the local folder"
            for name in sorted(entries.keys() - names):
                yield remote_paths.join(path, name), "it is only on the servers"
            for name in sorted(entries.keys() & names, reverse=True):
                below = local / os.fsdecode(name)
                todo.append((remote_paths.join(path, name), entries[name], below))


def _link(remote: Remote, path: bytes, found: Attributes, local: Path) -> Iterator[Difference]:
    with local_errors(local):
        theirs = os.fsencode(os.readlink(local))  # noqa: PTH115 (bytes as they are)
    ours = remote.link_target(found.ino, path)
    if ours != theirs:
        yield path, f"it points to {printable(ours)} on the servers and to {printable(theirs)} in the local folder"


def _content(
    remote: Remote, path: bytes, found: Attributes, local: Path, on_progress: Callable[[bytes, int], None]
) -> Iterator[Difference]:
    """Yield the position of the first byte that differs between two files of the same length."""
    on_progress(path, 0)
    offset = 0
    with local_files.reading(local) as (file, _):
        for ours in remote.contents(found.ino, path):
            theirs = b""
            while len(theirs) < len(ours):
                with local_errors(local):
                    more = file.read(len(ours) - len(theirs))
                if not more:
                    break
                theirs += more
            if ours != theirs:
                at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(theirs))
                yield path, f"its contents differ from byte {offset + at} on"
                return
            offset += len(ours)
            on_progress(path, len(ours))
    if offset != found.size:
        yield path, f"it ended at byte {offset} while it was compared"
