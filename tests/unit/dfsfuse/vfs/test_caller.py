"""What each operation of the Vfs with a caller does with it: its route, what it holds, and who owns what is made."""

from __future__ import annotations

import errno
import inspect
import os
import stat
from collections.abc import Callable

import pytest
from support.errnos import fails
from support.memory_mounts import CALLER, GROUP, HOLDER, ROOT, USER, MemoryMounts, write_file

from dfsfuse.namespace.ops.renames import WHITEOUT
from dfsfuse.vfs.attributes import AttributeChanges, Attributes
from dfsfuse.vfs.caller import Caller
from dfsfuse.vfs.vfs import Vfs

CHANGES: dict[str, Callable[[Vfs, int, Caller], object]] = {
    "mknod": lambda vfs, _, caller: vfs.mknod(ROOT, b"new", stat.S_IFIFO | 0o600, 0, caller),
    "mkdir": lambda vfs, _, caller: vfs.mkdir(ROOT, b"new", 0o755, caller),
    "symlink": lambda vfs, _, caller: vfs.symlink(ROOT, b"new", b"there", caller),
    "create": lambda vfs, _, caller: vfs.create(ROOT, b"new", 0o644, os.O_RDWR, caller),
    "link": lambda vfs, ino, caller: vfs.link(ino, ROOT, b"new", caller),
    "unlink": lambda vfs, _, caller: vfs.unlink(ROOT, b"f", caller),
    "rmdir": lambda vfs, _, caller: vfs.rmdir(ROOT, b"empty", caller),
    "rename": lambda vfs, _, caller: vfs.rename(ROOT, b"f", ROOT, b"g", 0, caller),
    "setattr": lambda vfs, ino, caller: vfs.setattr(ino, AttributeChanges(mode=0o600), None, caller),
    "setxattr": lambda vfs, ino, caller: vfs.setxattr(ino, b"user.b", b"b", 0, caller),
    "removexattr": lambda vfs, ino, caller: vfs.removexattr(ino, b"user.a", caller),
}
FINDS: dict[str, Callable[[Vfs, int, Caller], Attributes]] = {
    "lookup": lambda vfs, _, caller: vfs.lookup(ROOT, b"f", caller),
    "mknod": lambda vfs, _, caller: vfs.mknod(ROOT, b"new", stat.S_IFIFO | 0o600, 0, caller),
    "mkdir": lambda vfs, _, caller: vfs.mkdir(ROOT, b"new", 0o755, caller),
    "symlink": lambda vfs, _, caller: vfs.symlink(ROOT, b"new", b"there", caller),
    "link": lambda vfs, ino, caller: vfs.link(ino, ROOT, b"new", caller),
    "create": lambda vfs, _, caller: vfs.create(ROOT, b"new", 0o644, os.O_RDWR, caller)[0],
    "open": lambda vfs, _, caller: vfs.create(ROOT, b"f", 0o644, os.O_RDWR, caller)[0],
}


@pytest.fixture
def ino(mounts: MemoryMounts) -> int:
    """A file `f` with an attribute; beside it is an empty folder."""
    vfs = mounts.mount()
    found = write_file(vfs, b"f", b"data")
    vfs.setxattr(found, b"user.a", b"a")
    vfs.mkdir(ROOT, b"empty", 0o755, CALLER)
    return found


def test_every_operation_with_a_caller_is_tried_here() -> None:
    """`put_stream` is for commands, which come by no names."""
    found = {
        name
        for name, method in inspect.getmembers(Vfs, inspect.isfunction)
        if "caller" in inspect.signature(method).parameters
    }
    assert found == {*CHANGES, "lookup", "put_stream"}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_nothing_is_done_by_a_route_that_leads_elsewhere(
    mounts: MemoryMounts, ino: int, change: Callable[[Vfs, int, Caller], object]
) -> None:
    vfs = mounts.mount()
    vfs.mkdir(ROOT, b"first", 0o755, CALLER)  # which reserves inode numbers
    before = mounts.map.items
    fails(errno.ESTALE, lambda: change(vfs, ino, Caller(USER, GROUP, [(ROOT, b"f", ino + 1)])))
    fails(errno.ESTALE, lambda: change(vfs, ino, Caller(USER, GROUP, [(ROOT, b"f", ino), (ROOT, b"gone", 99)])))
    assert mounts.map.items == before
    change(vfs, ino, Caller(USER, GROUP, [(ROOT, b"f", ino)]))
    assert mounts.map.items != before


@pytest.mark.parametrize("find", FINDS.values(), ids=FINDS)
def test_what_is_found_or_made_is_held_for_a_caller_that_holds(
    mounts: MemoryMounts, ino: int, find: Callable[[Vfs, int, Caller], Attributes]
) -> None:
    vfs = mounts.mount()
    found = find(vfs, ino, HOLDER).ino
    assert vfs.is_held(found)
    vfs.forget(found)
    assert not vfs.is_held(found)


@pytest.mark.parametrize("find", FINDS.values(), ids=FINDS)
def test_and_not_for_one_that_does_not(
    mounts: MemoryMounts, ino: int, find: Callable[[Vfs, int, Caller], Attributes]
) -> None:
    vfs = mounts.mount()
    assert not vfs.is_held(find(vfs, ino, CALLER).ino)


def test_what_is_made_belongs_to_the_caller(mounts: MemoryMounts, ino: int) -> None:
    vfs, owner = mounts.mount(), Caller(7, 8)
    for name in ("mknod", "mkdir", "symlink", "create"):
        made = FINDS[name](vfs, ino, owner)
        assert (made.uid, made.gid) == (7, 8)
        vfs.rename(ROOT, b"new", ROOT, name.encode())
    vfs.rename(ROOT, b"f", ROOT, b"g", WHITEOUT, owner)
    left = vfs.lookup(ROOT, b"f")
    assert (left.uid, left.gid, left.rdev) == (7, 8, 0)
    assert vfs.put_stream(ROOT, b"put", [b"x"], caller=owner).uid == 7
