"""Conformance: permissions. Groups, sticky folders, and the bits that are cleared when another user changes a file.

Only root can become another user; run by a user, these cases check only what concerns that user.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from conformance.fs import OsFs
from conformance.registry import kernel_case, read_file, write_file

DEADLINE_S = 60.0
USER, GROUP, TEAM = 1234, 2345, 3456
IS_ROOT = os.geteuid() == 0
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10
"""FALLOC_FL_* from <linux/falloc.h>."""

_ACT = """
import ctypes, errno, os, struct, sys
uid, gid, groups, *actions = sys.argv[1:]
os.setgroups([int(group) for group in groups.split()])
os.setresgid(*[int(gid)] * 3)
os.setresuid(*[int(uid)] * 3)
for action in actions:
    try:
        exec(action)
        print("done")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def by_other(fs: OsFs, *actions: str, groups: Sequence[int] = ()) -> list[str]:
    """Run these lines of Python as another user in the top folder, and return for each "done" or an errno's name."""
    fs.chmod(b"", 0o755)
    who = [str(USER), str(GROUP), " ".join(map(str, groups))]  # by itself: Python may be for root alone
    command = [sys.executable, "-I", "-S", "-c", _ACT, *who, *actions]
    done = subprocess.run(command, cwd=fs.root, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def give(fs: OsFs, path: bytes, uid: int, gid: int, mode: int) -> None:
    """Set owner, group and mode."""
    fs.lchown(path, uid, gid)
    fs.chmod(path, mode)


@kernel_case
def supplementary_groups_count(fs: OsFs) -> None:
    write_file(fs, b"f", b"content")
    fs.mkdir(b"d")
    if not IS_ROOT:
        return
    give(fs, b"f", 0, TEAM, 0o060)
    give(fs, b"d", 0, TEAM, 0o070)
    actions = ["open('f').read()", "open('f', 'a').write('+')", "os.listdir('d')", "os.mkdir('d/new')"]
    assert by_other(fs, *actions) == ["EACCES"] * 4
    assert by_other(fs, *actions, groups=[TEAM - 1, TEAM]) == ["done"] * 4
    assert read_file(fs, b"f") == b"content+"
    assert (fs.stat(b"d/new").uid, fs.stat(b"d/new").gid) == (USER, GROUP)


@kernel_case
def an_owner_gives_a_file_to_groups_of_his_only(fs: OsFs) -> None:
    write_file(fs, b"f")
    if not IS_ROOT:
        return
    give(fs, b"f", USER, GROUP, 0o755)
    to_team = f"os.chown('f', -1, {TEAM})"
    assert by_other(fs, to_team, "os.chown('f', 0, -1)", "os.chown('f', -1, 0)") == ["EPERM"] * 3
    assert by_other(fs, to_team, "os.chmod('f', 0o2755)", groups=[TEAM]) == ["done"] * 2
    assert (fs.stat(b"f").gid, fs.stat(b"f").permissions) == (TEAM, 0o2755)
    assert by_other(fs, "os.chmod('f', 0o2711)") == ["done"]  # no member of the group any more: cleared
    assert fs.stat(b"f").permissions == 0o711


@kernel_case
def in_a_sticky_folder_one_removes_ones_own(fs: OsFs) -> None:
    fs.mkdir(b"d")
    fs.chmod(b"d", 0o1777)
    assert fs.stat(b"d").permissions == 0o1777
    if not IS_ROOT:
        return
    for name in (b"d/his", b"d/moved", b"d/mine", b"d/target"):
        write_file(fs, name)
        fs.chmod(name, 0o666)
    give(fs, b"d/mine", USER, GROUP, 0o644)
    refused = ["os.unlink('d/his')", "os.rename('d/moved', 'd/elsewhere')", "os.rename('d/mine', 'd/target')"]
    assert by_other(fs, *refused) == ["EPERM"] * 3
    assert by_other(fs, "open('d/his', 'w').write('x')", "os.rename('d/mine', 'd/renamed')") == ["done"] * 2
    assert by_other(fs, "os.unlink('d/renamed')") == ["done"]
    assert sorted(fs.listdir(b"d")) == [b"his", b"moved", b"target"]
    fs.chmod(b"d", 0o777)
    assert by_other(fs, "os.unlink('d/his')") == ["done"]


@kernel_case
def a_folder_passes_on_its_group(fs: OsFs) -> None:
    gid = TEAM if IS_ROOT else os.getgid()
    fs.mkdir(b"d")
    give(fs, b"d", os.getuid(), gid, 0o2775)
    write_file(fs, b"d/f")
    fs.mkdir(b"d/e", 0o755)
    assert fs.stat(b"d/f").gid == fs.stat(b"d/e").gid == gid
    assert fs.stat(b"d/e").permissions == 0o2755
    assert fs.stat(b"d/f").permissions == 0o644


@kernel_case
def whoever_else_changes_a_program_ends_setuid(fs: OsFs) -> None:
    """Whichever call changes it."""
    changes = [
        "os.write(os.open('f', os.O_WRONLY), b'x')",
        "os.write(os.open('f', os.O_WRONLY | os.O_APPEND), b'x')",
        "os.truncate('f', 3)",
        "os.open('f', os.O_WRONLY | os.O_TRUNC)",
        "os.ftruncate(os.open('f', os.O_WRONLY), 50)",
    ]
    for change in changes if IS_ROOT else ():
        write_file(fs, b"f", b"program")
        fs.chmod(b"f", 0o6777)
        assert by_other(fs, "open('f').read()", change) == ["done"] * 2
        assert fs.stat(b"f").permissions == 0o777, change
    write_file(fs, b"f", b"program")
    fs.chmod(b"f", 0o6755)
    fs.lchown(b"f", os.getuid(), os.getgid())
    assert fs.stat(b"f").permissions == (0o755 if IS_ROOT else fs.stat(b"f").permissions)


@kernel_case
def whoever_else_allocates_or_copies_into_a_program_ends_setuid(fs: OsFs) -> None:
    """Even if no byte changes. Setgid without group execute stays if a member of the group makes the change."""
    call = "ctypes.CDLL(None).fallocate(os.open('f', os.O_RDWR), {}, ctypes.c_long(0), ctypes.c_long({}))"
    changes = [
        call.format(0, 10_000),
        call.format(0, 100),
        call.format(KEEP_SIZE, 10_000),
        call.format(KEEP_SIZE | PUNCH_HOLE, 4096),
        call.format(ZERO_RANGE, 4096),
        call.format(ZERO_RANGE | KEEP_SIZE, 10_000),
        "os.copy_file_range(os.open('g', os.O_RDONLY), os.open('f', os.O_RDWR), 100)",
    ]
    write_file(fs, b"g", bytes(100))
    for change in changes if IS_ROOT else ():
        write_file(fs, b"f", bytes(8192))
        fs.chmod(b"f", 0o6777)
        assert by_other(fs, "os.stat('f')", change, "assert os.stat('f').st_mode & 0o7777 == 0o777") == ["done"] * 3, (
            change
        )
        assert fs.stat(b"f").permissions == 0o777, change
        for groups, expected in (((), 0o767), ((TEAM,), 0o2767)):
            fs.lchown(b"f", -1, TEAM)
            fs.chmod(b"f", 0o6767)
            assert by_other(fs, change, groups=groups) == ["done"], change
            assert fs.stat(b"f").permissions == expected, (change, groups)


@kernel_case
def the_mode_that_a_write_changes_is_seen_at_once(fs: OsFs) -> None:
    """Even by statx(2) for the mode alone, as `find -perm` and `ls` call it."""
    look = (
        "found = ctypes.create_string_buffer(256); "
        "assert ctypes.CDLL(None).statx(-100, b'f', 0, 2, found) == 0; "
        "assert struct.unpack_from('<H', found, 28)[0] & 0o7777 == {}"
    )
    for change in (
        "os.write(os.open('f', os.O_WRONLY), b'x')",
        "os.write(os.open('f', os.O_WRONLY | os.O_APPEND), b'x')",
        "os.open('f', os.O_WRONLY | os.O_TRUNC)",
        "os.posix_fallocate(os.open('f', os.O_RDWR), 0, 10_000)",
    ):
        write_file(fs, b"f", bytes(8192))
        fs.chmod(b"f", 0o6777)
        if IS_ROOT:
            assert by_other(fs, look.format(0o6777), change, look.format(0o777)) == ["done"] * 3, change


@kernel_case
def an_open_file_outlives_the_permission_to_open_it(fs: OsFs) -> None:
    write_file(fs, b"f", b"content")
    fd = fs.open(b"f", os.O_RDWR)
    try:
        fs.chmod(b"f", 0)
        assert fs.pread(fd, 100, 0) == b"content"
        assert fs.pwrite(fd, b"C", 0) == 1
    finally:
        fs.close(fd)
    fs.chmod(b"f", 0o600)
    assert read_file(fs, b"f") == b"Content"
