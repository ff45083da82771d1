"""put: from the local file system onto the servers.

Knows local files and `Remote`, nothing of the command line. A file appears under its name complete or not at all. Mode
and times are kept, as with `cp -p`; owners are not: the files belong to the user who puts them. The argument itself may
be a symbolic link; links in the tree are copied as links. Hard links become separate files. Holes stay holes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dfsfuse.cli.dfc import local_files, remote_paths
from dfsfuse.cli.dfc.local_files import Facts
from dfsfuse.cli.dfc.own_mounts import OwnMounts
from dfsfuse.cli.dfc.progress import Bar
from dfsfuse.cli.dfc.remote import Remote
from dfsfuse.cli.output import printable
from dfsfuse.cli.reports import CommandError, Tally, local_errors
from dfsfuse.vfs.write.putting import Hole


def put_stream(remote: Remote, file: BinaryIO, path: bytes, facts: Facts, bar: Bar) -> None:
    """Put the contents of a stream, up to its end, under a remote path."""
    place = remote.find(path)
    if place.is_folder():
        raise CommandError(f"{printable(path)} is a folder: give the file's name too")
    bar.start(b"standard input", None)
    remote.put(place, _advancing(local_files.chunks(file, Path("standard input")), bar), facts, keep_mode=False)


def put_file(remote: Remote, local: Path, path: bytes, own: OwnMounts, bar: Bar) -> None:
    """Put a regular local file under a remote path."""
    place = remote.find(path)
    with local_files.reading(local) as (file, found):
        if place.is_folder():
            raise CommandError(f"{printable(path)} is a folder: it is not replaced by a file")
        if place.found is not None and own.inode(file.fileno(), found.st_dev) == place.found.ino:
            raise CommandError(f"local {printable(local)} and {printable(path)} are the same file")
        bar.start(os.fsencode(local.name), found.st_size)
        remote.put(place, _advancing(local_files.stretches(file, found, local), bar), facts_of(found))


def put_tree(remote: Remote, local: Path, path: bytes, bar: Bar) -> None:
    """Put a local folder and everything below it. Existing remote folders are merged into, files replaced.

    A failure is reported, and the rest goes on; raises `AlreadyReported` at the end. If the tree contains a mount of
    the namespace, that is copied too, except for the folders that this copy itself fills (as with cp).
    """
    tally = Tally()
    own = OwnMounts(remote)
    todo: list[tuple[Path, bytes]] = [(local, path)]
    folders: dict[int, Facts] = {}
    while todo:
        source, target = todo.pop()
        with tally.attempt(source):
            with local_errors(source):
                found = source.stat()
                entries = sorted(source.iterdir())
            seen = own.inode(source, found.st_dev)
            place = remote.find(target)
            if seen is not None and (seen in folders or (place.found is not None and seen == place.found.ino)):
                raise CommandError(f"local {printable(source)} cannot be copied into itself ({printable(path)})")
            inode = remote.ensure_folder(target)
            folders[inode] = facts_of(found)
            for entry in entries:
                with tally.attempt(entry):
                    below = remote_paths.join(target, os.fsencode(entry.name))
                    if local_files.kind_of(entry) == stat.S_IFDIR:
                        todo.append((entry, below))
                    else:
                        _put_leaf(remote, entry, below, own, bar)
    for inode, facts in reversed(folders.items()):  # last, because putting something into a folder changes its times
        with tally.attempt():
            remote.set_facts(inode, facts)
    tally.settle()


def facts_of(found: os.stat_result) -> Facts:
    """The attributes of a local file that are kept."""
    mode = stat.S_IMODE(found.st_mode) & local_files.PERMISSIONS
    return Facts(mode=mode, atime_ns=found.st_atime_ns, mtime_ns=found.st_mtime_ns)


def _put_leaf(remote: Remote, local: Path, path: bytes, own: OwnMounts, bar: Bar) -> None:
    with local_errors(local):
        found = local.lstat()
        target = os.fsencode(local.readlink()) if stat.S_ISLNK(found.st_mode) else b""
    local_files.refuse_special(local, found.st_mode)
    if not target:
        put_file(remote, local, path, own, bar)
        return
    place = remote.find(path, follow=False)
    if place.is_folder():
        raise CommandError(f"{printable(path)} is a folder: it is not replaced by a symbolic link")
    remote.put_link(place, target, facts_of(found))


def _advancing(chunks: Iterator[bytes | Hole], bar: Bar) -> Iterator[bytes | Hole]:
    """Yield the chunks, and advance the bar after each."""
    for chunk in chunks:
        yield chunk
        bar.advance(chunk.length if isinstance(chunk, Hole) else len(chunk))


def target_of(remote: Remote, local: Path, given: str | None, *, contents_meant: bool) -> bytes:
    """The remote path that `put LOCAL [REMOTE]` means: as for cp, an existing folder gets the base name appended.

    `contents_meant`: LOCAL was typed with a trailing `.` or `..`, which a `Path` may drop. As for cp, an existing
    folder then gets its contents.
    """
    name = os.fsencode(local.name if local.name != ".." else "") or os.fsencode(local.resolve().name)
    if given is None:
        if not name:
            raise CommandError("the local root has no name of its own: give REMOTE")
        return remote_paths.join(b"/", name)
    path = remote_paths.normal(given)
    place = remote.find(path)
    if place.is_folder():
        return remote_paths.join(path, name) if name and not contents_meant else path
    if remote_paths.names_a_folder(given):
        raise CommandError(f"{printable(given)} is not an existing folder (make it with: mkdir -p)")
    return path
