"""get: from the servers into the local file system.

Knows local files and `Remote`, nothing of the command line. A file appears under its name only when it is complete and
every piece has been checked (`local_files.replacing`). Mode and times are kept. The argument itself may be a symbolic
link; links in the tree are copied as links and never followed, on either side. Names that come from servers are not
trusted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from dfsfuse.cli.dfc import local_files, remote_paths
from dfsfuse.cli.dfc.local_files import Facts, SparseWriter
from dfsfuse.cli.dfc.own_mounts import OwnMounts
from dfsfuse.cli.dfc.progress import Bar
from dfsfuse.cli.dfc.remote import Remote
from dfsfuse.cli.output import printable, write_bytes
from dfsfuse.cli.reports import CommandError, Tally, local_errors
from dfsfuse.errors import IncompleteError
from dfsfuse.vfs.attributes import Attributes

Incomplete = Callable[[bytes, IncompleteError], None]  # called with the path of a file that cannot be assembled


def get_file(remote: Remote, path: bytes, found: Attributes, local: Path, own: OwnMounts, bar: Bar) -> None:
    """Get a remote file to a local path, replacing what is there. Raises IncompleteError; then nothing has changed."""
    _refuse_special(path, found.mode)
    if _inode_at(local, own) == found.ino:
        raise CommandError(f"{printable(path)} and local {printable(local)} are the same file")
    bar.start(remote_paths.base_name(path), found.size)
    with local_files.replacing(local, facts_of(found)) as file:
        writer = SparseWriter(file, local)
        for chunk in remote.stretches(found, path):
            bar.advance(writer.write(chunk))
        writer.finish()


def get_stream(remote: Remote, path: bytes, found: Attributes, bar: Bar) -> None:
    """Write a remote file to standard output. Data written before an error cannot be taken back."""
    _refuse_special(path, found.mode)
    bar.start(remote_paths.base_name(path), found.size)
    for chunk in remote.contents(found.ino, path):
        write_bytes(chunk)
        bar.advance(len(chunk))


def get_tree(remote: Remote, path: bytes, found: Attributes, local: Path, bar: Bar, *, incomplete: Incomplete) -> None:
    """Get a remote folder and everything below it. Existing local folders are merged into, files replaced.

    A failure is reported, and the rest goes on; raises `AlreadyReported` at the end. In a mount of the namespace, the
    folders that this copy itself fills are not copied into themselves (as with cp).
    """
    tally = Tally()
    own = OwnMounts(remote)
    filled: set[int] = set()
    todo: list[tuple[bytes, Attributes, Path]] = [(path, found, local)]
    folders: list[tuple[Path, Facts]] = []
    while todo:
        source, attributes, target = todo.pop()
        with tally.attempt(source):
            entries = remote.entries(attributes.ino, source)
            if attributes.ino in filled or _inode_at(target, own) == attributes.ino:
                raise CommandError(f"{printable(source)} cannot be copied into itself (local {printable(local)})")
            _ensure_local_folder(target)
            filled.add(_inode_at(target, own) or 0)
            folders.append((target, facts_of(attributes)))
            for name, below in entries:
                with tally.attempt(remote_paths.join(source, name)):
                    far = remote_paths.join(source, name)
                    near = target / local_files.safe_name(name)
                    if stat.S_ISDIR(below.mode):
                        todo.append((far, below, near))
                    else:
                        try:
                            _get_leaf(remote, far, below, near, own, bar)
                        except IncompleteError as error:
                            incomplete(far, error)
                            tally.note(error.exit_code, far)
    for folder, facts in reversed(folders):  # last, because writing into a folder changes its times
        with tally.attempt(), local_errors(folder):
            folder.chmod(facts.mode & local_files.PERMISSIONS)
            os.utime(folder, ns=(facts.atime_ns, facts.mtime_ns))
    tally.settle()


def facts_of(found: Attributes) -> Facts:
    """The attributes of a remote file that are kept."""
    return Facts(mode=stat.S_IMODE(found.mode), atime_ns=found.atime_ns, mtime_ns=found.mtime_ns)


def target_of(path: bytes, local: Path | None, *, folder_meant: bool, contents_meant: bool = False) -> Path:
    """The local path that `get REMOTE [LOCAL]` means: as for cp, an existing folder gets the base name appended.

    `folder_meant`: LOCAL was typed with a trailing slash, which a `Path` drops. `contents_meant`: REMOTE was typed with
    a trailing `.` or `..`. As for cp, an existing folder then gets its contents.
    """
    name = remote_paths.base_name(path)
    below = local_files.safe_name(name) if name else ""
    if local is None:
        return Path(below)
    with local_errors(local):
        if local.is_dir():
            return local if contents_meant else local / below
        if folder_meant:
            raise CommandError(f"local {printable(local)} is not an existing folder")
        return Path(os.path.realpath(local)) if local.is_symlink() else local  # in a loop of links, this is one of them


def _inode_at(local: Path, own: OwnMounts) -> int | None:
    """The inode number in the namespace of what is at a local path. None if nothing is there, if it is not in the
    namespace, or if it is a link, which would not be followed."""
    with local_errors(local):
        try:
            found = local.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if stat.S_ISLNK(found.st_mode) else own.inode(local, found.st_dev)


def _get_leaf(remote: Remote, path: bytes, found: Attributes, local: Path, own: OwnMounts, bar: Bar) -> None:
    if not stat.S_ISLNK(found.mode):
        get_file(remote, path, found, local, own, bar)
        return
    target = remote.link_target(found.ino, path)
    if local_files.kind_of(local) == stat.S_IFDIR:
        raise CommandError(f"local {printable(local)} is a folder: it is not replaced by a symbolic link")
    local_files.put_link(local, target, facts_of(found))


def _ensure_local_folder(path: Path) -> None:
    """Make sure that a folder is there. A symbolic link to one is refused: it could lead out of the tree being
    written."""
    with local_errors(path):
        if local_files.kind_of(path) is None:
            path.mkdir(0o700)
        elif local_files.kind_of(path) != stat.S_IFDIR:
            raise CommandError(f"local {printable(path)} is in the way: it is not a folder")


def _refuse_special(path: bytes, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise CommandError(f"{printable(path)} is a folder: use -r")
    if not stat.S_ISREG(mode):
        raise CommandError(f"{printable(path)} is not a file, folder or symbolic link: it is not copied")
