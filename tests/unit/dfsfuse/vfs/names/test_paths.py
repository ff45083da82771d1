"""Paths to inodes."""

from __future__ import annotations

import errno

import pytest
from support.memory_mounts import CALLER, ROOT, MemoryMounts, read_file, write_file

from dfsfuse.vfs.names import paths


def test_components() -> None:
    assert paths.components(b"/") == paths.components(b"") == []
    assert paths.components(b"//a/./b\n/") == [b"a", b"b\n"]
    for path, number in (
        (b"/a/../b", errno.EINVAL),
        (b"/a\0", errno.EINVAL),
        (b"/" + b"x" * 256, errno.ENAMETOOLONG),
    ):
        with pytest.raises(OSError) as caught:
            paths.components(path)
        assert caught.value.errno == number


def test_resolve_and_split(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    folder = vfs.mkdir(ROOT, b"d", 0o755, CALLER).ino
    file = write_file(vfs, b"f", b"", folder)
    assert paths.resolve(vfs, b"/") == ROOT
    assert paths.resolve(vfs, b"/d/f") == paths.lookup(vfs, b"d//f").ino == file
    assert paths.lookup(vfs, b"/").ino == ROOT
    assert paths.split(vfs, b"/d/new") == (folder, b"new")
    assert paths.split(vfs, b"/new") == (ROOT, b"new")
    for path, number in ((b"/x/y", errno.ENOENT), (b"/d/f/g", errno.ENOTDIR), (b"/d/x", errno.ENOENT)):
        with pytest.raises(OSError) as caught:
            paths.resolve(vfs, path)
        assert caught.value.errno == number
    with pytest.raises(OSError) as caught:
        paths.split(vfs, b"/")
    assert caught.value.errno == errno.EBUSY


def test_put_makes_folders_only_if_asked(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    with pytest.raises(FileNotFoundError):
        paths.put(vfs, b"/a/b/f", [b"x"])
    made = paths.put(vfs, b"/a/b/f", [b"x"], parents=True)
    assert paths.resolve(vfs, b"/a/b/f") == made.ino
    assert paths.put(vfs, b"/a/b/g", [b"y"], parents=True).size == 1
    assert read_file(vfs, b"f", paths.resolve(vfs, b"/a/b")) == b"x"
    with pytest.raises(NotADirectoryError):
        paths.put(vfs, b"/a/b/f/g", [b"x"], parents=True)
