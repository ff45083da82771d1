"""Conformance: cases that need a kernel. mmap, copies within the kernel, several processes, whole programs."""

# ruff: noqa: PTH114, PTH115, PTH118
# names are bytes

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conformance.fs import OsFs
from conformance.registry import (
    content,
    fails,
    kernel_case,
    opened,
    read_all,
    read_file,
    same,
    write_all,
    write_file,
)

DEADLINE_S = 60.0
_libc = ctypes.CDLL(None, use_errno=True)


def run(command: Sequence[str | bytes], cwd: bytes | Path | None = None) -> bytes:
    """Run a program to its end and return its output; it must succeed without errors."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, (command, done.returncode, done.stderr.decode(errors="replace"))
    return done.stdout


def at_once(commands: Sequence[Sequence[str]], cwd: Path) -> list[int]:
    """Run programs at the same time and return their exit statuses."""
    processes = [subprocess.Popen(command, cwd=cwd) for command in commands]
    return [process.wait(timeout=DEADLINE_S) for process in processes]


@kernel_case
def a_shared_mapping_is_read(fs: OsFs) -> None:
    data = content(5 << 20)
    write_file(fs, b"f", data)
    with opened(fs, b"f", os.O_RDONLY) as fd, mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as view:
        same(view[:], data)


@kernel_case
def a_shared_mapping_is_written(fs: OsFs) -> None:
    data = bytearray(content(300_000))
    write_file(fs, b"f", bytes(data))
    with opened(fs, b"f", os.O_RDWR) as fd, mmap.mmap(fd, 0) as view:
        view[1000:1010] = b"0123456789"
        view[299_990:] = b"abcdefghij"
        view.flush()
        data[1000:1010], data[299_990:] = b"0123456789", b"abcdefghij"
        same(read_all(fs, fd), bytes(data))
    same(read_file(fs, b"f"), bytes(data))


_MAP = """
import mmap, os, sys
fd = os.open("f", os.O_RDWR)
view = mmap.mmap(fd, 0)
os.close(fd)  # the mapping lives on
view[int(sys.argv[1]) : int(sys.argv[1]) + 8] = b"%08d" % int(sys.argv[1])
view.flush()
while view[:8] == bytes(8) or view[8192:8200] == bytes(8):  # the other process's part comes by itself
    pass
"""


@kernel_case
def two_processes_share_a_mapping(fs: OsFs) -> None:
    write_file(fs, b"f", bytes(20_000))
    assert at_once([[sys.executable, "-c", _MAP, str(place)] for place in (0, 8192)], fs.root) == [0, 0]
    data = bytearray(20_000)
    data[:8], data[8192:8200] = b"00000000", b"00008192"
    same(read_file(fs, b"f"), bytes(data))


@kernel_case
def a_mapping_outlives_its_descriptor(fs: OsFs) -> None:
    """What is written through the mapping after close() is in the file once it is unmapped."""
    write_file(fs, b"f", bytes(10_000))
    fd = fs.open(b"f", os.O_RDWR)
    view = mmap.mmap(fd, 0)
    fs.close(fd)
    view[5_000:5_003] = b"new"
    view.close()
    same(read_file(fs, b"f"), bytes(5_000) + b"new" + bytes(4_997))


@kernel_case
def a_mapping_sees_what_is_written(fs: OsFs) -> None:
    write_file(fs, b"f", bytes(10_000))
    with opened(fs, b"f", os.O_RDWR) as fd, mmap.mmap(fd, 0) as view:
        assert view[:5] == bytes(5)
        fs.pwrite(fd, b"write", 0)
        assert view[:5] == b"write"
        view[5:8] = b"map"
        assert fs.pread(fd, 8, 0) == b"writemap"


@kernel_case
def a_time_that_is_set_after_a_mapped_write_stays(fs: OsFs) -> None:
    """As in a program that unpacks through a mapping; a later write through the mapping sets the time again."""
    write_file(fs, b"f", bytes(8192))
    with opened(fs, b"f", os.O_RDWR) as fd, mmap.mmap(fd, 0) as view:
        view[:5] = b"first"
        fs.futimens(fd, 10**18, 10**18 + 1)
        assert fs.fstat(fd).mtime_ns == 10**18 + 1
    assert fs.stat(b"f").mtime_ns == 10**18 + 1
    with opened(fs, b"f", os.O_RDWR) as fd, mmap.mmap(fd, 0) as view:
        fs.futimens(fd, 10**18, 10**18 + 1)
        view[:5] = b"again"
        view.flush()
    assert fs.stat(b"f").mtime_ns > 10**18 + 1
    assert read_file(fs, b"f")[:5] == b"again"


@kernel_case
def a_private_mapping_changes_nothing(fs: OsFs) -> None:
    write_file(fs, b"f", b"x" * 10_000)
    with opened(fs, b"f", os.O_RDWR) as fd, mmap.mmap(fd, 0, mmap.MAP_PRIVATE) as view:
        view[:4] = b"gone"
    assert read_file(fs, b"f") == b"x" * 10_000


@kernel_case
def the_kernel_copies_files(fs: OsFs) -> None:
    data = content((1 << 20) + 77)
    write_file(fs, b"f", data)
    with opened(fs, b"f", os.O_RDONLY) as source:
        with opened(fs, b"sent") as target:
            sent = 0
            while part := os.sendfile(target, source, sent, len(data)):
                sent += part
        with opened(fs, b"ranged") as target:
            done = 0
            while part := os.copy_file_range(source, target, len(data), done, done):
                done += part
    shutil.copy2(fs.path(b"f"), fs.path(b"copied"))
    for name in (b"sent", b"ranged", b"copied"):
        same(read_file(fs, name), data)
    assert fs.stat(b"copied").mtime_ns == fs.stat(b"f").mtime_ns


@kernel_case
def a_handle_does_what_it_was_opened_for_only(fs: OsFs) -> None:
    write_file(fs, b"f", b"content")
    with opened(fs, b"f", os.O_RDONLY) as fd, fails(errno.EBADF):
        os.write(fd, b"x")
    with opened(fs, b"f", os.O_WRONLY) as fd, fails(errno.EBADF):
        os.read(fd, 1)
    with opened(fs, b"f", os.O_RDONLY) as fd, fails(errno.EBADF, errno.EINVAL):
        os.ftruncate(fd, 0)
    assert read_file(fs, b"f") == b"content"


@kernel_case
def space_can_be_reserved(fs: OsFs) -> None:
    with opened(fs, b"f") as fd:
        write_all(fs, fd, b"start")
        os.posix_fallocate(fd, 0, 100_000)
    same(read_file(fs, b"f"), b"start" + bytes(99_995))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Call fallocate(2), which Python provides only without modes."""
    if _libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@kernel_case
def holes_are_punched_and_found(fs: OsFs) -> None:
    keep_size, punch_hole = 1, 2
    part = 256 << 10
    data = bytearray(content(4 * part))
    write_file(fs, b"f", bytes(data))
    with opened(fs, b"f", os.O_RDWR) as fd:
        fallocate(fd, keep_size | punch_hole, part, part)
        data[part : 2 * part] = bytes(part)
        same(read_all(fs, fd), bytes(data))
        assert os.lseek(fd, 0, os.SEEK_HOLE) == part
        assert os.lseek(fd, part, os.SEEK_DATA) == 2 * part
        assert os.lseek(fd, 2 * part, os.SEEK_HOLE) == 4 * part
        with fails(errno.ENXIO):
            os.lseek(fd, 4 * part, os.SEEK_DATA)
    assert fs.stat(b"f").size == 4 * part
    same(read_file(fs, b"f"), bytes(data))


@kernel_case
def a_negative_place_has_neither_data_nor_hole(fs: OsFs) -> None:
    write_file(fs, b"f", b"data")
    with opened(fs, b"f", os.O_RDONLY) as fd:
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            for place in (-1, -(2**62)):
                with fails(errno.ENXIO):
                    os.lseek(fd, place, whence)


@kernel_case
def space_is_allocated_and_zeroed(fs: OsFs) -> None:
    keep_size, zero_range = 1, 16
    write_file(fs, b"f", b"x" * 10_000)
    with opened(fs, b"f", os.O_RDWR) as fd:
        fallocate(fd, keep_size, 0, 100_000)
        assert os.fstat(fd).st_size == 10_000
        fallocate(fd, zero_range, 5_000, 10_000)
        assert os.fstat(fd).st_size == 15_000
        same(read_all(fs, fd), b"x" * 5_000 + bytes(10_000))
        fallocate(fd, 0, 15_000, 5_000)
        assert os.fstat(fd).st_size == 20_000
        with fails(errno.EINVAL):
            fallocate(fd, 0, 0, 0)
    same(read_file(fs, b"f"), b"x" * 5_000 + bytes(15_000))


@kernel_case
def the_umask_is_applied(fs: OsFs) -> None:
    before = os.umask(0o027)
    try:
        fs.close(fs.open(b"f", os.O_WRONLY | os.O_CREAT, 0o666))
        fs.mkdir(b"d", 0o777)
    finally:
        os.umask(before)
    assert (fs.stat(b"f").permissions, fs.stat(b"d").permissions) == (0o640, 0o750)


@kernel_case
def threads_write_side_by_side(fs: OsFs) -> None:
    part = 200_000
    data = content(8 * part)

    def own_file(number: int) -> None:
        write_file(fs, b"own%d" % number, data[number * part : (number + 1) * part])

    def own_part(number: int) -> None:
        with opened(fs, b"shared") as fd:
            write_all(fs, fd, data[number * part : (number + 1) * part], number * part)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(own_file, range(8)))
        list(pool.map(own_part, range(8)))
    same(b"".join(read_file(fs, b"own%d" % number) for number in range(8)), data)
    same(read_file(fs, b"shared"), data)


_APPEND = """
import os, sys
fd = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
for turn in range(50):
    os.write(fd, f"{sys.argv[1]} {turn:04d} {'x' * 80}\\n".encode())
os.close(fd)
"""


@kernel_case
def appends_of_several_processes_all_arrive(fs: OsFs) -> None:
    assert at_once([[sys.executable, "-c", _APPEND, str(number)] for number in range(4)], fs.root) == [0] * 4
    lines = read_file(fs, b"log").splitlines()
    expected = [b"%d %04d %s" % (number, turn, b"x" * 80) for number in range(4) for turn in range(50)]
    assert sorted(lines) == sorted(expected)


_RACE = """
import os, sys
won = 0
for turn in range(20):
    try:
        fd = os.open(f"race{turn}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        continue
    os.write(fd, sys.argv[1].encode())
    os.close(fd)
    won += 1
sys.exit(won)
"""


@kernel_case
def of_several_exclusive_creators_one_wins(fs: OsFs) -> None:
    wins = at_once([[sys.executable, "-c", _RACE, str(number)] for number in range(4)], fs.root)
    assert sum(wins) == 20
    owners = [read_file(fs, b"race%d" % turn) for turn in range(20)]
    assert [owners.count(b"%d" % number) for number in range(4)] == wins


@kernel_case
def readers_see_a_replaced_file_whole(fs: OsFs) -> None:
    """While a file is replaced by renames, opening it always reads one of the versions completely."""
    for found in replaced_and_read(fs, rounds=30):
        assert found is None or found in VERSIONS


@kernel_case
def a_name_that_is_replaced_is_always_there(fs: OsFs) -> None:
    assert None not in replaced_and_read(fs, rounds=150)


VERSIONS = [bytes([65 + number]) * 40_000 for number in range(4)]


def replaced_and_read(fs: OsFs, rounds: int) -> list[bytes | None]:
    """Replace a file repeatedly while two readers open it; return what they read, with None for a missing file."""
    write_file(fs, b"f", VERSIONS[0])
    stop = threading.Event()

    def replace() -> None:
        try:
            for turn in range(rounds):
                write_file(fs, b"new", VERSIONS[turn % 4])
                fs.rename(b"new", b"f")
        finally:
            stop.set()

    def read() -> list[bytes | None]:
        found: list[bytes | None] = []
        while not stop.is_set():
            try:
                found.append(read_file(fs, b"f"))
            except FileNotFoundError:
                found.append(None)
        return found

    with ThreadPoolExecutor(3) as pool:
        writer, *readers = pool.submit(replace), pool.submit(read), pool.submit(read)
        writer.result(DEADLINE_S)
        return [version for reader in readers for version in reader.result(DEADLINE_S)]


@kernel_case
def files_can_be_locked(fs: OsFs) -> None:
    write_file(fs, b"f")
    with opened(fs, b"f") as one, opened(fs, b"f") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        with fails(errno.EWOULDBLOCK):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
        fcntl.lockf(other, fcntl.LOCK_UN)


@kernel_case
def a_database_works_on_it(fs: OsFs) -> None:
    for mode in ("delete", "truncate"):
        path = os.fsdecode(fs.path(b"db-" + mode.encode()))
        database = sqlite3.connect(path)
        try:
            assert database.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
            database.execute("create table t (n integer primary key, v blob)")
            for start in range(0, 400, 100):
                with database:
                    database.executemany(
                        "insert into t values (?, ?)",
                        [(n, content(200, n)) for n in range(start, start + 100)],
                    )
            with database:
                database.execute("delete from t where n % 3 = 0")
            database.execute("vacuum")
        finally:
            database.close()
        database = sqlite3.connect(path)
        try:
            assert database.execute("pragma integrity_check").fetchone() == ("ok",)
            assert database.execute("select count(*), sum(n) from t").fetchone() == (266, 53_067)
        finally:
            database.close()


@kernel_case
def programs_run_from_it(fs: OsFs) -> None:
    write_file(fs, b"script", b"#!/bin/sh\necho from $0\n")
    fs.chmod(b"script", 0o755)
    assert run([fs.path(b"script")]).startswith(b"from ")
    shutil.copy(b"/bin/true", fs.path(b"true"))
    run([fs.path(b"true")])
    with opened(fs, b"true", os.O_RDONLY) as fd:
        assert os.pread(fd, 4, 0) == b"\x7fELF"


def make_tree(fs: OsFs) -> None:
    """Make a small tree with everything a copy must preserve."""
    fs.mkdir(b"src")
    for folder in range(3):
        fs.mkdir(b"src/d%d" % folder)
        for number in range(4):
            write_file(fs, b"src/d%d/f%d" % (folder, number), content(number * 30_000, folder * 10 + number))
    fs.chmod(b"src/d0/f1", 0o711)
    fs.utimens(b"src/d0/f2", 1_234_567_890_123_456_789, 987_654_321_987_654_321)
    fs.symlink(b"../d1/f3", b"src/d0/link")
    fs.symlink(b"nowhere", b"src/d0/dangling")
    fs.link(b"src/d1/f1", b"src/d2/hard")
    write_file(fs, b"src/d2/\xff\n name", b"odd")


def snapshot(fs: OsFs, top: bytes) -> list[tuple[object, ...]]:
    """Return everything below a folder that a faithful copy preserves."""
    rows: list[tuple[object, ...]] = []
    inodes: dict[int, int] = {}
    base = fs.path(top)
    for folder, folders, files in os.walk(base):
        folders.sort()
        for name in sorted(folders + files):
            full = os.path.join(folder, name)
            relative = os.path.relpath(full, fs.path(b""))
            found = fs.lstat(relative)
            data = os.readlink(full) if os.path.islink(full) else read_file(fs, relative) if name in files else b""
            group = inodes.setdefault(found.ino, len(inodes))
            rows.append((os.path.relpath(full, base), found.mode, found.mtime_ns, found.nlink, group, data))
    return rows


@kernel_case
def cp_a_keeps_everything(fs: OsFs) -> None:
    make_tree(fs)
    run(["cp", "-a", "src", "copy"], fs.root)
    assert snapshot(fs, b"copy") == snapshot(fs, b"src")
    run(["diff", "-r", "--no-dereference", "src", "copy"], fs.root)


@kernel_case
def tar_packs_and_unpacks_everything(fs: OsFs) -> None:
    make_tree(fs)
    expected = snapshot(fs, b"src")
    run(["tar", "-cf", "src.tar", "src"], fs.root)
    fs.mkdir(b"out")
    run(["tar", "-xpf", "src.tar", "-C", "out"], fs.root)
    found = snapshot(fs, b"out/src")
    seconds = [[*row[:2], int(str(row[2])) // 1_000_000_000, *row[3:]] for row in found]
    assert seconds == [[*row[:2], int(str(row[2])) // 1_000_000_000, *row[3:]] for row in expected]


@kernel_case
def the_everyday_tools_agree(fs: OsFs) -> None:
    make_tree(fs)
    assert run(["find", "src", "-type", "f", "-print0"], fs.root).count(b"\0") == 14
    assert run(["find", "src", "-type", "d"], fs.root).count(b"\n") == 4
    assert b"f3" in run(["ls", "-lRa", "src"], fs.root)
    assert int(run(["du", "-s", "--apparent-size", "-B1", "src"], fs.root).split()[0]) >= 3 * 180_000
    run(["mv", "src", "moved"], fs.root)
    run(["rm", "-r", "moved"], fs.root)
    assert fs.listdir(b"") == []


@kernel_case
def a_git_repository_works_on_it(fs: OsFs) -> None:
    make_tree(fs)
    git = [
        "git",
        "-c",
        "user.name=n",
        "-c",
        "user.email=e@localhost",
        "-c",
        "gc.auto=0",
        "-c",
        "safe.directory=*",
    ]
    inside = fs.path(b"src")
    run([*git, "init", "-q"], inside)
    run([*git, "add", "-A"], inside)
    run([*git, "commit", "-q", "-m", "first"], inside)
    assert run([*git, "status", "--porcelain"], inside) == b""
    run([*git, "gc", "-q"], inside)
    run([*git, "fsck", "--full", "--strict"], inside)
    run([*git, "clone", "-q", "--no-local", "src", "clone"], fs.root)
    run(["diff", "-r", "--no-dereference", "-x", ".git", "src", "clone"], fs.root)
