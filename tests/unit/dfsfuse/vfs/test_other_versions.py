"""A namespace that a newer client has written to: unknown keys are ignored, and a record in an unknown format is EIO
with a sentence that names the format. Nothing is guessed, and none of it is overwritten."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import msgspec
import pytest
from support.memory_mounts import CALLER, ROOT, MemoryMounts, names, read_file, write_file

from dfsfuse.namespace.records import keys
from dfsfuse.vfs.attributes import AttributeChanges
from dfsfuse.vfs.vfs import Vfs

NEWER = msgspec.msgpack.encode([9, "another", {"shape": [1.5, None]}])
FOREIGN = [b"", b"\0", b"d", b"d/", b"d/short", b"e", b"i", b"i0", b"n0", b"q/quota", b"v2/\xff", b"\xff" * 9]


def test_unknown_keys_are_left_alone(mounts: MemoryMounts) -> None:
    mounts.map.items = {**mounts.map.items, **dict.fromkeys(FOREIGN, b"\xc1junk")}
    vfs = mounts.mount()
    write_file(vfs, b"f", b"data")
    vfs.rename(ROOT, b"f", ROOT, b"g")
    assert read_file(vfs, b"g") == b"data"
    assert names(vfs) == [b"g"]
    vfs.unlink(ROOT, b"g")
    assert names(vfs) == []
    assert {key: mounts.map.items[key] for key in FOREIGN} == dict.fromkeys(FOREIGN, b"\xc1junk")


def refused(operation: Callable[[], object], what: str) -> None:
    with pytest.raises(OSError, match=f"record of {what}: .*format 9; this program knows format 1") as caught:
        operation()
    assert caught.value.errno == errno.EIO


def with_newer(mounts: MemoryMounts, vfs: Vfs, key: bytes) -> None:
    assert key in mounts.map.items
    mounts.map.items = {**mounts.map.items, key: NEWER}


def test_an_inode_of_a_newer_format(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"f", b"data")
    ino = vfs.lookup(ROOT, b"f").ino
    with_newer(mounts, vfs, keys.inode(ino))
    refused(lambda: vfs.getattr(ino), "an inode")
    refused(lambda: vfs.open(ino, os.O_RDONLY), "an inode")
    refused(lambda: vfs.setattr(ino, AttributeChanges(mode=0o600)), "an inode")
    refused(lambda: vfs.unlink(ROOT, b"f"), "an inode")
    assert mounts.map.items[keys.inode(ino)] == NEWER
    write_file(vfs, b"g", b"other files are as ever")
    assert read_file(vfs, b"g") == b"other files are as ever"


def test_an_entry_of_a_newer_format(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"f", b"data")
    with_newer(mounts, vfs, keys.entry(ROOT, b"f"))
    refused(lambda: vfs.lookup(ROOT, b"f"), "a directory entry")
    refused(lambda: vfs.opendir(ROOT), "a directory entry")
    refused(lambda: vfs.create(ROOT, b"f", 0o644, os.O_RDWR, CALLER), "a directory entry")
    assert mounts.map.items[keys.entry(ROOT, b"f")] == NEWER


def test_data_of_a_newer_format(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"f", b"data")
    ino = vfs.lookup(ROOT, b"f").ino
    key = keys.region(ino, 0)
    with_newer(mounts, vfs, key)
    handle = vfs.open(ino, os.O_RDWR)
    refused(lambda: vfs.read(handle, 0, 4), "a file's data")
    vfs.write(handle, 1, b"A")
    refused(lambda: vfs.flush(handle), "a file's data")
    assert mounts.map.items[key] == NEWER
    assert vfs.getattr(ino).size == 4
    refused(lambda: vfs.setattr(ino, AttributeChanges(size=0), handle), "a file's data")
    assert mounts.map.items[key] == NEWER
