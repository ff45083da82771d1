"""The kernel binding under the real kernel, with a small file system in memory that other processes use: data and
names. `support.served_memory_fs` serves it."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.served_memory_fs import served

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

MIB = 1 << 20
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    with served(tmp_path / "mount") as file_system:
        yield file_system.path


# ---------------------------------------------------------------------- data


def test_data_of_many_sizes_comes_back(root: Path) -> None:
    for size in (0, 1, 4095, 4097, MIB, MIB + 1, 9 * MIB + 3):
        data = random.Random(size).randbytes(size)
        (root / "f").write_bytes(data)
        assert (root / "f").read_bytes() == data
        with (root / "f").open("rb") as file:
            file.seek(size // 2)
            assert file.read() == data[size // 2 :]
    (root / "f").write_bytes(b"short")
    assert (root / "f").read_bytes() == b"short"


def test_large_writes_at_the_end(root: Path) -> None:
    descriptor = os.open(root / "f", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        assert os.write(descriptor, bytes(MIB)) == MIB
        assert os.write(descriptor, b"x" * MIB) == MIB
        assert os.pread(descriptor, 2 * MIB, 0) == bytes(MIB) + b"x" * MIB
    finally:
        os.close(descriptor)


def test_a_mapping_is_read_and_written(root: Path) -> None:
    (root / "f").write_bytes(bytes(100_000))
    with (root / "f").open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[50_000:50_005] = b"hello"
        view.flush()
    assert (root / "f").read_bytes()[49_999:50_006] == b"\0hello\0"


def test_holes(root: Path) -> None:
    descriptor = os.open(root / "f", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(descriptor, b"x" * 4096, 40_960)
        os.ftruncate(descriptor, 81_920)
        assert os.lseek(descriptor, 0, os.SEEK_DATA) == 40_960
        assert os.lseek(descriptor, 40_960, os.SEEK_HOLE) == 45_056
        with pytest.raises(OSError, match="No such device or address"):
            os.lseek(descriptor, 45_056, os.SEEK_DATA)
        punch_and_keep = 3
        assert libc.fallocate(descriptor, punch_and_keep, ctypes.c_long(40_960), ctypes.c_long(4096)) == 0
        assert os.pread(descriptor, 81_920, 0) == bytes(81_920)
        os.posix_fallocate(descriptor, 0, 100_000)
        assert os.fstat(descriptor).st_size == 100_000
    finally:
        os.close(descriptor)


def test_extended_attributes(root: Path) -> None:
    (root / "f").touch()
    value = random.Random(1).randbytes(60_000)
    os.setxattr(root / "f", "user.large", value)
    os.setxattr(root / "f", "user.empty", b"", os.XATTR_CREATE)
    assert os.getxattr(root / "f", "user.large") == value
    assert sorted(os.listxattr(root / "f")) == ["user.empty", "user.large"]
    with pytest.raises(FileExistsError):
        os.setxattr(root / "f", "user.empty", b"x", os.XATTR_CREATE)
    os.removexattr(root / "f", "user.large")
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(root / "f", "user.large")


def test_programs_side_by_side(root: Path) -> None:
    def work(number: int) -> None:
        folder = root / str(number)
        folder.mkdir()
        noise = random.Random(number)
        for turn in range(30):
            data = noise.randbytes(noise.randrange(200_000))
            (folder / "new").write_bytes(data)
            (folder / "new").rename(folder / str(turn % 5))
            assert (folder / str(turn % 5)).read_bytes() == data
            assert len(list(folder.iterdir())) == min(turn + 1, 5)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(12)))


# ---------------------------------------------------------------------- names


def test_hard_links_are_one_inode_with_one_cache(root: Path) -> None:
    (root / "a").write_bytes(b"first")
    (root / "b").hardlink_to(root / "a")
    a, b = (root / "a").stat(), (root / "b").stat()
    assert (a.st_ino, a.st_nlink) == (b.st_ino, 2)
    with (root / "a").open("r+b", buffering=0) as one, (root / "b").open("rb", buffering=0) as other:
        assert other.read() == b"first"
        one.write(b"FIRST and more")
        assert os.pread(other.fileno(), 100, 0) == b"FIRST and more"
        assert os.fstat(other.fileno()).st_size == 14
    (root / "a").rename(root / "c")
    (root / "b").unlink()
    assert ((root / "c").stat().st_ino, (root / "c").stat().st_nlink) == (a.st_ino, 1)


def test_everything_that_has_a_name(root: Path) -> None:
    (root / "d").mkdir(mode=0o700)
    (root / "d/link").symlink_to("x" * 4095)
    os.mkfifo(root / "fifo", 0o640)
    assert os.readlink(root / "d/link") == "x" * 4095  # noqa: PTH115
    assert stat.S_ISFIFO((root / "fifo").lstat().st_mode)
    assert (root / "d").stat().st_nlink == 2
    os.utime(root / "fifo", ns=(1_234_567_890_123_456_789, -1_000_000_001))
    times = (root / "fifo").stat()
    assert (times.st_atime_ns, times.st_mtime_ns) == (1_234_567_890_123_456_789, -1_000_000_001)
    with pytest.raises(OSError, match="not empty"):
        (root / "d").rmdir()
    (root / ("n" * 255)).touch()
    with pytest.raises(OSError, match="too long"):
        (root / ("n" * 256)).touch()
    assert os.statvfs(root).f_namemax == 255


def renameat2(old: Path, new: Path, flags: int) -> None:
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def test_rename_with_flags(root: Path) -> None:
    noreplace, exchange = 1, 2
    (root / "a").write_bytes(b"a")
    (root / "d").mkdir()
    (root / "d/b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        renameat2(root / "a", root / "d/b", noreplace)
    renameat2(root / "a", root / "d/b", exchange)
    assert ((root / "a").read_bytes(), (root / "d/b").read_bytes()) == (b"b", b"a")
    renameat2(root / "a", root / "c", noreplace)
    assert (root / "c").read_bytes() == b"b"


def test_a_folder_of_ten_thousand(root: Path) -> None:
    names = {f"file-{number:05d}" for number in range(10_000)}
    for name in names:
        os.mknod(root / name)
    with os.scandir(root) as entries:
        inodes = {entry.name: entry.inode() for entry in entries}
    assert inodes.keys() == names
    assert {entry.name: entry.stat().st_ino for entry in os.scandir(root)} == inodes
    assert len(set(inodes.values())) == 10_000


def test_an_unlinked_file_lives_until_it_is_closed(root: Path) -> None:
    with (root / "f").open("w+b", buffering=0) as file:
        file.write(b"still here")
        (root / "f").unlink()
        assert list(root.iterdir()) == []
        assert os.fstat(file.fileno()).st_nlink == 0
        assert os.pread(file.fileno(), 100, 0) == b"still here"
