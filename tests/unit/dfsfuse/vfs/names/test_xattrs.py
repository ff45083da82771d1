"""Extended attributes: stored ones, and a file's health."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from support.memory_mounts import CALLER, ROOT, MemoryMounts, write_file

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.data.placement import rotation_of
from dfsfuse.namespace.ops import xattrs
from dfsfuse.namespace.records import members


def fails(number: int, action: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        action()
    assert caught.value.errno == number


def test_stored_attributes(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    folder = vfs.mkdir(ROOT, b"d", 0o755, CALLER).ino
    vfs.setxattr(folder, b"user.a", b"\0\xff", xattrs.CREATE)
    assert vfs.getxattr(folder, b"user.a") == b"\0\xff"
    assert vfs.listxattr(folder) == [b"user.a"]
    assert vfs.getattr(folder).ctime_ns == mounts.now_ns
    fails(errno.EEXIST, lambda: vfs.setxattr(folder, b"user.a", b"", xattrs.CREATE))
    vfs.removexattr(folder, b"user.a")
    assert vfs.listxattr(folder) == []
    fails(errno.ENODATA, lambda: vfs.getxattr(folder, b"user.a"))
    fails(errno.ENODATA, lambda: vfs.removexattr(folder, b"user.a"))
    fails(errno.EOPNOTSUPP, lambda: vfs.getxattr(folder, b"security.capability"))
    fails(errno.ENOENT, lambda: vfs.getxattr(999, b"user.a"))


def test_attributes_survive_writing(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"one")
    vfs.setxattr(ino, b"user.a", b"1")
    write_file(vfs, b"f", b"two")
    assert vfs.getxattr(ino, b"user.a") == b"1"


def test_health_of_a_file(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    data = next(d for d in (b"%0200000d" % i for i in range(99)) if rotation_of(d) == 0)
    ino = write_file(vfs, b"f", data)
    assert vfs.getxattr(ino, b"user.dfs.health") == b"complete"
    assert vfs.getxattr(ino, b"user.dfs.pieces") == b"P1: DFS1 DFS4; P2: DFS1 DFS2; P3: DFS2 DFS3; P4: DFS3 DFS4"
    assert vfs.getxattr(ino, b"user.dfs.servers") == b"DFS1 DFS2 DFS3 DFS4"
    mounts.segments.answering = {1, 2, 3}
    assert vfs.getxattr(ino, b"user.dfs.health") == b"degraded"
    assert vfs.getxattr(ino, b"user.dfs.servers") == b"DFS1 DFS2 DFS3"
    mounts.segments.answering = {1, 2}
    assert vfs.getxattr(ino, b"user.dfs.health") == b"incomplete"
    assert vfs.getxattr(ino, b"user.dfs.pieces").endswith(b"; P4: none")
    assert vfs.health([ino, ROOT])[ino].state == "incomplete"
    assert ROOT not in vfs.health([ino, ROOT])


def test_health_of_empty_and_of_long_files(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    empty, long = write_file(vfs, b"e", b""), write_file(vfs, b"l", bytes(REGION_BYTES + 1))
    assert vfs.getxattr(empty, b"user.dfs.health") == b"complete"
    assert vfs.getxattr(empty, b"user.dfs.pieces") == b""
    assert vfs.getxattr(long, b"user.dfs.pieces").endswith(b"(first of 2 segments)")


def test_own_attributes_are_read_by_name_and_never_listed_nor_kept(mounts: MemoryMounts) -> None:
    """Copying a file with its attributes carries none of them along, and copying such attributes in does no harm."""
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"x")
    vfs.setxattr(ino, b"user.mine", b"")
    before = vfs.getattr(ino)
    for name in (b"user.dfs.health", b"user.dfs.pieces", b"user.dfs.servers"):
        for flags in (0, xattrs.CREATE, xattrs.REPLACE):
            vfs.setxattr(ino, name, b"stale", flags)
        vfs.removexattr(ino, name)
    assert vfs.listxattr(ino) == [b"user.mine"]
    assert vfs.getxattr(ino, b"user.dfs.health") == b"complete"
    assert vfs.getattr(ino) == before
    assert vfs.listxattr(ROOT) == []
    fails(errno.EOPNOTSUPP, lambda: vfs.setxattr(ino, b"user.dfs.anything", b"x"))
    fails(errno.EOPNOTSUPP, lambda: vfs.removexattr(ino, b"user.dfs.anything"))
    fails(errno.ENODATA, lambda: vfs.getxattr(ino, b"user.dfs.anything"))
    fails(errno.ENODATA, lambda: vfs.getxattr(ROOT, b"user.dfs.health"))


def test_which_namespace_and_inode_a_file_is(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    folder = vfs.mkdir(ROOT, b"d", 0o755, CALLER).ino
    fails(errno.ENODATA, lambda: vfs.getxattr(folder, b"user.dfs.inode"))  # the namespace has no identity yet
    mounts.map.transact(lambda tx: members.meet(tx, {1: "DFS1"}, {}, 0, b"\x01\xff"))
    assert vfs.getxattr(ROOT, b"user.dfs.inode") == b"01ff:1"
    assert vfs.getxattr(folder, b"user.dfs.inode") == b"01ff:%d" % folder
    vfs.setxattr(folder, b"user.dfs.inode", b"of a copy")
    assert vfs.getxattr(folder, b"user.dfs.inode") == b"01ff:%d" % folder
    assert vfs.listxattr(folder) == []
    fails(errno.ENOENT, lambda: vfs.getxattr(999, b"user.dfs.inode"))
